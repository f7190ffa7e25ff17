"""How softmaxes grow with the vocabulary: a table and figures of the benchmark's JSON.

`results` is the content of that JSON, as commands/benchmark_softmax.py makes it. It is not checked;
its entries vocabularies, growth, tokens, hidden_dim and threads are read. Seconds and bytes are
None for a softmax that was not run.
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
    """Time and memory of both softmaxes, a row for each vocabulary and one for their growth.

    Columns: types; milliseconds of the adaptive and the full one, and how many times faster the
    adaptive one is; MiB of both, and how many times smaller. A dash for a softmax that was not run.
    The last row has the exponents of time and memory (`exponent`).
    results: the benchmark's JSON.
    """
    rows = []
    for types, costs in results["vocabularies"].items():
        seconds = [costs[kind]["seconds"] for kind in KINDS]
        memory = [costs[kind]["memory_bytes"] for kind in KINDS]
        times = [milliseconds(cost and 1000 * cost) for cost in seconds]
        sizes = [decimals(cost and cost / 2**20, 0) for cost in memory]
        rows.append([count(int(types)), *times, gain(*seconds), *sizes, gain(*memory)])
    times = [exponent(results, kind, "seconds") for kind in KINDS]
    sizes = [exponent(results, kind, "memory_bytes") for kind in KINDS]
    rows.append(["exponent of growth", *times, "", *sizes, ""])
    caption = (
        f"Forward and backward pass of {count(results['tokens'])} tokens, "
        f"{count(results['hidden_dim'])} channels, {results['threads']} threads"
    )
    header = ["types", "adaptive, ms", "full, ms", "faster"]
    header += ["adaptive, MiB", "full, MiB", "smaller"]
    return Table(header, rows, caption)


def gain(adaptive: float | None, full: float | None) -> str:
    """How many times less the adaptive softmax takes, as "3.10×"; a dash if one is not known."""
    return ratio(full / adaptive) if adaptive and full else DASH


def exponent(results: dict, kind: str, quantity: str) -> str:
    """The power of the vocabulary with which a quantity grows, for a table; a dash if not known.

    kind: one of KINDS. quantity: `seconds` or `memory_bytes`.
    """
    return decimals(results["growth"][kind].get(quantity))


def softmax_figures(results: dict) -> dict[str, Figure]:
    """Figures of time and peak memory against the vocabulary, by quantity.

    The keys are `seconds` and `memory_bytes`, as in the JSON; the figures are named softmax-seconds
    and softmax-memory. A quantity that was not measured of any softmax has no figure.
    results: the benchmark's JSON.
    """
    panels = {
        "seconds": ("Time", "milliseconds", 1000),
        "memory_bytes": ("Peak memory", "MiB", 2**-20),
    }
    figures = {}
    for quantity, (title, unit, scale) in panels.items():
        curves = {}
        for kind in KINDS:
            points = []
            for types, costs in results["vocabularies"].items():
                if costs[kind][quantity]:
                    points.append((int(types), scale * costs[kind][quantity]))
            name = f"{kind} softmax: grows as types^{exponent(results, kind, quantity)}"
            curves[name] = np.array(points).reshape(-1, 2).T
        if not any(points.size for points in curves.values()):
            continue
        tokens = count(results["tokens"])
        caption = f"{title} of the softmax's forward and backward pass ({tokens} tokens)"
        plot = partial(plot_costs, y_label=unit, curves=curves)
        figures[quantity] = draw(f"softmax-{quantity.partition('_')[0]}", caption, plot)
    return figures


def plot_costs(axes: Axes, y_label: str, curves: dict[str, np.ndarray]) -> None:
    """Draw the costs of both softmaxes on log axes.

    curves: label -> an array (2, vocabularies), types in ascending order and cost; the full softmax
    comes last. At least one curve must have points.
    A dotted line shows linear growth through the full softmax's last point, if it has one.
    """
    for style, (name, (types, costs)) in zip(STYLES, curves.items(), strict=False):
        axes.plot(types, costs, label=name, marker="o", markersize=3.5, **style)
    types, costs = list(curves.values())[-1]  # the full softmax
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
