import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from hydra.core.global_hydra import GlobalHydra

from gcnn.config import compose_config
from gcnn.errors import run_command
from gcnn.files import sha256
from gcnn.training.run import train

ROOT = Path(__file__).parents[2]
TINY = (
    "model.embedding_dim=8", "model.blocks=[{convs:[[3,16]],repeat:2}]", "model.cutoffs=[20]", "device=cpu",
    "threads=1", "tokenizer=word", "data=local", "trainer.batch_size=4", "trainer.block_size=16",
    "trainer.max_steps=20", "trainer.validate_every=10", "trainer.checkpoint_every=5", "trainer.log_every=5",
    "optimizer=adamw",
)  # fmt: skip


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """A tiny folder of text: counting, in words."""
    folder = tmp_path_factory.mktemp("corpus")
    words = [f"w{i}" for i in range(40)]
    for split, lines in (("train", 200), ("valid", 30), ("test", 30)):
        text = "".join(" ".join((words * 2)[i * 7 % 40 :][: 3 + i % 10]) + "\n" for i in range(lines))
        (folder / f"{split}.txt").write_text(text)
    return folder


@pytest.fixture
def tiny(corpus, tmp_path) -> list[str]:
    """The arguments of a run that takes a second."""
    return [*TINY, f"data.path={corpus}", f"data.cache_dir={corpus / 'cache'}", f"run_dir={tmp_path / 'run'}"]


@pytest.fixture(scope="session")
def trained(corpus, tmp_path_factory) -> Path:
    """A run directory that is finished. Not to be written to: `run_dir` is a copy of it."""
    where = [f"data.path={corpus}", f"data.cache_dir={corpus / 'cache'}"]
    folder, _ = train(compose_config(*TINY, *where, f"run_dir={tmp_path_factory.mktemp('trained') / 'run'}"))
    return folder


@pytest.fixture
def run_dir(trained, tmp_path) -> Path:
    """A finished run directory, to spoil."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def snapshot(corpus, tmp_path):
    """What stands in the test's folder and in the corpus: each path with its content, locks and logs apart."""

    def taken() -> dict[str, str | None]:
        files = [*tmp_path.rglob("*"), *corpus.glob("*.txt")]
        names = (".lock", "train.log")
        return {str(path): sha256(path) if path.is_file() else None for path in files if path.name not in names}

    return taken


@pytest.fixture
def call(monkeypatch, capfd, tmp_path):
    """Run a command of scripts/ in this process, in an empty folder: its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(script: str, *arguments, stdin: bytes = b"") -> Outcome:
        reader, writer = os.pipe()
        os.write(writer, stdin)
        os.close(writer)
        os.dup2(reader, 0)
        os.close(reader)
        GlobalHydra.instance().clear()
        monkeypatch.setattr(logging.root, "handlers", [])  # those of an earlier command write to its closed streams
        path = ROOT / "scripts" / f"{script}.py"
        spec = importlib.util.spec_from_file_location(f"script_{script}", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        capfd.readouterr()
        try:
            run_command(module.main)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        return Outcome(code, *capfd.readouterr())

    return run


@pytest.fixture
def spawn():
    """Start the real command in a process of its own; whatever still runs at the end is killed."""
    started = []

    def start(*arguments) -> subprocess.Popen:
        command = [sys.executable, str(ROOT / "scripts" / "train.py"), *map(str, arguments)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
