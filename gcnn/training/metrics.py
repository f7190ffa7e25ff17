"""What a run says while it runs: metrics.jsonl, a progress bar, and Weights & Biases or TensorBoard where asked."""

import dataclasses
import json
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
from gcnn.base.files import to_json, write_atomically
from gcnn.base.process import on_terminal
from gcnn.config.schema import TrainConfig
from gcnn.runs.directory import METRICS
from gcnn.training.distributed import rank
from gcnn.training.resume import flatten

log = logging.getLogger(__name__)
INTERVAL = 30  # seconds between two lines of progress in the log


class Metrics:
    """Writes each record to metrics.jsonl, one JSON object a line, and to the logger of the config."""

    def __init__(self, config: TrainConfig, run_dir: Path, step: int):
        self.file = self.logger = None
        if rank() > 0:  # rank 0 writes for all
            return
        self.path = run_dir / METRICS
        before = (
            self.path.read_text(encoding="utf-8", errors="replace")
            if step and self.path.exists()
            else ""
        )
        kept = [
            line for line in before.splitlines(keepends=True) if step_of(line) <= step
        ]  # the rest is written anew
        write_atomically(self.path, lambda aside: aside.write_text("".join(kept), encoding="utf-8"))
        self.file = self.path.open("a", encoding="utf-8")
        if config.logger.kind == "wandb":
            self.logger = start_wandb(config, run_dir)
        elif config.logger.kind == "tensorboard":
            self.logger = TensorBoard(run_dir / "tensorboard", step)

    def write(self, kind: str, **values: float) -> None:
        if self.file is None:
            return
        self.file.write(to_json({"kind": kind, **values}) + "\n")
        self.file.flush()
        if self.logger:
            self.logger.log(
                {f"{kind}/{key}": value for key, value in values.items()}, step=values["step"]
            )

    def close(self) -> None:
        if self.file:
            self.file.close()

    def summarize(self, results: dict[str, Any]) -> None:
        """Tell the logger of the config a run's results, but for what it was made with."""
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
            numbers = {
                key: value for key, value in flatten(summary) if isinstance(value, int | float)
            }
            self.logger.log(numbers, step=results["train"]["steps"])
        elif self.logger:
            self.logger.summary.update(summary)


def step_of(line: str) -> float:
    """The step of a line; infinity for one that was cut short."""
    try:
        return json.loads(line)["step"] if line.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


def check_logger(kind: str) -> None:
    """Raise UsageError for a logger whose package is not installed."""
    if (
        kind != "none" and getattr(find_spec(kind), "origin", None) is None
    ):  # a folder of that name has none
        raise UsageError(
            f"logger={kind} needs the package {kind}: pip install 'gcnn[{kind}]', or logger=none."
        )


class TensorBoard:
    """Event files in a folder of the run; `tensorboard --logdir runs` shows them."""

    def __init__(self, folder: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(
            folder, purge_step=step and step + 1
        )  # what a killed run wrote past its checkpoint

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()


def start_wandb(config: TrainConfig, run_dir: Path):
    """Begin the run in Weights & Biases, or go on with it. What the config leaves open is what W&B's own
    variables of the environment say, and else offline, silent and in the run's folder."""
    import wandb

    kept = run_dir / "wandb_id"  # a run that goes on is one curve
    if not kept.exists():
        new = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        write_atomically(kept, lambda aside: aside.write_text(new, encoding="utf-8"))
    logger = config.logger
    for key, value in (("project", logger.project), ("mode", logger.mode)):
        variable = f"WANDB_{key.upper()}"
        asked = os.environ.get(variable) or value
        if value is not None and asked != value:
            log.warning("logger.%s=%s counts, not %s=%s.", key, value, variable, asked)
    return wandb.init(
        id=kept.read_text(encoding="utf-8").strip(),
        resume=unless_set("WANDB_RESUME", "allow"),
        project=logger.project or unless_set("WANDB_PROJECT", "gcnn"),
        mode=logger.mode or unless_set("WANDB_MODE", "offline"),
        dir=unless_set("WANDB_DIR", run_dir),
        name=unless_set("WANDB_NAME", f"{config.experiment}/{run_dir.name}"),
        config=dataclasses.asdict(config),
        settings=unless_set("WANDB_SILENT", wandb.Settings(silent=True)),
    )


def unless_set(variable: str, value: Any) -> Any:
    """A value for wandb.init; None, which has it read the environment, where this has the variable."""
    return None if os.environ.get(variable) else value


class ProgressBar:
    """The part of the run that is done, loss, perplexity, tokens/s and the time left: a bar on a terminal, and at
    intervals a line in the log, which is all that a file or a pipe gets."""

    def __init__(self, progress: float):
        self.bar = tqdm(
            total=1.0, initial=min(progress, 1.0), mininterval=0.2, dynamic_ncols=True,
            bar_format="{percentage:5.1f}% |{bar:20}| {elapsed}<{remaining}  {desc}",
            disable=rank() > 0 or not on_terminal(),
        )  # fmt: skip
        self.began = self.logged_at = time.monotonic()
        self.first = progress

    def update(self, progress: float, step: int, loss: float, tokens_per_second: float) -> None:
        """loss in nats a token."""
        perplexity = math.exp(min(loss, 700))
        shown = (
            f"{perplexity:,.1f}" if perplexity < 1e7 else f"{perplexity:.1e}"
        )  # of a run that diverges
        text = (
            f"step {step:,}  loss {loss:.3f}  perplexity {shown}  {tokens_per_second:,.0f} tokens/s"
        )
        self.bar.set_description_str(text, refresh=False)
        self.bar.update(min(progress, 1.0) - self.bar.n)
        now = time.monotonic()
        if now - self.logged_at >= INTERVAL:
            self.logged_at = now
            left = tqdm.format_interval(
                (now - self.began) * max(0.0, 1 - progress) / max(1e-9, progress - self.first)
            )
            log.debug("%.1f %%, %s left: %s", 100 * progress, left, text)

    def close(self) -> None:
        self.bar.close()
