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

    `tokenizer` is the fingerprint of the tokenizer. Raises RunError where it cannot be written.
    """
    write_atomically(path, lambda aside: write_weights(weights, aside, tokenizer))


def write_weights(weights: dict[str, Tensor], path: Path, tokenizer: str) -> None:
    """As `save_weights`, but not atomically: for a path aside that is renamed afterwards."""
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
    """Load safetensors into a model, in place.

    Raises UsageError where the file is absent or holds the weights of another model, RunError where
    it is damaged.
    """
    assign_weights(model, read_weights(path), path)


def read_weights(path: Path, tokenizer: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file by their names, on the CPU, checked against the sha256 in its metadata.

    Raises UsageError where it is absent, a pointer of Git LFS, or belongs to another tokenizer than
    the fingerprint `tokenizer` (None: any will do); RunError where it is damaged.
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
    """The keys `sha256` and `tokenizer` of a weights file's metadata; older files may lack them.

    The file is to be intact, as after `read_weights`: errors are those of safetensors.
    """
    with safetensors.safe_open(path, "pt") as file:
        return metadata_of(file)


def metadata_of(file: safetensors.safe_open) -> dict[str, str]:
    """As `read_metadata`, of an opened file. Raises ValueError for an entry that is not JSON."""
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
    """Copy tensors into a model, in place. Raises UsageError where they are those of another model.

    Names and shapes must be those of the model's state_dict; dtype and device stay the model's.
    `path` is the file that the tensors were read from, for the message.
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
