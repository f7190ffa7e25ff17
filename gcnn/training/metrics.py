"""Metrics of a run in training: metrics.jsonl, progress bar, Weights & Biases, TensorBoard."""

import dataclasses
import logging
import math
import os
import secrets
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gcnn.base.errors import UsageError
from gcnn.base.files import to_json, write_text
from gcnn.base.numbers import exp
from gcnn.base.process import on_terminal
from gcnn.config.schema import TrainConfig
from gcnn.runs.directory import METRICS
from gcnn.runs.json_files import parse_json
from gcnn.runs.results import Metric
from gcnn.training.distributed import rank
from gcnn.training.resume import flatten

log = logging.getLogger(__name__)
INTERVAL = 30  # seconds between two lines of progress in the log


class Metrics:
    """Writes each record to metrics.jsonl, one JSON object a line, and to the logger of the config.

    Only rank 0 writes; on other ranks the methods do nothing.
    """

    def __init__(self, config: TrainConfig, run_dir: Path, step: int):
        """Open metrics.jsonl in `run_dir`, which must exist, and start the config's logger.

        The logger's package must be installed (`check_logger`). step: the steps made so far. Lines
        of later steps and damaged lines (see `step_of`) are removed from the file; if it is 0, all
        lines are. TensorBoard's files are in `run_dir/tensorboard`; for Weights & Biases
        see `start_wandb`.
        """
        self.file = self.logger = None
        if rank() > 0:  # rank 0 writes for all
            return
        self.path = run_dir / METRICS
        before = ""
        if step and self.path.exists():
            before = self.path.read_text(encoding="utf-8", errors="replace")
        # Later steps are made, and written, once more
        kept = [line for line in before.splitlines(keepends=True) if step_of(line) <= step]
        write_text(self.path, "".join(kept))
        self.file = self.path.open("a", encoding="utf-8")
        if config.logger.kind == "wandb":
            self.logger = start_wandb(config, run_dir)
        elif config.logger.kind == "tensorboard":
            self.logger = TensorBoard(run_dir / "tensorboard", step)

    def write(self, kind: str, **values: float) -> None:
        """Write a record and flush it. The logger gets each value as `kind/name`.

        kind: train or validation. values: the record's entries; `step` must be one of them. Values
        that are not finite become null in the file.
        """
        if self.file is None:
            return
        self.file.write(to_json({"kind": kind, **values}) + "\n")
        self.file.flush()
        if self.logger:
            named = {f"{kind}/{key}": value for key, value in values.items()}
            self.logger.log(named, step=values["step"])

    def close(self) -> None:
        """Close metrics.jsonl. The logger stays open for `log_results`."""
        if self.file:
            self.file.close()

    def log_results(self, results: dict[str, Any]) -> None:
        """Hand a run's results to the logger, as `results/<key>`; does nothing without a logger.

        results: the content of results.json. Of its keys, parameters, receptive_field,
        flops_per_token, data, train, validation and test are handed on: to Weights & Biases as its
        summary; to TensorBoard the numbers in them, as `results/train.steps`, at the last step. May
        be called after `close`.
        """
        keys = (
            "parameters",
            "receptive_field",
            "flops_per_token",
            "data",
            "train",
            "validation",
            "test",
        )
        summary = {f"results/{key}": results[key] for key in keys}
        if isinstance(self.logger, TensorBoard):
            numbers = {}
            for key, value in flatten(summary):
                if isinstance(value, int | float):
                    numbers[key] = value
            self.logger.log(numbers, step=results["train"]["steps"])
        elif self.logger:
            self.logger.summary.update(summary)


def step_of(line: str) -> float:
    """The step of a line of metrics.jsonl; infinity if it is cut short or is no Metric."""
    if not line.endswith("\n"):
        return math.inf
    try:
        return parse_json(line, Metric, METRICS).step
    except UsageError:
        return math.inf


def check_logger(kind: str) -> None:
    """Raise UsageError for a logger whose package is not installed.

    kind: that of the config: wandb, tensorboard, or none, which needs no package.
    """
    # A mere folder of that name has a spec, but no origin
    if kind != "none" and getattr(find_spec(kind), "origin", None) is None:
        raise UsageError(
            f"logger={kind} needs the package {kind}: pip install 'gcnn[{kind}]', or logger=none."
        )


class TensorBoard:
    """Writes TensorBoard's event files into a folder; `tensorboard --logdir runs` shows them.

    step: the steps made so far. What was written there of later steps is hidden; if it is 0, what
    was written of all steps.
    """

    def __init__(self, folder: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter

        # The first step that is hidden. A run that begins may validate at step 0.
        purge_step = step + 1 if step else 0
        self.writer = SummaryWriter(folder, purge_step=purge_step)

    def log(self, values: dict[str, float], step: int) -> None:
        """Write numbers by their names, and flush them."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()


def start_wandb(config: TrainConfig, run_dir: Path) -> Any:
    """Begin the run in Weights & Biases, or go on with it; returns the object of wandb.init.

    Project and mode are those of the config, else of W&B's environment variables, else gcnn and
    offline; a warning is logged if config and environment disagree. Folder, name and `silent` are
    those of the environment, else `run_dir`, experiment/<name of run_dir> and true. The run's id is
    read from `run_dir/wandb_id`; if there is no such file, it is written, with $WANDB_RUN_ID or a
    random id. `config` is shown there as the run's. The package wandb must be installed (see
    `check_logger`); its errors are raised as they are.
    """
    import wandb

    id_file = run_dir / "wandb_id"  # a run that goes on is one curve
    if not id_file.exists():
        new = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        write_text(id_file, new)
    logger = config.logger
    for key, value in (("project", logger.project), ("mode", logger.mode)):
        variable = f"WANDB_{key.upper()}"
        in_environment = os.environ.get(variable)
        if value is not None and in_environment and in_environment != value:
            log.warning("logger.%s=%s counts, not %s=%s.", key, value, variable, in_environment)
    return wandb.init(
        id=id_file.read_text(encoding="utf-8").strip(),
        resume=unless_set("WANDB_RESUME", "allow"),
        project=logger.project or unless_set("WANDB_PROJECT", "gcnn"),
        mode=logger.mode or unless_set("WANDB_MODE", "offline"),
        dir=unless_set("WANDB_DIR", run_dir),
        name=unless_set("WANDB_NAME", f"{config.experiment}/{run_dir.name}"),
        config=dataclasses.asdict(config),
        settings=unless_set("WANDB_SILENT", wandb.Settings(silent=True)),
    )


def unless_set(variable: str, value: Any) -> Any:
    """`value`, or None if the environment variable is set, which wandb.init then reads."""
    return None if os.environ.get(variable) else value


class ProgressBar:
    """Shows how much of a run is done, loss, perplexity, tokens/s and the time left.

    On a terminal it is a bar on stderr; every INTERVAL seconds it is also a line in the log, at
    level debug. On ranks other than 0 there is no bar.
    """

    def __init__(self, progress: float):
        """Show the bar, if any.

        progress: the fraction of the run that is done; above 1 it counts as 1.
        """
        self.bar = tqdm(
            total=1.0, initial=min(progress, 1.0), mininterval=0.2, dynamic_ncols=True,
            bar_format="{percentage:5.1f}% |{bar:20}| {elapsed}<{remaining}  {desc}",
            disable=rank() > 0 or not on_terminal(),
        )  # fmt: skip
        self.began = self.logged_at = time.monotonic()
        self.first = progress

    def update(self, progress: float, step: int, loss: float, tokens_per_second: float) -> None:
        """Show how far the run is: on the bar, and in the log if its last line is INTERVAL old.

        progress: the fraction of the run that is done; above 1 it counts as 1. step: the number of
        steps made. loss: in nats a token; it may be NaN or infinite.
        """
        perplexity = exp(loss)
        shown = f"{perplexity:,.1f}"
        if perplexity >= 1e7:  # the run diverges
            shown = f"{perplexity:.1e}"
        text = (
            f"step {step:,}  loss {loss:.3f}  perplexity {shown}  {tokens_per_second:,.0f} tokens/s"
        )
        self.bar.set_description_str(text, refresh=False)
        self.bar.update(min(progress, 1.0) - self.bar.n)
        now = time.monotonic()
        if now - self.logged_at >= INTERVAL:
            self.logged_at = now
            seconds_per_fraction = (now - self.began) / max(1e-9, progress - self.first)
            left = tqdm.format_interval(max(0.0, 1 - progress) * seconds_per_fraction)
            log.debug("%.1f %%, %s left: %s", 100 * progress, left, text)

    def close(self) -> None:
        """End the bar; it stays on the terminal."""
        self.bar.close()
