"""A checkpoint of fairseq: read without running anything that is in it, and its weights renamed."""

import argparse
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gcnn.config import GCNNConfig
from gcnn.errors import UsageError
from gcnn.models.language_model import build_model

SECTIONS = ("dataset", "optimization", "optimizer", "task", "model")  # of a newer configuration; the last one wins


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

    Raises UsageError for a file that is missing, damaged, hostile or of another kind.
    """
    try:
        with torch.serialization.safe_globals(ALLOWED), warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}). Give a checkpoint of fairseq.") from None
    except Exception as error:  # torch names no class of errors for a hostile or damaged file
        refused = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {refused[1][:100]}" if refused else "it is no intact file of torch.save"
        raise UsageError(f"{path} was not loaded: {reason}. Give an intact checkpoint of fairseq.") from None
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
    if not dense or weight.is_quantized or weight.is_complex() or weight.nbytes > weight.untyped_storage().nbytes():
        raise ValueError("no weight")
    return weight.detach().to(torch.float32, copy=True)


def convert_weights(weights: dict[str, Tensor], model: GCNNConfig) -> dict[str, Tensor]:
    """fairseq's weights by the names and in the layout of this project's model.

    Raises UsageError, naming them, for weights that are missing, left over or of another shape.
    """
    with torch.device("meta"):  # shapes alone
        expected = build_model(model, len(weights["decoder.embed_tokens.weight"])).state_dict()
    layers = {theirs: ours for theirs, ours in layer_names(model).items() if f"{ours}.bias" in expected}
    others = {
        "decoder.embed_tokens.weight": "encoder.embedding.weight",
        "decoder.adaptive_softmax.head.weight": "softmax.head.weight",
        **{n.replace("softmax.tails", "decoder.adaptive_softmax.tail"): n for n in expected if "softmax.tails" in n},
    }
    others = {theirs: ours for theirs, ours in others.items() if ours in expected}
    check_names(weights, list(layers), list(others), adaptive=bool(model.cutoffs))
    converted = {ours: weights[theirs] for theirs, ours in others.items()}
    for theirs, ours in layers.items():
        gain, direction = gain_and_direction(weights, theirs)
        converted[f"{ours}.bias"] = weights[f"{theirs}.bias"]
        converted[f"{ours}.parametrizations.weight.original0"] = gain
        converted[f"{ours}.parametrizations.weight.original1"] = direction
    for name, weight in expected.items():
        if converted[name].shape != weight.shape:
            raise UsageError(
                f"the weights do not fit the options: {name} is {tuple(converted[name].shape)} in the checkpoint "
                f"and {tuple(weight.shape)} by decoder_layers and adaptive_softmax_cutoff."
            )
    return {name: weight.contiguous() for name, weight in converted.items()}


def layer_names(model: GCNNConfig) -> dict[str, str]:
    """What the weight-normalised layers are called, there and here; a block need not have the projection."""
    names = {"decoder.fc1": "encoder.input_projection"}
    last = -1  # convolution
    blocks = [block for block in model.blocks for _ in range(block.repeat)]
    for i, block in enumerate(blocks):
        for j in range(len(block.convs)):
            last += 1
            names[f"decoder.convolutions.{last}"] = f"encoder.blocks.{i}.convs.{j}.conv"
        names[f"decoder.projections.{last}"] = f"encoder.blocks.{i}.projection"
    return {**names, "decoder.fc2": "softmax.layers.0", "decoder.fc3": "softmax.layers.2"}


def check_names(weights: dict[str, Tensor], layers: list[str], others: list[str], adaptive: bool) -> None:
    """Raise UsageError for weights that are missing or left over."""
    needed = {*others, *(f"{layer}.bias" for layer in layers)}
    for layer in layers:
        normalised = f"{layer}.weight" not in weights
        needed |= {f"{layer}.weight_g", f"{layer}.weight_v"} if normalised else {f"{layer}.weight"}
    if adaptive:
        needed.add("decoder.adaptive_softmax.version")  # without it clusters had other places in the head
    missing, surplus = sorted(needed - weights.keys()), sorted(weights.keys() - needed - {"decoder.version"})
    if missing or surplus:
        differences = [
            f"{verb} {listed(names)}" for verb, names in (("lacks", missing), ("also has", surplus)) if names
        ]
        raise UsageError(f"it {' and '.join(differences)}; that is no fconv_lm as its options describe it.")


def listed(names: list[str]) -> str:
    return ", ".join(names[:3] + ["..."] * (len(names) > 3))


def gain_and_direction(weights: dict[str, Tensor], layer: str) -> tuple[Tensor, Tensor]:
    """Weight normalisation's g (out, 1, ...) and v (out, in, ...) of a layer.

    fairseq's convolutions are (kernel_size, in, out). Old ones have a gain for each position of the kernel, and a
    shared or folded weight has none: both are written anew with a gain for each output, as the same weight.
    """
    if f"{layer}.weight" in weights:
        return normalise(transpose(weights[f"{layer}.weight"]))
    gain, direction = (transpose(weights[f"{layer}.{part}"]) for part in ("weight_g", "weight_v"))
    if direction.dim() == 3 and gain.shape == (1, 1, direction.size(2)):
        return normalise(direction * (gain / direction.norm(dim=(0, 1), keepdim=True)))
    return gain, direction


def transpose(weight: Tensor) -> Tensor:
    """A convolution's dimensions reversed; a linear layer as it is."""
    return weight.permute(2, 1, 0) if weight.dim() == 3 else weight


def normalise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The gain and direction of a weight (out, in, ...)."""
    if weight.dim() < 2:
        return weight, weight  # of no layer: the shapes are checked together
    gain = torch.linalg.vector_norm(weight.flatten(1), dim=1).view(-1, *[1] * (weight.dim() - 1))
    return gain, torch.where(gain > 0, weight, 1.0)  # a row of zeros has no direction
