"""A checkpoint of our own making in fairseq's format, whose log-probabilities were recorded: no
outside data is needed.

The weights are sines, the same on every machine. Recorded is what `slow_log_probs`, the definition
written out in float64, gave for them; fairseq itself is compared with in test_fairseq_reference.py.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from gcnn.evaluation.scoring import Scorer
from tests.interop.test_fairseq import BOTTLENECKS, slow_log_probs

RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text())
CUTOFFS = [5, 12]


@pytest.fixture
def weights(make_weights):
    """Sines in place of random numbers; the gains of weight normalisation stay above 0."""
    weights = make_weights(BOTTLENECKS[1], CUTOFFS)
    for i, (name, weight) in enumerate(sorted(weights.items())):
        if not name.endswith("version"):
            sines = torch.sin(torch.arange(weight.numel(), dtype=torch.float64) * 1.7 + i).view(
                weight.shape
            )
            weights[name] = (0.6 * sines + name.endswith("weight_g")).float()
    return weights


@pytest.fixture
def model(weights, save_checkpoint, import_run, dictionary, tmp_path):
    cutoffs = ",".join(map(str, CUTOFFS))
    checkpoint = save_checkpoint(
        weights, decoder_layers=BOTTLENECKS[0], adaptive_softmax_cutoff=cutoffs
    )
    run = import_run(checkpoint, dictionary, tmp_path / "run")
    return Scorer(run.model, run.tokenizer)


def test_token_by_token_and_in_perplexity_an_import_has_the_recorded_values(model):
    found = model.token_scores(RECORDED["text"])
    assert len(found.types) == len(RECORDED["log_probs"])
    np.testing.assert_allclose(found.log_probs, RECORDED["log_probs"], rtol=0, atol=2e-5)
    mean = sum(RECORDED["log_probs"]) / len(RECORDED["log_probs"])
    assert model.perplexity(RECORDED["text"]) == pytest.approx(math.exp(-mean), rel=1e-5)


def test_the_record_is_what_the_definition_says(model, weights):
    stream = [model.tokenizer.index[name] for name in model.token_scores(RECORDED["text"]).types]
    tokens = [model.tokenizer.eos_id, *stream[:-1]]
    log_probs = slow_log_probs(weights, BOTTLENECKS[1], CUTOFFS, tokens)
    np.testing.assert_allclose(
        log_probs[range(len(stream)), stream], RECORDED["log_probs"], rtol=0, atol=1e-9
    )
