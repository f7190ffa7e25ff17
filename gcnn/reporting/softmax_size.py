"""The softmaxes' growth with the vocabulary, read from the benchmark's JSON: a table and figures."""

from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, NullLocator

from gcnn.errors import UsageError
from gcnn.reporting.document import Figure, Table
from gcnn.reporting.figures import STYLES, draw, log_scale
from gcnn.reporting.files import ANY, NUMBER, read_json, value
from gcnn.reporting.units import DASH, count, decimals, milliseconds, ratio

ENTRY = dict.fromkeys(("parameters", "seconds", "memory_bytes"), NUMBER)
SOFTMAX_SIZE = {
    "tokens": NUMBER,
    "hidden_dim": NUMBER,
    "threads": NUMBER,
    "vocabularies": {ANY: {"adaptive": ENTRY, "full": ENTRY}},
    "growth": {ANY: ENTRY},
}
NAMES = {"adaptive": "adaptive softmax", "full": "full softmax"}


def load_softmax_size(path: Path) -> dict:
    """The benchmark's results. Raises UsageError for a missing file or one of another kind."""
    results = read_json(path, SOFTMAX_SIZE)
    if not value(results, "vocabularies"):
        raise UsageError(f"{path} has no vocabularies. Give the JSON that the softmax benchmark wrote.")
    return results


def table(results: dict) -> Table:
    rows = []
    for vocabulary, entry in results["vocabularies"].items():
        seconds, memory = ([value(entry, f"{kind}.{what}") for kind in NAMES] for what in ("seconds", "memory_bytes"))
        rows.append([
            count(int(vocabulary)),
            *(milliseconds(found and 1000 * found) for found in seconds), times(*seconds),
            *(decimals(found and found / 2**20, 0) for found in memory), times(*memory),
        ])  # fmt: skip
    slopes = [[value(results, f"growth.{kind}.{what}") for kind in NAMES] for what in ("seconds", "memory_bytes")]
    rows.append(["exponent of growth", *map(decimals, slopes[0]), "", *map(decimals, slopes[1]), ""])
    caption = (
        f"Forward and backward pass of {count(results['tokens'])} tokens, {count(results['hidden_dim'])} channels, "
        f"{results['threads']} threads"
    )
    header = ["types", "adaptive, ms", "full, ms", "faster", "adaptive, MiB", "full, MiB", "smaller"]
    return Table(header, rows, caption)


def times(adaptive: float | None, full: float | None) -> str:
    return ratio(full / adaptive) if adaptive and full else DASH


def figures(results: dict) -> dict[str, Figure]:
    """Time and peak memory against the vocabulary; by what they show."""
    panels = {"seconds": ("Time", "milliseconds", 1000), "memory_bytes": ("Peak memory", "MiB", 2**-20)}
    return {
        what: draw(
            f"softmax-{what.partition('_')[0]}",
            f"{title} of the softmax's forward and backward pass ({count(results['tokens'])} tokens)",
            partial(plot, y_label=unit, curves={kind: points(results, kind, what, scale) for kind in NAMES}, names={
                kind: f"{name}: grows as types^{decimals(value(results, f'growth.{kind}.{what}'))}"
                for kind, name in NAMES.items()
            }),
        )
        for what, (title, unit, scale) in panels.items()
    }  # fmt: skip


def points(results: dict, kind: str, what: str, scale: float) -> np.ndarray:
    """Types and what was measured, (2, vocabularies), without those that were not run."""
    found = [(int(n), value(entry, f"{kind}.{what}")) for n, entry in results["vocabularies"].items()]
    return np.array([(n, scale * y) for n, y in sorted(found) if y], float).reshape(-1, 2).T


def plot(axes: Axes, y_label: str, curves: dict[str, np.ndarray], names: dict[str, str]) -> None:
    for style, (kind, (types, found)) in zip(STYLES, curves.items(), strict=False):
        axes.plot(types, found, label=names[kind], marker="o", markersize=3.5, **style)
    types, most = curves["full"]
    if most.size:
        axes.plot(types, most[-1] * types / types[-1], label="linear growth", color="#8a939b", linestyle=":")
    axes.set_xscale("log")
    every = np.unique(np.concatenate([types for types, _ in curves.values()]))
    axes.set_xticks(every)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_locator(NullLocator())
    log_scale(axes, np.concatenate([found for _, found in curves.values()]))
    axes.set(xlabel="types in the vocabulary", ylabel=y_label)
