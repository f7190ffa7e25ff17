"""The paper's tables and figures from sweeps on disk: each member read, grouped by what the figure compares."""

import csv
import io
import math
import re
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from gcnn.config import CONFIGS, GCNNConfig, LSTMConfig, TrainConfig
from gcnn.errors import UsageError
from gcnn.files import write_atomically, write_json
from gcnn.gates import GATES
from gcnn.provenance import portable
from gcnn.reporting.files import Number, Text, read_json
from gcnn.reporting.results import Run, Split, describe_hardware, describe_model, load_run
from gcnn.reporting.units import magnitude, plural
from gcnn.reproduction.paper import MODEL_TITLES, model_title, notation

WIKITEXT_103 = "wikitext103.json"  # in a run: what `gcnn evaluate --json --file wiki.test.tokens` printed
RECIPES = {  # weight normalisation, clipping
    (True, True): ("both", "both"),
    (True, False): ("no_clipping", "without clipping"),
    (False, True): ("no_weight_norm", "without weight normalisation"),
    (False, False): ("neither", "without either"),
}
FORMS = {  # the paper's model that one of this form stands for
    "table2": {"bottleneck": "gcnn_14b", "uniform": "gcnn_13", "lstm_2": "lstm_2048x2", "lstm_1": "lstm_2048"},
    "table3": {"varied": "gcnn_14", "uniform": "gcnn_8", "lstm_1": "lstm_1024"},
    "table4": {"bottleneck": "gcnn_8b", "uniform": "gcnn_9", "lstm_1": "lstm_2048"},
}


@dataclass(kw_only=True)
class Curve:
    """Validation perplexities at the steps that all runs of a group have."""

    steps: list[Number]
    tokens: list[Number]
    perplexity: dict[str, list[Number]]  # by seed


@dataclass(kw_only=True)
class Group:
    """What a figure compares: runs that differ in their seed alone. Perplexities are those of finished runs."""

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
    wikitext103: dict[str, Number] = field(default_factory=dict)  # test perplexity of WikiText-103, by seed
    wikitext103_unknown: Number = None  # the share of unknown words there
    curve: Curve


@dataclass(kw_only=True)
class Record:
    """<figure>.json: what the sweeps of a figure have found."""

    figure: Text
    scale: Text
    command: Text
    data: Text
    seeds: list[Number]
    hardware: list[Text]
    git_commits: list[Text]
    missing: Number = 0  # members that have not begun
    groups: list[Group]


def model_form(model: GCNNConfig | LSTMConfig) -> str:
    """What tells the paper's models of one table apart, at any width."""
    if model.kind == "lstm":
        return f"lstm_{model.num_layers}"
    if any(len(block.convs) == 3 for block in model.blocks):
        return "bottleneck"
    return "uniform" if len({kernel for block in model.blocks for kernel, _ in block.convs}) == 1 else "varied"


def context(model: GCNNConfig) -> int:
    """The words that a prediction depends on."""
    return 1 + sum(block.repeat * sum(kernel - 1 for kernel, _ in block.convs) for block in model.blocks)


def shape(group: Group) -> str:
    """Of a group of Figure S, which is a model at a size of the text, the model."""
    return group.group.partition(", first ")[0]


def architecture(model: GCNNConfig | LSTMConfig) -> str:
    """The name of a model that is the paper's own; of another, its blocks as Table 1 writes them."""
    return model_title(model) or notation(model)


def place_in(figure: str, config: TrainConfig) -> tuple[str, str, str]:
    """Where a run stands in a figure: its group, the variant of it (a size, a learning rate), and both in words."""
    model, lr = config.model, f"{config.optimizer.lr:g}"
    if figure == "search":  # by what a trial drew; dropouts: the layers', the GCNN's embedding's, the output's
        rates = (model.dropout, getattr(model, "embedding_dropout", None), model.output_dropout)
        dropout = "/".join(f"{rate:g}" for rate in rates if rate is not None)
        title = (
            f"{model.kind.upper()}; lookup {model.embedding_dim}; dropout {dropout}; learning rate "
            f"{config.optimizer.lr:.3g}; weight decay {config.optimizer.weight_decay:g}"
        )
        return model.kind, architecture(model), title + "; state carried" * config.trainer.carry_state
    if figure == "figs":
        group = title = f"{describe_model(model)}, first {magnitude(config.data.train_tokens)} tokens"
    elif figure in FORMS:
        group = FORMS[figure].get(model_form(model), model_form(model))
        title = MODEL_TITLES.get(group) or architecture(model)
    elif figure == "fig2":
        group = title = f"{'adaptive' if model.cutoffs else 'full'} softmax, {architecture(model)}"
    elif figure == "fig4":
        group, title = str(context(model)), plural(context(model), "word")
    elif figure == "fig6":
        group, title = RECIPES[getattr(model, "weight_norm", False), config.trainer.clip_norm is not None]
    else:
        group, title = model.gate, GATES[model.gate].title
    return group, lr, f"{title}, learning rate {lr}"


FIGURES = {  # where it stands in the paper, and what it shows
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
ORDER = {  # of the groups; in other figures as their runs come
    "fig2": lambda group: group.flops_per_token or math.inf,
    "fig4": lambda group: group.receptive_field,
    "figs": lambda group: (shape(group), group.corpus_tokens, group.lr),
}


def sweeps(scale: str, figure: str | None = None) -> dict[str, list[str]]:
    """The figures of a scale and the experiments that make each: configs/experiment/<scale>/<figure>[_part].yaml, with
    the names of several figures where they share it.

    Raises UsageError for a scale or a figure that has none.
    """
    folder = CONFIGS / "experiment" / scale
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    sweeps_of = {figure: [name for name in names if figure in name.split("_")] for figure in FIGURES}
    sweeps_of = {figure: parts for figure, parts in sweeps_of.items() if parts}
    if not sweeps_of:
        scales = [path.name for path in sorted(folder.parent.iterdir()) if any(path.glob("fig*.yaml"))]
        raise UsageError(f"there is no scale {scale!r}; choose one of: {', '.join(scales)}.")
    if figure is not None and figure not in sweeps_of:
        raise UsageError(f"there is no figure {figure!r} at scale {scale}; choose one of: {', '.join(sweeps_of)}.")
    return sweeps_of if figure is None else {figure: sweeps_of[figure]}


def count_members(scale: str, name: str) -> int:
    """The members of a sweep's grid; 0 of a search, which has as many trials as it is asked for."""
    content = yaml.safe_load((CONFIGS / "experiment" / scale / f"{name}.yaml").read_text(encoding="utf-8"))
    params = content.get("hydra", {}).get("sweeper", {}).get("params", {})
    overrides = OverridesParser.create().parse_overrides([f"{key}={choices}" for key, choices in params.items()])
    swept = [override for override in overrides if override.is_sweep_override()]
    if not all(override.is_choice_sweep() for override in swept):
        return 0
    return math.prod(sum(1 for _ in override.sweep_iterator()) for override in swept)


def make_record(figure: str, scale: str, folders: Iterable[Path], members: int = 0) -> Record | None:
    """What the sweeps of a figure found; None where no member of theirs has begun.

    `members` of theirs are planned: what has not begun is counted as missing.
    """
    runs_at: dict[tuple[str, str, str], list[Run]] = {}
    for folder in folders:
        begun = [path.parent for path in folder.glob("*/config.yaml")]
        for path in sorted(begun, key=lambda member: (len(member.name), member.name)):
            run = load_run(path)
            runs_at.setdefault(place_in(figure, run.config), []).append(run)
    runs = [run for group in runs_at.values() for run in group]
    if not runs:
        return None
    finished = [run for run in runs if run.finished]
    groups = [make_group(*place, runs_there) for place, runs_there in runs_at.items()]
    if figure in ORDER:
        groups.sort(key=ORDER[figure])
    return Record(
        figure=figure,
        scale=scale,
        command=reproduce_command(figure, scale, finished),
        data=runs[0].config.data.name,
        seeds=sorted({run.config.seed for run in runs}),
        hardware=sorted({describe_hardware(run.results.hardware) for run in finished}),
        git_commits=sorted({c for run in finished for c in (run.results.git_commit or "unknown").split(" or ")}),
        missing=max(0, members - len(runs)),
        groups=groups,
    )


def run_status(run: Run) -> str:
    """done, diverged or unfinished."""
    if run.finished:
        return "done" if math.isfinite(run.test_perplexity) else "diverged"
    return "diverged" if re.search(r"(loss|gradient norm) -?(nan|inf)", run.member.error or "") else "unfinished"


def make_group(group: str, variant: str, title: str, runs: list[Run]) -> Group:
    runs = sorted(runs, key=lambda run: run.config.seed)
    done = {str(run.config.seed): run for run in runs if run_status(run) == "done"}
    config, results = runs[0].config, next((run.results for run in done.values()), None)
    test = {seed: rounded(run.results.test.perplexity) for seed, run in done.items()}
    elsewhere = {seed: read_json(run.path / WIKITEXT_103, Split) for seed, run in done.items()}
    elsewhere = {seed: split for seed, split in elsewhere.items() if split}
    return Group(
        group=group,
        variant=variant,
        title=title,
        model=architecture(config.model),
        lr=config.optimizer.lr,
        parameters=results and results.parameters.total,
        flops_per_token=results and rounded(results.flops_per_token),
        receptive_field=None if config.model.kind == "lstm" else context(config.model),
        tokens=max((run.results.train.tokens for run in done.values()), default=None),
        test_perplexity=test,
        validation_perplexity={seed: rounded(run.results.validation.perplexity) for seed, run in done.items()},
        mean=rounded(sum(test.values()) / len(test)) if test else None,
        min=min(test.values(), default=None),
        max=max(test.values(), default=None),
        diverged=sorted({run.config.seed for run in runs if run_status(run) == "diverged"}),
        unfinished=sorted({run.config.seed for run in runs if run_status(run) == "unfinished"}),
        corpus_tokens=config.data.train_tokens,
        wikitext103={seed: rounded(split.perplexity) for seed, split in elsewhere.items()},
        wikitext103_unknown=next((rounded(split.unknown / split.tokens) for split in elsewhere.values()), None),
        curve=make_curve(done),
    )


def make_curve(done: dict[str, Run]) -> Curve:
    lines = {seed: {line.step: line for line in run.validation} for seed, run in done.items()}
    steps = sorted(set.intersection(*map(set, lines.values()))) if lines else []
    return Curve(
        steps=steps,
        tokens=[next(iter(lines.values()))[step].tokens for step in steps],
        perplexity={seed: [rounded(at[step].perplexity) for step in steps] for seed, at in lines.items()},
    )


def rounded(number: float | None) -> float | None:
    """Six significant figures: more are noise, and files that change for nothing."""
    return None if number is None else float(f"{number:.6g}")


def reproduce_command(figure: str, scale: str, done: list[Run]) -> str:
    """The command that makes a figure, with what its members were asked for besides; where files lie is left open."""
    words = portable(shlex.split(done[0].results.command or "")[2:]) if done else []
    overrides = {"data.path": "DIR"}
    overrides |= dict(word.split("=", 1) for word in words if "=" in word and not word.startswith(("-", "hydra")))
    overrides.pop("experiment", None)
    arguments = " ".join(f"{key}={content}" for key, content in overrides.items())
    return f'make reproduce FIGURE={figure} SCALE={scale} ARGS="{arguments}"'


def write_record(record: Record, folder: Path, svg: str | None) -> None:
    """Write <figure>.json, .csv and, where there is a drawing, .svg."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{record.figure}.json", asdict(record))
    texts = {"csv": table_csv(record)} | ({"svg": svg} if svg else {})
    for ending, text in texts.items():
        path = folder / f"{record.figure}.{ending}"
        write_atomically(path, lambda aside, text=text: aside.write_text(text, encoding="utf-8"))


def table_csv(record: Record) -> str:
    """One row a group."""
    rows = []
    for group in record.groups:
        row = {key: entry for key, entry in asdict(group).items() if not isinstance(entry, dict | list)}
        row |= {f"test_seed_{seed}": group.test_perplexity.get(str(seed)) for seed in record.seeds}
        rows.append(row | {"diverged": len(group.diverged)})
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def load_records(folder: Path) -> dict[str, dict[str, Record]]:
    """The records of a folder by scale and figure. Raises UsageError for a file that is none."""
    records: dict[str, dict[str, Record]] = {}
    for path in sorted(folder.glob("*/*.json")):
        record = read_json(path, Record)
        if record.figure not in FIGURES or not record.groups:
            raise UsageError(f"{path} is no figure of the paper. Remove it, or make it again with `make reproduce`.")
        records.setdefault(path.parent.name, {})[record.figure] = record
    return records
