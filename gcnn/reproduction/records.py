"""The records of the paper's tables and figures: runs in the groups that a figure compares.

The order: find each run's group, make the record, write it as JSON and CSV; and read records again.
"""

import csv
import io
import math
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from pathlib import Path

from gcnn.base.errors import UsageError
from gcnn.base.files import write_atomically, write_json
from gcnn.base.provenance import portable
from gcnn.reporting.results import describe_hardware
from gcnn.reproduction.grouping import architecture, group_of
from gcnn.reproduction.kept_runs import KeptRun
from gcnn.runs.json_files import Number, Text, read_json


@dataclass(kw_only=True)
class Curve:
    """Validation perplexities of a group's finished runs, at the steps that all of them have."""

    steps: list[Number]
    tokens: list[Number]
    perplexity: dict[str, list[Number]]  # by seed


@dataclass(kw_only=True)
class Group:
    """Runs that differ in their seed alone, as a figure compares them; perplexities are of finished
    runs.

    `group` is what the figure compares (a model, a gate), `variant` tells its groups apart (by
    learning rate), `title` says both for readers.
    """

    group: Text
    variant: Text
    title: Text
    model: Text
    lr: Number
    parameters: Number
    flops_per_token: Number
    receptive_field: Number  # words; null: unbounded
    tokens: Number
    test_perplexity: dict[str, Number]  # by seed
    validation_perplexity: dict[str, Number]
    mean: Number  # of the test perplexities, as min and max
    min: Number
    max: Number
    diverged: list[Number]  # seeds
    unfinished: list[Number]
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
    """The model of a group of Figure S, which is a model at a size of the text."""
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
    "figs": ("Figure S, not in the paper", "the ordering against the size of the text"),
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
    "figs": shape_and_size,
}


def make_record(
    figure: str, scale: str, runs: Iterable[KeptRun], settings: Iterable[str] = (), missing: int = 0
) -> Record | None:
    """The record of a figure's runs; None without any.

    `settings` are those of the figure's plan, as key=value, which the command need not repeat;
    `missing` planned runs have not begun. Raises UsageError for two runs of a group with one seed.
    """
    runs_of: dict[tuple[str, str, str], list[KeptRun]] = {}
    for run in runs:
        runs_of.setdefault(group_of(figure, run.recipe), []).append(run)
    if not runs_of:
        return None
    runs = [run for same in runs_of.values() for run in same]
    groups = [make_group(*names, same) for names, same in runs_of.items()]
    if figure in ORDER:
        groups.sort(key=ORDER[figure])
    results = [run.results for run in runs if run.results]
    commits = set()
    for found in results:
        commits.update((found.git_commit or "unknown").split(" or "))
    return Record(
        figure=figure,
        scale=scale,
        command=reproduce_command(figure, scale, results[0].command if results else None, settings),
        data=runs[0].recipe.data.name,
        seeds=sorted({run.recipe.seed for run in runs}),
        hardware=sorted({describe_hardware(found.hardware) for found in results}),
        git_commits=sorted(commits),
        missing=missing,
        groups=groups,
    )


def make_group(group: str, variant: str, title: str, runs: list[KeptRun]) -> Group:
    """The group of runs that differ in their seed alone; at least one.

    Raises UsageError where two have the same seed.
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
    """The validation curve of finished runs, by seed; without steps where there are none."""
    lines = {}
    for seed, run in done.items():
        lines[seed] = {line.step: line for line in run.curve}
    if not lines:
        return Curve(steps=[], tokens=[], perplexity={})
    steps = sorted(set.intersection(*map(set, lines.values())))
    first = next(iter(lines.values()))
    perplexities = {}
    for seed, at_step in lines.items():
        perplexities[seed] = [rounded(at_step[step].perplexity) for step in steps]
    tokens = [first[step].tokens for step in steps]
    return Curve(steps=steps, tokens=tokens, perplexity=perplexities)


def rounded(number: float | None) -> float | None:
    """A number to six significant figures; more are noise, and would change committed files."""
    return None if number is None else float(f"{number:.6g}")


def reproduce_command(
    figure: str, scale: str, trained: str | None = None, settings: Iterable[str] = ()
) -> str:
    """The command that makes a figure; the folder of the data is left open, as DIR.

    `trained` is the command of one of its runs: overrides in it that the plan does not set
    (`settings`) are repeated. None: there is no run yet.
    """
    planned = {word.partition("=")[0] for word in settings} | {"experiment", "optimizer.lr", "seed"}
    overrides = {"data.path": "DIR"}
    for word in portable(shlex.split(trained or "")[2:]):
        key, equals, content = word.partition("=")
        if equals and not key.startswith(("-", "hydra")) and key not in planned:
            overrides[key] = content
    arguments = " ".join(f"{key}={content}" for key, content in overrides.items())
    return f'make reproduce FIGURE={figure} SCALE={scale} ARGS="{arguments}"'


def write_record(record: Record, folder: Path, svg: str | None) -> None:
    """Write <figure>.json, .csv and, where there is a picture, .svg; makes the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{record.figure}.json", asdict(record))
    texts = {"csv": table_csv(record)}
    if svg:
        texts["svg"] = svg
    for ending, text in texts.items():
        path = folder / f"{record.figure}.{ending}"
        write_atomically(path, lambda aside, text=text: aside.write_text(text, encoding="utf-8"))


def table_csv(record: Record) -> str:
    """A record with at least one group as CSV, one row a group.

    The columns: the group's single values, the test perplexity of each seed (empty for a seed that
    is not finished), and how many seeds diverged.
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
    """The records in a folder, by scale (its subfolders) and figure. Raises UsageError for a file
    that is none.
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
