"""A training run from its config to its results: the run directory, the model, training, evaluation."""

import contextlib
import ctypes
import dataclasses
import datetime
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from gcnn.base import torchrun
from gcnn.base.errors import UsageError
from gcnn.base.files import check_output, remove, write_atomically, write_json
from gcnn.base.provenance import git_commit, hardware, made_with, peak_memory_bytes
from gcnn.base.run_directory import check_run_name, lock_or_owner, refuse_links_out, write_owner
from gcnn.config.schema import TrainConfig
from gcnn.config.stored import load_config, save_config
from gcnn.data.stream import PreparedData, prepare
from gcnn.data.tokenizers import load_tokenizer
from gcnn.evaluation.perplexity import evaluate, type_counts, unigram_perplexity
from gcnn.evaluation.run import before_text, choose_device
from gcnn.models.language_model import LanguageModel, build_model
from gcnn.models.weights import WEIGHTS, assign_weights, load_weights, read_weights
from gcnn.training.distributed import first_of_each_machine, from_rank_0, process_group, rank, world_size
from gcnn.training.metrics import check_logger
from gcnn.training.preflight import check_against_data, check_processes
from gcnn.training.restore import restore
from gcnn.training.resume import differences
from gcnn.training.trainer import Trainer

log = logging.getLogger(__name__)


def train(
    config: TrainConfig, notes: Sequence[str] = (), fit_cutoffs: bool = False
) -> tuple[Path, dict[str, Any] | None]:
    """Train, evaluate and write a run directory; returns it and its results, the latter on torchrun's rank 0 alone.
    `notes` are lines for its log: what is changed of a run that goes on. With `fit_cutoffs` those past the
    vocabulary of a small text are left out, which a line says; else they are refused. Raises UsageError
    before anything is written where the config does not fit the machine or the data."""
    with process_group():
        return train_in_group(config, notes, fit_cutoffs)


def train_in_group(config: TrainConfig, notes: Sequence[str], fit_cutoffs: bool) -> tuple[Path, dict[str, Any] | None]:
    commit = git_commit()  # of the code that was loaded: a checkout may change while it runs
    reuse_large_blocks()
    device = choose_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    check_processes(config.trainer, world_size())
    check_precision(config, device)
    check_logger(config.logger.kind)
    warn_of_threads(device)
    run_dir = from_rank_0(choose_run_dir(config))
    source = None  # the run whose tokenizer this one has
    if config.init_from is not None:
        begun = config.resume is not False and any((run_dir / "checkpoints").glob("step_*"))
        source = run_dir if begun else check_source(config)
    with first_of_each_machine():
        data = prepare(config.data, config.tokenizer, source and source / "tokenizer")
    if fit_cutoffs:
        config, notes = with_fitting_cutoffs(config, data.tokenizer.vocabulary_size, notes)
    check_against_data(config, data.tokenizer.vocabulary_size, len(data.streams["train"]), world_size())
    torch.manual_seed(config.seed)
    begins = before_text(config, data.tokenizer.eos_id)
    model = build_model(config.model, data.tokenizer.vocabulary_size, begins)
    if source not in (None, run_dir):
        assign_weights(model, read_weights(source / WEIGHTS, data.tokenizer.fingerprint), source / WEIGHTS)
    model.to(device)
    if world_size() > 1:
        torch.manual_seed(config.seed + rank())  # each its own dropout
    if config.resume is True:
        check_nothing_is_lost(run_dir, data.tokenizer.fingerprint)
    run_dir.mkdir(parents=True, exist_ok=True)
    refuse_links_out(run_dir)
    config = dataclasses.replace(config, run_dir=str(run_dir))
    with run_directory(run_dir) if rank() == 0 else contextlib.nullcontext():
        trainer = Trainer(config, model, data, run_dir, device)

        def write_config(resume: bool | str) -> None:
            if rank() == 0:
                kept = dataclasses.replace(config, resume=resume)  # a path while it turns back, see resumed_config
                write_atomically(run_dir / "config.yaml", lambda aside: save_config(kept, aside))

        if config.resume is not False:
            at = config.resume if isinstance(config.resume, str) else False
            restore(trainer, Path(at) if at else None, lambda: write_config(at))
        write_config(False)
        if rank() > 0:
            trainer.run()
            return run_dir, None
        if not (run_dir / "tokenizer").exists():
            write_atomically(run_dir / "tokenizer", data.tokenizer.save)
        for note in notes:
            log.info("%s", note)
        steps = steps_of(trainer)
        warn_of_short_run(config, steps)
        if not trainer.finished():
            (run_dir / "results.json").unlink(missing_ok=True)  # of a run that was finished and is extended
        describe = f"{model.parameter_counts()['total']:,} parameters, {len(data.streams['train']):,} training tokens"
        log.info("%s: %s, %s, in %s", config.experiment, describe, device, run_dir)
        trainer.run()
        if steps == math.inf:  # minutes ended it
            warn_of_short_run(config, trainer.progress.step)
        load_weights(model, run_dir / WEIGHTS)  # the best on validation
        results = {**measure(config, model, data, trainer), "git_commit": commit}
        write_json(run_dir / "results.json", results)
        trainer.metrics.summarize(results)
    return run_dir, results


@contextlib.contextmanager
def run_directory(run_dir: Path) -> Iterator[None]:
    """Hold a run directory, log into it, and clear what a process left that was killed while it wrote. However the run
    ends, that of Weights & Biases ends with it: a sweep's next member begins another. Raises UsageError where another
    process holds it."""
    with (run_dir / ".lock").open("a+") as lock:
        if (owner := lock_or_owner(lock)) is not None:
            who = "process {process} on {host}".format_map(owner) if owner else "another process"
            raise UsageError(f"run_dir {run_dir} is in use by {who}; wait for it or give another run_dir.")
        write_owner(lock)
        for unfinished in run_dir.rglob(".*.tmp"):
            remove(unfinished)
        with log_file(run_dir / "train.log"):
            try:
                yield
            finally:
                if "wandb" in sys.modules and sys.modules["wandb"].run is not None:
                    sys.modules["wandb"].finish()


def check_precision(config: TrainConfig, device: torch.device) -> None:
    """Raises UsageError where the processor lacks what torch's LSTM needs; it computes all else in bf16, if slowly."""
    lstm_in_bf16 = config.model.kind == "lstm" and config.trainer.precision == "bf16" and device.type == "cpu"
    if lstm_in_bf16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise UsageError("trainer.precision: this processor trains no LSTM in bf16. Set trainer.precision=float32.")


def warn_of_threads(device: torch.device) -> None:
    """Say where this machine's processes have more threads together than it has cores: they wait for one another."""
    local = torchrun.local_world_size()
    threads, cores = torch.get_num_threads(), hardware()["cores"]
    if device.type == "cpu" and threads * local > cores:
        each = f" in each of {local} processes" if local > 1 else ""
        log.warning("%d threads%s on %d cores is slow; set threads=%d.", threads, each, cores, max(1, cores // local))


def with_fitting_cutoffs(
    config: TrainConfig, vocabulary_size: int, notes: Sequence[str]
) -> tuple[TrainConfig, Sequence[str]]:
    """The config without cutoffs past the vocabulary, and the notes with a line that says so."""
    cutoffs = config.model.cutoffs
    fitting = [cutoff for cutoff in cutoffs if cutoff < vocabulary_size]
    if fitting == cutoffs:
        return config, notes
    note = f"model.cutoffs are {fitting}, not {cutoffs}: the vocabulary has {vocabulary_size:,} types."
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, cutoffs=fitting))
    return config, [*notes, note]


def steps_of(trainer: Trainer) -> float:
    """The steps after which a run ends; infinity where its minutes alone are bounded."""
    bounds, batches = trainer.config.trainer, len(trainer.batches)
    tokens_per_step = len(trainer.data.streams["train"]) / batches
    return min(
        bounds.max_steps or math.inf,
        (bounds.max_epochs or math.inf) * batches,
        (trainer.max_tokens or math.inf) / tokens_per_step,
    )


def warn_of_short_run(config: TrainConfig, steps: float) -> None:
    """Say where a run of so many steps ends before a setting has its effect."""
    warmup, trainer = config.schedule.warmup_steps, config.trainer
    if steps < warmup:
        log.warning(
            "The run ends after %s steps, within the warm-up of %s: the learning rate reaches %.2g, not %g. "
            "Lower schedule.warmup_steps.",
            f"{steps:,.0f}", f"{warmup:,}", config.optimizer.lr * steps / warmup, config.optimizer.lr,
        )  # fmt: skip
    if trainer.patience is not None and steps // trainer.validate_every <= trainer.patience:
        log.warning(
            "trainer.patience=%d ends no run of %s steps, validated every %s. Lower one of the two.",
            trainer.patience, f"{steps:,.0f}", f"{trainer.validate_every:,}",
        )  # fmt: skip


def reuse_large_blocks() -> None:
    """Have glibc keep freed memory for the next step: fresh pages for each tensor past 32 MiB cost up to half of it. It
    takes up to half as much memory again."""
    m_trim_threshold, m_mmap_max = -1, -4  # of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: None)  # other C libraries have none
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)


def measure(config: TrainConfig, model: LanguageModel, data: PreparedData, trainer: Trainer) -> dict[str, Any]:
    """The content of results.json."""
    progress = trainer.progress
    counts = type_counts(data.streams["train"])
    results: dict[str, Any] = {
        **made_with(),
        "experiment": config.experiment,
        "seed": config.seed,
        "init_from": config.init_from,
        "parameters": model.parameter_counts(),
        "receptive_field": model.receptive_field,
        "flops_per_token": model.flops_per_token(torch.from_numpy(counts)),
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "tokenizer_fingerprint": data.tokenizer.fingerprint,
            "vocabulary_size": data.tokenizer.vocabulary_size,
        },
        "train": {
            "steps": progress.step,
            "tokens": progress.tokens,
            "seconds": progress.seconds,
            "tokens_per_second": progress.tokens / progress.seconds,
            "peak_memory_bytes": peak_memory_bytes(trainer.device),
        },
    }
    for name, split, known in (("validation", "valid", trainer.best_scores), ("test", "test", None)):
        stream = data.streams[split]
        scores = known or evaluate(model, stream, config.data.sentences)
        results[name] = {
            **scores,
            "unigram_perplexity": unigram_perplexity(counts, stream),
            "text_fingerprint": stream.text_fingerprint,
        }
    return results


def choose_run_dir(config: TrainConfig) -> Path:
    """Where the run goes: `run_dir`, or a new folder. Raises UsageError where that holds something else."""
    run_dir = Path(config.run_dir or f"runs/{config.experiment}/{datetime.datetime.now():%Y-%m-%d_%H-%M-%S-%f}")
    if config.resume is False and (run_dir / "config.yaml").exists():
        raise UsageError(f"run_dir {run_dir} already holds a run; go on with resume=true, or give another run_dir.")
    if all((run_dir.absolute().parent / name).exists() for name in ("config.yaml", "train.log")):
        raise UsageError(f"run_dir {run_dir} lies within a run; give that run's folder to go on, or another run_dir.")
    check_output("run_dir", run_dir, folder=True)
    check_run_name("run_dir", run_dir)
    parts = [name for name in (WEIGHTS, "tokenizer", "checkpoints", "results.json") if (run_dir / name).exists()]
    if parts and not (run_dir / "config.yaml").exists():
        raise UsageError(f"run_dir {run_dir} holds {', '.join(parts)} and is no run; give another run_dir.")
    return run_dir.absolute()


def check_source(config: TrainConfig) -> Path:
    """The folder of the run that `init_from` names. Raises UsageError where it is none, or has another model or
    tokenizer; dropout may differ."""
    source = Path(config.init_from)
    for key, theirs, ours in differences(load_config(source), config):
        if key.startswith(("model.", "tokenizer.")) and not key.endswith("dropout"):
            raise UsageError(
                f"init_from: {key} of {source} is {theirs}, not {ours}. Leave the model and the tokenizer out: "
                "they are those of that run."
            )
    return source


def check_nothing_is_lost(run_dir: Path, tokenizer: str) -> None:
    """Raise UsageError where a folder has no checkpoint, but more than a run that was stopped before its first one: a
    model that was imported, or trained and stripped of them, is not trained anew in its place."""
    if any((run_dir / "checkpoints").glob("step_*")):
        return
    begun = (run_dir / "metrics.jsonl").exists() and not (run_dir / "checkpoints").exists()
    if (run_dir / "results.json").exists() or ((run_dir / WEIGHTS).exists() and not begun):
        raise UsageError(f"run_dir {run_dir} holds a model, but no checkpoint to go on from; give another run_dir.")
    if (run_dir / "tokenizer").exists() and load_tokenizer(run_dir / "tokenizer").fingerprint != tokenizer:
        raise UsageError(f"run_dir {run_dir} holds another tokenizer than this data gives; give another run_dir.")


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Send the project's log to a file as well, and past the progress bar."""
    project = logging.getLogger("gcnn")
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    project.addHandler(handler)
    try:
        with logging_redirect_tqdm():
            yield
    finally:
        project.removeHandler(handler)
        handler.close()
