"""A key that would change nothing beside the others is refused in one line."""

from argparse import Namespace

import pytest

from gcnn.base.errors import UsageError
from gcnn.commands.arguments import check_text_options
from gcnn.config.compose import compose_config
from gcnn.config.rules import keys_without_effect
from gcnn.config.schema import DataConfig, WordTokenizerConfig
from gcnn.config.stored import load_config
from gcnn.data.stream import prepare

TWO_FILES = "data.files={train:[a],valid:[b],test:[c]}"
REFUSED = [
    (["data=wikitext2", TWO_FILES], "data.files", "data=wikitext2 does not read it"),
    (["data=local", "data.path=text", TWO_FILES], "data.path", "data.files names the files"),
    (["data=local", "data.hub_config=wikitext-2-v1"], "data.hub_config", "data=local does not"),
    (["data=shakespeare", "data.column=title"], "data.column", "data=shakespeare does not"),
    (["data=billion_word", "data.column=title"], "data.column", "data=billion_word does not"),
    (
        ["tokenizer=word", "tokenizer.vocabulary=v", "tokenizer.min_count=2"],
        "tokenizer.min_count",
        "lists the types",
    ),
    (
        ["tokenizer=word", "tokenizer.vocabulary=v", "tokenizer.max_size=9"],
        "tokenizer.max_size",
        "lists the types",
    ),
    (
        ["tokenizer.model=m", "tokenizer.model_type=unigram"],
        "tokenizer.model_type",
        "trained already",
    ),
    (
        ["tokenizer.model=m", "tokenizer.vocabulary_size=99"],
        "tokenizer.vocabulary_size",
        "trained already",
    ),
    (["model.projection_dim=8"], "model.projection_dim", "adaptive softmax a GCNN has none"),
    (
        ["model.tie_embeddings=true", "model.projection_dim=8"],
        "model.projection_dim",
        "tie_embeddings",
    ),
    (["model=lstm_800", "model.tie_embeddings=true"], "model.projection_dim", "tie_embeddings"),
    (
        ["model.cutoffs=[]", "model.softmax_dropout=0.1"],
        "model.softmax_dropout",
        "without clusters",
    ),
    (
        ["model.tie_embeddings=true", "model.softmax_dropout=0.1"],
        "model.softmax_dropout",
        "without clusters",
    ),
    (["logger.project=mine"], "logger.project", "logger=none has no projects"),
    (
        ["logger=tensorboard", "logger.mode=online"],
        "logger.mode",
        "logger=tensorboard has no modes",
    ),
]


@pytest.mark.parametrize(("overrides", "key", "reason"), REFUSED, ids=str)
def test_a_key_that_would_change_nothing_is_refused(overrides, key, reason):
    with pytest.raises(UsageError, match=f"^{key} would change nothing: .*{reason}.*Leave it out"):
        compose_config(*overrides)


def test_what_a_choice_brings_and_a_default_that_is_typed_are_no_fault():
    compose_config("model=gcnn_small", "model.cutoffs=[]")  # its softmax_dropout is of the clusters
    defaults = [
        "data.column=text",
        "data.hub_config=null",
        "model.projection_dim=null",
        "logger.mode=null",
    ]
    compose_config(*defaults)
    listed = ["data=local", "tokenizer=word_listed", "data.path=text", TWO_FILES]
    compose_config(*listed)  # the vocabulary lies in data.path


def test_an_encoder_of_ones_own_may_project_before_an_adaptive_softmax():
    config = compose_config("model=lstm_800")
    assert config.model.projection_dim
    config.model.kind = "own"
    assert keys_without_effect(config) == {}


def test_a_column_of_text_without_columns_is_refused(tmp_path):
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("a b\n")
    data = DataConfig(name="own", source="local", path=str(tmp_path), column="title")
    with pytest.raises(
        UsageError, match=r"data.column would change nothing: text has no columns \(.*train.txt"
    ):
        prepare(data, WordTokenizerConfig())


def test_a_column_of_a_table_that_is_not_read_is_not_called_needless(tmp_path):
    table = tmp_path / "train.csv"
    table.write_text("title\na\n")
    check_text_options(Namespace(file=str(table), column="title", data_path=None))
    files = {"train": [str(table)], "valid": [str(table)], "test": [str(table)]}
    data = DataConfig(name="own", source="local", files=files, column="title")
    with pytest.raises(UsageError, match=r"train\.csv: \.csv files are not read"):
        prepare(data, WordTokenizerConfig())


def test_a_run_that_goes_on_is_not_asked_for_what_it_keeps(call, run_dir):
    """A stored config may be of an older version; what the command line says besides is refused."""
    config = (run_dir / "config.yaml").read_text()
    config = config.replace("project: null", "project: gcnn").replace(
        "dropout: 0.15\n", "dropout: 0.25\n", 1
    )
    older = config.replace("  softmax_dropout: 0.15\n", "")
    assert older != config
    (run_dir / "config.yaml").write_text(older)
    done = call("train", f"run_dir={run_dir}", "resume=true", "trainer.max_steps=21")
    assert done.code == 0, done.err
    done = call("train", f"run_dir={run_dir}", "resume=true", "logger.mode=online")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "logger.mode would change nothing: logger=none" in done.err
    again = [
        "--config-path",
        run_dir,
        "--config-name",
        "config",
        f"run_dir={run_dir.parent / 'again'}",
    ]
    assert call("train", *again).code == 0
    # As it was when the config was stored.
    assert load_config(run_dir.parent / "again").model.softmax_dropout == 0.25
