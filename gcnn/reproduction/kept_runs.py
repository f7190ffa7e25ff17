"""What the figures need of a run, and the small files that keep it for other machines.

OUT/SCALE/runs/FIGURE.jsonl has a line for each run of a figure that has ended. Paths of the machine
where the run was trained are in it only if its config has data.files or init_from.
"""

import dataclasses
import math
import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gcnn.base.errors import UsageError
from gcnn.base.files import to_json, write_text
from gcnn.base.provenance import PATH_PLACEHOLDERS, portable, words_of
from gcnn.config.schema import TrainConfig
from gcnn.config.stored import checked_config
from gcnn.reporting.results import load_run
from gcnn.runs.directory import CONFIG, MEMBER, RESULTS
from gcnn.runs.json_files import Flag, Text, checked, parse_json, read_json, read_text_if_any
from gcnn.runs.results import Metric, Results, Split

# In a run: what `gcnn evaluate --json --file wiki.test.tokens` printed.
WIKITEXT_103 = "wikitext103.json"
FILES = (RESULTS, WIKITEXT_103)


@dataclass(kw_only=True)
class KeptRun:
    """A run, finished or not, as a line of JSON.

    Its properties raise UsageError if an entry is not what a run writes; `place` needs a config
    with seed and learning rate, which `read_kept` checks.
    """

    group: Text  # of the figure's plan
    config: dict[str, Any]  # as stored in the run, perhaps by an older version
    error: Text = None  # the message of a run that failed
    diverged: Flag = None  # whether it failed by that; None: not failed, or by an older version
    validation: list[Any]  # the lines of metrics.jsonl that are validations
    files: dict[str, Any]  # parsed JSON by file name (FILES); without those that the run lacks

    @cached_property
    def recipe(self) -> TrainConfig:
        """The run's config, checked; keys of older versions are renamed."""
        return checked_config(OmegaConf.create(self.config))

    @property
    def place(self) -> tuple[str, float, int]:
        """Group, learning rate and seed, which tell the runs of a figure apart."""
        return self.group, self.config["optimizer"]["lr"], self.config["seed"]

    @cached_property
    def results(self) -> Results | None:
        """The run's results.json; None if the run is not finished."""
        content = self.files.get(RESULTS)
        return None if content is None else checked(content, Results, RESULTS)

    @cached_property
    def curve(self) -> list[Metric]:
        """The validations of the run, in the order of its steps."""
        return checked(self.validation, list[Metric], "validation")

    @property
    def wikitext103(self) -> Split | None:
        """The run's perplexity on WikiText-103's test set; None if it was not measured."""
        content = self.files.get(WIKITEXT_103)
        if content is None:
            return None
        split = checked(content, Split, WIKITEXT_103)
        if split.perplexity is None or not split.tokens or split.unknown is None:
            raise UsageError(
                f"{WIKITEXT_103} lacks its perplexity, tokens or unknown words. Make it again."
            )
        return split

    @property
    def status(self) -> str:
        """`done`, `diverged` or `unfinished`.

        diverged: it ended by a loss, gradient norm or validation that was not finite, or its
        results have a perplexity on validation or test that is null, not finite or 0. unfinished:
        still running, interrupted, or failed for another reason.
        """
        if self.results:
            for split in (self.results.validation, self.results.test):
                if not split.perplexity or not math.isfinite(split.perplexity):
                    return "diverged"
            return "done"
        diverged = self.diverged
        if diverged is None:  # older versions say it in the message alone
            pattern = r"(loss|gradient norm) -?(nan|inf)|validation was not finite"
            diverged = re.search(pattern, self.error or "")
        return "diverged" if diverged else "unfinished"


def read_run(folder: Path, group: str) -> KeptRun:
    """The run in a run directory, finished or not, as one of `group`.

    In its config run_dir is None. data.path and the path of a vocabulary or SentencePiece model, if
    set, become the placeholders of published commands (DIR, FILE); paths in data.files and
    init_from stay. The command in its results is as `portable` writes it. A failed run's message is
    cut at its first semicolon. Logs a warning as `load_config` does.
    Raises UsageError if `folder` is no run directory or a file in it is not what a run writes.
    """
    run = load_run(folder)
    config = OmegaConf.structured(run.config)
    config.run_dir = None
    for key, placeholder in PATH_PLACEHOLDERS.items():
        if OmegaConf.select(config, key) is not None:
            OmegaConf.update(config, key, placeholder)
    files = {}
    for name in FILES:
        content = read_json(folder / name, dict[str, Any])
        if content is not None:
            files[name] = content
    if run.finished:
        words = words_of(run.results.command, folder / RESULTS)
        files[RESULTS]["command"] = shlex.join(portable(words))
    error = run.member.error
    if error:
        error, _, _ = error.partition(";")  # the rest names a checkpoint on this machine
    return KeptRun(
        group=group,
        config=OmegaConf.to_container(config),
        error=error,
        diverged=run.member.diverged,
        validation=[dataclasses.asdict(line) for line in run.validation],
        files=files,
    )


def read_runs(folder: Path, group: str = "") -> list[KeptRun]:
    """The members of a sweep that have begun, finished or not, as runs of `group`.

    Sorted by the length of their folders' names, then by name: 2 before 10. A member that was
    refused before it began has no config and is left out. Empty if `folder` does not exist.
    Raises as `read_run` does.
    """
    begun = []
    for path in folder.glob(f"*/{MEMBER}"):
        if path.with_name(CONFIG).exists():
            begun.append(path.parent)
    begun.sort(key=lambda path: (len(path.name), path.name))
    return [read_run(path, group) for path in begun]


def count_not_begun(folder: Path) -> int:
    """How many members of a sweep have not begun: those that `read_runs` leaves out."""
    return sum(not path.with_name(CONFIG).exists() for path in folder.glob(f"*/{MEMBER}"))


def read_kept(path: Path) -> list[KeptRun]:
    """The runs of a file that `keep_runs` wrote; empty if there is no file.

    Raises UsageError if the file cannot be read or does not end with a newline, or if a line is not
    JSON of a KeptRun with a group, seed and learning rate, or has an interpolation in its config.
    """
    text = read_text_if_any(path) or ""
    if text and not text.endswith("\n"):
        raise UsageError(f"{path} has no newline at its end. Restore the file, or add it there.")
    runs = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        run = parse_json(line, KeptRun, f"{path}: line {number}")
        optimizer = run.config.get("optimizer")
        has_rate = isinstance(optimizer, dict) and isinstance(optimizer.get("lr"), float | int)
        has_seed = isinstance(run.config.get("seed"), int)
        is_plain = "${" not in to_json(run.config)  # an interpolation would be evaluated
        if not (run.group and has_seed and has_rate and is_plain):
            raise UsageError(
                f"{path}: line {number} is no kept run. Remove it to train its run again."
            )
        runs.append(run)
    return runs


def keep_runs(runs: list[KeptRun], path: Path) -> None:
    """Add the runs that are finished or diverged to the JSON Lines file `path`; others are ignored.

    A run in the file with the same group, learning rate and seed is replaced; the others stay.
    The file is sorted by these and replaced atomically. Its folder is made. Nothing is written if
    none of `runs` has ended. Raises UsageError if the file there cannot be read or is not one of
    kept runs (`read_kept`).
    """
    kept = {run.place: run for run in read_kept(path)}
    ended = {run.place: run for run in runs if run.status != "unfinished"}
    if not ended:
        return
    text = ""
    for run in sorted((kept | ended).values(), key=lambda run: run.place):
        text += to_json(dataclasses.asdict(run), ensure_ascii=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
