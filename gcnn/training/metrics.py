"""What a run says while it runs: metrics.jsonl, a progress bar, and Weights & Biases where asked."""

import dataclasses
import json
import logging
import math
import secrets
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gcnn.config import TrainConfig
from gcnn.errors import UsageError, on_terminal
from gcnn.files import write_atomically
from gcnn.training.distributed import rank

log = logging.getLogger(__name__)
INTERVAL = 30  # seconds between two lines of progress in the log


class Metrics:
    """Writes each record to metrics.jsonl, one JSON object a line, and to the logger of the config."""

    def __init__(self, config: TrainConfig, run_dir: Path, step: int):
        self.file = self.wandb = None
        if rank() > 0:  # rank 0 writes for all
            return
        self.path = run_dir / "metrics.jsonl"
        kept = [line for line in self._lines() if step_of(line) <= step]  # a resumed run writes the rest anew
        write_atomically(self.path, lambda aside: aside.write_text("".join(kept), encoding="utf-8"))
        self.file = self.path.open("a", encoding="utf-8")
        if config.logger.kind == "wandb":
            self.wandb = start_wandb(config, run_dir)

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        return self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)

    def write(self, kind: str, **values: Any) -> None:
        if self.file is None:
            return
        record = {"kind": kind, **{key: finite(value) for key, value in values.items()}}
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
        if self.wandb:
            named = {"loss" if key == "nll_nats" else key: value for key, value in values.items()}  # as in training
            self.wandb.log({f"{kind}/{key}": value for key, value in named.items()}, step=values["step"])

    def close(self) -> None:
        if self.file:
            self.file.close()

    def summarize(self, results: dict[str, Any]) -> None:
        """Tell Weights & Biases a run's results, but for what it was made with."""
        if self.wandb:
            told = ("parameters", "receptive_field", "flops_per_token", "data", "train", "validation", "test")
            self.wandb.summary.update({f"results/{key}": results[key] for key in told})


def finite(value: Any) -> Any:
    """JSON has no infinity: null stands for it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def step_of(line: str) -> float:
    """The step of a line; infinity for one that was cut short."""
    try:
        return json.loads(line)["step"] if line.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


def start_wandb(config: TrainConfig, run_dir: Path):
    try:
        import wandb
    except ImportError:
        raise UsageError("logger=wandb needs the package wandb: pip install 'gcnn[wandb]', or logger=none.") from None
    kept = run_dir / "wandb_id"  # a run that goes on is one curve
    if not kept.exists():
        write_atomically(kept, lambda aside: aside.write_text(secrets.token_hex(4), encoding="utf-8"))
    return wandb.init(
        id=kept.read_text(encoding="utf-8").strip(),
        resume="allow",
        project=config.logger.project,
        mode=config.logger.mode,
        dir=run_dir,
        name=f"{config.experiment}/{run_dir.name}",
        config=dataclasses.asdict(config),
        settings=wandb.Settings(silent=True),
    )


class ProgressBar:
    """The part of the run that is done, loss, perplexity, tokens/s and the time left: a bar on a terminal, and at
    intervals a line in the log, which is all that a file or a pipe gets."""

    def __init__(self, progress: float):
        layout = "{percentage:5.1f}% |{bar:20}| {elapsed}<{remaining}  {desc}"
        self.bar = tqdm(
            total=1.0,
            initial=min(progress, 1.0),
            bar_format=layout,
            mininterval=0.2,
            dynamic_ncols=True,
            disable=rank() > 0 or not on_terminal(),
        )
        self.began = self.said = time.monotonic()
        self.first = progress

    def update(self, progress: float, step: int, loss: float, tokens_per_second: float) -> None:
        """loss in nats a token."""
        perplexity = math.exp(min(loss, 700))
        text = f"step {step:,}  loss {loss:.3f}  perplexity {perplexity:,.1f}  {tokens_per_second:,.0f} tokens/s"
        self.bar.set_description_str(text, refresh=False)
        self.bar.update(min(progress, 1.0) - self.bar.n)
        now = time.monotonic()
        if now - self.said >= INTERVAL:
            self.said = now
            left = tqdm.format_interval((now - self.began) * max(0.0, 1 - progress) / max(1e-9, progress - self.first))
            log.debug("%.1f %%, %s left: %s", 100 * progress, left, text)

    def close(self) -> None:
        self.bar.close()
