"""An update: one read of the device at its end, no graph break, no step if it is not finite."""

import copy
import os
import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DynamicOutputShapeException
from torch.utils._pytree import tree_map_only

from gcnn.config.models import BlockConfig
from gcnn.config.schema import SCHEMAS, AdamWConfig, NesterovConfig
from gcnn.training import distributed
from tests.training.conftest import MODELS

NESTEROV = NesterovConfig(lr=0.1, momentum=0.9, weight_decay=0.01)
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
HEADERS = Path(sysconfig.get_paths()["include"]) / "Python.h"
OPTIMIZERS = {"nesterov": NESTEROV, "adamw": AdamWConfig(lr=0.1)}


def test_every_kind_of_optimizer_is_tested_here():
    assert OPTIMIZERS.keys() == SCHEMAS["optimizer"].keys()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", [*MODELS, "full"])
def test_an_update_reads_back_once(config, make_trainer, monkeypatch, model, optimizer):
    """With fake tensors: reading one, or a shape that depends on its values, is an error."""
    if model == "full":
        config.model.cutoffs = []
    else:
        config.model = MODELS[model]
    config.optimizer = OPTIMIZERS[optimizer]
    real = make_trainer(config, "real", carry_state=True, micro_batch_size=2)
    batches, count = real.next_batch()
    with FakeTensorMode() as mode:
        trainer = make_trainer(config, "fake", carry_state=True, micro_batch_size=2)
        fake = tree_map_only(torch.Tensor, mode.from_tensor, batches)
        monkeypatch.setattr(trainer, "next_batch", lambda: (fake, count))
        reads = []
        monkeypatch.setattr(
            distributed,
            "wait_for_status",
            lambda *said: reads.append(said) or (1.0, 1.0, 1.0, False, []),
        )
        trainer.model.train()
        for _ in range(2):
            trainer.step()
    assert len(reads) == 2
    if model != "full":
        with mode, pytest.raises(DynamicOutputShapeException):
            trainer.model.nll(trainer.model(fake[0][0])[0], fake[0][1])


def test_rows_that_are_known_change_nothing(config, make_trainer):
    config.model.dropout = 0.0
    trainer = make_trainer(config)
    tokens, targets, rows = trainer.next_batch()[0][0]
    hidden, _ = trainer.model(tokens)
    assert len(rows) == 1
    assert len(rows[0]) > 0
    assert torch.equal(trainer.model.nll(hidden, targets, rows), trainer.model.nll(hidden, targets))


def test_positions_of_other_clusters_count_nothing(config, make_trainer):
    """Neither in the loss nor in a gradient, however often they stand there."""
    config.model.dropout = 0.0
    trainer = make_trainer(config)
    tokens, targets, rows = trainer.next_batch()[0][0]
    head = int((targets.flatten() < 20).nonzero()[0])
    found = []
    for given in (rows, [torch.cat([rows[0], torch.tensor([head, head])])]):
        hidden, _ = trainer.model(tokens)
        nll = trainer.model.nll(hidden, targets, given)
        nll.sum().backward()
        found.append([nll, *(p.grad.clone() for p in trainer.model.parameters())])
        trainer.model.zero_grad()
    for padded, exact in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(padded, exact)


def test_where_the_targets_stand_is_found_on_the_cpu(config, make_trainer):
    """With hidden states of shapes alone, as a GPU's are to the host: their values are not asked
    for.
    """
    model = make_trainer(config).model.to("meta")
    targets = torch.randint(40, (2, 16))
    hidden, _ = model(targets.to("meta"))
    nll = model.nll(hidden, targets)
    assert (nll.device.type, nll.shape) == ("meta", targets.shape)
    with pytest.raises(NotImplementedError):
        model.nll(hidden, targets.to("meta"))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("first", [True, False])
def test_what_is_not_finite_moves_nothing(config, make_trainer, optimizer, first):
    """Neither parameters nor the optimizer's state; the next update is as if it had not been."""
    config.optimizer, config.model.dropout = OPTIMIZERS[optimizer], 0.0
    trainers = [
        make_trainer(config, name, clip_norm=0.1, skip_nonfinite=1) for name in ("plain", "upset")
    ]
    trainers[1].model.load_state_dict(trainers[0].model.state_dict())
    plain, upset = trainers
    for trainer in trainers if not first else ():
        trainer.step()
    before = copy.deepcopy(upset.model.state_dict())
    again = upset.progress.index
    gain = upset.model.softmax.head.weight
    # The optimizer still has `gain`.
    upset.model.softmax.head.weight = torch.nn.Parameter(gain * torch.nan)
    upset.step()
    upset.model.softmax.head.weight = gain
    assert upset.progress.skipped == 1
    for name, value in upset.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    upset.progress.index = again
    plain.step()
    upset.step()
    for name, value in upset.model.state_dict().items():
        torch.testing.assert_close(value, plain.model.state_dict()[name])


@pytest.mark.skipif(
    not (COMPILER and HEADERS.exists()), reason="Inductor needs a C++ compiler and Python's headers"
)
def test_the_compiler_takes_an_update_whole(config, make_trainer, monkeypatch):
    """By torch's Inductor: encoder and loss in one graph, whatever the sizes of the clusters."""
    inductor = torch._inductor.config
    monkeypatch.setattr(inductor, "compile_threads", 1)  # no processes that import torch to compile
    # The CPU's flags tell its vector units; building a library to try each takes half the time
    monkeypatch.setattr(inductor.cpp, "vec_isa_ok", True)
    config.model.blocks, config.model.dropout = [BlockConfig([[3, 16]])], 0.0
    trainers = [make_trainer(config, str(compiled), compile=compiled) for compiled in (False, True)]
    trainers[1].model.load_state_dict(trainers[0].model.state_dict())
    torch._dynamo.utils.counters.clear()
    for _ in range(4):
        for trainer in trainers:
            torch.manual_seed(1)
            trainer.step()
        for name, value in trainers[1].model.state_dict().items():
            torch.testing.assert_close(
                value, trainers[0].model.state_dict()[name], rtol=1e-4, atol=1e-5
            )
    assert not torch._dynamo.utils.counters["graph_break"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
