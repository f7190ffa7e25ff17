"""Checks before a run starts: that its config fits data, processes, memory and folder."""

import datetime
import logging
from pathlib import Path

import numpy as np
import torch

from gcnn.base import torchrun
from gcnn.base.errors import UsageError
from gcnn.base.files import check_output
from gcnn.base.provenance import hardware
from gcnn.config.schema import TrainConfig, TrainerConfig
from gcnn.config.stored import load_config
from gcnn.data.stream import TokenStream
from gcnn.data.tokenizers import load_tokenizer
from gcnn.models.size import check_size
from gcnn.models.weights import WEIGHTS
from gcnn.runs.directory import (
    CHECKPOINTS,
    CONFIG,
    LOG,
    MEMBER,
    METRICS,
    RESULTS,
    TOKENIZER,
    check_run_name,
    checkpoints_of,
)
from gcnn.training.resume import differences

log = logging.getLogger(__name__)
MANY_UNKNOWN = 0.25  # of the training tokens; in the literature at most a tenth
COPIES = 3  # of the weights in training: the weights, their gradient, the optimizer's momentum


def check_processes(trainer: TrainerConfig, processes: int) -> None:
    """Raise UsageError unless trainer.batch_size is a multiple of the number of processes."""
    if trainer.batch_size % processes:
        size = f"trainer.batch_size is {trainer.batch_size}, over all processes"
        raise UsageError(
            f"{size}; give a multiple of their number, {processes}, "
            "or start another number of them."
        )


def check_against_data(
    config: TrainConfig, vocabulary_size: int, train_tokens: int, processes: int = 1
) -> None:
    """Raise UsageError if the config does not fit the corpus or the machine's main memory.

    Its cutoffs must be below vocabulary_size. In running text, the training split must fill a batch
    of blocks. Main memory must hold the least that one process can need (see `check_size`).
    train_tokens: the length of the training split. processes: their number, which
    `check_processes` has accepted.
    """
    trainer = config.trainer
    share = trainer.batch_size // processes  # sequences of a process
    at_once = min(share, trainer.micro_batch_size or share)  # sequences
    positions = min(at_once * trainer.block_size, train_tokens)  # tokens computed at once
    check_size(config.model, vocabulary_size, COPIES, positions)
    if config.data.sentences:
        return
    batch_size, block_size = trainer.batch_size, trainer.block_size
    if block_size > train_tokens:
        text = f"the training split has {train_tokens} tokens"
        raise UsageError(
            f"trainer.block_size is {block_size}, but {text}; give shorter blocks or more text."
        )
    if batch_size > train_tokens // block_size:
        sequences = f"{train_tokens // block_size} sequences of {block_size} tokens"
        raise UsageError(
            f"trainer.batch_size is {batch_size}, but the training split fills only {sequences}; "
            "lower it or trainer.block_size."
        )


def check_precision(config: TrainConfig, device: torch.device) -> None:
    """Raise UsageError for an LSTM in bf16 on a CPU that cannot train it.

    Everything else works in bf16 on any processor, if slowly.
    """
    lstm_in_bf16 = (
        config.model.kind == "lstm" and config.trainer.precision == "bf16" and device.type == "cpu"
    )
    if lstm_in_bf16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise UsageError(
            "trainer.precision: this processor trains no LSTM in bf16. "
            "Set trainer.precision=float32."
        )


def warn_of_threads(device: torch.device) -> None:
    """Log a warning if the run's processes on this machine have more threads than cores.

    Without torchrun there is one. Each is taken to have as many threads as torch has here: call it
    after torch.set_num_threads.
    The cores are those that this process may use. Does nothing if `device` is a GPU.
    """
    local = torchrun.local_world_size()
    threads, cores = torch.get_num_threads(), hardware()["cores"]
    if device.type == "cpu" and threads * local > cores:
        each = f" in each of {local} processes" if local > 1 else ""
        best = max(1, cores // local)
        log.warning("%d threads%s on %d cores is slow; set threads=%d.", threads, each, cores, best)


def warn_of_unknown(train: TokenStream) -> None:
    """Log a warning if more than MANY_UNKNOWN of a training text's tokens are unknown.

    As by a high tokenizer.min_count, or after init_from on text of another language. Tokens that
    are written <unk> in the text itself do not count.
    """
    if train.unk_id is None:
        return
    unknown = np.count_nonzero(train.tokens == train.unk_id) - train.written_unknown
    share = unknown / len(train)
    if share > MANY_UNKNOWN:
        log.warning(
            "%.0f %% of the training tokens are unknown to the tokenizer, whose vocabulary has %s "
            "types. Give it a larger vocabulary, or text that it knows.",
            100 * share,
            f"{train.vocabulary_size:,}",
        )


def choose_run_dir(config: TrainConfig) -> Path:
    """The absolute path of the run: `run_dir`, or runs/<experiment>/<time>. Makes no folder.

    Relative paths are from the current folder; the time is local. Raises UsageError as
    check_run_dir does.
    """
    now = f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
    run_dir = Path(config.run_dir or f"runs/{config.experiment}/{now}")
    check_run_dir(run_dir, config.resume)
    return run_dir.absolute()


def check_run_dir(run_dir: Path, resume: bool | str) -> None:
    """Raise UsageError if a run must not write into `run_dir`, which need not exist.

    resume: the config's. A run must not if the folder holds a run and `resume` is False, if its
    parent has config.yaml and train.log, if it holds other runs, weights, a tokenizer, checkpoints
    or results but no config, if a file is in its way, or if its path is not UTF-8.
    """
    if resume is False and (run_dir / CONFIG).exists():
        raise UsageError(
            f"run_dir {run_dir} already holds a run; "
            "go on with resume=true, or give another run_dir."
        )
    if all((run_dir.absolute().parent / name).exists() for name in (CONFIG, LOG)):
        raise UsageError(
            f"run_dir {run_dir} lies within a run; "
            "give that run's folder to go on, or another run_dir."
        )
    check_output("run_dir", run_dir, folder=True)
    check_run_name("run_dir", run_dir)
    others = sorted([*run_dir.glob(f"*/{CONFIG}"), *run_dir.glob(f"*/{MEMBER}")])
    if others and not (run_dir / CONFIG).exists():
        raise UsageError(
            f"run_dir {run_dir} holds other runs ({others[0].parent.name}); give a folder of its "
            "own."
        )
    names = (WEIGHTS, TOKENIZER, CHECKPOINTS, RESULTS)
    parts = [name for name in names if (run_dir / name).exists()]
    if parts and not (run_dir / CONFIG).exists():
        raise UsageError(
            f"run_dir {run_dir} holds {', '.join(parts)} and is no run; give another run_dir."
        )


def check_source(config: TrainConfig) -> Path:
    """The folder of the run that `init_from` names; `init_from` must be set.

    Raises UsageError as `load_config` does if it is no run or is damaged, and if its config has
    another model or tokenizer than `config`; dropout may differ. Its weights are not looked for.
    """
    source = Path(config.init_from)
    for key, theirs, ours in differences(load_config(source), config):
        if key.startswith(("model.", "tokenizer.")) and not key.endswith("dropout"):
            raise UsageError(
                f"init_from: {key} of {source} is {theirs}, not {ours}. "
                "Leave the model and the tokenizer out: they are those of that run."
            )
    return source


def check_nothing_is_lost(run_dir: Path, tokenizer: str) -> None:
    """Raise UsageError if resuming would overwrite a finished or imported model, or a tokenizer.

    For `resume=true`, which starts at step 0 in a folder without checkpoints. That is refused if
    the folder has results, weights, or another tokenizer than the data gives. Weights are allowed
    of a run that was stopped before its first checkpoint: it has metrics.jsonl and no folder of
    checkpoints. Nothing is checked if there is a checkpoint. Also raises as `load_tokenizer` does.
    tokenizer: the fingerprint of the tokenizer that the data gives.
    """
    if checkpoints_of(run_dir):
        return
    stopped_early = (run_dir / METRICS).exists() and not (run_dir / CHECKPOINTS).exists()
    if (run_dir / RESULTS).exists() or ((run_dir / WEIGHTS).exists() and not stopped_early):
        raise UsageError(
            f"run_dir {run_dir} holds a model, but no checkpoint to go on from; "
            "give another run_dir."
        )
    path = run_dir / TOKENIZER
    if path.exists() and load_tokenizer(path).fingerprint != tokenizer:
        raise UsageError(
            f"run_dir {run_dir} holds another tokenizer than this data gives; give another run_dir."
        )
