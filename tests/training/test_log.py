"""The log of a training, on standard error and in train.log."""

import logging

import pytest

from gcnn.commands import train
from gcnn.training.run import log_file


@pytest.mark.parametrize(("on_terminal", "shown"), [
    (True, ["saved"]),  # where a bar shows the progress
    (False, ["half done", "saved"]),
])  # fmt: skip
def test_progress_is_logged_where_there_is_no_bar(
    on_terminal, shown, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(train, "on_terminal", lambda: on_terminal)
    monkeypatch.setattr(train, "ignore_closed_output", lambda: None)
    train.start_log()
    log = logging.getLogger("gcnn.made_up")
    with log_file(tmp_path / "train.log"):
        log.debug("half done")
        log.info("saved")
    assert capsys.readouterr().err.splitlines() == shown
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert [line.split(maxsplit=3)[-1] for line in lines] == ["half done", "saved"]
