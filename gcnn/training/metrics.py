"""What a run says while it runs: metrics.jsonl, a progress bar, and Weights & Biases where asked."""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gcnn.config import TrainConfig
from gcnn.errors import UsageError
from gcnn.files import write_atomically
from gcnn.training.distributed import rank


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
            self.wandb.log({f"{kind}/{key}": value for key, value in values.items()}, step=values["step"])

    def close(self) -> None:
        if self.file:
            self.file.close()
        if self.wandb:
            self.wandb.finish()


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
    return wandb.init(
        project=config.logger.project,
        mode=config.logger.mode,
        dir=run_dir,
        name=f"{config.experiment}/{run_dir.name}",
        config=dataclasses.asdict(config),
        settings=wandb.Settings(silent=True),
    )


class ProgressBar:
    """The part of the run that is done, loss, perplexity, tokens/s and the time left."""

    def __init__(self, progress: float):
        quiet = not sys.stderr.isatty()
        layout = "{percentage:5.1f}% |{bar:20}| {elapsed}<{remaining}  {desc}"
        self.bar = tqdm(
            total=1.0,
            initial=progress,
            bar_format=layout,
            mininterval=30 if quiet else 0.2,
            dynamic_ncols=not quiet,
            disable=rank() > 0,
        )

    def update(self, progress: float, step: int, loss: float, tokens_per_second: float) -> None:
        """loss in nats a token."""
        perplexity = math.exp(min(loss, 700))
        text = f"step {step:,}  loss {loss:.3f}  perplexity {perplexity:,.1f}  {tokens_per_second:,.0f} tokens/s"
        self.bar.set_description_str(text, refresh=False)
        self.bar.update(min(progress, 1.0) - self.bar.n)

    def close(self) -> None:
        self.bar.close()
