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
    """A folder with train.txt, valid.txt and test.txt, of lines of 3 to 12 words.

    There are 40 words, w0 to w39, and each is followed by the next one. All tests share it.
    """
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
    """The overrides of a training run that takes a second, on `corpus`, into tmp_path / "run"."""
    return [
        *TINY,
        f"data.path={corpus}",
        f"data.cache_dir={corpus / 'cache'}",
        f"run_dir={tmp_path / 'run'}",
    ]


@pytest.fixture(scope="session")
def trained(corpus, tmp_path_factory) -> Path:
    """A finished run directory, trained with TINY on `corpus`.

    All tests share it, so none may write into it: `run_dir` is a copy of it for that.
    """
    where = [f"data.path={corpus}", f"data.cache_dir={corpus / 'cache'}"]
    folder, _ = train(
        compose_config(*TINY, *where, f"run_dir={tmp_path_factory.mktemp('trained') / 'run'}")
    )
    return folder


@pytest.fixture
def run_dir(trained, tmp_path) -> Path:
    """A copy of `trained` at tmp_path / "run", which the test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def snapshot(corpus, tmp_path):
    """A function that returns what is in tmp_path and the text files of `corpus` now.

    It is a dictionary of path -> SHA-256 of the file, None for a folder. Locks and logs are left
    out.
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
    """A function that starts train.py with these arguments in a process of its own: a Command.

    Processes that still run at the end of the test are killed.
    """
    started = []

    def start(*arguments) -> Command:
        started.append(Command(tmp_path, "train", *arguments))
        return started[-1]

    yield start
    for process in started:
        process.kill()
