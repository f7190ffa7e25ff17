"""The paper's figures drawn from a reproduction's record, and each as a table of its groups."""

from dataclasses import replace
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, NullLocator

from gcnn.reporting.document import Figure, Table, table_of
from gcnn.reporting.figures import STYLES, draw, log_scale
from gcnn.reporting.units import DASH, count, magnitude, perplexity
from gcnn.reproduction.claims import spread
from gcnn.reproduction.rates import best_rates, mean
from gcnn.reproduction.records import FIGURES, Group, Record, shape

TALLEST = 10  # times the lowest perplexity: one validation that is higher would flatten all curves
POINTS = {  # figure -> its x axis; x and the line of a group
    "fig2": (
        "million operations a token",
        lambda g: g.flops_per_token / 1e6,
        lambda g: g.group.partition(",")[0],
    ),
    "fig4": ("words of context", lambda g: g.receptive_field, lambda g: "test perplexity"),
    "figs": ("million tokens of text", lambda g: g.corpus_tokens / 1e6, shape),
}


def drawing(record: Record) -> Figure | None:
    """The figure; None of a table, and where no member is finished."""
    name, groups = record.figure, at_best_rates(record)
    if not name.startswith("fig") or not groups:
        return None
    caption = ": ".join(FIGURES[name])
    if name in POINTS:
        plot = partial(plot_points, figure=name, groups=groups)
    else:
        top = TALLEST * min(values_of(g).min() for g in groups)
        plot = partial(plot_bands, groups=groups, top=top)
        above = [
            f"{g.title} ({count(values_of(g).max())})" for g in groups if values_of(g).max() > top
        ]
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
    return f"{extent(numbers)} seed{'' if set(numbers) == {1} else 's'}"


def at_best_rates(record: Record) -> list[Group]:
    """Each at its best learning rate; all that there are as long as that cannot be told."""
    best = best_rates(record)
    done = [g for g in record.groups if g.mean is not None]
    return [g for g in done if best.get(g.group) in (None, g)] or done


def plot_points(axes: Axes, figure: str, groups: list[Group]) -> None:
    """Mean test perplexity against x, with a bar from the least to the greatest."""
    x_label, x_of, line_of = POINTS[figure]
    groups = sorted(groups, key=x_of)
    for style, label in zip(STYLES, sorted(set(map(line_of, groups))), strict=False):
        line = [g for g in groups if line_of(g) == label]
        x = list(map(x_of, line))
        axes.plot(x, [g.mean for g in line], label=label, marker="o", markersize=3.5, **style)
        lows, highs = [g.min for g in line], [g.max for g in line]
        axes.vlines(
            x, lows, highs, color=style["color"], linewidth=1
        )  # no caps: the legend would list them
    log_scale(axes, np.array([(g.min, g.max) for g in groups]))
    axes.set(xlabel=x_label, ylabel="test perplexity")
    if figure == "figs":
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(EngFormatter(places=0))
    else:
        axes.set_xlim(left=0)
    if figure != "fig2":
        axes.set_xticks(sorted(set(map(x_of, groups))))
        axes.xaxis.set_minor_locator(NullLocator())


def values_of(group: Group) -> np.ndarray:
    """Validation perplexities, (seeds, validations)."""
    return np.array(list(group.curve.perplexity.values()))


def plot_bands(axes: Axes, groups: list[Group], top: float) -> None:
    """Mean validation perplexity against training tokens, with a band from the least to the greatest; up to `top`."""
    for style, group in zip(STYLES, groups, strict=False):
        x, values = group.curve.tokens, values_of(group)
        marker = "o" if len(x) <= 30 else None
        axes.plot(x, values.mean(axis=0), label=group.title, marker=marker, markersize=3, **style)
        axes.fill_between(
            x, values.min(axis=0), values.max(axis=0), color=style["color"], alpha=0.18, linewidth=0
        )
    every = np.concatenate([values_of(group).ravel() for group in groups])
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
        "Validation": lambda g: perplexity(
            mean(g.validation_perplexity.values()) if g.mean else None
        ),
        "Seeds": lambda g: str(len(g.test_perplexity)),
        "Parameters": lambda g: magnitude(g.parameters),
        "FLOPs/token": lambda g: magnitude(g.flops_per_token),
        "Context": lambda g: "unbounded" if g.receptive_field is None else count(g.receptive_field),
        "Tokens trained on": lambda g: count(g.tokens),
    }
    if record.figure == "figs":
        columns["WikiText-103's test set"] = lambda g: (
            perplexity(mean(g.wikitext103.values())) if g.wikitext103 else DASH
        )
        columns["unknown there"] = lambda g: (
            f"{g.wikitext103_unknown:.1%}" if g.wikitext103_unknown else DASH
        )
    groups = record.groups
    if record.figure == "search":  # the best first, as many as there is room for
        groups = sorted(groups, key=lambda g: mean(g.validation_perplexity.values()))[:12]
    return table_of(groups, columns, text_columns=2)


def describe_size(record: Record) -> str:
    """How large it all was: models, training tokens, seeds."""
    done = [g for g in record.groups if g.mean is not None]
    if not done:
        return DASH
    keys = ("parameters", "flops_per_token", "tokens")
    parameters, flops, tokens = (extent([getattr(g, key) for g in done]) for key in keys)
    return f"{parameters} parameters, {flops} FLOPs a token; {tokens} tokens of {record.data}; {describe_seeds(record)}"


def extent(numbers: list[float]) -> str:
    low, high = magnitude(min(numbers)), magnitude(max(numbers))
    return low if low == high else f"{low} to {high}"
