"""The quick start on a text too small for its vocabulary and its cutoffs, and sizes that were asked
for.
"""

import pytest

from gcnn.config.stored import load_config
from gcnn.data.tokenizers import load_tokenizer

QUICK = (
    "experiment=quickstart", "data=local", "trainer.max_steps=2", "schedule.warmup_steps=0",
    "model.embedding_dim=8", "model.blocks=[{convs:[[3,16]]}]", "device=cpu", "threads=1",
)  # fmt: skip


@pytest.fixture
def quick(corpus, tmp_path):
    return [
        *QUICK,
        f"data.path={corpus}",
        f"data.cache_dir={tmp_path / 'cache'}",
        f"run_dir={tmp_path / 'run'}",
    ]


def test_defaults_shrink_to_a_small_text_and_say_so(call, quick, tmp_path):
    done = call("train", *quick)
    assert done.code == 0, done.err
    size = load_tokenizer(tmp_path / "run" / "tokenizer").vocabulary_size
    assert 256 < size < 1000
    assert f"tokenizer.vocabulary_size is {size}, not 8,000" in done.err
    assert f"model.cutoffs are [], not [1000, 4000]: the vocabulary has {size} types." in done.err
    assert load_config(tmp_path / "run").model.cutoffs == []
    assert call("evaluate", "--run", tmp_path / "run", "--json").code == 0
    done = call("train", *quick, "resume=true", "trainer.max_steps=4")  # the same command goes on
    assert done.code == 0, done.err
    done = call("train", "--multirun", *quick[:-1], f"run_dir={tmp_path / 'sweep'}", "seed=1,2")
    assert done.code == 0, done.err


@pytest.mark.parametrize("asked", ["tokenizer.vocabulary_size=8000", "model.cutoffs=[1000,4000]"])
def test_sizes_that_were_asked_for_do_not_shrink(call, quick, tmp_path, asked):
    done = call("train", *quick, asked)
    assert done.code == 2, done.err
    assert f"error: {asked.partition('=')[0]} is " in done.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("asked", "told"), [
    (["model=lstm_small"], True),
    (["model=lstm_small", "optimizer.lr=5e-3"], False),
    (["model=lstm_small", "optimizer=adamw"], False),
    (["model=gcnn_5"], False),
])  # fmt: skip
def test_a_learning_rate_of_another_kind_of_model_is_told(call, quick, tmp_path, asked, told):
    quick = [word for word in quick if not word.startswith("model.")]
    small = ["model.embedding_dim=8", "trainer.max_steps=1"]
    done = call("train", *quick, *small, *asked)
    assert done.code == 0, done.err
    message = "optimizer.lr=0.04 is what experiment=quickstart has for a model of the kind gcnn"
    assert (message in done.err) == told


@pytest.mark.parametrize(("asked", "told"), [
    (["model=lstm_small"], "model.cutoffs=[1000, 4000], model.dropout=0.1."),
    (["model=lstm_small", "model.dropout=0.2"], "model.cutoffs=[1000, 4000]."),
    (["optimizer=nesterov", "schedule=plateau"], None),
])  # fmt: skip
def test_keys_of_a_choice_that_the_experiment_sets_itself_are_told(
    call, quick, tmp_path, asked, told
):
    quick = [word for word in quick if not word.startswith("model.")]
    done = call("train", *quick, "model.embedding_dim=8", "trainer.max_steps=1", *asked)
    assert done.code == 0, done.err
    lines = [line for line in done.err.splitlines() if ": experiment=quickstart has " in line]
    expected = [f"{asked[0]}: experiment=quickstart has {told}"] if told else []
    assert lines == expected
