import shutil
from pathlib import Path

import pytest

from gcnn.base.files import sha256
from gcnn.config.compose import compose_config
from gcnn.training.run import train
from tests.processes import Command

TINY = (
    "model.embedding_dim=8",
    "model.blocks=[{convs:[[3,16]],repeat:2}]",
    "model.cutoffs=[20]",
    "device=cpu",
    "threads=1",
    "tokenizer=word",
    "data=local",
    "trainer.batch_size=4",
    "trainer.block_size=16",
    "trainer.max_steps=20",
    "trainer.validate_every=10",
    "trainer.checkpoint_every=5",
    "trainer.log_every=5",
    "optimizer=adamw",
)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """A tiny folder of text: counting, in words."""
    folder = tmp_path_factory.mktemp("corpus")
    words = [f"w{i}" for i in range(40)]
    for split, lines in (("train", 200), ("valid", 30), ("test", 30)):
        text = "".join(
            " ".join((words * 2)[i * 7 % 40 :][: 3 + i % 10]) + "\n" for i in range(lines)
        )
        (folder / f"{split}.txt").write_text(text)
    return folder


@pytest.fixture
def tiny(corpus, tmp_path) -> list[str]:
    """The arguments of a run that takes a second."""
    return [
        *TINY,
        f"data.path={corpus}",
        f"data.cache_dir={corpus / 'cache'}",
        f"run_dir={tmp_path / 'run'}",
    ]


@pytest.fixture(scope="session")
def trained(corpus, tmp_path_factory) -> Path:
    """A run directory that is finished. Not to be written to: `run_dir` is a copy of it."""
    where = [f"data.path={corpus}", f"data.cache_dir={corpus / 'cache'}"]
    folder, _ = train(
        compose_config(*TINY, *where, f"run_dir={tmp_path_factory.mktemp('trained') / 'run'}")
    )
    return folder


@pytest.fixture
def run_dir(trained, tmp_path) -> Path:
    """A finished run directory, to spoil."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def snapshot(corpus, tmp_path):
    """What stands in the test's folder and in the corpus: each path with its content, locks and
    logs apart.
    """

    def taken() -> dict[str, str | None]:
        files = [*tmp_path.rglob("*"), *corpus.glob("*.txt")]
        names = (".lock", "train.log")
        return {
            str(path): sha256(path) if path.is_file() else None
            for path in files
            if path.name not in names
        }

    return taken


@pytest.fixture
def spawn(tmp_path):
    """Start train.py in a process of its own; whatever still runs at the end is killed."""
    started = []

    def start(*arguments) -> Command:
        started.append(Command(tmp_path, "train", *arguments))
        return started[-1]

    yield start
    for process in started:
        process.kill()
