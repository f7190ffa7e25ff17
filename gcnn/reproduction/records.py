"""The records of the paper's tables and figures: runs in the groups that a figure compares.

"Figure" means any key of FIGURES, tables included. A scale is a folder of configs/reproduce.
The order: find each run's group, make the record, write it as JSON and CSV; and read records again.
"""

import csv
import io
import math
import re
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from pathlib import Path

from gcnn.base.errors import UsageError
from gcnn.base.files import write_json, write_text
from gcnn.base.provenance import portable, words_of
from gcnn.reporting.results import describe_hardware
from gcnn.reproduction.grouping import architecture, group_of
from gcnn.reproduction.kept_runs import KeptRun
from gcnn.runs.directory import RESULTS
from gcnn.runs.json_files import Number, Text, read_json


@dataclass(kw_only=True)
class Curve:
    """Validation perplexities of a group's finished runs, at the steps that all of them have."""

    steps: list[Number]  # ascending
    tokens: list[Number]  # trained on until each step
    perplexity: dict[str, list[Number]]  # by seed; of each step, None: not finite


@dataclass(kw_only=True)
class Group:
    """Runs that differ in their seed alone, as a figure compares them.

    Perplexities are those of finished runs. If none is finished, their dictionaries are empty, and
    the numbers marked "if finished" are None.
    """

    group: Text  # what the figure compares, such as a model or a gate
    variant: Text  # tells groups of the same name apart: the learning rate, mostly
    title: Text  # group and variant, for readers
    model: Text  # its architecture, for readers
    lr: Number
    parameters: Number  # if finished
    flops_per_token: Number  # if finished
    receptive_field: Number  # words; null: unbounded
    tokens: Number  # trained on, the most of any run; if finished
    test_perplexity: dict[str, Number]  # by seed
    validation_perplexity: dict[str, Number]  # by seed
    mean: Number  # of the test perplexities, as min and max; if finished
    min: Number
    max: Number
    diverged: list[Number]  # seeds
    unfinished: list[Number]  # seeds
    corpus_tokens: Number = None  # the first of the training text, where not all of it
    # Test perplexity of WikiText-103, by seed, and the share of unknown words there.
    wikitext103: dict[str, Number] = field(default_factory=dict)
    wikitext103_unknown: Number = None
    curve: Curve


@dataclass(kw_only=True)
class Record:
    """The content of <figure>.json: the numbers of a figure, and how they were made."""

    figure: Text
    scale: Text
    command: Text
    data: Text
    seeds: list[Number]
    hardware: list[Text]
    git_commits: list[Text]
    missing: Number = 0  # planned runs that have not begun
    groups: list[Group]


def shape(group: Group) -> str:
    """The model of a group of Figure S, without the size of its text: as "LSTM, 1 × 1024"."""
    return group.group.partition(", first ")[0]


FIGURES = {  # where a figure is in the paper, and what it shows
    "table2": ("Table 2", "models on single sentences"),
    "table3": ("Table 3", "models on running text"),
    "table4": ("Table 4", "speed at one perplexity"),
    "fig2": ("Figure 2", "operations a token, with the adaptive and with the full softmax"),
    "fig3": ("Figure 3", "gates"),
    "fig4": ("Figure 4", "size of the context"),
    "fig5": ("Figure 5", "degrees of non-linearity"),
    "fig6": ("Figure 6", "weight normalisation and gradient clipping"),
    "figc": ("Figure C, not in the paper", "size of the context at equal width"),
    "figs": ("Figure S, not in the paper", "the ordering against the size of the text"),
    "figg": ("Figure G, not in the paper", "gates that came after GLU"),
    "search": ("Section 4.3", "random search of hyper-parameters"),
}


def operations_or_last(group: Group) -> float:
    return group.flops_per_token or math.inf


def shape_and_size(group: Group) -> tuple:
    return shape(group), group.corpus_tokens, group.lr


# Sort keys of a figure's groups; in other figures they come in the order of their runs.
ORDER = {
    "fig2": operations_or_last,
    "fig4": attrgetter("receptive_field"),
    "figc": attrgetter("receptive_field"),
    "figs": shape_and_size,
}


def make_record(
    figure: str, scale: str, runs: Iterable[KeptRun], settings: Iterable[str] = (), missing: int = 0
) -> Record | None:
    """The record of a figure's runs, finished or not; None without any.

    Groups are in the order of their first runs, or sorted as ORDER says. Hardware and commits are
    those of all runs with results, diverged ones included; a run without a commit adds "unknown".
    The command repeats the overrides of the first of these runs, taken group by group; without
    results it repeats none.
    settings: of the figure's plan, key=value; the record's command does not repeat them.
    missing: how many planned runs have not begun.
    Raises UsageError if two runs of a group have the same seed, or if a run cannot be read.
    """
    runs_of: dict[tuple[str, str, str], list[KeptRun]] = {}
    for run in runs:
        runs_of.setdefault(group_of(figure, run.recipe), []).append(run)
    if not runs_of:
        return None
    grouped_runs = []
    groups = []
    for (group, variant, title), same in runs_of.items():
        grouped_runs += same
        groups.append(make_group(group, variant, title, same))
    if figure in ORDER:
        groups.sort(key=ORDER[figure])
    results = [run.results for run in grouped_runs if run.results]
    trained = results[0].command if results else None
    commits = set()
    for found in results:
        commits.update((found.git_commit or "unknown").split(" or "))
    return Record(
        figure=figure,
        scale=scale,
        command=reproduce_command(figure, scale, trained, settings),
        data=grouped_runs[0].recipe.data.name,
        seeds=sorted({run.recipe.seed for run in grouped_runs}),
        hardware=sorted({describe_hardware(found.hardware) for found in results}),
        git_commits=sorted(commits),
        missing=missing,
        groups=groups,
    )


def make_group(group: str, variant: str, title: str, runs: list[KeptRun]) -> Group:
    """The group of runs that differ in their seed alone, of which there must be at least one.

    group, variant, title: as `group_of` returns them. Config values are those of the lowest seed,
    parameters and operations those of the lowest finished seed. Perplexities are `rounded`.
    Raises UsageError if two runs have the same seed, or if a run cannot be read.
    """
    runs = sorted(runs, key=lambda run: run.recipe.seed)
    seeds = [run.recipe.seed for run in runs]
    if len(seeds) > len(set(seeds)):
        raise UsageError(
            f"{title}: two runs have the same seed. Remove one; they would count as one."
        )
    done = {str(run.recipe.seed): run for run in runs if run.status == "done"}
    config = runs[0].recipe
    results = next((run.results for run in done.values()), None)
    test = {}
    validation = {}
    wikitext103 = {}
    wikitext103_unknown = None
    for seed, run in done.items():
        test[seed] = rounded(run.results.test.perplexity)
        validation[seed] = rounded(run.results.validation.perplexity)
        split = run.wikitext103
        if split:
            wikitext103[seed] = rounded(split.perplexity)
            if wikitext103_unknown is None:
                wikitext103_unknown = rounded(split.unknown / split.tokens)
    return Group(
        group=group,
        variant=variant,
        title=title,
        model=architecture(config.model),
        lr=config.optimizer.lr,
        parameters=results and results.parameters.total,
        flops_per_token=results and rounded(results.flops_per_token),
        receptive_field=config.model.receptive_field,
        tokens=max((run.results.train.tokens for run in done.values()), default=None),
        test_perplexity=test,
        validation_perplexity=validation,
        mean=rounded(sum(test.values()) / len(test)) if test else None,
        min=min(test.values(), default=None),
        max=max(test.values(), default=None),
        diverged=[run.recipe.seed for run in runs if run.status == "diverged"],
        unfinished=[run.recipe.seed for run in runs if run.status == "unfinished"],
        corpus_tokens=config.data.train_tokens,
        wikitext103=wikitext103,
        wikitext103_unknown=wikitext103_unknown,
        curve=make_curve(done),
    )


def make_curve(done: dict[str, KeptRun]) -> Curve:
    """The validation perplexities of finished runs (seed -> run) at the steps that all have.

    They are `rounded`; the tokens at each step are those of the first run. Without runs or common
    steps the curve has no steps. Raises UsageError if a run's validations cannot be read.
    """
    by_step = {}  # seed -> step -> validation
    for seed, run in done.items():
        by_step[seed] = {validation.step: validation for validation in run.curve}
    if not by_step:
        return Curve(steps=[], tokens=[], perplexity={})
    steps = sorted(set.intersection(*map(set, by_step.values())))
    first = next(iter(by_step.values()))
    perplexities = {}
    for seed, at_step in by_step.items():
        perplexities[seed] = [rounded(at_step[step].perplexity) for step in steps]
    tokens = [first[step].tokens for step in steps]
    return Curve(steps=steps, tokens=tokens, perplexity=perplexities)


def rounded(number: float | None) -> float | None:
    """A number to six significant figures; more are noise, and would change committed files."""
    return None if number is None else float(f"{number:.6g}")


def reproduce_command(
    figure: str, scale: str, trained: str | None = None, settings: Iterable[str] = ()
) -> str:
    """The `make reproduce` command that makes a figure, shell-quoted, with DIR for the data.

    trained: the shell command of one of its runs; None if there is none yet. Its overrides are
    repeated, with paths as `portable` writes them, unless the plan sets their keys; its options and
    the experiment, learning rate, seed and Hydra's own keys are not.
    settings: the plan's own, key=value. Raises UsageError if a quote in `trained` is not closed.
    """
    planned = {word.partition("=")[0] for word in settings} | {"experiment", "optimizer.lr", "seed"}
    overrides = {"data.path": "DIR"}
    words = words_of(trained, f"{RESULTS} of a run of {figure}")
    for word in portable(words[2:]):  # without `gcnn train` or `python SCRIPT`
        key, equals, content = word.lstrip("+").partition("=")
        if equals and not key.startswith(("-", "hydra")) and key not in planned:
            overrides[key] = content
    arguments = shlex.join(f"{key}={content}" for key, content in overrides.items())
    arguments = arguments.replace("$", "$$")  # for make
    arguments = re.sub(r'[\\"$`]', r"\\\g<0>", arguments)  # within the shell's quotes
    return f'make reproduce FIGURE={figure} SCALE={scale} ARGS="{arguments}"'


def write_record(record: Record, folder: Path, svg: str | None) -> None:
    """Write a record to `folder` as <figure>.json and <figure>.csv, and its picture as .svg.

    svg: the picture's SVG text; None: no picture is written, and one already there stays.
    The folder is made; files are replaced atomically. The record must have a group.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{record.figure}.json", asdict(record))
    texts = {"csv": table_csv(record)}
    if svg:
        texts["svg"] = svg
    for ending, text in texts.items():
        write_text(folder / f"{record.figure}.{ending}", text)


def table_csv(record: Record) -> str:
    """A record as CSV with a header and one row a group, of which there must be at least one.

    The columns: the entries of Group that are no list or dictionary, under their names (empty for
    None), then `test_seed_<seed>`, the test perplexity of each seed of the record (empty for one
    that is not finished), and `diverged`, the number of diverged seeds. Ends in a newline.
    """
    rows = []
    for group in record.groups:
        row = {}
        for key, entry in asdict(group).items():
            if not isinstance(entry, dict | list):
                row[key] = entry
        for seed in record.seeds:
            row[f"test_seed_{seed}"] = group.test_perplexity.get(str(seed))
        row["diverged"] = len(group.diverged)
        rows.append(row)
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def load_records(folder: Path) -> dict[str, dict[str, Record]]:
    """The records in folder/SCALE/FIGURE.json, as scale -> figure -> record.

    Empty without any, or if the folder does not exist.
    Raises UsageError if a file there is not a record with groups, or is the record of another
    figure or scale than its name and folder say.
    """
    records: dict[str, dict[str, Record]] = {}
    for path in sorted(folder.glob("*/*.json")):
        record = read_json(path, Record)
        in_place = (path.parent.name, path.stem) == (record.scale, record.figure)
        if record.figure not in FIGURES or not record.groups or not in_place:
            raise UsageError(
                f"{path} is no figure of the paper, or another one than its name says. Remove it, "
                "or make it again with `make reproduce`."
            )
        records.setdefault(path.parent.name, {})[record.figure] = record
    return records
