"""The plan for GPUs against closed forms."""

import pytest
import torch

from gcnn.benchmarks.plan import GPU, Epoch, kept_bytes, plan
from gcnn.config.compose import compose_config
from gcnn.models.language_model import build_model

FAST = GPU("made up", flops_per_second=1e15, bandwidth=1e12, link=1e11)


def test_an_epoch_is_its_counted_work_over_the_rates():
    epoch = plan("gcnn_8", 1024, 8, FAST)
    updates = 103_227_021 / (1024 * 8)
    # `gcnn describe gcnn_8`: MFLOPs.
    assert epoch.products == pytest.approx(103_227_021 / 8 * 3 * 108.8e6 / 1e15, rel=1e-3)
    assert epoch.exchange == pytest.approx(updates * 2 * 7 / 8 * 4 * 136.2e6 / 1e11, rel=1e-3)
    assert epoch.optimizer == pytest.approx(updates * 36 * 136.2e6 / 1e12, rel=1e-3)
    assert plan("gcnn_8", 1024, 1, FAST).exchange == 0
    assert plan("gcnn_8", 1024, 1, FAST).optimizer == pytest.approx(8 * epoch.optimizer)


def test_kept_bytes_by_hand():
    config = compose_config(
        "model=gcnn_small",
        "model.embedding_dim=4",
        "model.blocks=[{convs:[[2,4]]},{convs:[[1,6]]}]",
        "model.cutoffs=[1]",
    ).model
    model = build_model(config, 2)
    # Inputs of 4 and 4 channels at 2 + 1 bytes, both paths of 4 and 6 channels at 2 bytes.
    # Logits of 8 bytes: one type and a cluster for each target, and one type of the cluster for a
    # third of them (1/2 of 1 + 1/2).
    assert kept_bytes(model) == pytest.approx(3 * 8 + 2 * (8 + 12) + 8 * (2 + 1 / 3))


def test_what_is_exchanged_beside_the_backward_pass_costs_only_the_rest():
    hidden = Epoch(products=3.0, activations=3.0, optimizer=1.0, exchange=4.0, memory=0)
    assert hidden.seconds == pytest.approx(7.0)
    assert hidden.bound == "products"
    late = Epoch(products=3.0, activations=3.0, optimizer=1.0, exchange=9.0, memory=0)
    assert late.seconds == pytest.approx(12.0)
    assert late.bound == "exchange of gradients"


def test_the_plan_takes_no_memory():
    before = torch.get_default_device()
    assert plan("gcnn_14b", 16384, 8, FAST).memory > 12 * 402.3e6
    assert torch.get_default_device() == before
