"""Weights on disk: safetensors, written whole or not at all, read without unpickling anything.

A file's metadata says the sha256 of its tensors and the fingerprint of the tokenizer that its ids
belong to. They are JSON in one entry, for safetensors writes several in random order, and equal
weights are to be equal files.
"""

import hashlib
import json
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from gcnn.base.errors import RunError, UsageError, one_line
from gcnn.base.files import write_atomically
from gcnn.base.text_files import check_no_pointer_at
from gcnn.runs.directory import check_run_name

WEIGHTS = "model.safetensors"  # in a run directory or a checkpoint
ENTRY = "gcnn"  # of the metadata


def save_weights(weights: dict[str, Tensor], path: Path, tokenizer: str) -> None:
    """Write a state dict as safetensors, atomically; `tokenizer` is the fingerprint of the tokenizer."""
    write_atomically(path, lambda aside: write_weights(weights, aside, tokenizer))


def write_weights(weights: dict[str, Tensor], path: Path, tokenizer: str) -> None:
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    try:
        path.touch()
        mode = path.stat().st_mode  # that of the umask; safetensors writes for the owner alone
        metadata = {"sha256": digest(contiguous), "tokenizer": tokenizer}
        safetensors.torch.save_file(contiguous, path, {ENTRY: json.dumps(metadata)})
        path.chmod(mode)
    except safetensors.SafetensorError as error:  # how it reports a full disk
        raise RunError(
            f"{path} could not be written: {one_line(error)}. Free some space and resume."
        ) from None


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load safetensors into a model.

    Raises UsageError where the file is absent or holds another model, RunError where it is damaged.
    """
    assign_weights(model, read_weights(path), path)


def read_weights(path: Path, tokenizer: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU.

    Raises UsageError where it is absent, a pointer of Git LFS or of another `tokenizer` (its fingerprint), RunError
    where it is damaged.
    """
    if not path.is_file():
        raise UsageError(
            f"{path.parent} holds no {path.name}: no model was saved yet. Train it, or give another run."
        )
    check_run_name("run", path.parent)
    check_no_pointer_at(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = metadata_of(file)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        if metadata.get("sha256") != digest(weights):
            raise ValueError("its tensors are not those that were written")
    except (
        safetensors.SafetensorError,
        OSError,
        ValueError,
        AttributeError,
        RecursionError,
    ) as error:
        raise RunError(
            f"{path} is damaged ({one_line(error)}). Use another checkpoint or train again."
        ) from None
    if tokenizer is not None and metadata.get("tokenizer") != tokenizer:
        raise UsageError(
            f"{path} was trained with another tokenizer. Copy the tokenizer and the weights of one run."
        )
    return weights


def read_metadata(path: Path) -> dict[str, str]:
    """The sha256 and the tokenizer that an intact file of weights says."""
    with safetensors.safe_open(path, "pt") as file:
        return metadata_of(file)


def metadata_of(file: safetensors.safe_open) -> dict[str, str]:
    """The sha256 and the tokenizer, where an opened file says them. Raises ValueError for an entry that is no JSON."""
    metadata = file.metadata() or {}
    return (
        json.loads(metadata[ENTRY]) if ENTRY in metadata else metadata
    )  # older files have an entry for each


def digest(weights: dict[str, Tensor]) -> str:
    """sha256 of tensors on the CPU, their names, types and shapes."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hasher.update(tensor.flatten().view(torch.uint8).numpy())
    return hasher.hexdigest()


def assign_weights(model: torch.nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Copy tensors, read from `path`, into a model. Raises UsageError where they are another model's."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    stored = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(expected | stored):
        if expected.get(name) != stored.get(name):
            raise UsageError(
                f"{path} is of another model: {name} is {stored.get(name, 'absent')} there and "
                f"{expected.get(name, 'absent')} in the config. Give the checkpoint and the config of one run."
            )
    model.load_state_dict(weights)
