"""Checkpoints: whole or absent, verified, and of the right model."""

import errno
import json
import os
import resource
import shutil

import pytest
import safetensors.torch
import torch
from torch import nn

from gcnn.base.errors import RunError, UsageError
from gcnn.base.files import sha256
from gcnn.training.checkpoints import MANIFEST, STATE, WEIGHTS, Checkpoints, manifest_digest

IDENTITY = {"model": {"kind": "gcnn", "cutoffs": [10]}, "tokenizer": "abc"}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Linear(40, 30)


@pytest.fixture
def checkpoints(tmp_path, model):
    checkpoints = Checkpoints(tmp_path, IDENTITY, keep=2)
    for step in (10, 20):
        with torch.no_grad():
            model.bias.fill_(step)
        checkpoints.save(
            step,
            model.state_dict(),
            {"progress": {"step": step}, "moments": torch.full((50,), float(step))},
        )
    return checkpoints


def test_loads_what_was_saved(checkpoints):
    fresh = nn.Linear(40, 30)
    path, state = checkpoints.load_newest(fresh)
    assert path == checkpoints.path(20)
    assert state["progress"]["step"] == 20
    assert fresh.bias.eq(20).all()
    assert state["moments"].eq(20).all()


def test_keeps_the_last(checkpoints, model):
    checkpoints.save(30, model.state_dict(), {})
    assert [path.name for path in checkpoints.all()] == ["step_000000020", "step_000000030"]


def test_a_step_saved_again_replaces_what_has_its_name(checkpoints, model):
    with torch.no_grad():
        model.bias.fill_(21)
    checkpoints.save(20, model.state_dict(), {"progress": {"step": 20}})
    path, _ = checkpoints.load_newest(nn.Linear(40, 30))
    assert path == checkpoints.path(20)
    assert safetensors.torch.load_file(path / WEIGHTS)["bias"].eq(21).all()
    assert sorted(found.name for found in checkpoints.folder.iterdir()) == [
        "step_000000010",
        "step_000000020",
    ]


def test_what_comes_after_an_older_checkpoint_is_set_aside_and_never_taken(checkpoints, model):
    aside, later = checkpoints.set_aside_newer(checkpoints.path(10))
    assert [found.name for found in later] == ["step_000000020"]
    assert checkpoints.load_newest(model)[0] == checkpoints.path(10)
    for step in (15, 18, 19):
        checkpoints.save(step, model.state_dict(), {})
    assert [found.name for found in checkpoints.all()] == ["step_000000018", "step_000000019"]
    # The old one is not lost.
    assert checkpoints.load(aside / "step_000000020", model)["progress"]["step"] == 20
    assert checkpoints.set_aside_newer(checkpoints.path(19)) is None


def test_a_checkpoint_named_by_a_link_stays_where_it_is(checkpoints, tmp_path):
    link = tmp_path / "latest"
    link.symlink_to(checkpoints.path(10))
    _, later = checkpoints.set_aside_newer(link)
    assert later == [checkpoints.path(20)]
    assert checkpoints.all() == [checkpoints.path(10)]


def test_a_copy_under_a_name_of_the_users_own_is_no_checkpoint_of_the_run(checkpoints, model):
    kept = checkpoints.path(10).with_name("step_000000010_good")
    shutil.copytree(checkpoints.path(10), kept)
    for step in (30, 40):
        checkpoints.save(step, model.state_dict(), {})
    assert checkpoints.all() == [checkpoints.path(30), checkpoints.path(40)]
    assert (kept / MANIFEST).exists()


def test_a_folder_set_aside_may_be_renamed(checkpoints):
    (checkpoints.folder / "abandoned_2").mkdir()
    (checkpoints.folder / "abandoned_2_high_lr").mkdir()
    aside, later = checkpoints.set_aside_newer(checkpoints.path(10))
    assert aside == checkpoints.folder / "abandoned_3"
    assert later == [checkpoints.path(20)]


def damage_truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def damage_flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage_remove(path):
    path.unlink()


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_remove])
@pytest.mark.parametrize("name", [WEIGHTS, STATE, MANIFEST])
def test_damage_is_named_and_the_one_before_taken(checkpoints, model, damage, name, caplog):
    damage(checkpoints.path(20) / name)
    path, state = checkpoints.load_newest(model)
    assert path == checkpoints.path(10)
    assert state["progress"]["step"] == 10
    assert model.bias.eq(10).all()
    assert str(checkpoints.path(20)) in caplog.text
    assert name in caplog.text


@pytest.mark.parametrize("name", [WEIGHTS, STATE])
def test_a_file_that_cannot_be_read_is_not_taken_for_damage(checkpoints, model, monkeypatch, name):
    def unreadable(path):
        if path.name == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return sha256(path)

    monkeypatch.setattr("gcnn.training.checkpoints.sha256", unreadable)
    with pytest.raises(OSError, match=f"Input/output error.*{name}"):
        checkpoints.load_newest(model)
    assert checkpoints.all() == [checkpoints.path(10), checkpoints.path(20)]


@pytest.mark.parametrize("identity", [None, 1, "abc", ["model"]])
def test_a_manifest_whose_identity_is_no_mapping_is_damaged(checkpoints, model, identity):
    path = checkpoints.path(20)
    manifest = json.loads((path / MANIFEST).read_text())
    del manifest["sha256"]
    manifest["identity"] = identity
    (path / MANIFEST).write_text(json.dumps({**manifest, "sha256": manifest_digest(manifest)}))
    with pytest.raises(RunError, match=f"{MANIFEST} is missing or damaged"):
        checkpoints.load(path, model)


def test_all_damaged_is_an_error_that_removes_nothing(checkpoints, model):
    for path in checkpoints.all():
        damage_flip(path / WEIGHTS)
    with pytest.raises(RunError, match="no checkpoint is intact"):
        checkpoints.load_newest(model)
    assert len(checkpoints.all()) == 2


@pytest.mark.parametrize("what", ["model", "tokenizer"])
def test_checkpoint_of_another_is_refused(checkpoints, model, tmp_path, what):
    other = Checkpoints(tmp_path, {**IDENTITY, what: "other"}, keep=2)
    with pytest.raises(UsageError, match=f"of another {what}"):
        other.load_newest(model)
    assert len(other.all()) == 2


@pytest.mark.parametrize("size", [2_000, 6_000])
def test_a_write_that_fails_leaves_the_checkpoints_before_it(checkpoints, model, size):
    """Files stop at a size, as on a full disk: in the weights of 5 kB, or in the state after."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises((RunError, OSError)) as failure:
            checkpoints.save(30, model.state_dict(), {"moments": torch.zeros(5000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "could not be written" in str(failure.value) or "too large" in str(failure.value)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == [
        "step_000000010",
        "step_000000020",
    ]
    assert checkpoints.load_newest(model)[0] == checkpoints.path(20)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_hostile_state_runs_nothing(checkpoints, model, tmp_path):
    """A stranger's checkpoint with a right manifest: what is in the pickle must not run."""
    folder = checkpoints.path(20)
    witness = tmp_path / "witness"
    torch.save({"progress": Hostile(witness)}, folder / STATE)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][STATE] = {
        "bytes": (folder / STATE).stat().st_size,
        "sha256": sha256(folder / STATE),
    }
    del manifest["sha256"]
    (folder / MANIFEST).write_text(json.dumps({**manifest, "sha256": manifest_digest(manifest)}))
    with pytest.raises(RunError, match="does not load"):
        checkpoints.load(folder, model)
    assert not witness.exists()
