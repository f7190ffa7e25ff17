"""The paper's figures drawn from a reproduction's record, and each as a table of its groups."""

from dataclasses import replace
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, NullLocator

from gcnn.reporting.document import Figure, Table, table_of
from gcnn.reporting.figures import STYLES, draw, log_scale
from gcnn.reporting.units import DASH, count, magnitude, perplexity, plural
from gcnn.reproduction.claims import best_rates, mean, spread
from gcnn.reproduction.records import FIGURES, Group, Record

TALLEST = 10  # times the lowest perplexity: one validation that is higher would flatten all curves


def drawing(record: Record) -> Figure | None:
    """The figure; None of a table, and where no member is finished."""
    name, done = record.figure, [g for g in record.groups if g.mean is not None]
    if not name.startswith("fig") or not done:
        return None
    caption = ": ".join(FIGURES[name])
    if name == "fig2":
        plot = partial(plot_points, lines=by_softmax(at_best_rates(record)), x_label="million operations a token")
    elif name == "figs":
        models = dict.fromkeys(g.group for g in done)
        lines = {model: [(g.corpus_tokens / 1e6, g) for g in done if g.group == model] for model in models}
        plot = partial(plot_points, lines=lines, x_label="million tokens of text")
    elif name == "fig4":
        lines = {"test perplexity": [(g.receptive_field, g) for g in at_best_rates(record)]}
        plot = partial(plot_points, lines=lines, x_label="words of context")
    else:
        groups = at_best_rates(record)
        if not groups:
            return None
        top = TALLEST * min(values_of(g).min() for g in groups)
        plot = partial(plot_bands, groups=groups, top=top)
        above = [f"{g.title} ({count(values_of(g).max())})" for g in groups if values_of(g).max() > top]
        caption += f"; higher than the picture: {', '.join(above)}" if above else ""
    diverged = [f"{g.title} ({len(g.diverged)})" for g in record.groups if g.diverged]
    if diverged:
        caption += f"; diverged: {', '.join(diverged)}"
    caption += f"; mean of {describe_seeds(record)} and range"
    figure = draw(f"{record.scale}-{name}", caption, plot)
    return replace(figure, name=name)  # ids are the page's, names the folder's


def describe_seeds(record: Record) -> str:
    """How many runs stand behind each mean that the figure compares."""
    numbers = [len(g.test_perplexity) for g in at_best_rates(record)]
    return plural(max(numbers), "seed") if min(numbers) == max(numbers) else f"{extent(numbers)} seeds"


def by_softmax(groups: list[Group]) -> dict[str, list[tuple[float, Group]]]:
    return {
        f"{kind} softmax": [(g.flops_per_token / 1e6, g) for g in groups if g.group.startswith(kind)]
        for kind in ("adaptive", "full")
        if any(g.group.startswith(kind) for g in groups)
    }


def at_best_rates(record: Record) -> list[Group]:
    """Each at its best learning rate (Figure S: at each size); all that there are as long as that cannot be told."""
    best = {} if record.figure == "figs" else best_rates(record)
    return [g for g in record.groups if best.get(g.group) in (None, g) and g.mean is not None]


def plot_points(axes: Axes, lines: dict[str, list[tuple[float, Group]]], x_label: str) -> None:
    """Mean test perplexity against x, with a bar from the least to the greatest."""
    for style, (label, points) in zip(STYLES, lines.items(), strict=False):
        points = sorted(points, key=lambda point: point[0])
        x = [x for x, _ in points]
        mean, low, high = ([getattr(g, key) for _, g in points] for key in ("mean", "min", "max"))
        axes.plot(x, mean, label=label, marker="o", markersize=3.5, **style)
        axes.vlines(x, low, high, color=style["color"], linewidth=1)  # no caps: the legend would list them
    log_scale(
        axes, np.array([getattr(g, end) for points in lines.values() for _, g in points for end in ("min", "max")])
    )
    axes.set(xlabel=x_label, ylabel="test perplexity")
    if x_label.startswith("words"):
        axes.set_xticks(sorted({x for points in lines.values() for x, _ in points}))
        axes.xaxis.set_minor_locator(NullLocator())
    if x_label.endswith("of text"):
        axes.set(xscale="log")
        axes.set_xticks(sorted({x for points in lines.values() for x, _ in points}))
        axes.xaxis.set_major_formatter(EngFormatter(places=0))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(left=0)


def values_of(group: Group) -> np.ndarray:
    """Validation perplexities, (seeds, validations)."""
    return np.array(list(group.curve.perplexity.values()))


def plot_bands(axes: Axes, groups: list[Group], top: float) -> None:
    """Mean validation perplexity against training tokens, with a band from the least to the greatest; up to `top`."""
    every = []
    for style, group in zip(STYLES, groups, strict=False):
        x, values = group.curve.tokens, values_of(group)
        axes.plot(
            x, values.mean(axis=0), label=group.title, marker="o" if len(x) <= 30 else None, markersize=3, **style
        )
        axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=style["color"], alpha=0.18, linewidth=0)
        every.append(values.ravel())
    every = np.concatenate(every)
    log_scale(axes, every.clip(max=top))
    if every.max() > top:
        axes.set_ylim(every.min() / 1.1, top)
    axes.set(xlabel="training tokens", ylabel="validation perplexity")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)


def groups_table(record: Record) -> Table:
    """One row a group."""
    columns = {
        "": lambda g: g.title,
        "Model": lambda g: g.model,
        "Test perplexity": spread,
        "Validation": lambda g: perplexity(mean(g.validation_perplexity.values()) if g.mean else None),
        "Seeds": lambda g: str(len(g.test_perplexity)),
        "Parameters": lambda g: magnitude(g.parameters),
        "FLOPs/token": lambda g: magnitude(g.flops_per_token),
        "Context": lambda g: "unbounded" if g.receptive_field is None else count(g.receptive_field),
        "Tokens trained on": lambda g: count(g.tokens),
    }
    if record.figure == "figs":
        columns["WikiText-103's test set"] = lambda g: perplexity(
            mean(g.wikitext103.values()) if g.wikitext103 else None
        )
        columns["unknown there"] = lambda g: f"{g.wikitext103_unknown:.1%}" if g.wikitext103_unknown else DASH
    groups = record.groups
    if record.figure == "search":  # the best first, as many as there is room for
        groups = sorted(groups, key=lambda g: mean(g.validation_perplexity.values()))[:12]
    return table_of(groups, columns, text_columns=2)


def describe_size(record: Record) -> str:
    """How large it all was: models, training tokens, seeds."""
    done = [g for g in record.groups if g.mean is not None]
    if not done:
        return DASH
    flops, parameters, tokens = (
        extent([getattr(g, key) for g in done]) for key in ("flops_per_token", "parameters", "tokens")
    )
    return f"{parameters} parameters, {flops} FLOPs a token; {tokens} tokens of {record.data}; {describe_seeds(record)}"


def extent(numbers: list[float]) -> str:
    low, high = magnitude(min(numbers)), magnitude(max(numbers))
    return low if low == high else f"{low} to {high}"
