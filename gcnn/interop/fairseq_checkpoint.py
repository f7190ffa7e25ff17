"""A checkpoint of fairseq: read without running anything that is in it, and its weights renamed."""

import argparse
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gcnn.base.errors import UsageError
from gcnn.base.text_files import check_no_pointer_at
from gcnn.config.schema import GCNNConfig
from gcnn.models.language_model import build_model

SECTIONS = (
    "dataset",
    "optimization",
    "optimizer",
    "task",
    "model",
)  # of a newer configuration; the last one wins


class Meter:
    """Stands for fairseq's counters of loss and time, which checkpoints before 0.9 hold besides the model."""


METERS = ("AverageMeter", "StopwatchMeter", "TimeMeter")
ALLOWED = [argparse.Namespace, *((Meter, f"fairseq.meters.{name}") for name in METERS)]


@dataclass
class Checkpoint:
    weights: dict[str, Tensor]
    options: dict[str, Any]  # fairseq's, flat
    updates: int  # made so far


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; of classes, only argparse.Namespace and stand-ins for fairseq's meters are ever made.

    Raises UsageError for a file that is missing, damaged, hostile, a pointer of Git LFS or of another kind.
    """
    check_no_pointer_at(path)
    try:
        with torch.serialization.safe_globals(ALLOWED), warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}). Give a checkpoint of fairseq."
        ) from None
    except Exception as error:  # torch names no class of errors for a hostile or damaged file
        refused = re.search(r"GLOBAL (\S+)", str(error))
        reason = (
            f"it asks for {refused[1][:100]}" if refused else "it is no intact file of torch.save"
        )
        raise UsageError(
            f"{path} was not loaded: {reason}. Give an intact checkpoint of fairseq."
        ) from None
    try:
        history = content.get("optimizer_history") or [{}]
        weights = {str(name): float32(weight) for name, weight in content["model"].items()}
        return Checkpoint(weights, options_of(content), int(history[-1].get("num_updates", 0)))
    except (AttributeError, ArithmeticError, LookupError, TypeError, ValueError):
        raise UsageError(
            f"{path} is no checkpoint of fairseq, with tensors in `model` and options in `args` or `cfg`. "
            "Give one of fairseq."
        ) from None


def options_of(content: dict[str, Any]) -> dict[str, Any]:
    """fairseq's options: `args`, or else the sections of `cfg`, each by its name too (`optimizer: nag`)."""
    if content.get("args") is not None:
        return to_dict(content["args"])
    options = {}
    for name in SECTIONS:
        section = to_dict(content["cfg"].get(name) or {})
        options |= {name: section.get("_name")} | section
    return options


def to_dict(section: argparse.Namespace | dict[str, Any]) -> dict[str, Any]:
    return vars(section) if isinstance(section, argparse.Namespace) else dict(section)


def float32(weight: Tensor) -> Tensor:
    """A copy in float32. Raises ValueError for a tensor that is no weight, or larger than what it holds."""
    dense = weight.layout == torch.strided and weight.device.type == "cpu" and not weight.is_nested
    if (
        not dense
        or weight.is_quantized
        or weight.is_complex()
        or weight.nbytes > weight.untyped_storage().nbytes()
    ):
        raise ValueError("no weight")
    return weight.detach().to(torch.float32, copy=True)


def convert_weights(weights: dict[str, Tensor], model: GCNNConfig) -> dict[str, Tensor]:
    """fairseq's weights by the names and in the layout of this project's model.

    Raises UsageError, naming them, for weights that are missing, left over or of another shape.
    """
    with torch.device("meta"):  # shapes alone
        expected = build_model(model, len(weights["decoder.embed_tokens.weight"])).state_dict()
    layers, parts = layer_names(model), {"original0": "weight_g", "original1": "weight_v"}
    names = {}  # ours: fairseq's
    for name in expected:
        layer, _, part = name.replace(".parametrizations.weight", "").rpartition(".")
        names[name] = f"{layers[layer]}.{parts.get(part, part)}"
    weights = split_weights(
        weights, [name.removesuffix("_g") for name in names.values() if name.endswith("weight_g")]
    )
    needed = {*names.values()}
    if model.cutoffs:
        needed.add(
            "decoder.adaptive_softmax.version"
        )  # without it clusters had other places in the head
    check_names(weights, needed)
    for name, weight in expected.items():
        found = weights[names[name]]
        if found.shape != weight.shape:
            raise UsageError(
                f"the weights do not fit the options: {name} is {tuple(found.shape)} in the checkpoint "
                f"and {tuple(weight.shape)} by decoder_layers and adaptive_softmax_cutoff."
            )
    return {ours: weights[theirs].contiguous() for ours, theirs in names.items()}


def layer_names(model: GCNNConfig) -> dict[str, str]:
    """What the layers that a model may have are called, here and there."""
    names = {"encoder.embedding": "decoder.embed_tokens", "encoder.input_projection": "decoder.fc1"}
    last = -1  # convolution
    for i, block in enumerate(
        chain.from_iterable(repeat(block, block.repeat) for block in model.blocks)
    ):
        for j in range(len(block.convs)):
            last += 1
            names[f"encoder.blocks.{i}.convs.{j}.conv"] = f"decoder.convolutions.{last}"
        names[f"encoder.blocks.{i}.projection"] = f"decoder.projections.{last}"
    for i in range(len(model.cutoffs)):
        names |= {
            f"softmax.tails.{i}.{j}": f"decoder.adaptive_softmax.tail.{i}.{j}" for j in (0, 2)
        }
    names["softmax.head"] = "decoder.adaptive_softmax.head"
    return {**names, "softmax.layers.0": "decoder.fc2", "softmax.layers.2": "decoder.fc3"}


def check_names(names: Iterable[str], needed: set[str]) -> None:
    """Raise UsageError for weights that are missing or left over."""
    missing, surplus = (
        sorted(needed.difference(names)),
        sorted({*names} - needed - {"decoder.version"}),
    )
    differences = [
        f"{verb} {', '.join(names[:3] + ['...'] * (len(names) > 3))}"
        for verb, names in (("lacks", missing), ("also has", surplus))
        if names
    ]
    if differences:
        raise UsageError(
            f"it {' and '.join(differences)}; that is no fconv_lm as its options describe it."
        )


def split_weights(weights: dict[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """The weights with weight normalisation's g (out, 1, ...) and v (out, in, ...) for each one named.

    fairseq's convolutions are (kernel_size, in, out). Old ones have a gain for each position of the kernel, and a
    shared or folded weight has none: both are written anew with a gain for each output, as the same weight.
    """
    weights = {
        name: weight.permute(2, 1, 0) if weight.dim() == 3 else weight
        for name, weight in weights.items()
    }
    for name in names:
        g, v = f"{name}_g", f"{name}_v"
        if not {g, v} & weights.keys() and name in weights and weights[name].dim() > 1:
            weight = weights.pop(name)
        elif (
            {g, v} <= weights.keys()
            and weights[v].dim() == 3
            and weights[g].shape == (1, 1, weights[v].size(2))
        ):
            weight = weights[v] * (weights[g] / weights[v].norm(dim=(0, 1), keepdim=True))
        else:
            continue
        gain = torch.linalg.vector_norm(weight.flatten(1), dim=1).view(
            -1, *[1] * (weight.dim() - 1)
        )
        weights[g], weights[v] = (
            gain,
            torch.where(gain > 0, weight, 1.0),
        )  # a row of zeros has no direction
    return weights
