"""The runs of a report: found and read, ranked where they compare, named, and in tables."""

import math
import os
from collections.abc import Callable
from pathlib import Path

from gcnn.base.errors import UsageError, one_line
from gcnn.reporting.document import Table, table_of
from gcnn.reporting.ranking import PER_TOKEN, compare, rankings
from gcnn.reporting.results import Publication, Run, load_run, receptive_field, varying
from gcnn.reporting.units import DASH, count, decimals, duration, magnitude, perplexity

MANY = 10  # runs in one report that all columns and colours are given to


def find_runs(path: str | Path) -> list[Path]:
    """The run directory at `path`, or all below it. Raises UsageError where there is none."""
    runs = []
    for folder, subfolders, files in os.walk(path):
        subfolders.sort()
        if "config.yaml" in files:
            runs.append(Path(folder))
            subfolders.clear()  # what a logger keeps inside a run is no run
    if not runs:
        raise UsageError(
            f"{path}: no run directory here (a folder with config.yaml). Give one, or a folder of them."
        )
    return runs


def load_runs(paths: list[Path], paper: Publication | None = None) -> tuple[list[Run], list[str]]:
    """All runs at or below the paths, each once, by data and rank, their labels distinct; and a line for each path that
    is left out because it cannot be read. Raises UsageError where nothing is left."""
    folders: dict[Path, None] = {}
    runs, refused = [], []
    for path in paths:
        try:
            folders |= dict.fromkeys(folder.resolve() for folder in find_runs(path))
        except (UsageError, OSError) as error:
            refused.append(one_line(error))
    for folder in folders:
        try:
            runs.append(load_run(folder, paper))
        except (UsageError, OSError) as error:
            refused.append(one_line(error))
    if not runs:
        raise UsageError(" ".join(refused))
    ranked = [run for _, group in rankings(runs) for run in group]
    places = {id(run): place for place, run in enumerate(ranked)}
    runs.sort(key=lambda run: (run.config.data.name, places.get(id(run), math.inf)))
    name_members(runs)
    for name in (lambda run: f"{run.label} {run.path.name}", lambda run: str(run.path)):
        labels = [run.label for run in runs]
        for run in runs:
            if labels.count(run.label) > 1:
                run.label = name(run)
    return runs, refused


def name_members(runs: list[Run]) -> None:
    """Label the members of a sweep by what varies between them, after their experiment where there are several."""
    experiments = {run.config.experiment for run in runs}
    for experiment in experiments:
        members = [
            run for run in runs if run.config.experiment == experiment and run.member.overrides
        ]
        for run, settings in zip(
            members, varying([run.member.settings for run in members]), strict=True
        ):
            keys = [key.rpartition(".")[2] for key in settings]
            names = [
                key if keys.count(short) > 1 else short
                for key, short in zip(settings, keys, strict=True)
            ]
            varied = ", ".join(
                f"{name}={choice}" for name, choice in zip(names, settings.values(), strict=True)
            )
            run.label = (
                " ".join(filter(None, [experiment if len(experiments) > 1 else "", varied]))
                or run.label
            )


def runs_table(runs: list[Run]) -> Table:
    """The perplexities of each run, with the paper's of the same model on the same data, if any."""
    columns = {
        "Run": run_title,
        "Test perplexity": lambda run: perplexity(run.results.test.perplexity),
    }
    if compare([run.results for run in runs if run.finished], "test").measure != PER_TOKEN or any(
        run.config.tokenizer.kind != "word" for run in runs
    ):
        columns["Test, per word"] = lambda run: perplexity(run.results.test.word_perplexity)
    if any(run.published for run in runs):
        columns["Paper, test"] = lambda run: (
            decimals(run.published.perplexity, 1) if run.published else DASH
        )
    columns |= {
        "Validation perplexity": lambda run: perplexity(run.validation_perplexity),
        "Unigram, test": lambda run: perplexity(run.results.test.unigram_perplexity),
    }
    return short_table(runs, columns, text_columns=1)


def models_table(runs: list[Run]) -> Table:
    """What each run is, on which data, and what it took."""
    columns = {
        "Run": run_title,
        "Model": lambda run: run.model_title,
        "Data": lambda run: run.data_title,
        "Parameters": lambda run: magnitude(run.results.parameters.total),
        "FLOPs/token": lambda run: magnitude(run.results.flops_per_token),
        "Receptive field": lambda run: receptive_field(run.results),
        "Tokens/s": lambda run: count(run.progress.tokens_per_second),
        "Training time": lambda run: duration(run.progress.seconds),
    }
    return short_table(runs, columns, text_columns=3)


def run_title(run: Run) -> str:
    return run.label if run.finished else f"{run.label} (unfinished)"


def short_table(
    runs: list[Run], columns: dict[str, Callable[[Run], str]], text_columns: int
) -> Table:
    """A row a run. Of many runs, what is the same in all of them stands in the caption instead of a column."""
    common = {}
    if len(runs) > MANY:
        for title, cell in columns.items():
            different = {cell(run) for run in runs}
            if len(different) == 1:
                common[title] = different.pop()
    shown = {title: cell for title, cell in columns.items() if title not in common}
    texts = [title for title in list(columns)[:text_columns] if title in shown]
    table = table_of(runs, shown, len(texts))
    if common:
        table.caption = f"In all runs: {'; '.join(map(': '.join, common.items()))}"
    return table
