"""Checkpoints of a run on disk: written whole or not at all, and verified before they are loaded.

A checkpoint is a folder `checkpoints/step_<n>/` of a run. It has the weights in safetensors, the
training state as tensors and plain values (loaded with `weights_only`), and a manifest with the
size and sha256 of both and of itself. Beside them lie the best weights until then: a hard link,
which takes no room, to what the run's model.safetensors was.
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
from gcnn.runs.directory import CHECKPOINTS, checkpoints_of

log = logging.getLogger(__name__)
STATE, MANIFEST, BEST = "state.pt", "manifest.json", "best.safetensors"


def link_or_copy(path: Path, to: Path) -> None:
    """Make `to`, which must not exist, a hard link to `path`; a copy if links are impossible."""
    try:
        to.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, to)


def write_state(state: dict[str, Any], path: Path) -> None:
    """Write a training state by torch.save; not atomically. An existing file is replaced.

    state: tensors and plain values only, which `Checkpoints.load` can read.
    Raises RunError or OSError if the disk is full, as torch or the file reports it, and OSError if
    the file cannot be opened.
    """
    try:
        with path.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as error:  # how torch reports a full disk
        raise RunError(
            f"{path} could not be written: {one_line(error)}. "
            "If the disk is full, free some space and resume."
        ) from None


def manifest_digest(manifest: dict[str, Any]) -> str:
    """The sha256, in hex, of a manifest; the caller has left out its entry `sha256`."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def identity_of(config: TrainConfig, data: PreparedData) -> dict[str, Any]:
    """What a checkpoint must have in common with a run to be loaded there, as plain values.

    The keys: `model` (its config as a dictionary, without the keys of dropout, which may differ),
    `tokenizer` and `data` (their fingerprints) and `optimizer` (its kind).
    """
    model = dataclasses.asdict(config.model)
    return {
        "model": {key: value for key, value in model.items() if "dropout" not in key},
        "tokenizer": data.tokenizer.fingerprint,
        "data": data.fingerprint,
        "optimizer": config.optimizer.kind,
    }


class Checkpoints:
    """The checkpoints of a run; the `keep` of them with the highest steps are kept.

    identity: as `identity_of` returns it. keep: 1 or more. Of several processes, only rank 0 may
    call methods that write or remove files. Creating an object writes nothing.
    """

    def __init__(self, run_dir: Path, identity: dict[str, Any], keep: int):
        self.run_dir = run_dir
        self.folder = run_dir / CHECKPOINTS
        self.best = run_dir / WEIGHTS  # of the run, not of a checkpoint
        self.identity = identity
        self.keep = keep

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.folder / f"step_{step:09d}"

    def all(self) -> list[Path]:
        """The checkpoints' folders, lowest step first; empty if there are none."""
        return checkpoints_of(self.run_dir)

    def save(self, step: int, weights: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Write a checkpoint, then remove those of the lowest steps until `keep` are left.

        weights: the model's state_dict. state: what Trainer.state_dict returns.
        The checkpoint is a folder with model.safetensors, state.pt, manifest.json and, if the run
        has best weights, best.safetensors: a hard link to them, or a copy. One of the same step is
        replaced. Raises RunError or OSError if the disk is full; checkpoints of other steps are
        intact then.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(step)
        replaced = path.with_name(f".{path.name}.replaced.tmp")  # one of the same step

        def write(aside: Path) -> None:
            """Write the checkpoint at a temporary path, and move an old one out of its way."""
            self.write_files(aside, step, weights, state)
            if path.exists():  # as late as possible: a folder can't be replaced atomically
                path.rename(replaced)

        write_atomically(path, write)
        remove(replaced)
        for old in self.all()[: -self.keep]:
            remove(old)

    def write_files(
        self, folder: Path, step: int, weights: dict[str, torch.Tensor], state: dict[str, Any]
    ) -> None:
        """Make `folder`, a new one, with the files of a checkpoint, as `save` describes them."""
        folder.mkdir()
        write_weights(weights, folder / WEIGHTS, self.identity["tokenizer"])
        write_state(state, folder / STATE)
        files = {}
        for file in (folder / WEIGHTS, folder / STATE):
            files[file.name] = {"bytes": file.stat().st_size, "sha256": sha256(file)}
        manifest = {"step": step, "identity": self.identity, "files": files}
        write_json(folder / MANIFEST, {**manifest, "sha256": manifest_digest(manifest)})
        if self.best.exists():
            link_or_copy(self.best, folder / BEST)

    def set_aside_newer(self, path: Path) -> tuple[Path, list[Path]] | None:
        """Move checkpoints of later steps than `path` to a new folder checkpoints/abandoned_<n>.

        path: a checkpoint, or a link to one. If it is none of `all` (another run's, or set aside
        before), all of them are moved.
        n: one more than the highest there, from 1; a name without a number does not count.
        Returns that folder and the paths that they had, lowest step first; None if there are none
        to move.
        """
        later = self.all()
        places = [checkpoint.resolve() for checkpoint in later]
        if path.resolve() in places:
            later = later[places.index(path.resolve()) + 1 :]
        if not later:
            return None
        highest = 0
        for folder in self.folder.glob("abandoned_*"):
            number = folder.name.removeprefix("abandoned_")
            if number.isdecimal():  # not one that the user has renamed
                highest = max(highest, int(number))
        aside = self.folder / f"abandoned_{highest + 1}"
        aside.mkdir()
        # The newest first: if this is interrupted, the ones that are left are without a gap
        for checkpoint in reversed(later):
            checkpoint.rename(aside / checkpoint.name)
        return aside, later

    def restore_or_remove_best(self, path: Path) -> bool:
        """Replace the run's model.safetensors by the best weights of a checkpoint; returns True.

        The present ones may come from later steps, which will be made again.
        path: the checkpoint. If its best weights are missing, damaged, a pointer of Git LFS or of
        another tokenizer, the run's model.safetensors is removed and False returned. Raises OSError
        if a file cannot be opened or written.
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
        """Check weights and state of a checkpoint against its manifest, and the run's identity.

        path: the checkpoint's folder; in one that does not exist, files are missing.
        Reads both files whole. The best weights are left to `restore_or_remove_best`. Raises
        RunError if a file is missing or damaged, UsageError if the identity is another or a file is
        a pointer of Git LFS or git-annex, and OSError if one cannot be read. Parts of the
        identity that the manifest lacks are not compared.
        """
        for name in (MANIFEST, WEIGHTS, STATE):
            check_no_pointer_at(path / name)
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            if manifest.pop("sha256") != manifest_digest(manifest):
                raise ValueError("it is not what was written")
            identity = dict(manifest["identity"])  # an error for what is no mapping
            expected = {}
            for name in (WEIGHTS, STATE):
                entry = manifest["files"][name]
                expected[name] = entry["bytes"], entry["sha256"]
        except (
            FileNotFoundError, IsADirectoryError, ValueError, KeyError, TypeError, AttributeError,
            RecursionError,
        ) as error:  # fmt: skip
            raise RunError(
                f"checkpoint {path}: {MANIFEST} is missing or damaged ({one_line(error)})."
            ) from None
        for name, (size, digest) in expected.items():
            file = path / name
            if not file.is_file():
                raise RunError(f"checkpoint {path}: {name} is missing.")
            if file.stat().st_size != size or sha256(file) != digest:
                raise RunError(
                    f"checkpoint {path}: {name} is not what was written (truncated or corrupted)."
                )
        for what, value in self.identity.items():
            if identity.get(what, value) != value:  # older versions lack some parts
                remedy = "Give its run's config, or train a new run in another run_dir."
                if what == "data":
                    remedy = (
                        "The text is not the one that it was trained on: restore that, or train a "
                        "new run in another run_dir."
                    )
                raise UsageError(f"checkpoint {path} is of another {what}. {remedy}")

    def load(self, path: Path, model: torch.nn.Module) -> dict[str, Any]:
        """Verify a checkpoint, load its weights into `model`, return its training state on the CPU.

        The state is what was given to `save`. Raises as `verify` does; UsageError if `path` is no
        checkpoint (but a run's folder, say) or its weights are of another model; RunError if its
        weights are damaged or its training state does not load: only in this last case the model
        has changed.
        """
        is_named_so = path.name.startswith("step_")  # else it is damaged if the manifest is missing
        if not path.is_dir() or not (is_named_so or (path / MANIFEST).exists()):
            raise UsageError(
                f"resume: {path} is no checkpoint. Give a folder checkpoints/step_<n> of a run, or "
                "go on at a run's newest one with run_dir=RUN resume=true."
            )
        self.verify(path)
        load_weights(model, path / WEIGHTS)
        try:
            return torch.load(path / STATE, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises errors of any class for a damaged file
            raise RunError(
                f"checkpoint {path}: {STATE} does not load ({one_line(error)[:200]})."
            ) from None

    def load_newest(self, model: torch.nn.Module) -> tuple[Path, dict[str, Any]] | None:
        """Load the newest intact checkpoint into `model`; returns its path and its training state.

        None if there are no checkpoints. A checkpoint for which `load` raises RunError is damaged:
        a warning is logged, and it is removed once an older one is loaded. Raises RunError if all
        are damaged, and any other error of `load` without trying older ones; nothing is removed
        then.
        """
        damaged = []
        for path in reversed(self.all()):
            try:
                state = self.load(path, model)
            except RunError as error:
                log.warning("%s Falling back to the checkpoint before it.", error)
                damaged.append(path)
                continue
            for bad in damaged:  # the run will make these steps again
                remove(bad)
            return path, state
        if damaged:
            raise RunError(f"{self.folder}: no checkpoint is intact. Start again in a new run_dir.")
        return None
