"""Checkpoints of a run on disk: each is whole or absent, and known to be so.

A checkpoint is a folder `checkpoints/step_<n>/` of a run: the weights in safetensors, the training state as tensors
and plain values, and a manifest with the size and sha256 of both and of itself. Nothing in it is ever unpickled freely.
Beside them lie the best weights until then: a link, which takes no room, to what was the run's model.safetensors.
"""

import dataclasses
import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch

from gcnn.base.errors import RunError, UsageError, one_line
from gcnn.base.files import remove, sha256, write_atomically, write_json
from gcnn.base.text_files import check_no_pointer_at
from gcnn.config.schema import TrainConfig
from gcnn.data.stream import PreparedData
from gcnn.models.weights import WEIGHTS, load_weights, read_weights, write_weights
from gcnn.runs.directory import CHECKPOINTS

log = logging.getLogger(__name__)
STATE, MANIFEST, BEST = "state.pt", "manifest.json", "best.safetensors"


def link_or_copy(path: Path, to: Path) -> None:
    """The same file under another name, or a copy where the file system has no links."""
    try:
        to.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, to)


def write_state(state: dict[str, Any], path: Path) -> None:
    try:
        with path.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as error:  # how torch reports a full disk
        raise RunError(
            f"{path} could not be written: {one_line(error)}. Free some space and resume."
        ) from None


def manifest_digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def identity_of(config: TrainConfig, data: PreparedData) -> dict[str, Any]:
    """What a checkpoint must have in common with a run to be loaded there. Dropout may differ."""
    model = dataclasses.asdict(config.model)
    return {
        "model": {key: value for key, value in model.items() if "dropout" not in key},
        "tokenizer": data.tokenizer.fingerprint,
        "data": data.fingerprint,
        "optimizer": config.optimizer.kind,
    }


class Checkpoints:
    """The checkpoints of a run; `identity` tells what they belong to (model, tokenizer, data, optimizer)."""

    def __init__(self, run_dir: Path, identity: dict[str, Any], keep: int):
        self.folder, self.best = run_dir / CHECKPOINTS, run_dir / WEIGHTS
        self.identity, self.keep = identity, keep

    def path(self, step: int) -> Path:
        return self.folder / f"step_{step:09d}"

    def all(self) -> list[Path]:
        """The checkpoints, oldest first."""
        return sorted(self.folder.glob("step_*"))

    def save(self, step: int, weights: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Write a checkpoint, in the place of one of the same step, then remove those past the last `keep`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(step)

        def write(aside: Path) -> None:
            aside.mkdir()
            write_weights(weights, aside / WEIGHTS, self.identity["tokenizer"])
            write_state(state, aside / STATE)
            paths = (aside / WEIGHTS, aside / STATE)
            files = {
                path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in paths
            }
            manifest = {"step": step, "identity": self.identity, "files": files}
            write_json(aside / MANIFEST, {**manifest, "sha256": manifest_digest(manifest)})
            if self.best.exists():
                link_or_copy(self.best, aside / BEST)
            if path.exists():  # at the last moment: a folder can't be replaced in one go
                path.rename(path.with_name(f".{path.name}.replaced.tmp"))

        write_atomically(path, write)
        remove(path.with_name(f".{path.name}.replaced.tmp"))
        for old in self.all()[: -self.keep]:
            remove(old)

    def set_aside_newer(self, path: Path) -> tuple[Path, list[Path]] | None:
        """Move the checkpoints newer than `path` (all, where `path` is another run's) into a folder abandoned_<n>.

        Returns that folder and the paths that they had; None where there are none.
        """
        own = path.resolve().parent == self.folder.resolve()
        later = [checkpoint for checkpoint in self.all() if not own or checkpoint.name > path.name]
        if not later:
            return None
        numbers = [int(folder.name.partition("_")[2]) for folder in self.folder.glob("abandoned_*")]
        aside = self.folder / f"abandoned_{max(numbers, default=0) + 1}"
        aside.mkdir()
        for checkpoint in reversed(
            later
        ):  # the newest first: what is left at any moment is a run's beginning
            checkpoint.rename(aside / checkpoint.name)
        return aside, later

    def restore_best(self, path: Path) -> bool:
        """Make the run's model.safetensors the best weights of the time of a checkpoint.

        The present ones may come from steps that will be made again. Returns False, and leaves no
        model.safetensors, where the checkpoint does not have them whole.
        """
        best = path / BEST
        try:
            read_weights(best, self.identity["tokenizer"])
        except (RunError, UsageError):
            self.best.unlink(missing_ok=True)
            return False
        if not self.best.exists() or not best.samefile(self.best):
            write_atomically(self.best, lambda aside: link_or_copy(best, aside))
        return True

    def verify(self, path: Path) -> None:
        """Raise RunError where a checkpoint is not what was written, UsageError where it is another model's or has
        pointers of Git LFS."""
        for name in (MANIFEST, WEIGHTS, STATE):
            check_no_pointer_at(path / name)
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            if manifest.pop("sha256") != manifest_digest(manifest):
                raise ValueError("it is not what was written")
            identity = manifest["identity"]
            for file in (path / WEIGHTS, path / STATE):
                expected = manifest["files"][file.name]
                if not file.is_file():
                    raise RunError(f"checkpoint {path}: {file.name} is missing.")
                if file.stat().st_size != expected["bytes"] or sha256(file) != expected["sha256"]:
                    raise RunError(
                        f"checkpoint {path}: {file.name} is not what was written (truncated or corrupted)."
                    )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(
                f"checkpoint {path}: {MANIFEST} is missing or damaged ({one_line(error)})."
            ) from None
        for what, value in self.identity.items():
            if identity.get(what, value) != value:  # one that is not there is of an older version
                raise UsageError(
                    f"checkpoint {path} is of another {what}. Give its run's config, or resume=false."
                )

    def load(self, path: Path, model: torch.nn.Module) -> dict[str, Any]:
        """Load the weights into the model and return the training state. Raises RunError for a damaged checkpoint,
        UsageError for none or one of another model."""
        if not path.is_dir():
            raise UsageError(
                f"resume: {path} is no checkpoint. Give a folder checkpoints/step_<n> of a run."
            )
        self.verify(path)
        load_weights(model, path / WEIGHTS)
        try:
            return torch.load(path / STATE, map_location="cpu", weights_only=True)
        except Exception as error:  # torch names no class of errors for a hostile or damaged file
            raise RunError(
                f"checkpoint {path}: {STATE} does not load ({one_line(error)[:200]})."
            ) from None

    def load_newest(self, model: torch.nn.Module) -> tuple[Path, dict[str, Any]] | None:
        """The newest intact checkpoint, None where there is none; damaged ones are named, passed over and removed.
        Raises UsageError for a checkpoint of another model, RunError where all are damaged."""
        damaged = []
        for path in reversed(self.all()):
            try:
                state = self.load(path, model)
            except RunError as error:
                log.warning("%s Falling back to the checkpoint before it.", error)
                damaged.append(path)
                continue
            for bad in damaged:  # the run will come past these steps again
                remove(bad)
            return path, state
        if damaged:
            raise RunError(f"{self.folder}: no checkpoint is intact. Start again in a new run_dir.")
        return None
