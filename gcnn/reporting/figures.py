"""Figures as SVG: learning curves, and latency against sentence length."""

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
LEGEND_CHARACTERS = 72  # that fit into a line of the legend, a line sample counting for eight
MAX_POINTS = 300  # of a curve: more are not seen at page width
X_OF_PANEL = {  # the entry of metrics.jsonl on the x axis
    "perplexity-steps": "step",
    "perplexity-tokens": "tokens",
    "perplexity-time": "seconds",
}


@dataclass
class Curve:
    """A line of a figure; of several seeds their mean, with the band between the lowest and the
    highest.
    """

    label: str  # empty: not in the legend
    style: dict
    x: np.ndarray  # (points,)
    y: np.ndarray  # (points,), the mean
    low: np.ndarray
    high: np.ndarray


def learning_curves(runs: list[Run]) -> list[Figure]:
    """Training loss against steps; validation perplexity against steps, tokens and training time.

    Runs that differ in their seed alone are one curve, their mean, with a band. A panel without a
    single point is left out. Of many runs the best are in colour, the others grey.
    """
    groups = seed_groups(runs)
    best = best_groups(groups)
    greys = [group for group in groups if group not in best]
    drawn = [(group, group.label, style) for group, style in zip(best, cycle(STYLES), strict=False)]
    for group in greys:
        label = f"{len(greys)} others" if group is greys[0] else ""  # once in the legend
        drawn.append((group, label, OTHERS))
    note = ""
    if greys:
        note += f"; in colour the {len(best)} best on validation, in grey {len(greys)} others"
    if any(len(group.runs) > 1 for group in groups):
        note += "; of several seeds the mean, and a band from the least to the greatest"
    unit, unit_seconds = time_unit(runs)
    figures = []
    for name, caption, x_label, y_label in (
        ("training-loss", "Training loss (running mean)", "steps", "nats a token"),
        ("perplexity-steps", "Validation perplexity against steps", "steps", "perplexity"),
        (
            "perplexity-tokens",
            "Validation perplexity against training tokens",
            "training tokens",
            "perplexity",
        ),
        (
            "perplexity-time",
            f"Validation perplexity against training time, {unit}",
            f"training time, {unit}",
            "perplexity",
        ),
    ):
        curves = []
        for group, label, style in drawn:
            curves.append(curve_of(group, label, style, name, unit_seconds))
        if any(curve.x.size for curve in curves):
            plot = partial(plot_curves, x_label=x_label, y_label=y_label, curves=curves)
            figures.append(draw(name, caption + note, plot))
    return figures


def time_unit(runs: list[Run]) -> tuple[str, int]:
    """The unit of training time that suits the longest run, and its seconds."""
    longest = max((line.seconds or 0 for run in runs for line in run.validation), default=0)
    if longest > 7200:
        return "hours", 3600
    if longest > 120:
        return "minutes", 60
    return "seconds", 1


def curve_of(group: SeedGroup, label: str, style: dict, panel: str, unit_seconds: float) -> Curve:
    """The curve of a group in a panel: means over its runs, at the steps that all of them have.

    `panel` is a figure's name in `learning_curves`; `unit_seconds` are the seconds of the unit of
    training time. The curve of a group without points is empty. Training loss is a running mean.
    """
    at_steps = []
    for run in group.runs:
        if panel == "training-loss":
            points = points_of(run.training, "step", "step", "loss")
        else:
            points = points_of(run.validation, "step", X_OF_PANEL[panel], "perplexity")
        if points.size:  # else the run has not begun
            at_steps.append({step: (x, y) for step, x, y in points.T})
    steps = sorted(set.intersection(*map(set, at_steps))) if at_steps else []
    if not steps:
        return Curve(label, style, *np.empty((4, 0)))
    values = np.array([[at[step] for step in steps] for at in at_steps])  # (runs, steps, x and y)
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


def best_groups(groups: list[SeedGroup]) -> list[SeedGroup]:
    """All of a few groups; of more than MANY the best on validation, in the order of `groups`.

    A group is compared with those on the same data with the same tokenizer alone, by its mean.
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
            mine, others = group.runs[0].config, other.runs[0].config
            compares = mine.data.name == others.data.name and mine.tokenizer == others.tokenizer
            better += compares and theirs < own
        ranks.append(better)
    chosen = sorted(range(len(groups)), key=ranks.__getitem__)[:MANY]
    return [groups[i] for i in sorted(chosen)]


def points_of(lines: list[Metric], *keys: str) -> np.ndarray:
    """Entries of a run's metrics, (keys, points), without lines that lack a finite one."""
    rows = [[getattr(line, key) for key in keys] for line in lines]
    points = np.array(rows, dtype=float).reshape(-1, len(keys))
    return points[np.isfinite(points).all(axis=1)].T


def smooth(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Running means over a thirtieth of a curve's points, thinned to at most MAX_POINTS."""
    window = len(x) // 30
    if window > 1:
        x, y = (np.convolve(values, np.ones(window) / window, "valid") for values in (x, y))
    keep = np.linspace(0, len(x) - 1, min(len(x), MAX_POINTS)).round().astype(int)
    return x[keep], y[keep]


def plot_curves(axes: Axes, x_label: str, y_label: str, curves: list[Curve]) -> None:
    """Draw curves with their bands; perplexity on a log axis, with marks at few points."""
    for curve in curves:
        few = len(curve.x) <= 30 and y_label == "perplexity" and curve.style is not OTHERS
        axes.plot(
            curve.x,
            curve.y,
            label=curve.label,
            marker="o" if few else None,
            markersize=3,
            **curve.style,
        )
        if not np.array_equal(curve.low, curve.high):
            shade = curve.style["color"]
            axes.fill_between(curve.x, curve.low, curve.high, color=shade, alpha=0.18, linewidth=0)
    if y_label == "perplexity":
        log_scale(axes, np.concatenate([[curve.low, curve.high] for curve in curves], axis=1))
        label_bottom(axes, min(curve.low.min() for curve in curves if curve.low.size))
    axes.set(xlabel=x_label, ylabel=y_label)
    if not x_label.startswith("training time"):
        # Thousands and millions as k and M; of times below 1 it would make thousandths ("500m").
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)


def log_scale(axes: Axes, values: np.ndarray) -> None:
    """Give `axes` a log y axis with plain numbers, and more ticks where `values` span little."""
    axes.set_yscale("log")
    narrow = values.max() < 8 * values.min()
    axes.yaxis.set_major_locator(MaxNLocator(6) if narrow else LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def label_bottom(axes: Axes, least: float) -> None:
    """Have a log y axis begin at a round number with a tick, at or below the least value.

    What lies below the lowest tick could not be read. Call it after `log_scale`.
    """
    power = 10 ** math.floor(math.log10(least))
    rounds = [part * power for part in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)]
    bottom = max(number for number in rounds if number <= least)
    _, top = axes.get_ylim()
    room = (top / bottom) ** 0.08  # that the bottom's number takes
    ticks = axes.yaxis.get_major_locator().tick_values(bottom, top)
    above = [tick for tick in ticks if bottom * room < tick <= top]
    axes.set_ylim(bottom=bottom)
    axes.yaxis.set_major_locator(FixedLocator([bottom, *above]))


def latency_figures(latency: Latency, labels: Sequence[str] = ()) -> list[Figure]:
    """Median latency against sentence length with and without the softmax, where it was measured.

    A band reaches up to the 95th percentile. `labels` are those of the learning curves: a model
    that is one of them has its colour there.
    """
    styles = dict(zip(dict.fromkeys([*labels, *latency.models]), cycle(STYLES), strict=False))
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
    """Words, median and 95th percentile in milliseconds, (3, lengths), shortest first.

    `suffix` is a key of SOFTMAX. Lengths without a finite median are left out; a missing percentile
    is the median.
    """
    rows = []
    for length, timing in model.timings(suffix).items():
        if 0 < (timing.median_ms or 0) < math.inf:
            rows.append((int(length), timing.median_ms, timing.p95_ms or timing.median_ms))
    return np.array(sorted(rows), dtype=float).reshape(-1, 3).T


def plot_latency(
    axes: Axes, curves: dict[str, np.ndarray], styles: dict[str, dict], lengths: list[str]
) -> None:
    """Draw latencies (`latency_points` by model) on log axes, with ticks at measured lengths."""
    for name, (words, median, p95) in curves.items():
        style = styles[name]
        axes.plot(words, median, label=name, marker="o", markersize=3.5, **style)
        axes.fill_between(words, median, p95, color=style["color"], alpha=0.18, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks([int(length) for length in lengths], lengths)
    axes.xaxis.set_minor_locator(NullLocator())
    times = np.concatenate([times for _, *times in curves.values()], axis=1)
    log_scale(axes, times)
    label_bottom(axes, times.min())
    axes.set(xlabel="words in the sentence", ylabel="milliseconds")


def draw(name: str, caption: str, plot: Callable[[Axes], None]) -> Figure:
    """A figure of one set of axes, on which `plot` draws, with the legend of its lines below."""
    with matplotlib.rc_context(SETTINGS):
        canvas = Canvas(layout="constrained")
        axes = canvas.subplots()
        axes.set_axisbelow(True)
        plot(axes)
        lines = [line for line in axes.get_lines() if line.get_label()]
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
