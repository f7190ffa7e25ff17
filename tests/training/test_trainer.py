"""The training loop: what an update is, when it stops, what it leaves."""

import dataclasses
import json
import math
import os
import signal
import time

import numpy as np
import pytest
import torch

from gcnn.base.errors import Diverged, Interrupted
from gcnn.config.schema import AdamWConfig, NesterovConfig, PlateauScheduleConfig
from gcnn.data.batches import IGNORE
from gcnn.training import distributed
from gcnn.training.metrics import Metrics, ProgressBar
from gcnn.training.progress import Progress
from gcnn.training.restore import restore
from tests.training.conftest import MODELS


def weights(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def records(trainer, kind):
    lines = (trainer.run_dir / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def timeless(found):
    return [
        {key: value for key, value in record.items() if "second" not in key} for record in found
    ]


@pytest.mark.parametrize("model", MODELS)
def test_training_learns_the_text(config, make_trainer, model):
    config.model = MODELS[model]
    trainer = make_trainer(config, max_steps=150, validate_every=50, carry_state=True)
    trainer.run()
    found = records(trainer, "validation")
    assert [record["step"] for record in found] == [50, 100, 150]
    assert found[-1]["perplexity"] < 20 < 42  # near-uniform words at the start: 42 types
    assert found[-1]["loss"] == pytest.approx(math.log(found[-1]["perplexity"]))


def test_update_is_clip_then_nesterov(config, make_trainer):
    """One update by hand, from the mean loss a target over the micro-batches of a batch."""
    config.model.dropout = 0.0
    config.optimizer = NesterovConfig(lr=0.5, momentum=0.0)
    trainer = make_trainer(config, batch_size=6, micro_batch_size=2, clip_norm=0.05)
    trainer.model.train()
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    first = trainer.batches.draw_order(trainer.config.seed, epoch=0)[0]
    tokens, targets = trainer.batches[first]
    nll = trainer.model.nll(trainer.model(tokens)[0], targets).sum()
    count = int((targets != IGNORE).sum())
    names, parameters = zip(*trainer.model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(nll / count, parameters)
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    trainer.step()
    assert trainer.grad_norm == pytest.approx(norm.item(), rel=1e-5)
    assert trainer.progress.logged_nll / count == pytest.approx((nll / count).item(), rel=1e-6)
    for name, gradient in zip(names, gradients, strict=True):
        expected = before[name] - 0.5 * gradient * (0.05 / (norm + 1e-6))
        torch.testing.assert_close(dict(trainer.model.named_parameters())[name].detach(), expected)


def test_every_target_is_trained_on_once_an_epoch(config, make_trainer):
    trainer = make_trainer(config, max_steps=None, max_epochs=2)
    trainer.run()
    assert trainer.progress.tokens == 2 * len(trainer.data.streams["train"])
    assert trainer.progress.step == 2 * len(trainer.batches)


def test_training_operations_are_three_times_the_forward_pass(config, make_trainer):
    trainer = make_trainer(config)
    targets = [trainer.batches.count_targets(i) for i in range(4)]
    frequencies = torch.tensor(trainer.data.streams["train"].tokens).bincount(minlength=42)
    flops = 3 * trainer.model.flops_per_token(frequencies) * sum(targets)
    trainer = make_trainer(config, max_steps=None, max_flops=0.99 * flops)
    trainer.run()
    assert trainer.progress.step == 4


def test_carried_state_enters_the_next_block_and_ends_with_the_epoch(config, make_trainer):
    config.model.dropout = 0.0
    trainer = make_trainer(config, carry_state=True)
    trainer.step()
    carried = [part.clone() for part in trainer.state]
    seen = []
    forward = trainer.model.forward
    trainer.model.forward = lambda tokens, state: seen.append(state) or forward(tokens, state)
    trainer.step()
    assert all(torch.equal(a, b) for a, b in zip(seen[0], carried, strict=True))
    trainer.progress.index = len(trainer.batches)
    trainer.step()
    assert seen[1] is None


@pytest.mark.parametrize("carry_state", [True, False])
def test_batches_are_in_the_order_of_the_text_only_for_a_carried_state(
    config, make_trainer, carry_state
):
    trainer = make_trainer(config, carry_state=carry_state)
    text = trainer.data.streams["train"].tokens.tolist()

    def epoch() -> list[int]:
        """The targets in the order of training."""
        shares = [trainer.next_batch()[0] for _ in range(len(trainer.batches))]
        return [
            int(target)
            for share in shares
            for _, targets, _ in share
            for target in targets[targets != IGNORE]
        ]

    rows = trainer.batches
    in_order = [
        int(target)
        for targets in (rows[i][1] for i in range(len(rows)))
        for target in targets[targets != IGNORE]
    ]
    first = epoch()
    second = epoch()
    assert sorted(first) == sorted(second) == sorted(text)
    assert (first == in_order) == carry_state
    assert second != first  # a second epoch is cut elsewhere
    shifted = text[trainer.batches.shift :] + text[: trainer.batches.shift]
    rows.tokens = np.array(shifted)
    rows.shift = 0
    in_order = [
        int(target)
        for targets in (rows[i][1] for i in range(len(rows)))
        for target in targets[targets != IGNORE]
    ]
    assert (second == in_order) == carry_state


def test_a_validation_off_the_grid_moves_no_learning_rate(config, make_trainer):
    """A run's end is validated too; extended, it has the learning rates of one in one go."""
    config.schedule = PlateauScheduleConfig(factor=0.5)
    trainer = make_trainer(config, max_steps=13)
    trainer.schedule.best = 0.0  # no validation is better
    trainer.run()
    assert [record["step"] for record in records(trainer, "validation")] == [10, 13]
    assert trainer.schedule.scale == 0.5


@pytest.mark.parametrize("culprit", ["loss", "gradient"])
def test_nonfinite_numbers_stop_before_the_optimizer_moves(config, make_trainer, culprit):
    trainer = make_trainer(config, max_steps=100)
    for _ in range(2):
        trainer.step()
    before = weights(trainer)
    moments = [s["exp_avg"].clone() for s in trainer.optimizer.state.values()]
    forward = trainer.model.forward

    def broken(tokens, state):
        hidden, state = forward(tokens, state)
        if culprit == "loss":
            return hidden * math.nan, state
        hidden.register_hook(lambda gradient: gradient * math.inf)
        return hidden, state

    trainer.model.forward = broken
    with pytest.raises(Diverged, match=r"step 3 .*not updated.*No checkpoint"):
        trainer.step()
    assert equal(weights(trainer), before)
    assert all(
        torch.equal(a, s["exp_avg"])
        for a, s in zip(moments, trainer.optimizer.state.values(), strict=True)
    )


def test_a_few_nonfinite_updates_may_be_skipped(config, make_trainer):
    trainer = make_trainer(config, skip_nonfinite=1)
    forward = trainer.model.forward
    before = weights(trainer)
    trainer.model.forward = lambda tokens, state: (forward(tokens, state)[0] * math.nan, [])
    trainer.step()
    assert equal(weights(trainer), before)
    assert (trainer.progress.step, trainer.progress.skipped) == (1, 1)
    with pytest.raises(Diverged):
        trainer.step()


@pytest.mark.parametrize(
    ("model", "optimizer"),
    [*((kind, AdamWConfig(lr=0.01)) for kind in MODELS), ("gcnn", NesterovConfig(lr=0.5))],
    ids=[*MODELS, "nesterov"],
)
def test_resumed_run_ends_bit_for_bit_like_an_undisturbed_one(
    config, make_trainer, model, optimizer
):
    config.optimizer = optimizer
    config.model = MODELS[model]
    options = {
        "carry_state": True,
        "micro_batch_size": 2,
        "log_every": 3,
        "max_steps": 24,
        "validate_every": 4,
    }
    whole = make_trainer(config, "whole", **options)
    whole.run()
    stopped = make_trainer(config, "parts", **options)
    step = stopped.step

    def step_or_end():
        if stopped.progress.step == 13:  # the three after the checkpoint at step 10 are done again
            raise KeyboardInterrupt
        step()

    stopped.step = step_or_end
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = make_trainer(config, "parts", **options)
    torch.manual_seed(99)  # what a new process would have
    restore(resumed, None)
    assert resumed.progress.step == 10
    resumed.run()
    assert equal(weights(whole), weights(resumed))
    for kind in ("train", "validation"):
        assert timeless(records(whole, kind)) == timeless(records(resumed, kind))


def test_a_perplexity_that_no_float_holds_is_logged_as_validation_has_it(config, make_trainer):
    trainer = make_trainer(config)
    trainer.metrics = Metrics(trainer.config, trainer.run_dir, 0)
    trainer.bar = ProgressBar(0.0)
    trainer.progress = Progress(logged_nll=8000.0, logged_tokens=10, logged_seconds=1.0)
    trainer.log_metrics()
    (record,) = records(trainer, "train")
    assert (record["loss"], record["perplexity"]) == (800.0, None)


@pytest.mark.parametrize("model", MODELS)
def test_bf16_trains_close_to_float32(config, make_trainer, model):
    config.model = dataclasses.replace(MODELS[model], dropout=0.0)
    options = {"carry_state": True, "max_steps": 15}
    losses = {}
    for precision in ("float32", "bf16"):
        trainer = make_trainer(config, precision, precision=precision, **options)
        trainer.run()
        losses[precision] = [record["loss"] for record in records(trainer, "train")]
    assert losses["bf16"] == pytest.approx(losses["float32"], abs=0.1)
    assert losses["bf16"] != losses["float32"]


def test_sentences_train_and_validate(config, make_trainer):
    config.data = dataclasses.replace(config.data, sentences=True)
    trainer = make_trainer(config, max_steps=None, max_epochs=1)
    trainer.run()
    assert trainer.progress.tokens == len(trainer.data.streams["train"])
    assert records(trainer, "validation")[-1]["perplexity"] < 42


def test_checkpoints_by_minutes_alone(config, make_trainer, monkeypatch):
    trainer = make_trainer(config, checkpoint_every=None, checkpoint_minutes=6, keep_checkpoints=20)
    monkeypatch.setattr(time, "monotonic", lambda: 60.0 * trainer.progress.index)  # one a batch
    trainer.saved_at = 0.0
    asked = []
    monkeypatch.setattr(distributed, "from_rank_0", lambda value: asked.append(value) or value)
    trainer.run()
    assert len(asked) == 2  # for the validations: a step has one collective of its own
    assert [path.name for path in trainer.checkpoints.all()] == [
        f"step_{step:09d}" for step in (6, 12, 18, 20)
    ]


@pytest.mark.parametrize("step", [3, 7])  # 7 is the last
def test_a_signal_ends_the_run_after_the_step(config, make_trainer, step):
    trainer = make_trainer(config, max_steps=7)
    set_lr = trainer.schedule.set

    def signalled(at, *rest):
        if at == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return set_lr(at, *rest)

    trainer.schedule.set = signalled
    with pytest.raises(Interrupted):
        trainer.run()
    assert trainer.checkpoints.all()[-1].name == f"step_{step:09}"


@pytest.mark.parametrize(("steps_before", "moment"), [
    (6, "validate"),
    (6, "save_checkpoint"),
    (7, "validate"),  # of a finished run
])  # fmt: skip
def test_a_signal_after_the_last_update_ends_the_sweep_too(
    config, make_trainer, monkeypatch, steps_before, moment
):
    trainer = make_trainer(config, max_steps=7)
    trainer.progress.step = steps_before
    usual = getattr(trainer, moment)

    def signalled():
        usual()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(trainer, moment, signalled)
    with pytest.raises(Interrupted, match="SIGTERM: saved at step 7"):
        trainer.run()


def test_a_second_interrupt_stops_at_once(config, make_trainer):
    """The first asks for the end of the step; the second comes within it: nothing more is saved."""
    trainer = make_trainer(config, max_steps=100)
    forward, calls = trainer.model.forward, []

    def interrupting(tokens, state):
        calls.append(1)
        if len(calls) == 8:
            os.kill(os.getpid(), signal.SIGINT)
            assert trainer.signals.received == signal.SIGINT
            os.kill(os.getpid(), signal.SIGINT)
        return forward(tokens, state)

    trainer.model.forward = interrupting
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert trainer.progress.step == 7
    assert [path.name for path in trainer.checkpoints.all()] == ["step_000000005"]
