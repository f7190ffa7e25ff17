"""File systems without locks, without syncing of folders, and names that are not Unicode."""

import contextlib
import errno
import fcntl
import json
import os
from pathlib import Path

import pytest

from gcnn.base.errors import UsageError
from gcnn.base.files import (
    check_output,
    lock,
    refuse_links_out,
    user_path,
    warn_of_no_locks,
    write_atomically,
    write_json,
)
from gcnn.runs.directory import LOCK, lock_or_owner, write_owner
from gcnn.training.run import run_directory


def failing(number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_nobody_is_kept_out_and_a_warning_says_so_once(
    tmp_path, monkeypatch, caplog, number
):
    monkeypatch.setattr(fcntl, "flock", failing(number))
    warn_of_no_locks.cache_clear()
    for name in ("a", "b"):
        with (tmp_path / name).open("a+") as file, (tmp_path / name).open("a+") as again:
            assert lock(file)
            assert lock_or_owner(again) is None
    (record,) = caplog.records
    assert str(tmp_path) in record.getMessage()
    assert "has no locks" in record.getMessage()


def test_a_lock_that_another_one_holds(tmp_path):
    with (tmp_path / "a").open("a+") as file, (tmp_path / "a").open("a+") as again:
        assert lock(file)
        assert not lock(again)
        assert lock_or_owner(again) == {}
        write_owner(file)
        assert lock_or_owner(again) == {"process": os.getpid(), "host": os.uname().nodename}
    with (tmp_path / "a").open("a+") as file:
        assert lock(file)


def test_a_run_that_has_ended_is_not_taken_for_the_owner_of_the_next(tmp_path):
    """Whose process id may by then be that of an unrelated process."""
    with contextlib.suppress(ZeroDivisionError), run_directory(tmp_path):
        assert str(os.getpid()) in (tmp_path / LOCK).read_text()
        raise ZeroDivisionError
    with (tmp_path / LOCK).open("a+") as file, (tmp_path / LOCK).open("a+") as again:
        assert lock(file)
        assert lock_or_owner(again) == {}


@pytest.mark.parametrize(
    "number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EACCES, errno.EBADF]
)
def test_a_folder_that_cannot_be_synced_holds_nobody_up(tmp_path, monkeypatch, number):
    fsync = os.fsync

    def fsync_of_files(descriptor):
        failing(number)() if os.path.isdir(f"/proc/self/fd/{descriptor}") else fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync_of_files)
    write_json(tmp_path / "a.json", [1])
    write_atomically(tmp_path / "folder", Path.mkdir)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "folder"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_what_a_disk_lost_is_never_taken_for_written(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "fsync", failing(number))
    with pytest.raises(OSError, match=r"a\.json") as error:
        write_json(tmp_path / "a.json", [1])
    assert error.value.errno == number
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_no_unicode_comes_back_out_of_json_as_it_was(tmp_path):
    name = os.fsdecode(b"caf\xe9 \xf0\x9f\x99\x82")
    write_json(tmp_path / "a.json", {"path": name})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"path": name}


@pytest.mark.parametrize("name", ["/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_a_device_or_stream_is_not_replaced_by_a_file(name):
    with pytest.raises(UsageError, match=f"^--out: {name} is no regular file"):
        check_output("--out", Path(name))


def test_a_pipe_is_not_replaced_by_a_file_and_a_file_may_be(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe is no regular file"):
        check_output("--out", tmp_path / "pipe")
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link", "new"):
        check_output("--out", tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "pipe"]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("name", ["new", "missing/new"])
def test_a_folder_that_may_not_be_written_is_found_before_the_work(name, folder):
    """/sys may be written by nobody, root included."""
    with pytest.raises(OSError, match=f"'/sys/{name}'$"):
        check_output("--out", Path("/sys") / name, folder=folder)


def test_an_empty_home_is_none(monkeypatch):
    monkeypatch.delenv("HOME")
    expected = user_path("~/a", "its files")
    monkeypatch.setenv("HOME", "")
    assert user_path("~/a", "its files") == expected
    assert expected != Path("/a")


def test_a_user_who_is_not_there_is_named():
    with pytest.raises(UsageError) as error:
        user_path("~no.such.user/a/b", "its files; give the path")
    assert str(error.value) == (
        "there is no user no.such.user, which ~no.such.user/a/b needs for its files; "
        "give the path to another folder."
    )


def test_a_loop_of_links_leads_out_only_if_it_is_outside(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "loop").symlink_to("loop")
    refuse_links_out(run)
    (tmp_path / "loop").symlink_to("loop")
    (run / "out").symlink_to(tmp_path / "loop")
    with pytest.raises(UsageError, match="out is a link that leads out of the run"):
        refuse_links_out(run)
