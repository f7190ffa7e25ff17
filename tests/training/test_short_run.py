"""What is said of a run that ends before a setting has its effect or without a model, or whose text
its tokenizer does not know.
"""

import dataclasses
import math

import pytest

from gcnn.base.errors import Diverged
from gcnn.config.schema import CosineScheduleConfig, DataConfig, WordTokenizerConfig
from gcnn.data.stream import prepare
from gcnn.training.preflight import warn_of_unknown
from gcnn.training.run import steps_of, train, warn_of_short_run


@pytest.mark.parametrize("bound", [{"max_steps": 6}, {"max_steps": None, "max_epochs": 1}])
def test_a_warmup_longer_than_the_run_is_said_with_the_rate_that_it_reaches(
    config, make_trainer, caplog, bound
):
    trainer = make_trainer(config, **bound)
    steps = 6 if bound["max_steps"] else len(trainer.batches)
    assert steps_of(trainer) == steps
    for schedule in (
        dataclasses.replace(config.schedule, warmup_steps=1000),
        CosineScheduleConfig(),
    ):
        caplog.clear()
        warn_of_short_run(dataclasses.replace(config, schedule=schedule), steps_of(trainer))
        reached = 0.01 * steps / schedule.warmup_steps
        said = (
            f"after {steps} steps, within the warm-up of {schedule.warmup_steps:,}: "
            "the learning rate reaches "
        )
        assert f"{said}{reached:.2g}, not 0.01." in caplog.text
    caplog.clear()
    warn_of_short_run(config, steps_of(trainer))
    assert not caplog.text


def test_the_operations_that_bound_a_run_count_as_steps(config, make_trainer):
    whole = make_trainer(config, max_steps=None, max_epochs=1)
    flops = 3 * whole.model.flops_per_token()
    one = make_trainer(
        config, "other", max_steps=None, max_flops=flops * len(whole.data.streams["train"])
    )
    # The text's own frequencies, not English's.
    assert steps_of(one) == pytest.approx(len(whole.batches), rel=0.2)
    minutes = make_trainer(config, "minutes", max_steps=None, max_minutes=1)
    assert steps_of(minutes) == math.inf


def test_a_patience_that_no_validation_can_exhaust_is_said(config, make_trainer, caplog):
    changed = dataclasses.replace(config.trainer, max_steps=40, validate_every=10, patience=4)
    warn_of_short_run(dataclasses.replace(config, trainer=changed), 40)
    assert "trainer.patience=4 ends no run of 40 steps, validated every 10." in caplog.text
    caplog.clear()
    warn_of_short_run(
        dataclasses.replace(config, trainer=dataclasses.replace(changed, patience=3)), 40
    )
    assert not caplog.text


def test_a_run_of_minutes_says_it_at_its_end(config, tmp_path, caplog):
    bounds = dataclasses.replace(config.trainer, max_steps=None, max_minutes=1e-9)
    schedule = dataclasses.replace(config.schedule, warmup_steps=1000)
    train(
        dataclasses.replace(
            config, trainer=bounds, schedule=schedule, run_dir=str(tmp_path / "run")
        )
    )
    assert (
        "ends after 1 steps, within the warm-up of 1,000"
        in (tmp_path / "run" / "train.log").read_text()
    )


def test_a_run_whose_validation_is_never_finite_says_so_and_leaves_no_model(
    config, make_trainer, monkeypatch
):
    trainer = make_trainer(config, max_steps=2)
    scores = {"nll_nats": math.nan, "tokens": 5, "perplexity": math.nan}
    monkeypatch.setattr("gcnn.training.trainer.evaluate", lambda *_, **__: scores)
    with pytest.raises(
        Diverged,
        match=r"validation was not finite, not once: .* none was saved. Lower optimizer.lr",
    ):
        trainer.run()
    assert not (trainer.run_dir / "model.safetensors").exists()


@pytest.mark.parametrize(("known", "said"), [(5, "60 %"), (13, "28 %"), (15, ""), (20, "")])
def test_text_that_its_tokenizer_does_not_know_is_said(tmp_path, caplog, known, said):
    """Each line has 25 tokens: 20 words, four <unk> that the text has itself, and <eos>."""
    words = ["<unk>"] * 4 + [f"w{i}" for i in range(20)]
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text(" ".join(words) + "\n")
    data = DataConfig(source="local", path=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    prepared = prepare(data, WordTokenizerConfig(max_size=known + 2))
    warn_of_unknown(prepared.streams["train"])
    assert said == "".join(record.message[:4] for record in caplog.records)
