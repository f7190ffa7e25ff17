"""Weights on disk: safetensors, written whole or not at all, read without unpickling anything.

A file's metadata has the sha256 of its tensors and the fingerprint of the tokenizer whose ids the
model reads. Both are JSON in one entry: safetensors writes several entries in random order, and
equal weights are to give equal files.
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
    """Write a state dict as safetensors, atomically: the old file stays, or the new one is whole.

    tokenizer: the tokenizer's fingerprint, for the metadata, which also gets the sha256 of the
    tensors. Tensors may be on any device; no two may share memory. The folder must exist.
    Raises RunError if safetensors cannot write the file, as on a full disk; OSError for other
    failures.
    """
    write_atomically(path, lambda aside: write_weights(weights, aside, tokenizer))


def write_weights(weights: dict[str, Tensor], path: Path, tokenizer: str) -> None:
    """As `save_weights`, but not atomically: for a temporary path that the caller renames."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    try:
        # safetensors makes a file that the owner alone can read; this one follows the umask
        path.touch()
        mode = path.stat().st_mode
        metadata = {"sha256": digest(contiguous), "tokenizer": tokenizer}
        safetensors.torch.save_file(contiguous, path, {ENTRY: json.dumps(metadata)})
        path.chmod(mode)
    except safetensors.SafetensorError as error:  # how it reports a full disk
        raise RunError(
            f"{path} could not be written: {one_line(error)}. "
            "If the disk is full, free some space and resume."
        ) from None


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load a file written by `save_weights` into a model, in place.

    The tokenizer is not checked. Raises as `read_weights` and `assign_weights` do: UsageError if
    the file is absent, a pointer or of another model, RunError if it is damaged, OSError if it may
    not be opened.
    """
    assign_weights(model, read_weights(path), path)


def read_weights(path: Path, tokenizer: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file by their names, on the CPU, checked against the sha256 in its metadata.

    tokenizer: the fingerprint that the metadata must have; None: not checked.
    Raises UsageError if the file is absent, a pointer of Git LFS or git-annex, or of another
    tokenizer, or if its folder's path is not UTF-8; RunError if it is damaged or has no sha256;
    OSError if it may not be opened.
    """
    if not path.is_file():
        raise UsageError(
            f"{path.parent} holds no {path.name}: no model was saved yet. "
            "Train it, or give another run."
        )
    check_run_name("run", path.parent)
    check_no_pointer_at(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = metadata_of(file)
            names = file.keys()
            weights = {name: file.get_tensor(name) for name in names}
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
            f"{path} was trained with another tokenizer. "
            "Copy the tokenizer and the weights of one run."
        )
    return weights


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a weights file: `sha256`, of its tensors in hex, and `tokenizer`, the
    fingerprint.

    Call `read_weights` first, which checks the file; without a tokenizer it does not check that
    `tokenizer` is there. Here, errors are those of safetensors or json.
    """
    with safetensors.safe_open(path, "pt") as file:
        return metadata_of(file)


def metadata_of(file: safetensors.safe_open) -> dict[str, str]:
    """As `read_metadata`, of an open file; empty for a file without metadata.

    Raises ValueError for an entry that is not JSON, RecursionError for one that is nested too
    deeply, and does not check the entry further.
    """
    metadata = file.metadata() or {}
    if ENTRY in metadata:
        return json.loads(metadata[ENTRY])
    return metadata  # older files have an entry for each key


def digest(weights: dict[str, Tensor]) -> str:
    """The sha256, in hex, of contiguous tensors on the CPU with their names, types and shapes.

    It does not depend on the order of the dictionary.
    """
    hasher = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hasher.update(tensor.flatten().view(torch.uint8).numpy())
    return hasher.hexdigest()


def assign_weights(model: torch.nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Copy tensors into a model, in place; its dtype and device stay.

    path: the file that the tensors were read from, for the message.
    Raises UsageError unless their names and shapes are those of the model's state_dict.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    stored = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(expected | stored):
        if expected.get(name) != stored.get(name):
            raise UsageError(
                f"{path} is of another model: {name} is {stored.get(name, 'absent')} there and "
                f"{expected.get(name, 'absent')} in the config. "
                "Give the checkpoint and the config of one run."
            )
    model.load_state_dict(weights)
