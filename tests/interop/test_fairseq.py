"""Imported models compute what fairseq's definition says."""

import argparse
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gcnn.evaluation.run import LoadedRun

# a layer string and its layers (out_channels, kernel_size, residual)
PAIRS = "[(6, 3)] * 2 + [(17, 2)]", [(6, 3, 1), (6, 3, 1), (17, 2, 1)]
BOTTLENECKS = (
    "[(8, 3)] + [(4, 1, 0), (4, 3, 0), (8, 1, 3)] * 2 + [(4, 1, 0), (18, 2, 2)]",
    [(8, 3, 1), *[(4, 1, 0), (4, 3, 0), (8, 1, 3)] * 2, (4, 1, 0), (18, 2, 2)],
)
NO_RESIDUAL = "[(6, 3, 0), (6, 2), (16, 2, 0)]", [(6, 3, 0), (6, 2, 1), (16, 2, 0)]
TOKENS = [2, 7, 3, 29, 4, 4, 11, 18, 2, 25]


def slow_log_probs(
    weights: dict[str, Tensor], layers: list, cutoffs: list[int] | None, tokens: list[int]
) -> Tensor:
    """fconv_lm by its definition, time first, one position after the other: (time, vocabulary)."""
    weights = {name.removeprefix("decoder."): weight.double() for name, weight in weights.items()}

    def linear(x: Tensor, name: str) -> Tensor:
        v, g = weights[f"{name}.weight_v"], weights[f"{name}.weight_g"]
        projected = [g[i, 0] * (x @ v[i]) / v[i].norm() for i in range(len(v))]
        return torch.stack(projected, dim=-1) + weights[f"{name}.bias"]

    def convolution(x: Tensor, name: str) -> Tensor:
        v, g = weights[f"{name}.weight_v"], weights[f"{name}.weight_g"]  # (kernel_size, in, out)
        norm = (v**2).sum(dim=(0, 1), keepdim=True).sqrt()
        padded = torch.cat([x.new_zeros(len(v) - 1, x.size(1)), x])
        projected = [
            sum(padded[t + k] @ (g * v / norm)[k] for k in range(len(v))) for t in range(len(x))
        ]
        values, gates = (torch.stack(projected) + weights[f"{name}.bias"]).chunk(2, dim=1)
        return values / (1 + torch.exp(-gates))

    x = linear(torch.stack([weights["embed_tokens.weight"][token] for token in tokens]), "fc1")
    inputs = [x]
    for i, (channels, _, residual) in enumerate(layers):
        x = convolution(x, f"convolutions.{i}")
        if residual:
            skipped = inputs[-residual]
            skipped = (
                skipped if skipped.size(1) == channels else linear(skipped, f"projections.{i}")
            )
            x = (x + skipped) * 0.5**0.5
        inputs.append(x)
    if cutoffs is None:
        return linear(linear(x, "fc2"), "fc3").log_softmax(dim=1)
    head = (x @ weights["adaptive_softmax.head.weight"].T).log_softmax(dim=1)
    parts = [head[:, : cutoffs[0]]]
    for i in range(len(cutoffs)):
        down, up = (weights[f"adaptive_softmax.tail.{i}.{j}.weight"] for j in (0, 2))
        parts.append((x @ down.T @ up.T).log_softmax(dim=1) + head[:, cutoffs[0] + i, None])
    return torch.cat(parts, dim=1)


@pytest.fixture
def check_parity(import_run, dictionary, tmp_path):
    """Import a checkpoint and compare its log-probabilities with `expected` (time, vocabulary)."""

    def check_parity(checkpoint: Path, expected: Tensor) -> LoadedRun:
        run = import_run(checkpoint, dictionary, tmp_path / "runs" / "imported")
        hidden, _ = run.model(torch.tensor([TOKENS]))
        log_probs = run.model.log_prob(hidden)[0]
        nll = run.model.nll(hidden, torch.tensor([TOKENS]))[0]
        np.testing.assert_allclose(log_probs, expected, rtol=0, atol=2e-5)
        np.testing.assert_allclose(-nll, expected[range(len(TOKENS)), TOKENS], rtol=0, atol=2e-5)
        return run

    return check_parity


@pytest.mark.parametrize("cutoffs", [None, [5, 12]], ids=["full", "adaptive"])
@pytest.mark.parametrize(
    ("text", "layers"), [PAIRS, BOTTLENECKS, NO_RESIDUAL], ids=["pairs", "bottlenecks", "plain"]
)
def test_fairseq_model_equals_its_definition(
    text, layers, cutoffs, make_weights, save_checkpoint, check_parity
):
    weights = make_weights(layers, cutoffs)
    checkpoint = save_checkpoint(
        weights,
        decoder_layers=text,
        adaptive_softmax_cutoff=cutoffs and ",".join(map(str, cutoffs)),
    )
    run = check_parity(checkpoint, slow_log_probs(weights, layers, cutoffs, TOKENS))
    assert run.model.receptive_field == 1 + sum(kernel_size - 1 for _, kernel_size, _ in layers)
    assert run.config.experiment == "fairseq/imported"
    assert run.config.trainer.max_steps == 7
    assert run.tokenizer.encode("w0 w25 nowhere") == [4, 29, 3]
    assert run.tokenizer.eos_id == 2


def test_fairseq_old_shared_and_half_precision_weights(make_weights, save_checkpoint, check_parity):
    """Gains for each position of a kernel, an output layer that is the embedding, float16."""
    text, layers = PAIRS
    weights = {name: weight.half() for name, weight in make_weights(layers, None).items()}
    v = weights["decoder.convolutions.1.weight_v"]
    gain = torch.rand(len(v), 1, 1).half() + 0.5
    folded = v.double() * gain.double() / v.double().flatten(1).norm(dim=1)[:, None, None]
    plain = weights["decoder.embed_tokens.weight"]
    plain[1] = 0  # the padding's embedding

    def by_definition(weight: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        norm = weight.double().norm(dim=dims, keepdim=True)
        return norm, torch.where(norm > 0, weight.double(), 1)

    same = dict(weights)
    same["decoder.convolutions.1.weight_g"], same["decoder.convolutions.1.weight_v"] = (
        by_definition(folded, (0, 1))
    )
    same["decoder.fc3.weight_g"], same["decoder.fc3.weight_v"] = by_definition(plain, (1,))
    weights["decoder.convolutions.1.weight_g"] = gain
    del weights["decoder.fc3.weight_g"], weights["decoder.fc3.weight_v"]
    weights["decoder.fc3.weight"] = plain  # the same storage
    check_parity(
        save_checkpoint(weights, decoder_layers=text), slow_log_probs(same, layers, None, TOKENS)
    )


@pytest.mark.parametrize("kind", [dict, argparse.Namespace])
def test_fairseq_sections_of_newer_options(kind, make_weights, check_parity, tmp_path):
    text, layers = PAIRS
    weights = make_weights(layers, [5])
    model = kind(_name="fconv_lm", decoder_layers=text, adaptive_softmax_cutoff="5,30", dropout=0.3)
    cfg = {
        "model": model,
        "optimizer": {"_name": "nag", "lr": [0.25], "momentum": 0.9, "weight_decay": 1e-5},
        "optimization": {"_name": None, "clip_norm": 0.0},
        "task": {"_name": "language_modeling", "sample_break_mode": "eos", "tokens_per_sample": 40},
    }
    torch.save({"args": None, "cfg": cfg, "model": weights}, tmp_path / "checkpoint.pt")
    config = check_parity(
        tmp_path / "checkpoint.pt", slow_log_probs(weights, layers, [5], TOKENS)
    ).config
    assert (config.optimizer.lr, config.optimizer.momentum, config.optimizer.weight_decay) == (
        0.25,
        0.9,
        1e-5,
    )
    assert (config.trainer.clip_norm, config.trainer.block_size) == (None, 40)
    assert (config.model.dropout, config.data.sentences) == (0.3, True)


def test_fairseq_meters_of_old_checkpoints_are_ignored(
    make_weights, save_checkpoint, check_parity, monkeypatch
):
    text, layers = PAIRS
    weights = make_weights(layers, None)
    checkpoint = save_checkpoint(weights, decoder_layers=text)
    module = types.ModuleType("fairseq.meters")
    module.AverageMeter = type("AverageMeter", (), {"__module__": "fairseq.meters"})
    content = torch.load(checkpoint, weights_only=False)
    content["extra_state"] = {"train_meters": module.AverageMeter()}
    content["extra_state"]["train_meters"].avg = 1.5
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "fairseq", types.ModuleType("fairseq"))
        patch.setitem(sys.modules, "fairseq.meters", module)
        torch.save(content, checkpoint, _use_new_zipfile_serialization=False)
    check_parity(checkpoint, slow_log_probs(weights, layers, None, TOKENS))
