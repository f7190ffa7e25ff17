"""The paper's tables and figures from sweeps on disk: each member read, grouped by what the figure compares."""

import csv
import io
import math
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from gcnn.config import CONFIGS, BlockConfig, GCNNConfig, LSTMConfig, TrainConfig
from gcnn.errors import UsageError
from gcnn.files import write_atomically, write_json
from gcnn.reporting.files import ANY, NUMBER, read_json, value
from gcnn.reporting.results import Run, describe_hardware, describe_model, load_run
from gcnn.reporting.sweep import MEMBER
from gcnn.reproduction.paper import TABLE_2, TABLE_3, TABLE_4, model_name

GATES = {"glu": "GLU", "gtu": "GTU", "relu": "ReLU", "tanh": "tanh", "bilinear": "bilinear", "linear": "linear"}
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
BY_SEED = {ANY: NUMBER}
GROUP = {
    "group": str, "variant": str, "title": str, "model": str, "lr": NUMBER, "parameters": NUMBER,
    "flops_per_token": NUMBER, "receptive_field": NUMBER, "tokens": NUMBER, "mean": NUMBER, "min": NUMBER,
    "max": NUMBER, "test_perplexity": BY_SEED, "validation_perplexity": BY_SEED, "diverged": [NUMBER],
    "unfinished": [NUMBER], "curve": {"steps": [NUMBER], "tokens": [NUMBER], "perplexity": {ANY: [NUMBER]}},
}  # fmt: skip
RECORD = {
    "figure": str, "scale": str, "command": str, "data": str, "seeds": [NUMBER], "hardware": [str],
    "git_commits": [str], "missing": NUMBER, "groups": [GROUP],
}  # fmt: skip


@dataclass(frozen=True)
class Label:
    """Where a run stands in a figure: its group, the variant of it (a size, a learning rate), and both in words."""

    group: str
    variant: str
    title: str


def form(model: GCNNConfig | LSTMConfig) -> str:
    """What tells the paper's models of one table apart, at any width."""
    if model.kind == "lstm":
        return f"lstm_{model.num_layers}"
    if any(len(block.convs) == 3 for block in model.blocks):
        return "bottleneck"
    return "uniform" if len({kernel for block in model.blocks for kernel, _ in block.convs}) == 1 else "varied"


def context(model: GCNNConfig) -> int:
    """The words that a prediction depends on."""
    return 1 + sum(block.repeat * sum(kernel - 1 for kernel, _ in block.convs) for block in model.blocks)


def architecture(model: GCNNConfig | LSTMConfig) -> str:
    """Its blocks as Table 1 writes them; the name of a model that is the paper's own, or an LSTM."""
    if model.kind == "lstm" or model_name(model):
        return describe_model(model)
    return "; ".join(map(block, model.blocks))


def block(block: BlockConfig) -> str:
    convs = ", ".join(map(str, block.convs))
    convs = f"{{{convs}}}" if len(block.convs) > 1 else convs
    return f"{convs} × {block.repeat}" if block.repeat > 1 else convs


def of_table(config: TrainConfig, figure: str) -> Label:
    name = FORMS[figure].get(form(config.model), form(config.model))
    titles = TABLE_2 | TABLE_3 | TABLE_4
    return Label(name, "", titles[name].title if name in titles else architecture(config.model))


def of_gate(config: TrainConfig, figure: str) -> Label:
    lr = f"{config.optimizer.lr:g}"
    return Label(config.model.gate, lr, f"{GATES[config.model.gate]}, learning rate {lr}")


def of_softmax(config: TrainConfig, figure: str) -> Label:
    kind = "adaptive" if config.model.cutoffs else "full"
    return Label(kind, architecture(config.model), f"{kind} softmax, {architecture(config.model)}")


def of_context(config: TrainConfig, figure: str) -> Label:
    words = context(config.model)
    return Label(str(words), "", "1 word" if words == 1 else f"{words} words")


def of_recipe(config: TrainConfig, figure: str) -> Label:
    group, title = RECIPES[getattr(config.model, "weight_norm", False), config.trainer.clip_norm is not None]
    lr = f"{config.optimizer.lr:g}"
    return Label(group, lr, f"{title}, learning rate {lr}")


def of_search(config: TrainConfig, figure: str) -> Label:
    """A trial by what it drew; the dropouts are those of the layers, of the GCNN's embedding, and of the output."""
    model, optimizer = config.model, config.optimizer
    rates = (model.dropout, getattr(model, "embedding_dropout", None), model.output_dropout)
    dropout = "/".join(f"{rate:g}" for rate in rates if rate is not None)
    title = f"{model.kind.upper()}; lookup {model.embedding_dim}; dropout {dropout}; learning rate {optimizer.lr:.3g}; "
    title += f"weight decay {optimizer.weight_decay:g}" + "; state carried" * config.trainer.carry_state
    return Label(model.kind, architecture(model), title)


FIGURES: dict[str, tuple[str, Callable[[TrainConfig, str], Label]]] = {
    "table2": ("Table 2: models on single sentences", of_table),
    "table3": ("Table 3: models on running text", of_table),
    "table4": ("Table 4: speed at one perplexity", of_table),
    "fig2": ("Figure 2: operations a token, with the adaptive and with the full softmax", of_softmax),
    "fig3": ("Figure 3: gates", of_gate),
    "fig4": ("Figure 4: size of the context", of_context),
    "fig5": ("Figure 5: degrees of non-linearity", of_gate),
    "fig6": ("Figure 6: weight normalisation and gradient clipping", of_recipe),
    "search": ("Section 4.3: random search of hyper-parameters", of_search),
}


def sweeps(scale: str, figure: str | None = None) -> dict[str, list[str]]:
    """The figures of a scale and the experiments that make each: configs/experiment/<scale>/<figure>[_part].yaml, with
    the names of several figures where they share it.

    Raises UsageError for a scale or a figure that has none.
    """
    folder = CONFIGS / "experiment" / scale
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    found = {f: [n for n in names if f in n.split("_")] for f in FIGURES}
    found = {f: parts for f, parts in found.items() if parts}
    if not found:
        scales = [path.name for path in sorted(folder.parent.iterdir()) if any(path.glob("fig*.yaml"))]
        raise UsageError(f"there is no scale {scale!r}; choose one of: {', '.join(scales)}.")
    if figure is not None and figure not in found:
        raise UsageError(f"there is no figure {figure!r} at scale {scale}; choose one of: {', '.join(found)}.")
    return found if figure is None else {figure: found[figure]}


def planned(scale: str, name: str) -> int:
    """The members of a sweep's grid; 0 of a search, which has as many trials as it is asked for."""
    content = yaml.safe_load((CONFIGS / "experiment" / scale / f"{name}.yaml").read_text(encoding="utf-8"))
    params = value(content, "hydra.sweeper.params") or {}
    overrides = OverridesParser.create().parse_overrides([f"{key}={choices}" for key, choices in params.items()])
    swept = [override for override in overrides if override.is_sweep_override()]
    if not all(override.is_choice_sweep() for override in swept):
        return 0
    return math.prod(sum(1 for _ in override.sweep_iterator()) for override in swept)


def reproduction(figure: str, scale: str, folders: Iterable[Path], members: int = 0) -> dict[str, Any] | None:
    """What the sweeps of a figure found, as RECORD says it; None where no member of theirs has begun.

    `members` of theirs are planned: what has not begun is counted as missing.
    """
    label_of = FIGURES[figure][1]
    groups: dict[Label, list[tuple[Run, str]]] = {}
    for folder in folders:
        begun = [path.parent for path in folder.glob("*/config.yaml")]
        for path in sorted(begun, key=lambda member: (len(member.name), member.name)):
            run = load_run(path)
            groups.setdefault(label_of(run.config, figure), []).append((run, status(run)))
    runs = [run for of in groups.values() for run, _ in of]
    if not runs:
        return None
    done = [run for run in runs if run.results is not None]
    record = {
        "figure": figure,
        "scale": scale,
        "command": command(figure, scale, done),
        "data": runs[0].config.data.name,
        "seeds": sorted({run.config.seed for run in runs}),
        "hardware": sorted({describe_hardware(value(run.results, "hardware")) for run in done}),
        "git_commits": sorted({value(run.results, "git_commit") or "unknown" for run in done}),
        "missing": max(0, members - len(runs)),
        "groups": [group(label, of) for label, of in groups.items()],
    }
    record["groups"].sort(key=lambda g: (g["flops_per_token"] or math.inf) if figure == "fig2" else 0)
    if figure == "fig4":
        record["groups"].sort(key=lambda g: g["receptive_field"])
    return record


def status(run: Run) -> str:
    """done, diverged or unfinished."""
    if run.results is not None:
        return "done" if math.isfinite(value(run.results, "test.perplexity") or math.inf) else "diverged"
    error = value(read_json(run.path / "member.json", MEMBER), "error") or ""
    return "diverged" if re.search(r"(loss|gradient norm) -?(nan|inf)", error) else "unfinished"


def group(label: Label, members: list[tuple[Run, str]]) -> dict[str, Any]:
    """One GROUP; perplexities are those of the finished members, by seed."""
    of = {
        kind: {run.config.seed: run for run, s in members if s == kind} for kind in ("done", "diverged", "unfinished")
    }
    done = dict(sorted(of["done"].items()))
    first, results = members[0][0], next((run.results for run in done.values()), None)
    test, validation = (
        {str(seed): rounded(run.results[split]["perplexity"]) for seed, run in done.items()}
        for split in ("test", "validation")
    )
    model = first.config.model
    return {
        "group": label.group,
        "variant": label.variant,
        "title": label.title,
        "model": architecture(model),
        "lr": first.config.optimizer.lr,
        "parameters": value(results, "parameters.total"),
        "flops_per_token": rounded(value(results, "flops_per_token")),
        "receptive_field": None if model.kind == "lstm" else context(model),
        "tokens": max((run.results["train"]["tokens"] for run in done.values()), default=None),
        "test_perplexity": test,
        "validation_perplexity": validation,
        **summary(test.values()),
        "diverged": sorted(of["diverged"]),
        "unfinished": sorted(of["unfinished"]),
        "curve": curve(done),
    }


def summary(values: Iterable[float]) -> dict[str, float | None]:
    values = list(values)
    if not values:
        return dict.fromkeys(("mean", "min", "max"))
    return {"mean": rounded(sum(values) / len(values)), "min": min(values), "max": max(values)}


def curve(done: dict[int, Run]) -> dict[str, Any]:
    """Validation perplexities at the steps that all members have, by seed."""
    lines = {seed: {line["step"]: line for line in run.validation} for seed, run in done.items()}
    steps = sorted(set.intersection(*map(set, lines.values()))) if lines else []
    return {
        "steps": steps,
        "tokens": [next(iter(lines.values()))[step]["tokens"] for step in steps],
        "perplexity": {str(seed): [rounded(of[step]["perplexity"]) for step in steps] for seed, of in lines.items()},
    }


def rounded(number: float | None) -> float | None:
    """Six significant figures: more are noise, and files that change for nothing."""
    return None if number is None else float(f"{number:.6g}")


def command(figure: str, scale: str, done: list[Run]) -> str:
    """The command that makes a figure, with what its members were asked for besides; the data's place is left open."""
    asked, own = {"data.path": "DIR"}, ("experiment", "run_dir", "resume", "data.cache_dir")
    for run in done[:1]:
        for word in shlex.split(value(run.results, "command") or "")[2:]:
            key, _, content = word.partition("=")
            if content and not key.startswith(("-", "hydra")) and key not in (*asked, *own):
                asked[key] = content
    arguments = " ".join(f"{key}={content}" for key, content in asked.items())
    return f'make reproduce FIGURE={figure} SCALE={scale} ARGS="{arguments}"'


def write_reproduction(record: dict[str, Any], folder: Path, svg: str | None) -> None:
    """Write <figure>.json, .csv and, where there is a drawing, .svg."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{record['figure']}.json", record)
    texts = {"csv": table_csv(record)} | ({"svg": svg} if svg else {})
    for ending, text in texts.items():
        path = folder / f"{record['figure']}.{ending}"
        write_atomically(path, lambda aside, text=text: aside.write_text(text, encoding="utf-8"))


def table_csv(record: dict[str, Any]) -> str:
    """One row a group."""
    file = io.StringIO()
    keys = [key for key, kind in GROUP.items() if kind in (str, NUMBER)]
    seeds = [str(seed) for seed in record["seeds"]]
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow([*keys, *(f"test_seed_{seed}" for seed in seeds), "diverged"])
    for entry in record["groups"]:
        tests = [entry["test_perplexity"].get(seed) for seed in seeds]
        rows.writerow([*(entry[key] for key in keys), *tests, len(entry["diverged"])])
    return file.getvalue()


def load_reproductions(folder: Path) -> dict[str, dict[str, dict]]:
    """The records of a folder by scale and figure. Raises UsageError for a file that is none."""
    found: dict[str, dict[str, dict]] = {}
    for path in sorted(folder.glob("*/*.json")):
        record = read_json(path, RECORD)
        if record.get("figure") not in FIGURES or "groups" not in record:
            raise UsageError(f"{path} is no figure of the paper. Remove it, or make it again with `make reproduce`.")
        found.setdefault(path.parent.name, {})[record["figure"]] = record
    return found
