"""The paper's figures drawn from records, and each record as a table of its groups."""

from dataclasses import replace
from functools import partial
from itertools import cycle
from operator import attrgetter

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, NullLocator

from gcnn.reporting.document import Figure, Table, table_of
from gcnn.reporting.figures import NO_LEGEND, STYLES, draw, log_scale
from gcnn.reporting.units import DASH, count, magnitude, perplexity
from gcnn.reproduction.comparisons import spread
from gcnn.reproduction.rates import best_groups, mean_or_infinite
from gcnn.reproduction.records import FIGURES, Group, Record, shape

TALLEST = 10  # times the lowest perplexity: a single higher validation would flatten all curves


def million_operations(group: Group) -> float:
    return group.flops_per_token / 1e6


def million_corpus_tokens(group: Group) -> float:
    return group.corpus_tokens / 1e6


def softmax_kind(group: Group) -> str:
    """As "adaptive softmax", of a group of Figure 2."""
    return group.group.partition(",")[0]


def no_title(group: Group) -> str:
    """All groups are one line, which needs no legend."""
    return NO_LEGEND


# Figures of points: the label of the x axis, x of a group, and the title of the line it belongs to.
POINTS = {
    "fig2": ("million operations a token", million_operations, softmax_kind),
    "fig4": ("words of context", attrgetter("receptive_field"), no_title),
    "figc": ("words of context", attrgetter("receptive_field"), no_title),
    "figs": ("million tokens of text", million_corpus_tokens, shape),
}


def drawing(record: Record) -> Figure | None:
    """A figure's picture with its caption; None if no run is finished, for tables and the search.

    The groups are those of `groups_to_draw`. Figures in POINTS show test perplexities, the others
    validation curves (None if no curve has a finite value). The caption says what the picture
    cannot show: diverged seeds (of all groups), curves that are cut off, gaps in them, and groups
    without a curve. The name is the figure's; the ids in the SVG begin with the scale as well.
    """
    name = record.figure
    groups = groups_to_draw(record)
    if not name.startswith("fig") or not groups:
        return None
    if name in POINTS:
        plot = partial(plot_points, figure=name, groups=groups)
        remarks = f"; trained on {extent([group.tokens for group in groups])} tokens"
    else:
        with_curve = [group for group in groups if np.isfinite(values_of(group)).any()]
        if not with_curve:
            return None
        top = TALLEST * min(np.nanmin(values_of(group)) for group in with_curve)
        plot = partial(plot_bands, groups=with_curve, top=top)
        remarks = remarks_on_curves(groups, top)
    remarks += remark_on_diverged(record.groups)
    title = ": ".join(FIGURES[name])
    caption = f"{title}{remarks}; mean of {describe_seeds(record)} and range"
    figure = draw(f"{record.scale}-{name}", caption, plot)
    return replace(figure, name=name)  # a page has figures of all scales, a folder those of one


def remarks_on_curves(groups: list[Group], top: float) -> str:
    """What a picture of curves does not show: clauses with a semicolon before each, or empty.

    top: the perplexity at which the picture ends. Named are the groups whose curve goes higher,
    those with a gap, and those without any finite validation.
    """
    above = []
    gaps = []
    undrawn = []
    for group in groups:
        values = values_of(group)
        if not np.isfinite(values).any():
            undrawn.append(group.title)
            continue
        highest = np.nanmax(values)
        if highest > top:
            above.append(f"{group.title} ({count(highest)})")
        if np.isnan(values).any():
            gaps.append(group.title)
    remarks = ""
    if above:
        remarks += f"; higher than the picture: {', '.join(above)}"
    if gaps:
        remarks += f"; not finite at a validation: {', '.join(gaps)}"
    if undrawn:
        remarks += f"; without a finite validation that all seeds have: {', '.join(undrawn)}"
    return remarks


def remark_on_diverged(groups: list[Group]) -> str:
    """Groups with diverged seeds and how many, as "; diverged: ReLU, learning rate 0.1 (2)".

    Empty if none has any.
    """
    diverged = []
    for group in groups:
        if group.diverged:
            diverged.append(f"{group.title} ({len(group.diverged)})")
    return f"; diverged: {', '.join(diverged)}" if diverged else ""


def describe_seeds(record: Record) -> str:
    """How many seeds are behind each mean of a figure, as "1 seed" or "1 to 3 seeds".

    At least one run must be finished.
    """
    numbers = [len(g.test_perplexity) for g in groups_to_draw(record)]
    return f"{extent(numbers)} seed{'' if set(numbers) == {1} else 's'}"


def groups_to_draw(record: Record) -> list[Group]:
    """The groups with a finished run that may be the best of their name, in the record's order.

    A group may be the best if `best_groups` has it, or has None for its name. If no finished group
    may be, all groups with a finished run are returned. Empty if no run is finished.
    """
    best = best_groups(record)
    done = [group for group in record.groups if group.mean is not None]
    chosen = []
    for group in done:
        best_of_name = best[group.group]
        if best_of_name is None or group == best_of_name:
            chosen.append(group)
    return chosen or done


def plot_points(axes: Axes, figure: str, groups: list[Group]) -> None:
    """Draw mean test perplexity against x, with a bar from the lowest seed to the highest.

    figure: a key of POINTS, which says what x is and which groups are joined by a line. Each group
    must have a finished run and an x that is not None. Sets the axes' scales, limits, labels and
    ticks.
    """
    x_label, x_of, line_of = POINTS[figure]
    groups = sorted(groups, key=x_of)
    labels = sorted({line_of(g) for g in groups})
    for style, label in zip(cycle(STYLES), labels, strict=False):
        line = [g for g in groups if line_of(g) == label]
        x = [x_of(g) for g in line]
        axes.plot(x, [g.mean for g in line], label=label, marker="o", markersize=3.5, **style)
        lows = [g.min for g in line]
        highs = [g.max for g in line]
        # Not error bars with caps: the legend would list them.
        axes.vlines(x, lows, highs, color=style["color"], linewidth=1)
    log_scale(axes, np.array([(g.min, g.max) for g in groups]))
    axes.set(xlabel=x_label, ylabel="test perplexity")
    if figure == "figs":
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(EngFormatter(places=0))
    else:
        axes.set_xlim(left=0)
    if figure != "fig2":
        axes.set_xticks(sorted({x_of(g) for g in groups}))
        axes.xaxis.set_minor_locator(NullLocator())


def values_of(group: Group) -> np.ndarray:
    """Validation perplexities of a group, (seeds, validations); nan where one was not finite."""
    return np.array(list(group.curve.perplexity.values()), dtype=float)


def plot_bands(axes: Axes, groups: list[Group], top: float) -> None:
    """Draw mean validation perplexity against training tokens, with a band over the seeds.

    The band is from the lowest seed to the highest. Perplexities above `top` are cut off; where one
    was not finite, the group has a gap. Each group must have a curve with a finite value. Sets the
    axes' scales, limits and labels.
    """
    for style, group in zip(cycle(STYLES), groups, strict=False):
        x = group.curve.tokens
        values = values_of(group)
        marker = "o" if len(x) <= 30 else None
        axes.plot(x, values.mean(axis=0), label=group.title, marker=marker, markersize=3, **style)
        axes.fill_between(
            x, values.min(axis=0), values.max(axis=0), color=style["color"], alpha=0.18, linewidth=0
        )
    finite = np.concatenate([values_of(group).ravel() for group in groups])
    finite = finite[np.isfinite(finite)]
    log_scale(axes, finite.clip(max=top))
    if finite.max() > top:
        axes.set_ylim(finite.min() / 1.1, top)
    axes.set(xlabel="training tokens", ylabel="validation perplexity")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)


def groups_table(record: Record) -> Table:
    """A record as a table for readers, one row a group in the record's order.

    Columns: title, model, test perplexity (`spread`), mean validation perplexity, number of
    finished seeds, parameters, FLOPs a token, context in words (or unbounded), and the most tokens
    trained on; of Figure S also WikiText-103's mean perplexity and share of unknown words.
    A dash: not known. Of the random search only the twelve best on validation, the best first.
    """
    columns = {
        "": lambda g: g.title,
        "Model": lambda g: g.model,
        "Test perplexity": spread,
        "Validation": lambda g: perplexity(
            mean_or_infinite(g.validation_perplexity.values()) if g.mean else None
        ),
        "Seeds": lambda g: str(len(g.test_perplexity)),
        "Parameters": lambda g: magnitude(g.parameters),
        "FLOPs/token": lambda g: magnitude(g.flops_per_token),
        "Context": lambda g: "unbounded" if g.receptive_field is None else count(g.receptive_field),
        "Tokens trained on": lambda g: count(g.tokens),
    }
    if record.figure == "figs":
        columns["WikiText-103's test set"] = lambda g: (
            perplexity(mean_or_infinite(g.wikitext103.values())) if g.wikitext103 else DASH
        )
        columns["unknown there"] = lambda g: (
            DASH if g.wikitext103_unknown is None else f"{g.wikitext103_unknown:.1%}"
        )
    groups = record.groups
    if record.figure == "search":
        best_first = sorted(
            groups, key=lambda g: mean_or_infinite(g.validation_perplexity.values())
        )
        groups = best_first[:12]  # as many as there is room for
    return table_of(groups, columns, text_columns=2)


def describe_size(record: Record) -> str:
    """How large a figure's finished runs are, as a text; a dash without any.

    It says their parameters, operations a token, training tokens, data, and number of seeds
    (`describe_seeds`).
    """
    done = [group for group in record.groups if group.mean is not None]
    if not done:
        return DASH
    parameters = extent([group.parameters for group in done])
    flops = extent([group.flops_per_token for group in done])
    tokens = extent([group.tokens for group in done])
    trained = f"{tokens} tokens of {record.data}; {describe_seeds(record)}"
    return f"{parameters} parameters, {flops} FLOPs a token; {trained}"


def extent(numbers: list[float]) -> str:
    """The lowest and the highest of at least one number, as "10 k to 20 k".

    Only one if both read the same.
    """
    low = magnitude(min(numbers))
    high = magnitude(max(numbers))
    return low if low == high else f"{low} to {high}"
