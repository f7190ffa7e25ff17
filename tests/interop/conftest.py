"""Small checkpoints of fairseq's `fconv_lm`, made by its own naming and layout."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gcnn.evaluation.run import LoadedRun, load_model
from gcnn.interop.fairseq import import_fairseq

VOCABULARY, EMBEDDING = 30, 5
Layers = list[tuple[int, int, int]]


@pytest.fixture(scope="session")
def import_run() -> Callable[[Path, Path, Path], LoadedRun]:
    """A function that imports a checkpoint of fairseq into the folder `out` and loads that run."""

    def import_run(checkpoint: Path, dictionary: Path, out: Path) -> LoadedRun:
        import_fairseq(checkpoint, dictionary, out)
        return load_model(out, "cpu")

    return import_run


@pytest.fixture
def make_weights() -> Callable[..., dict[str, Tensor]]:
    """A function that makes the state dict of an fconv_lm with random weights."""

    def make_weights(layers: Layers, cutoffs: list[int] | None) -> dict[str, Tensor]:
        """The weights by fairseq's names, in its layout. Sets torch's random seed.

        layers: (channels, kernel size, residual) each; a residual of n adds the input of the layer
        n - 1 before this one, 0 adds nothing.
        cutoffs: of the adaptive softmax; None: a full softmax.
        """
        torch.manual_seed(0)
        weights = {"decoder.version": torch.tensor([2.0])}

        def linear(name: str, inputs: int, outputs: int) -> None:
            weights[f"decoder.{name}.weight_v"] = torch.randn(outputs, inputs)
            weights[f"decoder.{name}.weight_g"] = torch.rand(outputs, 1) + 0.5
            weights[f"decoder.{name}.bias"] = torch.randn(outputs)

        weights["decoder.embed_tokens.weight"] = torch.randn(VOCABULARY, EMBEDDING)
        widths = [layers[0][0]]
        linear("fc1", EMBEDDING, widths[0])
        for i, (channels, kernel_size, residual) in enumerate(layers):
            weights[f"decoder.convolutions.{i}.weight_v"] = torch.randn(
                kernel_size, widths[-1], 2 * channels
            )
            weights[f"decoder.convolutions.{i}.weight_g"] = torch.rand(1, 1, 2 * channels) + 0.5
            weights[f"decoder.convolutions.{i}.bias"] = torch.randn(2 * channels)
            if residual and widths[-residual] != channels:
                linear(f"projections.{i}", widths[-residual], channels)
            widths.append(channels)
        if cutoffs is None:
            linear("fc2", widths[-1], EMBEDDING)
            linear("fc3", EMBEDDING, VOCABULARY)
            return weights
        softmax = "decoder.adaptive_softmax"
        weights[f"{softmax}.version"] = torch.tensor([1])
        weights[f"{softmax}.head.weight"] = torch.randn(cutoffs[0] + len(cutoffs), widths[-1])
        for i, (low, high) in enumerate(zip(cutoffs, [*cutoffs[1:], VOCABULARY], strict=True)):
            narrow = widths[-1] // 4 ** (i + 1)
            weights[f"{softmax}.tail.{i}.0.weight"] = torch.randn(narrow, widths[-1])
            weights[f"{softmax}.tail.{i}.2.weight"] = torch.randn(high - low, narrow)
        return weights

    return make_weights


@pytest.fixture
def dictionary(tmp_path) -> Path:
    """A dict.txt of fairseq: VOCABULARY - 4 words with counts; fairseq adds four special ones."""
    path = tmp_path / "dict.txt"
    path.write_text("".join(f"w{i} {100 - i}\n" for i in range(VOCABULARY - 4)), encoding="utf-8")
    return path


@pytest.fixture
def save_checkpoint(tmp_path) -> Callable[..., Path]:
    """A function that saves weights as a checkpoint of fairseq and returns its path.

    options: entries of the checkpoint's `args`. It is always tmp_path / "checkpoint.pt".
    """

    def save_checkpoint(weights: dict[str, Tensor], **options) -> Path:
        args = argparse.Namespace(**{"arch": "fconv_lm", "decoder_attention": "False"} | options)
        path = tmp_path / "checkpoint.pt"
        torch.save(
            {"args": args, "model": weights, "optimizer_history": [{"num_updates": 7}]}, path
        )
        return path

    return save_checkpoint
