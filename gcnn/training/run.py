"""A training run from its config to its results: preflight, data, model, training, evaluation."""

import contextlib
import ctypes
import dataclasses
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from gcnn.base.errors import UsageError
from gcnn.base.files import refuse_links_out, remove, write_atomically, write_json
from gcnn.base.provenance import git_commit, made_with, peak_memory_bytes
from gcnn.config.schema import TrainConfig
from gcnn.config.stored import save_config
from gcnn.data.stream import PreparedData, prepare
from gcnn.evaluation.perplexity import evaluate, type_counts, unigram_perplexity
from gcnn.evaluation.run import before_text, choose_device
from gcnn.models.inference import PRECISIONS
from gcnn.models.language_model import LanguageModel, build_model
from gcnn.models.lstm import LSTM
from gcnn.models.weights import WEIGHTS, assign_weights, load_weights, read_weights
from gcnn.runs.directory import (
    CONFIG,
    LOCK,
    LOG,
    RESULTS,
    TOKENIZER,
    checkpoints_of,
    lock_or_owner,
    write_owner,
)
from gcnn.runs.results import Data, Parameters, Results, Split, Training
from gcnn.training.distributed import (
    first_of_each_machine,
    from_rank_0,
    process_group,
    rank,
    world_size,
)
from gcnn.training.metrics import check_logger
from gcnn.training.preflight import (
    check_against_data,
    check_nothing_is_lost,
    check_precision,
    check_processes,
    check_run_dir,
    check_source,
    choose_run_dir,
    warn_of_threads,
    warn_of_unknown,
)
from gcnn.training.restore import restore
from gcnn.training.trainer import Trainer

log = logging.getLogger(__name__)


def train(
    config: TrainConfig, notes: Sequence[str] = (), fit_cutoffs: bool = False
) -> tuple[Path, dict[str, Any] | None]:
    """Train and evaluate a model; returns its run directory and its results, as in results.json.

    The path is absolute; results are None on ranks above 0. notes: lines to log at the start.
    fit_cutoffs: drop cutoffs that are not below the vocabulary size, and log it, instead of
    refusing them.

    Call it in the main thread. Writes the run directory: config, tokenizer, log, metrics,
    checkpoints, best weights, results. Joins torchrun's processes, if any; sets torch's threads,
    random state and TF32, glibc's allocation, and handlers of signals while it trains. Raises
    UsageError if the config does not fit the machine, the data, `run_dir` or `init_from` (before
    anything but caches is written), and if the run is in use, was begun meanwhile, has links that
    lead out of it, or its checkpoint does not fit; RunError if weights or checkpoint are damaged;
    OSError if a file cannot be read or written; RunError and Interrupted as Trainer.run does.
    """
    with process_group(config.device):
        return train_in_group(config, notes, fit_cutoffs)


def train_in_group(
    config: TrainConfig, notes: Sequence[str], fit_cutoffs: bool
) -> tuple[Path, dict[str, Any] | None]:
    """As `train`, in a process that has joined the others, if there are any."""
    # Preflight: what can be refused without the data
    git_commit()  # that of the code as it begins; the results have it
    device = set_up_process(config)
    check_processes(config.trainer, world_size())
    check_precision(config, device)
    check_logger(config.logger.kind)
    warn_of_threads(device)
    run_dir = from_rank_0(choose_run_dir(config))
    source = source_run(config, run_dir)

    # Data
    tokenizer_dir = None if source is None else source / TOKENIZER
    with first_of_each_machine():
        data = prepare(config.data, config.tokenizer, tokenizer_dir)
    vocabulary_size = data.tokenizer.vocabulary_size
    if fit_cutoffs:
        config, notes = with_fitting_cutoffs(config, vocabulary_size, notes)
    check_against_data(config, vocabulary_size, len(data.streams["train"]), world_size())

    # Model
    begins_with = None if source == run_dir else source  # a checkpoint of its own has the weights
    model = initial_model(config, data, begins_with).to(device)
    if config.resume is True:
        check_nothing_is_lost(run_dir, data.tokenizer.fingerprint)

    # Train, in a directory that is this run's alone
    run_dir.mkdir(parents=True, exist_ok=True)
    refuse_links_out(run_dir)
    config = dataclasses.replace(config, run_dir=str(run_dir))
    in_directory = run_directory(run_dir) if rank() == 0 else contextlib.nullcontext()
    with in_directory:
        if rank() == 0:  # again: while the data was read another run may have come and gone
            check_run_dir(run_dir, config.resume)
        trainer = Trainer(config, model, data, run_dir, device)
        restore_or_begin(trainer)
        if rank() > 0:
            trainer.run()
            return run_dir, None
        if not trainer.finished():  # results of a run that is extended
            (run_dir / RESULTS).unlink(missing_ok=True)
        announce(trainer, notes)
        trainer.run()
        if steps_of(trainer) == math.inf:  # its minutes ended it
            warn_of_short_run(config, trainer.progress.step)

        # Measure the best model on validation
        load_weights(model, run_dir / WEIGHTS)
        results = dataclasses.asdict(measure(trainer))
        write_json(run_dir / RESULTS, results)
        trainer.metrics.log_results(results)
    return run_dir, results


def set_up_process(config: TrainConfig) -> torch.device:
    """The device of a config. Sets torch's number of threads, and glibc to keep freed memory.

    Also switches off TF32, as `choose_device` does. If `threads` is null, torch's number stays.
    Raises UsageError if there is no such device.
    """
    reuse_large_blocks()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return choose_device(config.device)


def source_run(config: TrainConfig, run_dir: Path) -> Path | None:
    """The run whose tokenizer a run with `init_from` takes; None without `init_from`.

    It is `run_dir` itself if it is resumed and has checkpoints, otherwise that of `init_from`.
    Raises UsageError as check_source does.
    """
    if config.init_from is None:
        return None
    begun = config.resume is not False and bool(checkpoints_of(run_dir))
    return run_dir if begun else check_source(config)


def initial_model(config: TrainConfig, data: PreparedData, source: Path | None) -> LanguageModel:
    """The model before its first step, on the CPU, initialised by the config's seed.

    source: the run whose best weights it gets instead; None: none. Sets torch's random state,
    differently in each process: the weights are the same in all, dropout is not. Raises UsageError,
    RunError and OSError as build_model, read_weights and assign_weights do.
    """
    torch.manual_seed(config.seed)
    begins = before_text(config, data.tokenizer.eos_id)
    model = build_model(config.model, data.tokenizer.vocabulary_size, begins)
    if source is not None:
        path = source / WEIGHTS
        assign_weights(model, read_weights(path, data.tokenizer.fingerprint), path)
    if world_size() > 1:
        torch.manual_seed(config.seed + rank())
    return model


def restore_or_begin(trainer: Trainer) -> None:
    """Load the checkpoint that the config asks for, if any; write the run's config and tokenizer.

    All processes must call it; rank 0 writes, into the run directory, which must exist. The config
    is stored with `resume=false`. Only while the run goes back to a checkpoint that `resume` names,
    the stored config names it, too. A tokenizer that is there stays. Raises UsageError and RunError
    as `restore` does, and OSError if a file cannot be read or written.
    """
    config = trainer.config
    run_dir = trainer.run_dir
    begun = dataclasses.replace(config, resume=False)

    def write_config(stored: TrainConfig) -> None:
        if rank() == 0:
            write_atomically(run_dir / CONFIG, lambda aside: save_config(stored, aside))

    if isinstance(config.resume, str):
        # While the run goes back to this checkpoint, the stored config names it: if the process is
        # killed here, the run goes back to it when it is resumed
        restore(trainer, Path(config.resume), lambda: write_config(config))
    elif config.resume:
        restore(trainer, None, lambda: write_config(begun))
    write_config(begun)
    if rank() == 0 and not (run_dir / TOKENIZER).exists():
        write_atomically(run_dir / TOKENIZER, trainer.data.tokenizer.save)


def announce(trainer: Trainer, notes: Sequence[str]) -> None:
    """Log `notes`, what is about to be trained, and warnings: a short run, unknown words."""
    config = trainer.config
    for note in notes:
        log.info("%s", note)
    warn_of_short_run(config, steps_of(trainer))
    warn_of_unknown(trainer.data.streams["train"])
    parameters = trainer.model.parameter_counts()["total"]
    tokens = len(trainer.data.streams["train"])
    described = f"{parameters:,} parameters, {tokens:,} training tokens"
    log.info("%s: %s, %s, in %s", config.experiment, described, trainer.device, trainer.run_dir)


@contextlib.contextmanager
def run_directory(run_dir: Path) -> Iterator[None]:
    """Lock a run directory and log to its train.log as well, for the time of a `with`.

    The directory must exist; of several processes, rank 0 alone calls this. Removes temporary files
    (.*.tmp, at any depth) that a killed process left. At the end it empties the lock file and
    ends the run of Weights & Biases, if one is open, so that a sweep's next member begins another.
    Raises UsageError if another process has the lock.
    """
    with (run_dir / LOCK).open("a+") as lock:
        owner = lock_or_owner(lock)
        if owner is not None:
            who = "another process"
            if owner:
                who = "process {process} on {host}".format_map(owner)
            raise UsageError(
                f"run_dir {run_dir} is in use by {who}; wait for it or give another run_dir."
            )
        write_owner(lock)
        for unfinished in run_dir.rglob(".*.tmp"):
            remove(unfinished)
        with log_file(run_dir / LOG):
            try:
                yield
            finally:
                if "wandb" in sys.modules and sys.modules["wandb"].run is not None:
                    sys.modules["wandb"].finish()
                lock.truncate(0)  # lest the next process to lock it is taken for this one


def with_fitting_cutoffs(
    config: TrainConfig, vocabulary_size: int, notes: Sequence[str]
) -> tuple[TrainConfig, Sequence[str]]:
    """The config without cutoffs of `vocabulary_size` or more, and `notes` with a line about it.

    `config` and `notes` themselves if all cutoffs are below. Neither is changed in place.
    """
    cutoffs = config.model.cutoffs
    fitting = [cutoff for cutoff in cutoffs if cutoff < vocabulary_size]
    if fitting == cutoffs:
        return config, notes
    note = (
        f"model.cutoffs are {fitting}, not {cutoffs}: the vocabulary has {vocabulary_size:,} types."
    )
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, cutoffs=fitting))
    return config, [*notes, note]


def steps_of(trainer: Trainer) -> float:
    """The number of steps, from 0 on, after which a run ends; infinity if minutes alone bound it.

    Minutes and patience are left out. Not rounded to whole steps; approximate for max_flops, as
    batches differ in size.
    """
    bounds = trainer.config.trainer
    batches = len(trainer.batches)
    tokens_per_step = len(trainer.data.streams["train"]) / batches
    return min(
        bounds.max_steps or math.inf,
        (bounds.max_epochs or math.inf) * batches,
        (trainer.bounds.max_tokens or math.inf) / tokens_per_step,
    )


def warn_of_short_run(config: TrainConfig, steps: float) -> None:
    """Log a warning if a run of `steps` steps is too short for its warm-up or its patience.

    That is: it ends within the warm-up, or with no more validations than `trainer.patience`.
    Infinite `steps`: no warning.
    """
    warmup = config.schedule.warmup_steps
    trainer = config.trainer
    if steps < warmup:
        log.warning(
            "The run ends after %s steps, within the warm-up of %s: "
            "the learning rate reaches %.2g, not %g. Lower schedule.warmup_steps.",
            f"{steps:,.0f}", f"{warmup:,}",
            config.optimizer.lr * steps / warmup, config.optimizer.lr,
        )  # fmt: skip
    if trainer.patience is not None and steps // trainer.validate_every <= trainer.patience:
        log.warning(
            "trainer.patience=%d ends no run of %s steps, validated every %s. "
            "Lower one of the two.",
            trainer.patience, f"{steps:,.0f}", f"{trainer.validate_every:,}",
        )  # fmt: skip


def reuse_large_blocks() -> None:
    """Make glibc keep freed memory for the next step, in the whole process.

    Otherwise it returns each tensor past 32 MiB to the system, and fresh pages take up to half of a
    step's time. The process takes up to half as much memory again. Other C libraries are left as
    they are.
    """
    m_trim_threshold, m_mmap_max = -1, -4  # of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: None)  # other C libraries have none
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)


def measure(trainer: Trainer) -> Results:
    """The contents of results.json: perplexities of the best model, and how it was trained.

    Call it on rank 0 alone, with the best weights loaded. It evaluates the test split, and the
    validation split unless a validation in this process found these weights.
    """
    config = trainer.config
    model = trainer.model
    data = trainer.data
    progress = trainer.progress
    counts = type_counts(data.streams["train"])
    splits = {}
    for split in ("valid", "test"):
        stream = data.streams[split]
        scores = trainer.best_scores if split == "valid" else None
        if scores is None:
            scores = evaluate(model, stream, config.data.sentences)
        unigram = unigram_perplexity(counts, stream)
        splits[split] = Split(
            **scores, unigram_perplexity=unigram, text_fingerprint=stream.text_fingerprint
        )
    return Results(
        **made_with(),
        experiment=config.experiment,
        seed=config.seed,
        init_from=config.init_from,
        parameters=Parameters(**model.parameter_counts()),
        receptive_field=model.receptive_field,
        flops_per_token=model.flops_per_token(torch.from_numpy(counts)),
        data=Data(
            name=data.name,
            fingerprint=data.fingerprint,
            tokenizer_fingerprint=data.tokenizer.fingerprint,
            vocabulary_size=data.tokenizer.vocabulary_size,
        ),
        train=Training(
            steps=progress.step,
            tokens=progress.tokens,
            seconds=progress.seconds,
            tokens_per_second=progress.tokens / progress.seconds,
            peak_memory_bytes=peak_memory_bytes(trainer.device),
            precision=config.trainer.precision,
            recurrent_kernel=recurrent_kernel(model, trainer.device, config.trainer.precision),
        ),
        validation=splits["valid"],
        test=splits["test"],
    )


def recurrent_kernel(model: LanguageModel, device: torch.device, precision: str) -> str | None:
    """Whose code an LSTM was trained by, as LSTM.kernel names it; None for other models.

    precision: that of the trainer, float32 or bf16.
    """
    if not isinstance(model.encoder, LSTM):
        return None
    return model.encoder.kernel(device, PRECISIONS[precision])


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Append the project's log (logger `gcnn`) to a file as well, for the time of a `with`.

    Lines on the terminal are then printed above the progress bar instead of through it, by a
    handler of tqdm in place of the root logger's: it takes over filters, and no level.
    The file's folder must exist.
    """
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
