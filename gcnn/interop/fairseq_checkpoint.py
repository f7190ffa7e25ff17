"""A fairseq checkpoint: read without running anything in it, and its weights renamed."""

import argparse
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gcnn.base.errors import UsageError
from gcnn.base.text_files import check_no_pointer_at
from gcnn.config.models import GCNNConfig
from gcnn.models.language_model import build_model

# Of the configuration in newer checkpoints; where two have an option, the later section counts.
SECTIONS = ("dataset", "optimization", "optimizer", "task", "model")


class Meter:
    """A stand-in for fairseq's counters of loss and time, which checkpoints before 0.9 contain."""


METERS = ("AverageMeter", "StopwatchMeter", "TimeMeter")
ALLOWED = [argparse.Namespace, *((Meter, f"fairseq.meters.{name}") for name in METERS)]


@dataclass
class Checkpoint:
    """What is used of a fairseq checkpoint."""

    weights: dict[str, Tensor]  # float32, by fairseq's names
    options: dict[str, Any]  # fairseq's, as options_of returns them
    updates: int  # made so far


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a fairseq checkpoint onto the CPU, without running anything in it.

    Besides what torch itself allows (tensors, containers), the file may hold argparse.Namespace and
    fairseq's meters; any other class is refused. `updates` is 0 if the file does not have it.
    Raises UsageError for a file that is missing, damaged, hostile, a pointer of Git LFS or no
    checkpoint of fairseq. Names and shapes of the weights are not checked.
    """
    try:
        check_no_pointer_at(path)
        with torch.serialization.safe_globals(ALLOWED), warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UsageError:  # of a pointer
        raise
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}). Give a checkpoint of fairseq."
        ) from None
    except Exception as error:  # torch names no class of errors for a hostile or damaged file
        reason = "it is no intact file of torch.save"
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            reason = f"it asks for {refused[1][:100]}"
        raise UsageError(
            f"{path} was not loaded: {reason}. Give an intact checkpoint of fairseq."
        ) from None
    try:
        history = content.get("optimizer_history") or [{}]
        weights = {str(name): float32(weight) for name, weight in content["model"].items()}
        return Checkpoint(weights, options_of(content), int(history[-1].get("num_updates", 0)))
    except (AttributeError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
        raise UsageError(
            f"{path} is no checkpoint of fairseq, with tensors in `model` and options in `args` or "
            "`cfg`. Give one of fairseq."
        ) from None


def options_of(content: dict[str, Any]) -> dict[str, Any]:
    """fairseq's options as one flat dictionary, from `args` or else from the sections of `cfg`.

    From `cfg`, the name of each of SECTIONS is an option too, with its choice (`optimizer: nag`) or
    None. If two sections have an option of the same name, that of the later section counts.
    content: a loaded checkpoint. If it is none of fairseq's, raises KeyError, AttributeError,
    RuntimeError, TypeError or ValueError, which load_checkpoint turns into a UsageError.
    """
    if content.get("args") is not None:
        return to_dict(content["args"])
    options = {}
    for name in SECTIONS:
        section = to_dict(content["cfg"].get(name) or {})
        options[name] = section.get("_name")
        options |= section
    return options


def to_dict(section: argparse.Namespace | dict[str, Any]) -> dict[str, Any]:
    return vars(section) if isinstance(section, argparse.Namespace) else dict(section)


def float32(weight: Tensor) -> Tensor:
    """A copy of a weight in float32.

    Raises ValueError for a tensor that is not a plain weight (sparse, nested, quantized, complex,
    not on the CPU), or whose shape asks for more memory than its storage has: a small file could
    fill the machine's memory. Raises AttributeError if `weight` is not a tensor, and RuntimeError
    for a type that torch cannot convert (bits8).
    """
    dense = weight.layout == torch.strided and weight.device.type == "cpu" and not weight.is_nested
    if not dense or weight.is_quantized or weight.is_complex():
        raise ValueError("no weight")
    if weight.nbytes > weight.untyped_storage().nbytes():
        raise ValueError("no weight")
    return weight.detach().to(torch.float32, copy=True)


def convert_weights(weights: dict[str, Tensor], model: GCNNConfig) -> dict[str, Tensor]:
    """fairseq's weights, by the names and in the layout of this project's model.

    Tensors may share memory with those of `weights`, which stay as they are.
    weights: by fairseq's names; the embedding's must be among them. model: the config that
    fairseq's options describe (`model_config`). Raises UsageError, naming them, for weights that
    are missing, left over or of another shape; also if the cutoffs do not fit the embedding's types
    or the model has too many layers for the machine's memory.
    """
    with torch.device("meta"):  # shapes alone
        expected = build_model(model, len(weights["decoder.embed_tokens.weight"])).state_dict()

    # (1) fairseq's name of each weight here
    layers = layer_names(model)
    parts = {"original0": "weight_g", "original1": "weight_v"}  # of weight normalisation
    fairseq_names = {}  # name here -> fairseq's name
    normalised = []  # fairseq's names of weights with weight normalisation, as decoder.fc1.weight
    for name in expected:
        # encoder.input_projection.parametrizations.weight.original0 -> decoder.fc1.weight_g
        layer, _, part = name.replace(".parametrizations.weight", "").rpartition(".")
        fairseq_names[name] = f"{layers[layer]}.{parts.get(part, part)}"
        if part == "original0":
            normalised.append(f"{layers[layer]}.weight")

    # (2) Its weights in the layout here, with gain and direction apart; all that are needed
    weights = split_weights(weights, normalised)
    needed = set(fairseq_names.values())
    if model.cutoffs:
        # Before this version, the clusters had other places in the head.
        needed.add("decoder.adaptive_softmax.version")
    check_names(weights, needed)

    # (3) The weights by the names here
    converted = {}
    for name, weight in expected.items():
        found = weights[fairseq_names[name]]
        if found.shape != weight.shape:
            raise UsageError(
                f"the weights do not fit the options: {name} is {tuple(found.shape)} in the "
                f"checkpoint and {tuple(weight.shape)} by decoder_layers and "
                "adaptive_softmax_cutoff."
            )
        converted[name] = found.contiguous()
    return converted


def layer_names(model: GCNNConfig) -> dict[str, str]:
    """This project's name -> fairseq's name, for each layer that a model of this config may have.

    Names are of layers, not of their weights, as `encoder.blocks.0.projection`. Not every model has
    all: projections depend on channels, and there are names for both softmaxes.
    """
    names = {"encoder.embedding": "decoder.embed_tokens", "encoder.input_projection": "decoder.fc1"}
    blocks = []
    for block in model.blocks:
        blocks += [block] * block.repeat
    convolutions = 0  # so far; fairseq counts them through all blocks
    for i, block in enumerate(blocks):
        for j in range(len(block.convs)):
            names[f"encoder.blocks.{i}.convs.{j}.conv"] = f"decoder.convolutions.{convolutions}"
            convolutions += 1
        names[f"encoder.blocks.{i}.projection"] = f"decoder.projections.{convolutions - 1}"
    for i in range(len(model.cutoffs)):
        for j in (0, 2):  # dropout is between the two layers
            names[f"softmax.tails.{i}.{j}"] = f"decoder.adaptive_softmax.tail.{i}.{j}"
    names["softmax.head"] = "decoder.adaptive_softmax.head"
    names["softmax.layers.0"] = "decoder.fc2"
    names["softmax.layers.2"] = "decoder.fc3"
    return names


def check_names(names: Iterable[str], needed: set[str]) -> None:
    """Raise UsageError if the names found in a checkpoint are not exactly those that are needed.

    The message has up to three that are missing and three that are left over. `decoder.version`,
    which is no weight, is allowed.
    """
    found = set(names)
    missing = sorted(needed - found)
    surplus = sorted(found - needed - {"decoder.version"})
    differences = []
    for verb, weights in (("lacks", missing), ("also has", surplus)):
        if weights:
            more = ["..."] if len(weights) > 3 else []
            differences.append(f"{verb} {', '.join(weights[:3] + more)}")
    if differences:
        raise UsageError(
            f"it {' and '.join(differences)}; that is no fconv_lm as its options describe it."
        )


def split_weights(weights: dict[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """A checkpoint's weights in the layout of this project, in a new dictionary.

    All convolutions (tensors of three dimensions) change from (kernel_size, in, out) to (out, in,
    kernel_size). Tensors that need no new values share the memory of the old ones.
    names: fairseq's names of weights that are to have weight normalisation, as decoder.fc2.weight.
    NAME becomes its gain NAME_g, (out, 1, ...), and its direction NAME_v, (out, in, ...), which
    give the same weight. A gain for each position of the kernel becomes one for each output. A
    weight stays as it is if it is missing or a vector, or has a gain for each output already.
    """
    split = {}
    for name, weight in weights.items():
        split[name] = weight.permute(2, 1, 0) if weight.dim() == 3 else weight
    for name in names:
        gain_name = f"{name}_g"
        direction_name = f"{name}_v"
        gain = split.get(gain_name)
        direction = split.get(direction_name)
        if gain is None and direction is None and name in split and split[name].dim() > 1:
            # Stored whole: the output layer is the embedding, or normalisation was folded into it
            split[gain_name], split[direction_name] = gain_and_direction(split.pop(name))
        elif has_gain_for_each_position(gain, direction):
            weight = direction * (gain / direction.norm(dim=(0, 1), keepdim=True))
            split[gain_name], split[direction_name] = gain_and_direction(weight)
    return split


def gain_and_direction(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The weight normalisation that gives a weight: its gain and its direction, both new tensors.

    weight: (out, in, ...). The gain has the shape (out, 1, ...), the direction that of the weight.
    """
    ones = [1] * (weight.dim() - 1)
    norm = torch.linalg.vector_norm(weight.flatten(1), dim=1).view(-1, *ones)
    # A row of zeros has no direction: any will do, with a gain of 0.
    return norm, torch.where(norm > 0, weight, 1.0)


def has_gain_for_each_position(gain: Tensor | None, direction: Tensor | None) -> bool:
    """Whether a convolution's weight normalisation has a gain for each position of the kernel.

    Old checkpoints have this, (1, 1, kernel_size), instead of a gain for each output.
    direction: (out, in, kernel_size). False if either is None.
    """
    if gain is None or direction is None or direction.dim() != 3:
        return False
    return gain.shape == (1, 1, direction.size(2))
