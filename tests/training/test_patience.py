"""Early stopping: validation's numbers are given, the end is counted by hand."""

import pytest
import safetensors.torch
import torch

from gcnn.models.weights import WEIGHTS
from gcnn.training.restore import restore

NATS = [5.0, 4.0, 4.5, 4.2, 3.9, 3.9, 4.1, 4.0, 3.0, 2.0]  # validation, every 2 steps
ENDS = {1: 3, 2: 4, 3: 8, 4: 10}  # patience -> validations made, at most 10


@pytest.fixture
def make(config, make_trainer, monkeypatch):
    config.model.dropout = 0.1

    def make(name, **changes):
        trainer = make_trainer(
            config, name, max_steps=20, validate_every=2, checkpoint_every=3, **changes
        )

        def evaluate(*_, **__):
            step = trainer.progress.step
            seen[name, step] = {
                key: tensor.clone() for key, tensor in trainer.model.state_dict().items()
            }
            return {"nll_nats": NATS[(step - 1) // 2] * 10, "tokens": 10, "perplexity": 1.0}

        monkeypatch.setattr("gcnn.training.trainer.evaluate", evaluate)
        return trainer

    seen = make.seen = {}
    return make


@pytest.mark.parametrize("patience", ENDS)
def test_a_run_ends_after_so_many_validations_without_a_better_one(make, patience, caplog):
    trainer = make("run", patience=patience)
    with caplog.at_level("INFO", logger="gcnn"):
        trainer.run()
    assert trainer.progress.step == 2 * ENDS[patience]
    assert (f"not improved {patience} times in a row: the run ends" in caplog.text) == (
        patience < 4
    )
    assert trainer.checkpoints.all()[-1].name == f"step_{trainer.progress.step:09}"
    best = min(range(ENDS[patience]), key=NATS.__getitem__)
    saved = safetensors.torch.load_file(trainer.run_dir / WEIGHTS)
    assert all(
        torch.equal(saved[name], tensor)
        for name, tensor in make.seen["run", 2 * (best + 1)].items()
    )


def test_patience_goes_on_counting_where_a_resumed_run_stands(make):
    trainer = make("run", patience=3, max_minutes=None)
    trainer.config.trainer.max_steps = (
        13  # two validations after the best; the end of a run is validated, not counted
    )
    trainer.run()
    for _ in range(2):
        trainer = make("run", patience=3)
        restore(trainer, None)
        trainer.run()
        assert trainer.progress.step == 16  # the second time it is past its end


def test_no_patience_is_no_bound(make):
    trainer = make("run")
    trainer.run()
    assert trainer.progress.step == 20
