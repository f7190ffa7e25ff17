"""The runs of a report: found and read, sorted by how they rank, named, and in tables."""

import math
import os
from collections.abc import Callable
from pathlib import Path

from gcnn.base.errors import UsageError, one_line
from gcnn.reporting.document import Table, table_of
from gcnn.reporting.ranking import PER_TOKEN, ranking_of, rankings
from gcnn.reporting.results import Publication, Run, load_run, receptive_field, varying_settings
from gcnn.reporting.units import DASH, count, decimals, duration, magnitude, perplexity

MANY = 10  # up to so many runs, a report has all columns and gives each run a colour


def find_runs(path: str | Path) -> list[Path]:
    """The run directory at `path`, or all run directories at any depth below it.

    A run directory is a folder with config.yaml; what is inside of one is not searched. Folders
    below `path` that are links or cannot be read are skipped. Folders are searched in the order of
    their names. Raises UsageError if there is no run, or no folder at `path`.
    """
    runs = []
    for folder, subfolders, files in os.walk(path):
        subfolders.sort()
        if "config.yaml" in files:
            runs.append(Path(folder))
            subfolders.clear()  # what a logger keeps inside a run is no run
    if not runs:
        raise UsageError(
            f"{path}: no run directory here (a folder with config.yaml). Give one, or a folder of "
            "them."
        )
    return runs


def load_runs(paths: list[Path], paper: Publication | None = None) -> tuple[list[Run], list[str]]:
    """Read all runs at or below the paths. Returns them, and why others could not be read.

    Each run comes once, with its resolved path, in the order of `sort_by_rank` and with the label
    that `label_runs` gives it.
    The second list has a line for each path without a run and each run that cannot be read. Raises
    UsageError, with these lines, if no run is left, and if there are no paths.
    paper: see `load_run`.
    """
    folders: dict[Path, None] = {}  # in order, each once
    runs = []
    refused = []
    for path in paths:
        try:
            for folder in find_runs(path):
                folders[folder.resolve()] = None
        except (UsageError, OSError) as error:
            refused.append(one_line(error))
    for folder in folders:
        try:
            runs.append(load_run(folder, paper))
        except (UsageError, OSError) as error:
            refused.append(one_line(error))
    if not runs:
        raise UsageError(" ".join(refused) or "no run is given. Give one, or a folder of runs.")
    sort_by_rank(runs)
    label_runs(runs)
    return runs, refused


def sort_by_rank(runs: list[Run]) -> None:
    """Sort runs, in place, by the name of their data and then by rank (see `rankings`).

    Of one name those without a rank come last, in the order that they had.
    """
    ranked = [run for _, group in rankings(runs) for run in group]
    ranks = {id(run): rank for rank, run in enumerate(ranked)}
    runs.sort(key=lambda run: (run.config.data.name, ranks.get(id(run), math.inf)))


def label_runs(runs: list[Run]) -> None:
    """Give the runs, in place, labels that tell them apart.

    These are those of `label_members`; where several are equal, each is followed by the name of
    its run's folder; if they are still equal, each is the run's path.
    runs: labelled with the names of their experiments, as `load_run` does; no path comes twice.
    """
    label_members(runs)
    replace_repeated_labels(runs, lambda run: f"{run.label} {run.path.name}")
    replace_repeated_labels(runs, lambda run: str(run.path))


def replace_repeated_labels(runs: list[Run], label_of: Callable[[Run], str]) -> None:
    """Give each run that shares its label with another the label that `label_of` returns for it.

    Changes the runs in place. The new labels may be equal, too.
    """
    labels = [run.label for run in runs]
    for run in runs:
        if labels.count(run.label) > 1:
            run.label = label_of(run)


def label_members(runs: list[Run]) -> None:
    """Label the members of sweeps by the settings that vary between them, as "lr=0.1, seed=2".

    runs: changed in place; labelled with the names of their experiments, as `load_run` does.
    The members of each experiment are compared among themselves. If the runs are of several
    experiments, its name comes first. Runs outside of sweeps, and members in which no setting
    varies, keep their labels.
    """
    experiments = {run.config.experiment for run in runs}
    for experiment in experiments:
        members = []
        for run in runs:
            if run.config.experiment == experiment and run.member.overrides:
                members.append(run)
        varied = varying_settings([run.member.settings for run in members])
        for run, settings in zip(members, varied, strict=True):
            if not settings:
                continue
            run.label = ", ".join(short_settings(settings))
            if len(experiments) > 1:
                run.label = f"{experiment} {run.label}"


def short_settings(settings: dict[str, str]) -> list[str]:
    """Each setting as text with the last part of its key only: lr=0.1 for optimizer.lr=0.1.

    Keys that have the same last part are given in full.
    """
    short_keys = [key.rpartition(".")[2] for key in settings]
    texts = []
    for (key, choice), short in zip(settings.items(), short_keys, strict=True):
        name = key if short_keys.count(short) > 1 else short
        texts.append(f"{name}={choice}")
    return texts


def runs_table(runs: list[Run]) -> Table:
    """The perplexities of each run, a row each, as `short_table` makes it.

    Columns: run (`run_title`), test per token, test per word, the paper's, validation per token,
    and a unigram model's on the test text. The column per word is there only if the finished runs
    do not compare per token, or if the tokens of a run are not words; the paper's only if it
    reports one of the models.
    """
    columns = {
        "Run": run_title,
        "Test perplexity": lambda run: perplexity(run.results.test.perplexity),
    }
    ranking = ranking_of([run.results for run in runs if run.finished], "test")
    not_words = any(run.config.tokenizer.kind != "word" for run in runs)
    if ranking.measure != PER_TOKEN or not_words:
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
    """The model of each run and what its training took so far, as `short_table` makes it.

    Columns: run (`run_title`), model, data, parameters, FLOPs a token, receptive field, tokens a
    second and training time.
    """
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
    """The label of a run, marked where it is unfinished."""
    return run.label if run.finished else f"{run.label} (unfinished)"


def short_table(
    runs: list[Run], columns: dict[str, Callable[[Run], str]], text_columns: int
) -> Table:
    """A table with one row for each run.

    With more than MANY runs, a column with the same text in all rows is moved into the caption.
    columns: title -> function from a run to the text of its cell. text_columns: how many of the
    first of these are text, counted before any is moved.
    """
    common = {}  # title -> the text of all rows
    if len(runs) > MANY:
        for title, cell in columns.items():
            texts = {cell(run) for run in runs}
            if len(texts) == 1:
                common[title] = texts.pop()
    shown = {title: cell for title, cell in columns.items() if title not in common}
    shown_texts = [title for title in list(columns)[:text_columns] if title in shown]
    table = table_of(runs, shown, len(shown_texts))
    if common:
        parts = [f"{title}: {text}" for title, text in common.items()]
        table.caption = f"In all runs: {'; '.join(parts)}"
    return table
