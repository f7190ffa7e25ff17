"""The paper's tables and figures from runs: grouped by what the figure compares."""

import csv
import io
import math
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gcnn.base.errors import UsageError
from gcnn.base.files import write_atomically, write_json
from gcnn.base.gates import GATES
from gcnn.base.provenance import portable
from gcnn.config.schema import ModelConfig, TrainConfig
from gcnn.reporting.results import describe_hardware
from gcnn.reporting.units import magnitude, plural
from gcnn.reproduction.kept_runs import KeptRun
from gcnn.reproduction.paper import MODEL_TITLES, model_title
from gcnn.runs.json_files import Number, Text, read_json

RECIPES = {  # weight normalisation, clipping
    (True, True): ("both", "both"),
    (True, False): ("no_clipping", "without clipping"),
    (False, True): ("no_weight_norm", "without weight normalisation"),
    (False, False): ("neither", "without either"),
}
FORMS = {  # the paper's model that one of this form stands for
    "table2": {
        "bottleneck": "gcnn_14b",
        "uniform": "gcnn_13",
        "lstm_2": "lstm_2048x2",
        "lstm_1": "lstm_2048",
    },
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
    wikitext103: dict[str, Number] = field(
        default_factory=dict
    )  # test perplexity of WikiText-103, by seed
    wikitext103_unknown: Number = None  # the share of unknown words there
    curve: Curve


@dataclass(kw_only=True)
class Record:
    """<figure>.json: what the runs of a figure have found."""

    figure: Text
    scale: Text
    command: Text
    data: Text
    seeds: list[Number]
    hardware: list[Text]
    git_commits: list[Text]
    missing: Number = 0  # planned runs that have not begun
    groups: list[Group]


def model_form(model: ModelConfig) -> str:
    """What tells the paper's models of one table apart, at any width."""
    if model.kind == "lstm":
        return f"lstm_{model.num_layers}"
    if any(len(block.convs) == 3 for block in model.blocks):
        return "bottleneck"
    return (
        "uniform"
        if len({kernel for block in model.blocks for kernel, _ in block.convs}) == 1
        else "varied"
    )


def shape(group: Group) -> str:
    """Of a group of Figure S, which is a model at a size of the text, the model."""
    return group.group.partition(", first ")[0]


def architecture(model: ModelConfig) -> str:
    """The name of a model that is the paper's own; of another, its blocks as Table 1 writes them."""
    return model_title(model) or model.notation()


def place_in(figure: str, config: TrainConfig) -> tuple[str, str, str]:
    """Where a run stands in a figure: its group, the variant of it (a size, a learning rate), and both in words."""
    model, lr = config.model, f"{config.optimizer.lr:g}"
    if (
        figure == "search"
    ):  # by what a trial drew; dropouts: the layers', the GCNN's embedding's, the output's
        rates = (model.dropout, getattr(model, "embedding_dropout", None), model.output_dropout)
        dropout = "/".join(f"{rate:g}" for rate in rates if rate is not None)
        title = (
            f"{model.kind.upper()}; lookup {model.embedding_dim}; dropout {dropout}; learning rate "
            f"{config.optimizer.lr:.3g}; weight decay {config.optimizer.weight_decay:g}"
        )
        return (
            model.kind,
            architecture(model),
            title + "; state carried" * config.trainer.carry_state,
        )
    if figure == "figs":
        group = title = f"{model.summary()}, first {magnitude(config.data.train_tokens)} tokens"
    elif figure in FORMS:
        group = FORMS[figure].get(model_form(model), model_form(model))
        title = MODEL_TITLES.get(group) or architecture(model)
    elif figure == "fig2":
        group = title = f"{'adaptive' if model.cutoffs else 'full'} softmax, {architecture(model)}"
    elif figure == "fig4":
        group, title = str(model.receptive_field), plural(model.receptive_field, "word")
    elif figure == "fig6":
        group, title = RECIPES[
            getattr(model, "weight_norm", False), config.trainer.clip_norm is not None
        ]
    else:
        group, title = model.gate, GATES[model.gate].title
    shuffled = model.recurrent and not (config.trainer.carry_state or config.data.sentences)
    order = " in shuffled blocks" if shuffled else ""
    return group, lr + order, f"{title}{order}, learning rate {lr}"


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


def make_record(
    figure: str, scale: str, runs: Iterable[KeptRun], settings: Iterable[str] = (), missing: int = 0
) -> Record | None:
    """A figure's Record of its runs; None of none. `settings` are those of its plan, as key=value; `missing` runs that
    are planned have not begun."""
    runs_at: dict[tuple[str, str, str], list[KeptRun]] = {}
    for run in runs:
        runs_at.setdefault(place_in(figure, run.recipe), []).append(run)
    if not runs_at:
        return None
    runs = [run for group in runs_at.values() for run in group]
    results = [run.results for run in runs if run.results]
    groups = [make_group(*place, runs_there) for place, runs_there in runs_at.items()]
    if figure in ORDER:
        groups.sort(key=ORDER[figure])
    return Record(
        figure=figure,
        scale=scale,
        command=reproduce_command(figure, scale, results[0].command if results else None, settings),
        data=runs[0].recipe.data.name,
        seeds=sorted({run.recipe.seed for run in runs}),
        hardware=sorted({describe_hardware(found.hardware) for found in results}),
        git_commits=sorted(
            {c for found in results for c in (found.git_commit or "unknown").split(" or ")}
        ),
        missing=missing,
        groups=groups,
    )


def make_group(group: str, variant: str, title: str, runs: list[KeptRun]) -> Group:
    """One of runs that differ in their seed alone. Raises UsageError for two of one seed."""
    runs = sorted(runs, key=lambda run: run.recipe.seed)
    seeds = [run.recipe.seed for run in runs]
    if len(seeds) > len(set(seeds)):
        raise UsageError(
            f"{title}: two runs have the same seed. Remove one; they would count as one."
        )
    done = {str(run.recipe.seed): run for run in runs if run.status == "done"}
    config, results = runs[0].recipe, next((run.results for run in done.values()), None)
    test = {seed: rounded(run.results.test.perplexity) for seed, run in done.items()}
    elsewhere = {seed: run.wikitext103 for seed, run in done.items() if run.wikitext103}
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
        validation_perplexity={
            seed: rounded(run.results.validation.perplexity) for seed, run in done.items()
        },
        mean=rounded(sum(test.values()) / len(test)) if test else None,
        min=min(test.values(), default=None),
        max=max(test.values(), default=None),
        diverged=[run.recipe.seed for run in runs if run.status == "diverged"],
        unfinished=[run.recipe.seed for run in runs if run.status == "unfinished"],
        corpus_tokens=config.data.train_tokens,
        wikitext103={seed: rounded(split.perplexity) for seed, split in elsewhere.items()},
        wikitext103_unknown=next(
            (rounded(split.unknown / split.tokens) for split in elsewhere.values()), None
        ),
        curve=make_curve(done),
    )


def make_curve(done: dict[str, KeptRun]) -> Curve:
    lines = {seed: {line.step: line for line in run.curve} for seed, run in done.items()}
    steps = sorted(set.intersection(*map(set, lines.values()))) if lines else []
    return Curve(
        steps=steps,
        tokens=[next(iter(lines.values()))[step].tokens for step in steps],
        perplexity={
            seed: [rounded(at[step].perplexity) for step in steps] for seed, at in lines.items()
        },
    )


def rounded(number: float | None) -> float | None:
    """Six significant figures: more are noise, and files that change for nothing."""
    return None if number is None else float(f"{number:.6g}")


def reproduce_command(
    figure: str, scale: str, trained: str | None = None, settings: Iterable[str] = ()
) -> str:
    """The command that makes a figure; where files lie is left open. `trained` is that of a run, which may say more
    than the `settings` of the plan."""
    planned = {word.partition("=")[0] for word in settings} | {"experiment", "optimizer.lr", "seed"}
    overrides = {"data.path": "DIR"}
    for word in portable(shlex.split(trained or "")[2:]):
        key, equals, content = word.partition("=")
        if equals and not key.startswith(("-", "hydra")) and key not in planned:
            overrides[key] = content
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
        row = {
            key: entry for key, entry in asdict(group).items() if not isinstance(entry, dict | list)
        }
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
            raise UsageError(
                f"{path} is no figure of the paper. Remove it, or make it again with `make reproduce`."
            )
        records.setdefault(path.parent.name, {})[record.figure] = record
    return records
