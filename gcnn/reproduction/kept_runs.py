"""What the figures read of a run, and the small files that keep it: another machine goes on from them.

OUT/SCALE/runs/FIGURE.jsonl has a line for each run of a figure that has ended, with nothing of where a machine has its
files.
"""

import dataclasses
import json
import math
import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gcnn.base.errors import UsageError
from gcnn.base.files import to_json, write_atomically
from gcnn.base.provenance import PATH_PLACEHOLDERS, portable
from gcnn.config.compose import typed
from gcnn.config.schema import TrainConfig
from gcnn.config.stored import migrated
from gcnn.reporting.results import load_run
from gcnn.runs.directory import CONFIG, MEMBER, RESULTS
from gcnn.runs.json_files import Text, checked, read_json_lines, read_text
from gcnn.runs.results import Metric, Results, Split

WIKITEXT_103 = (
    "wikitext103.json"  # in a run: what `gcnn evaluate --json --file wiki.test.tokens` printed
)
FILES = (RESULTS, WIKITEXT_103)


@dataclass(kw_only=True)
class KeptRun:
    """A run as a line of JSON."""

    group: Text  # of the figure's plan
    config: dict[str, Any]
    error: Text = None  # of one that failed
    validation: list[Any]  # those lines of metrics.jsonl
    files: dict[str, Any]  # the content of FILES, as far as they are there

    @cached_property
    def recipe(self) -> TrainConfig:
        return typed(migrated(OmegaConf.create(self.config)))

    @property
    def place(self) -> tuple[str, float, int]:
        """Group, learning rate and seed, which tell the runs of a figure apart."""
        return self.group, self.config["optimizer"]["lr"], self.config["seed"]

    @cached_property
    def results(self) -> Results | None:
        """None of a run that is not finished."""
        content = self.files.get(RESULTS)
        return content and checked(content, Results, RESULTS)

    @cached_property
    def curve(self) -> list[Metric]:
        return checked(self.validation, list[Metric], "validation")

    @property
    def wikitext103(self) -> Split | None:
        content = self.files.get(WIKITEXT_103)
        return content and checked(content, Split, WIKITEXT_103)

    @property
    def status(self) -> str:
        """done, diverged or unfinished."""
        if self.results:
            return "done" if math.isfinite(self.results.test.perplexity or math.inf) else "diverged"
        return (
            "diverged"
            if re.search(r"(loss|gradient norm) -?(nan|inf)", self.error or "")
            else "unfinished"
        )


def read_run(folder: Path, group: str) -> KeptRun:
    """A run directory, finished or not. Raises UsageError where it is none."""
    run = load_run(folder)
    config = OmegaConf.structured(run.config)
    config.run_dir = None
    for key, name in PATH_PLACEHOLDERS.items():
        if OmegaConf.select(config, key) is not None:
            OmegaConf.update(config, key, name)
    files = {
        name: json.loads(read_text(folder / name)) for name in FILES if (folder / name).exists()
    }
    if run.finished:
        files[RESULTS]["command"] = shlex.join(portable(shlex.split(run.results.command or "")))
    return KeptRun(
        group=group,
        config=OmegaConf.to_container(config),
        error=run.member.error
        and run.member.error.partition(";")[0],  # the rest names a checkpoint here
        validation=[dataclasses.asdict(line) for line in run.validation],
        files=files,
    )


def read_runs(folder: Path, group: str = "") -> list[KeptRun]:
    """The runs in a folder, by name; without those that were refused before they began."""
    begun = [path.parent for path in folder.glob(f"*/{MEMBER}") if path.with_name(CONFIG).exists()]
    return [
        read_run(path, group)
        for path in sorted(begun, key=lambda path: (len(path.name), path.name))
    ]


def read_kept(path: Path) -> list[KeptRun]:
    """The lines of a file, none where there is no file. Raises UsageError for one that `keep_runs` has not written."""
    runs = read_json_lines(path, KeptRun)
    for number, run in enumerate(runs, start=1):
        if not run.group or "seed" not in run.config or "lr" not in run.config.get("optimizer", {}):
            raise UsageError(
                f"{path}: line {number} is no kept run. Remove it to train its run again."
            )
    return runs


def keep_runs(runs: list[KeptRun], path: Path) -> None:
    """Write those runs that are finished, or have diverged, to `path`; lines of other runs stay there."""
    lines = {run.place: run for run in read_kept(path)}
    ended = {run.place: run for run in runs if run.status != "unfinished"}
    if not ended:
        return
    text = ""
    for run in sorted((lines | ended).values(), key=lambda run: run.place):
        text += to_json(dataclasses.asdict(run), ensure_ascii=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"))
