"""The softmaxes' growth with the vocabulary, of the content of the benchmark's JSON: a table and figures.

A softmax that was not run has None for its seconds and its bytes.
"""

from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, NullLocator

from gcnn.reporting.document import Figure, Table
from gcnn.reporting.figures import STYLES, draw, log_scale
from gcnn.reporting.units import DASH, count, decimals, milliseconds, ratio

KINDS = ("adaptive", "full")


def softmax_table(results: dict) -> Table:
    rows = []
    for types, costs in results["vocabularies"].items():
        seconds, memory = (
            [costs[kind][quantity] for kind in KINDS] for quantity in ("seconds", "memory_bytes")
        )
        times = [milliseconds(cost and 1000 * cost) for cost in seconds]
        sizes = [decimals(cost and cost / 2**20, 0) for cost in memory]
        rows.append([count(int(types)), *times, gain(*seconds), *sizes, gain(*memory)])
    times, sizes = (
        [exponent(results, kind, name) for kind in KINDS] for name in ("seconds", "memory_bytes")
    )
    rows.append(["exponent of growth", *times, "", *sizes, ""])
    caption = (
        f"Forward and backward pass of {count(results['tokens'])} tokens, {count(results['hidden_dim'])} channels, "
        f"{results['threads']} threads"
    )
    header = [
        "types",
        "adaptive, ms",
        "full, ms",
        "faster",
        "adaptive, MiB",
        "full, MiB",
        "smaller",
    ]
    return Table(header, rows, caption)


def gain(adaptive: float | None, full: float | None) -> str:
    return ratio(full / adaptive) if adaptive and full else DASH


def exponent(results: dict, kind: str, quantity: str) -> str:
    """The power of the vocabulary with which it grows."""
    return decimals(results["growth"][kind].get(quantity))


def softmax_figures(results: dict) -> dict[str, Figure]:
    """Time and peak memory against the vocabulary; by quantity."""
    panels = {
        "seconds": ("Time", "milliseconds", 1000),
        "memory_bytes": ("Peak memory", "MiB", 2**-20),
    }
    figures = {}
    for quantity, (title, unit, scale) in panels.items():
        curves = {}
        for kind in KINDS:
            costs = {
                int(types): costs[kind][quantity]
                for types, costs in results["vocabularies"].items()
            }
            points = [(types, scale * cost) for types, cost in costs.items() if cost]
            name = f"{kind} softmax: grows as types^{exponent(results, kind, quantity)}"
            curves[name] = np.array(points).reshape(-1, 2).T
        caption = f"{title} of the softmax's forward and backward pass ({count(results['tokens'])} tokens)"
        plot = partial(plot_costs, y_label=unit, curves=curves)
        figures[quantity] = draw(f"softmax-{quantity.partition('_')[0]}", caption, plot)
    return figures


def plot_costs(axes: Axes, y_label: str, curves: dict[str, np.ndarray]) -> None:
    """The curves (2, vocabularies) of the adaptive and the full softmax, and linear growth from the latter's end."""
    for style, (name, (types, costs)) in zip(STYLES, curves.items(), strict=False):
        axes.plot(types, costs, label=name, marker="o", markersize=3.5, **style)
    if costs.size:
        axes.plot(
            types,
            costs[-1] * types / types[-1],
            label="linear growth",
            color="#8a939b",
            linestyle=":",
        )
    axes.set_xscale("log")
    axes.set_xticks(np.unique(np.concatenate([types for types, _ in curves.values()])))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_locator(NullLocator())
    log_scale(axes, np.concatenate([costs for _, costs in curves.values()]))
    axes.set(xlabel="types in the vocabulary", ylabel=y_label)
