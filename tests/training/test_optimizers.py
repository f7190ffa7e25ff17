"""Optimizers and schedules against their formulas."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from gcnn.config.models import BlockConfig, GCNNConfig
from gcnn.config.schema import (
    SCHEMAS,
    AdamWConfig,
    ConstantScheduleConfig,
    CosineScheduleConfig,
    NesterovConfig,
    PlateauScheduleConfig,
)
from gcnn.models.language_model import build_model
from gcnn.training.optimizers import build_optimizer
from gcnn.training.schedules import Schedule
from gcnn.training.update import Updater


def test_nesterov_is_fairseqs_nag_at_changing_learning_rates():
    """fairseq's velocity is in units of the update, scaled by lr / previous lr; it decays first."""
    torch.manual_seed(0)
    model = nn.Linear(5, 3).double()
    optimizer = build_optimizer(NesterovConfig(lr=1.0, momentum=0.9, weight_decay=0.01), model)
    reference = [p.detach().clone() for p in model.parameters()]
    velocities = [torch.zeros_like(p) for p in reference]
    previous = 1.0
    for lr in (1.0, 1.0, 0.5, 0.5, 0.25, 2.0):
        for group in optimizer.param_groups:
            group["lr"] = lr
        for parameter, expected, velocity in zip(
            model.parameters(), reference, velocities, strict=True
        ):
            parameter.grad = torch.randn_like(parameter)
            correction = lr / previous
            expected.mul_(1 - lr * 0.01)
            expected.add_(0.9 * 0.9 * correction * velocity - (1 + 0.9) * lr * parameter.grad)
            velocity.mul_(0.9 * correction).sub_(lr * parameter.grad)
        optimizer.step()
        previous = lr
        for parameter, expected in zip(model.parameters(), reference, strict=True):
            torch.testing.assert_close(parameter.detach(), expected)


def test_adamw_decays_matrices_only():
    model = build_model(
        GCNNConfig(embedding_dim=4, blocks=[BlockConfig([[2, 6]])], cutoffs=[5]), 12
    )
    optimizer = build_optimizer(AdamWConfig(weight_decay=0.1), model)
    decayed = {
        id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]
    }
    names = {name for name, p in model.named_parameters() if id(p) in decayed}
    assert len([p for group in optimizer.param_groups for p in group["params"]]) == len(
        list(model.parameters())
    )
    assert {n.rpartition(".")[2] for n in names} == {"original1", "weight"}
    assert not [n for n in names if "embedding" in n]


def make(config, lr=2.0):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    return Schedule(config, optimizer), optimizer


@pytest.mark.parametrize(("step", "progress", "expected"), [
    (0, 0.0, 2.0 / 10), (4, 0.1, 2.0 * 0.5 * 0.5 * (1 + math.cos(0.1 * math.pi))),
    (50, 0.5, 1.0), (99, 1.0, 0.0),
])  # fmt: skip
def test_cosine_with_warm_up(step, progress, expected):
    schedule, optimizer = make(CosineScheduleConfig(warmup_steps=10))
    assert schedule.set(step, progress) == pytest.approx(expected)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)


def test_cosine_ends_at_its_final_fraction():
    schedule, _ = make(CosineScheduleConfig(warmup_steps=0, final_fraction=0.1))
    assert schedule.set(99, 1.0) == pytest.approx(0.2)


def test_plateau_halves_when_validation_stops_improving():
    schedule, _ = make(PlateauScheduleConfig(factor=0.5, patience=1))
    rates = []
    for nll in (5.0, 4.0, 4.1, 4.0, 3.9, 4.2, 4.2, 4.2, 4.2):
        schedule.note_validation(nll)
        rates.append(schedule.set(0, 0.0))
    assert rates == [2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25]


def test_schedule_goes_on_from_its_state():
    config = PlateauScheduleConfig()
    first, _ = make(config)
    for nll in (5.0, 6.0):
        first.note_validation(nll)
    second, _ = make(config)
    second.load_state_dict(first.state_dict())
    for schedule in (first, second):
        schedule.note_validation(5.5)
    assert first.set(3, 0.0) == second.set(3, 0.0) == 0.5


def test_constant_stays():
    schedule, _ = make(ConstantScheduleConfig())
    for nll in (1.0, 2.0, 3.0):
        schedule.note_validation(nll)
    assert schedule.set(1000, 0.9) == 2.0


def test_plateau_with_a_least_rate_is_torchs():
    nlls = (5.0, 4.0, 4.1, 4.2, 3.9, 4.2, 4.2, 4.2, 4.2, 4.2, 4.2, 4.2, 4.2, 3.0, 3.5, 3.6, 3.7)
    schedule, _ = make(PlateauScheduleConfig(factor=0.3, patience=1, min_lr=0.07))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.3, patience=1, threshold=0, min_lr=0.07, eps=0
    )
    rates = []
    for nll in nlls:
        schedule.note_validation(nll)
        reference.step(nll)
        rates.append(schedule.set(0, 0.0))
        assert rates[-1] == pytest.approx(optimizer.param_groups[0]["lr"])
    assert min(rates) == rates[-1] == 0.07


@dataclass
class OtherConfig:
    """A schema that nobody has written code for."""

    kind: str = "other"
    lr: float = 0.1
    warmup_steps: int = 0


def test_a_kind_without_code_is_not_taken_for_another():
    model = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="OtherConfig"):
        build_optimizer(OtherConfig(), model)
    schedule = Schedule(OtherConfig(), build_optimizer(AdamWConfig(lr=0.1), model))
    with pytest.raises(TypeError, match="OtherConfig"):
        schedule.set(0, 0.0)


def test_an_optimizer_that_would_ignore_clipping_is_refused(config):
    model = nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r"Adagrad\.step heeds neither grad_scale"):
        Updater(config.trainer, model, torch.optim.Adagrad(model.parameters()), torch.device("cpu"))


def test_each_kind_of_optimizer_makes_updates_of_its_own():
    updated = set()
    for schema in SCHEMAS["optimizer"].values():
        torch.manual_seed(0)
        model = nn.Linear(3, 3)
        optimizer = build_optimizer(schema(lr=0.1), model)
        for factor in (1.0, -2.0, 0.5):
            for parameter in model.parameters():
                parameter.grad = factor * torch.randn_like(parameter)
            optimizer.step()
        updated.add(model.weight.flatten().detach().numpy().tobytes())
    assert len(updated) == len(SCHEMAS["optimizer"])


def test_each_kind_of_schedule_has_rates_of_its_own():
    seen = set()
    for schema in SCHEMAS["schedule"].values():
        schedule = Schedule(schema(), build_optimizer(AdamWConfig(lr=0.1), nn.Linear(2, 2)))
        rates = []
        for step in range(2000):
            rates.append(schedule.set(step, step / 2000))
            schedule.note_validation(1.0)  # which never improves
        seen.add(tuple(rates))
    assert len(seen) == len(SCHEMAS["schedule"])
