"""The softmaxes' growth with the vocabulary, read from the benchmark's JSON: a table and figures."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, NullLocator

from gcnn.errors import UsageError
from gcnn.reporting.document import Figure, Table
from gcnn.reporting.figures import STYLES, draw, log_scale
from gcnn.reporting.files import Number, read_json
from gcnn.reporting.units import DASH, count, decimals, milliseconds, ratio


@dataclass(kw_only=True)
class Cost:
    """Of a forward and backward pass; or, of each, the power of the vocabulary with which it grows."""

    seconds: Number
    memory_bytes: Number


@dataclass(kw_only=True)
class Costs:
    adaptive: Cost
    full: Cost

    def adaptive_and_full(self, quantity: str) -> list[float | None]:
        return [getattr(cost, quantity) for cost in (self.adaptive, self.full)]


@dataclass(kw_only=True)
class SoftmaxSize:
    tokens: Number
    hidden_dim: Number
    threads: Number
    vocabularies: dict[str, Costs]  # by their number of types
    growth: Costs


def load_softmax_size(path: Path) -> SoftmaxSize:
    """The benchmark's results. Raises UsageError for a missing file or one of another kind."""
    results = read_json(path, SoftmaxSize)
    if results is None or not results.vocabularies:
        raise UsageError(f"{path} has no vocabularies. Give the JSON that the softmax benchmark wrote.")
    return results


def softmax_table(results: SoftmaxSize) -> Table:
    rows = []
    for types, costs in results.vocabularies.items():
        seconds, memory = costs.adaptive_and_full("seconds"), costs.adaptive_and_full("memory_bytes")
        times = [milliseconds(cost and 1000 * cost) for cost in seconds]
        sizes = [decimals(cost and cost / 2**20, 0) for cost in memory]
        rows.append([count(int(types)), *times, gain(*seconds), *sizes, gain(*memory)])
    exponents = [map(decimals, results.growth.adaptive_and_full(name)) for name in ("seconds", "memory_bytes")]
    rows.append(["exponent of growth", *exponents[0], "", *exponents[1], ""])
    caption = (
        f"Forward and backward pass of {count(results.tokens)} tokens, {count(results.hidden_dim)} channels, "
        f"{results.threads} threads"
    )
    header = ["types", "adaptive, ms", "full, ms", "faster", "adaptive, MiB", "full, MiB", "smaller"]
    return Table(header, rows, caption)


def gain(adaptive: float | None, full: float | None) -> str:
    return ratio(full / adaptive) if adaptive and full else DASH


def softmax_figures(results: SoftmaxSize) -> dict[str, Figure]:
    """Time and peak memory against the vocabulary; by quantity."""
    panels = {"seconds": ("Time", "milliseconds", 1000), "memory_bytes": ("Peak memory", "MiB", 2**-20)}
    figures = {}
    for quantity, (title, unit, scale) in panels.items():
        slopes = map(decimals, results.growth.adaptive_and_full(quantity))
        names = [f"{kind} softmax: grows as types^{n}" for kind, n in zip(("adaptive", "full"), slopes, strict=True)]
        costs = {int(types): costs.adaptive_and_full(quantity) for types, costs in results.vocabularies.items()}
        curves = [
            np.array([(types, scale * cost[i]) for types, cost in sorted(costs.items()) if cost[i]]).reshape(-1, 2).T
            for i in range(2)
        ]
        caption = f"{title} of the softmax's forward and backward pass ({count(results.tokens)} tokens)"
        plot = partial(plot_costs, y_label=unit, curves=dict(zip(names, curves, strict=True)))
        figures[quantity] = draw(f"softmax-{quantity.partition('_')[0]}", caption, plot)
    return figures


def plot_costs(axes: Axes, y_label: str, curves: dict[str, np.ndarray]) -> None:
    """The curves (2, vocabularies) of the adaptive and the full softmax, and linear growth from the latter's end."""
    for style, (name, (types, costs)) in zip(STYLES, curves.items(), strict=False):
        axes.plot(types, costs, label=name, marker="o", markersize=3.5, **style)
    if costs.size:
        axes.plot(types, costs[-1] * types / types[-1], label="linear growth", color="#8a939b", linestyle=":")
    axes.set_xscale("log")
    axes.set_xticks(np.unique(np.concatenate([types for types, _ in curves.values()])))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_locator(NullLocator())
    log_scale(axes, np.concatenate([costs for _, costs in curves.values()]))
    axes.set(xlabel="types in the vocabulary", ylabel=y_label)
