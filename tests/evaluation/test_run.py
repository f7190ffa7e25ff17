"""The run that a path means."""

import os

import pytest
from huggingface_hub.utils import _cache_assets

from gcnn.base.errors import RunError, UsageError
from gcnn.runs.directory import find_run


def make(folder, finished_at=None):
    folder.mkdir(parents=True)
    (folder / "config.yaml").touch()
    if finished_at is not None:
        (folder / "results.json").touch()
        os.utime(folder / "results.json", (finished_at, finished_at))
    return folder


def test_a_folder_of_runs_means_its_newest_finished_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    old = make(tmp_path / "runs/quick start/1", 100)
    new = make(tmp_path / "runs/wikitext2/small/sweep/0", 300)
    between = make(tmp_path / "runs/quick start/0", 200)
    unfinished = make(tmp_path / "runs/quick start/2")
    assert find_run("latest").resolve() == find_run("runs").resolve() == new
    assert str(new.relative_to(tmp_path)) in capsys.readouterr().err
    assert find_run("runs/quick start").resolve() == between
    assert find_run(str(old)) == old
    assert find_run(str(unfinished)) == unfinished  # what is wrong with it, its reader says
    assert find_run("none").name == "none"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no finished run below"):
        find_run("empty")


def test_a_cache_of_the_hub_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(_cache_assets, "HF_ASSETS_CACHE", str(tmp_path / "file" / "assets"))
    with pytest.raises(RunError, match=r"file/assets.*HF_ASSETS_CACHE"):
        find_run("hf://someone/tiny")
