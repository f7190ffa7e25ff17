"""What a command does with an error, whatever the command."""

import errno
import os
import re
import signal
import subprocess
import sys

import pytest
import torch

from gcnn.base.files import write_atomically
from gcnn.base.process import message_and_code, run_command


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] can't allocate memory: 8 bytes"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    ],
)
def test_memory_that_runs_out_is_one_line_and_1(error, capsys):
    def command():
        raise error

    with pytest.raises(SystemExit) as stop:
        run_command(command)
    assert stop.value.code == 1
    assert re.fullmatch("error: out of memory .*Give smaller.*\n", capsys.readouterr().err)


def test_other_faults_of_the_program_stay_visible():
    def command():
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        run_command(command)


@pytest.fixture
def former_handlers():
    """Puts back the handlers of the signals after a test."""
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_leaves_no_half_written_file(tmp_path, former_handlers, number, code):
    def write(aside):
        aside.write_text("half")
        os.kill(os.getpid(), number)

    signal.signal(number, signal.SIG_DFL)
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: write_atomically(tmp_path / "file", write))
    assert stop.value.code == code
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) == signal.SIG_DFL  # a process forked later would inherit it


def test_a_hangup_that_nohup_ignores_does_not_end_a_command(former_handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: os.kill(os.getpid(), signal.SIGHUP))
    assert stop.value.code == 0


def test_letters_that_the_terminal_lacks_are_no_failure():
    code = "from gcnn.base.process import run_command; run_command(lambda: print('\u2013 \u00e9'))"
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\u2013 \\xe9\n", "")


@pytest.mark.parametrize(
    ("end", "code", "message"),
    [("raise UsageError('no')", 2, "error: no\n"), ("raise SystemExit(3)", 3, "")],
)
def test_what_was_printed_before_the_end_is_not_lost_in_a_group(end, code, message):
    program = f"""
from gcnn.base.errors import UsageError
from gcnn.base.process import run_command
def command():
    print("out")
    {end}
run_command(command)"""
    environment = {"WORLD_SIZE": "2", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "out\n", message)


def test_a_reader_that_ended_before_anything_was_written_ends_nothing():
    """What is buffered until then is lost, as what is printed later; the process goes on."""
    code = """
import sys
from gcnn.base.process import ignore_closed_output
print("x")
ignore_closed_output()
print("y", flush=True)
print("went on", file=sys.stderr)"""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as output:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": ":".join(sys.path)},
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (0, "went on\n")


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_a_closed_stream_is_never_a_file_that_is_opened_later(stream, tmp_path):
    """The next file would get the closed stream's descriptor, and with it what is printed."""
    code = f"""
import os
from gcnn.base.process import message_and_code, run_command
def command():
    print("out")
    with open("weights", "w") as file:
        os.write({stream}, b"noise") if {stream} else None
        file.write(str(file.fileno()))
run_command(command)"""
    done = subprocess.run(
        ["bash", "-c", f'"$1" -c "$2" {stream}>&-', "-", sys.executable, code],
        env={"PYTHONPATH": ":".join(sys.path)}, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert int((tmp_path / "weights").read_text()) > 2


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "Free some space"),
        (errno.EACCES, "Check the path and its permissions"),
    ],
)
def test_a_full_disk_and_a_full_quota_need_the_same(number, remedy):
    message, code = message_and_code(OSError(number, os.strerror(number), "run/model.safetensors"))
    assert f"'run/model.safetensors'. {remedy} and run the command again." in message
    assert code == 1


def test_a_name_that_is_no_utf8_is_named():
    with pytest.raises(UnicodeEncodeError) as error:
        os.fsdecode(b"caf\xe9/a.txt").encode()
    assert message_and_code(error.value) == (
        "caf\\udce9/a.txt is not UTF-8. Rename that file or folder.",
        2,
    )


@pytest.mark.parametrize("package", ["hydra", "torch"])
def test_ctrl_c_while_packages_are_imported_is_one_line(package):
    """They take seconds, in which a mistyped command is often taken back."""
    program = f"""
import sys
from importlib.abc import MetaPathFinder
class Interruption(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {package!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interruption())
sys.argv = ["gcnn", "train", "experiment=quickstart"]
from gcnn.commands.main import main
main()"""
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")
