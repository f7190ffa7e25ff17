"""A trained model out of its run directory, ready for inference."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import torch

from gcnn.base.errors import UsageError
from gcnn.config.schema import TrainConfig
from gcnn.config.stored import load_config
from gcnn.data.tokenizers import Tokenizer, load_tokenizer
from gcnn.models.language_model import LanguageModel, build_model
from gcnn.models.layers import fold_weight_norm
from gcnn.models.weights import WEIGHTS, assign_weights, read_metadata, read_weights
from gcnn.runs.directory import RESULTS, TOKENIZER, checkpoints_of


@dataclass
class LoadedRun:
    """A trained model with what belongs to it."""

    model: LanguageModel  # in evaluation mode, weight normalisation folded, without gradients
    tokenizer: Tokenizer
    config: TrainConfig
    weights_sha256: str  # of its tensors, as the file's metadata says


def load_model(run_dir: str | Path, device: str = "auto") -> LoadedRun:
    """Load the best model of a run directory (by validation) onto a device; see LoadedRun.

    device: as in `choose_device`, which also switches off TF32 for the process. Draws from torch's
    random state.
    Raises UsageError if the folder is no run, has no model yet, a damaged config or tokenizer, or
    parts of different runs, for a model that needs more than the machine's memory, and for a device
    that is not there; RunError if the weights are damaged, OSError if they may not be read.
    """
    run_dir = Path(run_dir)
    where = choose_device(device)
    config = load_config(run_dir)
    tokenizer = load_tokenizer(run_dir / TOKENIZER)
    if not (run_dir / WEIGHTS).exists():
        check_no_checkpoint(run_dir)
    weights = read_weights(run_dir / WEIGHTS, tokenizer.fingerprint)
    begins = before_text(config, tokenizer.eos_id)
    model = build_model(config.model, tokenizer.vocabulary_size, begins)
    assign_weights(model, weights, run_dir / WEIGHTS)
    fold_weight_norm(model)
    model = model.to(where).eval().requires_grad_(False)
    return LoadedRun(model, tokenizer, config, read_metadata(run_dir / WEIGHTS)["sha256"])


def check_no_checkpoint(run_dir: Path) -> None:
    """Raise UsageError for an unfinished run with checkpoints but no best model, saying how to
    resume it or use a checkpoint.

    Call it for a run directory without model.safetensors. Does nothing if the run is finished or
    has no checkpoint.
    """
    if (run_dir / RESULTS).exists():
        return
    checkpoints = checkpoints_of(run_dir)
    if checkpoints:
        copy = shlex.join(["cp", str(checkpoints[-1] / WEIGHTS), str(run_dir)])
        resume = shlex.join([f"run_dir={run_dir}", "resume=true"])
        raise UsageError(
            f"{run_dir} has no {WEIGHTS} yet: it stopped before its first validation, "
            f"which chooses the best. Go on with it (gcnn train {resume}), "
            f"or take the weights of its newest checkpoint ({copy})."
        )


def before_text(config: TrainConfig, eos_id: int) -> int | None:
    """The id that stands before a text, repeated without end; None: zeros. For build_model.

    None if the model saw zeros before each block or sentence in training. With
    `trainer.carry_state` it saw them only at the start of an epoch and has not learned what follows
    them: then it is eos_id.
    """
    return eos_id if config.trainer.carry_state else None


def choose_device(name: str) -> torch.device:
    """The device of a name: auto (a GPU if there is one), cpu, cuda, or one of several GPUs, as
    cuda:1.

    Side effect: switches off TF32, which rounds products to 10 bits, for the whole process. Raises
    UsageError for other names, and if the machine has no such device.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    gpu = re.fullmatch(r"cuda(?::(0|[1-9][0-9]*))?", str(name))
    if gpu is None and name not in ("auto", "cpu"):
        raise UsageError(f"device is {name!r}; choose one of: auto, cpu, cuda.")
    numbered = gpu is not None and gpu[1] is not None
    missing = gpu is not None and not torch.cuda.is_available()
    if missing or (numbered and int(gpu[1]) >= torch.cuda.device_count()):
        raise UsageError(
            f"device is {name}, but torch sees no such device here; choose cpu or auto."
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
