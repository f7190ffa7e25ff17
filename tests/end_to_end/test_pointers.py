"""A clone without Git LFS or git-annex has pointers in the place of large files: never read,
damaged or removed.
"""

import os
import re
import shutil
from pathlib import Path

import pytest

from gcnn.base.errors import UsageError
from gcnn.config.compose import compose_config
from gcnn.config.stored import load_config
from gcnn.data.tokenizer_training import read_model, read_vocabulary
from gcnn.evaluation.run import load_model
from gcnn.interop.fairseq import import_fairseq, read_dictionary
from gcnn.training.run import choose_run_dir, train
from tests.end_to_end.conftest import TINY

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0007\nsize 18968576\n"
NAMED = r"is not the file itself but a pointer to it\. Fetch it with git lfs pull"


def point(path: Path) -> Path:
    path.write_bytes(POINTER)
    return path


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "tokenizer/vocabulary.txt", "tokenizer/tokenizer.json", "config.yaml"],
)
def test_a_run_with_a_pointer_is_not_called_damaged(run_dir, name):
    path = point(run_dir / name)
    with pytest.raises(UsageError, match=NAMED) as error:
        load_model(run_dir, "cpu")
    assert str(path) in str(error.value)
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "manifest.json"])
@pytest.mark.parametrize("resume", ["true", "checkpoint"])
def test_a_checkpoint_with_a_pointer_is_kept(corpus, run_dir, name, resume):
    checkpoints = sorted((run_dir / "checkpoints").glob("step_*"))
    point(checkpoints[-1] / name)
    where = [f"data.path={corpus}", f"data.cache_dir={corpus / 'cache'}", f"run_dir={run_dir}"]
    at = "true" if resume == "true" else checkpoints[-1]
    with pytest.raises(UsageError, match=NAMED):
        train(compose_config(*TINY, *where, f"resume={at}", "trainer.max_steps=30"))
    assert sorted((run_dir / "checkpoints").glob("step_*")) == checkpoints


@pytest.mark.parametrize("read", [read_model, read_vocabulary, read_dictionary])
def test_a_tokenizers_file_that_is_a_pointer_is_named(tmp_path, read):
    with pytest.raises(UsageError, match=NAMED):
        read(point(tmp_path / "file.txt"))


def test_a_checkpoint_of_fairseq_that_is_a_pointer_is_named(tmp_path):
    with pytest.raises(UsageError, match=NAMED):
        import_fairseq(point(tmp_path / "checkpoint.pt"), tmp_path / "dict.txt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pointer_on_standard_input_is_not_scored(call, run_dir):
    done = call("score", "--run", run_dir, stdin=POINTER)
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(f"error: standard input {NAMED}.*\n", done.err)


def test_a_run_in_a_folder_whose_name_is_no_utf8_is_refused_before_it_trains(trained, tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    config = load_config(trained)
    config.run_dir = str(folder / "run")
    with pytest.raises(
        UsageError, match=r"run_dir: the name of .*caf\\udce9/run is not UTF-8\. Rename"
    ):
        choose_run_dir(config)
    shutil.copytree(trained, folder / "run")
    with pytest.raises(UsageError, match=r"caf\\udce9/run is not UTF-8\. Rename"):
        load_model(folder / "run", "cpu")
    with pytest.raises(UsageError, match=r"OUT: the name of .* is not UTF-8"):
        import_fairseq(tmp_path / "none", tmp_path / "none", folder / "out")


def test_text_in_a_folder_whose_name_is_no_utf8_trains(corpus, tmp_path):
    folder = Path(
        shutil.copytree(corpus, tmp_path / os.fsdecode(b"caf\xe9"), ignore=lambda *_: ["cache"])
    )
    config = compose_config(
        *TINY, f"data.cache_dir={corpus / 'cache'}", f"run_dir={tmp_path / 'run'}"
    )
    config.data.path = str(folder)
    run_dir, _ = train(config)
    assert load_config(run_dir).data.path == str(folder)
