"""Figures as SVG: learning curves, and latency against sentence length.

A figure's name is its file's, and the ids of its SVG begin with it: the figures of a page have
different names.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, product

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import (
    EngFormatter,
    FixedLocator,
    LogLocator,
    MaxNLocator,
    NullLocator,
    StrMethodFormatter,
)

from gcnn.reporting.document import Figure
from gcnn.reporting.latency import SOFTMAX, Latency, MeasuredModel
from gcnn.reporting.ranking import compare_on_validation
from gcnn.reporting.results import Run
from gcnn.reporting.runs import MANY
from gcnn.reporting.seeds import SeedGroup, seed_groups
from gcnn.reporting.svg import inline, printable
from gcnn.reporting.units import mean
from gcnn.runs.results import Metric

# Okabe and Ito's palette, which colour-blind readers can tell apart; then the same dashed, dotted.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
STYLES = [
    {"color": colour, "linestyle": style} for style, colour in product(("-", "--", ":"), COLOURS)
]
OTHERS = {"color": "#c3c9ce", "linewidth": 0.9, "zorder": 1.5}  # grey, behind the coloured lines
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gcnn",  # the same numbers give the same file
    "text.parse_math": False,  # a dollar in a run's name is a dollar
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "axes.edgecolor": "#8a939b",
    "axes.labelcolor": "#30363c",
    "xtick.color": "#4a525a",
    "ytick.color": "#4a525a",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e9eb",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.6,
}
WIDTH, HEIGHT, LEGEND_LINE = 5.2, 3.1, 0.2  # inches
NO_LEGEND = "_nolegend_"  # the label of a line that is not in the legend, as in matplotlib
LEGEND_CHARACTERS = 72  # that fit into a line of the legend, a line sample counting for eight
MAX_POINTS = 300  # of a curve: more are not seen at page width
X_OF_PANEL = {  # the entry of metrics.jsonl on the x axis, by the figure's name
    "perplexity-steps": "step",
    "perplexity-tokens": "tokens",
    "perplexity-time": "seconds",
}


@dataclass
class Curve:
    """A line of a figure: the mean over the runs of a SeedGroup, and the band around it.

    All arrays are (points,); they are empty where there is nothing to draw.
    """

    label: str  # empty: not in the legend
    style: dict  # keyword arguments of Axes.plot
    x: np.ndarray
    y: np.ndarray  # the mean
    low: np.ndarray  # the lowest run
    high: np.ndarray  # the highest run


def learning_curves(runs: list[Run]) -> list[Figure]:
    """Training loss against steps; validation perplexity against steps, tokens and training time.

    Up to four figures, named training-loss and as the keys of X_OF_PANEL, in this order. A figure
    without a single point is left out; without metrics there are none.
    Runs that differ in their seed alone are one curve: their mean, with a band from the lowest to
    the highest (`seed_groups`). If there are more than MANY curves, the best have a colour
    (`coloured_groups`) and the others are grey.
    """
    groups = seed_groups(runs)
    drawn = styled_groups(groups)
    unit, unit_seconds = time_unit(runs)
    x_labels = {
        "training-loss": "steps",
        "perplexity-steps": "steps",
        "perplexity-tokens": "training tokens",
        "perplexity-time": f"training time, {unit}",
    }
    figures = []
    for name, x_label in x_labels.items():
        if name == "training-loss":
            y_label = "nats a token"
            caption = "Training loss (running mean)"
        else:
            y_label = "perplexity"
            caption = f"Validation perplexity against {x_label}"
        curves = []
        for group, label, style in drawn:
            curves.append(curve_of(group, label, style, name, unit_seconds))
        if any(curve.x.size for curve in curves):
            plot = partial(plot_curves, x_label=x_label, y_label=y_label, curves=curves)
            figures.append(draw(name, caption + note_on_curves(groups), plot))
    return figures


def styled_groups(groups: list[SeedGroup]) -> list[tuple[SeedGroup, str, dict]]:
    """Each group with the label and style of its curve (see Curve), the coloured ones first.

    Only the first of the grey ones has a label, which says how many there are.
    """
    coloured = coloured_groups(groups)
    greys = [group for group in groups if group not in coloured]
    styled = []
    for group, style in zip(coloured, cycle(STYLES), strict=False):
        styled.append((group, group.label, style))
    for group in greys:
        label = f"{len(greys)} others" if group is greys[0] else ""
        styled.append((group, label, OTHERS))
    return styled


def note_on_curves(groups: list[SeedGroup]) -> str:
    """What follows a caption: clauses on colours and bands, each after a semicolon; maybe empty."""
    note = ""
    greys = len(groups) - MANY
    if greys > 0:
        note += f"; in colour the {MANY} best on validation, in grey {greys} others"
    if any(len(group.runs) > 1 for group in groups):
        note += "; of several seeds the mean, and a band from the least to the greatest"
    return note


def time_unit(runs: list[Run]) -> tuple[str, int]:
    """The unit of training time that suits the longest run: its name, and how many seconds it has.

    "hours" if a run trained for more than two hours up to its last validation, "minutes" for more
    than two minutes, else "seconds".
    """
    longest = max((line.seconds or 0 for run in runs for line in run.validation), default=0)
    if longest > 7200:
        return "hours", 3600
    if longest > 120:
        return "minutes", 60
    return "seconds", 1


def curve_of(group: SeedGroup, label: str, style: dict, panel: str, unit_seconds: float) -> Curve:
    """The curve of a group in a figure: x and y are means over its runs.

    It has the steps that all runs have; runs without any points do not count. It is empty if there
    is no such step. Training loss is smoothed (`smooth`).
    label, style: as in Curve.
    panel: the figure's name, `training-loss` or a key of X_OF_PANEL.
    unit_seconds: the seconds in the unit of the time axis (`time_unit`); used for perplexity-time.
    """
    at_steps = []  # of each run: step -> (x, y)
    for run in group.runs:
        # The step, x and y of each point.
        if panel == "training-loss":
            points = points_of(run.training, "step", "step", "loss")
        else:
            points = points_of(run.validation, "step", X_OF_PANEL[panel], "perplexity")
        if points.size:  # else the run has not begun
            at_steps.append({step: (x, y) for step, x, y in points.T})
    steps = sorted(set.intersection(*map(set, at_steps))) if at_steps else []
    if not steps:
        empty = np.empty(0)
        return Curve(label, style, empty, empty, empty, empty)
    by_run = []  # of each run: (x, y) at each of these steps
    for at_step in at_steps:
        by_run.append([at_step[step] for step in steps])
    values = np.array(by_run)  # (runs, steps, 2)
    x, y = values.mean(axis=0).T
    low = values[:, :, 1].min(axis=0)
    high = values[:, :, 1].max(axis=0)
    if panel == "training-loss":
        _, low = smooth(x, low)
        _, high = smooth(x, high)
        x, y = smooth(x, y)
    if panel == "perplexity-time":
        x = x / unit_seconds
    return Curve(label, style, x, y, low, high)


def coloured_groups(groups: list[SeedGroup]) -> list[SeedGroup]:
    """The groups whose curves have a colour: all, or the MANY best on validation if there are more.

    They are in their given order. A group's rank is the number of groups with a lower mean among
    those that compare with it (`compare_on_validation`, by the first run of each). Of equal ranks
    the earlier groups are taken. The mean is infinite if one of its runs has no perplexity.
    """
    if len(groups) <= MANY:
        return groups
    perplexities = [
        mean([run.validation_perplexity for run in group.runs]) or math.inf for group in groups
    ]
    ranks = []
    for group, own in zip(groups, perplexities, strict=True):
        better = 0
        for other, theirs in zip(groups, perplexities, strict=True):
            if theirs < own and compare_on_validation(group.runs[0], other.runs[0]):
                better += 1
        ranks.append(better)
    best_first = sorted(range(len(groups)), key=lambda i: ranks[i])
    return [groups[i] for i in sorted(best_first[:MANY])]


def points_of(lines: list[Metric], *keys: str) -> np.ndarray:
    """Entries of a run's metrics as an array (keys, points), in the order of `lines`.

    keys: names of fields of Metric. A line is left out if one of these entries is missing or not
    finite.
    """
    rows = [[getattr(line, key) for key in keys] for line in lines]
    points = np.array(rows, dtype=float).reshape(-1, len(keys))
    return points[np.isfinite(points).all(axis=1)].T


def smooth(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The running means of a curve's x and of its y; all arrays are (points,).

    The window is a thirtieth of the points; at most MAX_POINTS of the means are kept, evenly
    spaced. A curve of fewer than 60 points is returned as it is.
    """
    window = len(x) // 30
    if window > 1:
        x, y = (np.convolve(values, np.ones(window) / window, "valid") for values in (x, y))
    keep = np.linspace(0, len(x) - 1, min(len(x), MAX_POINTS)).round().astype(int)
    return x[keep], y[keep]


def plot_curves(axes: Axes, x_label: str, y_label: str, curves: list[Curve]) -> None:
    """Draw curves with their bands and label the axes. At least one curve must have points.

    The x axis begins at 0. If `y_label` is "perplexity", the y axis is logarithmic, and coloured
    curves of at most 30 points have a mark at each. Numbers on the x axis are plain if `x_label`
    begins with "training time"; otherwise they have k and M.
    """
    for curve in curves:
        few = len(curve.x) <= 30 and y_label == "perplexity" and curve.style is not OTHERS
        axes.plot(
            curve.x,
            curve.y,
            label=curve.label or NO_LEGEND,
            marker="o" if few else None,
            markersize=3,
            **curve.style,
        )
        if not np.array_equal(curve.low, curve.high):
            shade = curve.style["color"]
            axes.fill_between(curve.x, curve.low, curve.high, color=shade, alpha=0.18, linewidth=0)
    if y_label == "perplexity":
        values = np.concatenate([curve.low for curve in curves] + [curve.high for curve in curves])
        log_scale(axes, values)
        label_bottom(axes, values.min())
    axes.set(xlabel=x_label, ylabel=y_label)
    if not x_label.startswith("training time"):
        # Thousands and millions as k and M; of times below 1 it would make thousandths ("500m").
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)


def log_scale(axes: Axes, values: np.ndarray) -> None:
    """Give `axes` a log y axis with plain numbers, and no minor ticks.

    It has more ticks if the largest value is less than eight times the smallest.
    values: all that is drawn, an array of any shape but not empty; all positive.
    """
    axes.set_yscale("log")
    narrow = values.max() < 8 * values.min()
    axes.yaxis.set_major_locator(MaxNLocator(6) if narrow else LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def label_bottom(axes: Axes, least: float) -> None:
    """Make a log y axis begin at a round number at or below `least`, with a tick there.

    least: the lowest value drawn, above 0.
    Call it after `log_scale` and after everything is drawn: it fixes the lower limit and the ticks.
    """
    power = 10 ** math.floor(math.log10(least))
    rounds = [part * power for part in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)]
    bottom = max((number for number in rounds if number <= least), default=least)
    _, top = axes.get_ylim()
    room = (top / bottom) ** 0.08  # that the bottom's number takes
    ticks = axes.yaxis.get_major_locator().tick_values(bottom, top)
    above = [tick for tick in ticks if bottom * room < tick <= top]
    axes.set_ylim(bottom=bottom)
    axes.yaxis.set_major_locator(FixedLocator([bottom, *above]))


def latency_figures(latency: Latency, labels: Sequence[str] = ()) -> list[Figure]:
    """Median latency against sentence length: a figure with the softmax and one without.

    They are named latency and latency-without-softmax; one that was not measured is left out. A
    band reaches from the median to the 95th percentile.
    labels: those of the coloured learning curves, in their order; a model with the same name as one
    of them gets its colour.
    """
    names = dict.fromkeys([*labels, *latency.models])  # each once, in this order
    styles = dict(zip(names, cycle(STYLES), strict=False))
    lengths = latency.sentence_lengths()
    figures = []
    for suffix, title in SOFTMAX.items():
        curves = {name: latency_points(model, suffix) for name, model in latency.models.items()}
        if any(points.size for points in curves.values()):
            caption = f"Latency of one sentence, {title} ({latency.machine()})"
            plot = partial(plot_latency, curves=curves, styles=styles, lengths=lengths)
            figures.append(draw(f"latency{suffix.replace('_', '-')}", caption, plot))
    return figures


def latency_points(model: MeasuredModel, suffix: str) -> np.ndarray:
    """Words, median and 95th percentile in milliseconds: (3, lengths), the shortest first.

    suffix: a key of SOFTMAX. Lengths without a finite median above 0 are left out; the median takes
    the place of a percentile that is missing, 0 or not finite.
    """
    rows = []
    for length, timing in model.timings(suffix).items():
        if not 0 < (timing.median_ms or 0) < math.inf:
            continue
        has_p95 = timing.p95_ms and math.isfinite(timing.p95_ms)
        p95 = timing.p95_ms if has_p95 else timing.median_ms
        rows.append((int(length), timing.median_ms, p95))
    return np.array(sorted(rows), dtype=float).reshape(-1, 3).T


def plot_latency(
    axes: Axes, curves: dict[str, np.ndarray], styles: dict[str, dict], lengths: list[str]
) -> None:
    """Draw latencies on log axes, with a tick at each of `lengths`.

    curves: model -> its `latency_points`; at least one must have points.
    styles: each of these models -> keyword arguments of Axes.plot, `color` among them.
    lengths: words in a sentence, as digits.
    """
    times = []
    for name, (words, median, p95) in curves.items():
        times += [median, p95]
        style = styles[name]
        axes.plot(words, median, label=name, marker="o", markersize=3.5, **style)
        axes.fill_between(words, median, p95, color=style["color"], alpha=0.18, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks([int(length) for length in lengths], lengths)
    axes.xaxis.set_minor_locator(NullLocator())
    milliseconds = np.concatenate(times)
    log_scale(axes, milliseconds)
    label_bottom(axes, milliseconds.min())
    axes.set(xlabel="words in the sentence", ylabel="milliseconds")


def draw(name: str, caption: str, plot: Callable[[Axes], None]) -> Figure:
    """A figure of one set of axes, with the legend of its lines below.

    The label of an axis that is logarithmic is followed by "(log scale)".
    name: unique on the page; the ids of the SVG begin with it.
    caption: also the SVG's title for screen readers.
    plot: draws on the axes it is given. Each line needs a label, which is shortened for the legend
    (`shorten`), or NO_LEGEND.
    """
    with matplotlib.rc_context(SETTINGS):
        canvas = Canvas(layout="constrained")
        axes = canvas.subplots()
        axes.set_axisbelow(True)
        plot(axes)
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":
                axis.set_label_text(f"{axis.get_label_text()} (log scale)")
        lines = [line for line in axes.get_lines() if line.get_label() != NO_LEGEND]
        labels = [shorten(printable(line.get_label())) for line in lines]
        columns = max(1, LEGEND_CHARACTERS // (max(map(len, labels), default=0) + 8))
        canvas.set_size_inches(WIDTH, HEIGHT + LEGEND_LINE * math.ceil(len(lines) / columns))
        canvas.legend(
            lines, labels, loc="outside lower left", ncols=columns, frameon=False, borderpad=0
        )
        file = io.StringIO()
        canvas.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return Figure(name, inline(file.getvalue(), name, caption), caption)


def shorten(label: str) -> str:
    """A label of at most 64 characters for the legend; of a longer one the middle is left out."""
    return label if len(label) <= 64 else f"{label[:30]}…{label[-33:]}"
