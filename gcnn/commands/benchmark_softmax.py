"""Measure the adaptive and the full softmax at growing vocabularies: time and memory, as a table, JSON and figures.

`make benchmark-softmax` runs the forward and backward pass of 512 tokens with 10,000 to 800,000 types; `--out` names
the JSON, and the figures stand beside it.
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from gcnn.benchmarks.softmax_size import VOCABULARIES, Size, describe, growth, measure
from gcnn.checks import check_output, positive
from gcnn.files import write_json
from gcnn.provenance import made_with
from gcnn.reporting.document import to_text
from gcnn.reporting.softmax_size import figures, load_softmax_size, table


def main() -> None:
    arguments = parse_arguments()
    check_output("--out", arguments.out)
    about = made_with()
    threads = arguments.threads or about["hardware"]["threads"]
    found = {}
    for vocabulary in tqdm(sorted(set(arguments.vocabularies)), unit=" vocabularies", disable=None):
        size = Size(vocabulary, arguments.hidden_dim, arguments.tokens, threads)
        found[str(vocabulary)] = measure(size, arguments.rounds, arguments.memory * 2**30)
    about |= {**describe(size), "rounds": arguments.rounds, "vocabularies": found, "growth": growth(found)}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, about)
    results = load_softmax_size(arguments.out)
    for what, figure in figures(results).items():
        name = arguments.out.stem if what == "seconds" else f"{arguments.out.stem}_memory"
        arguments.out.with_name(f"{name}.svg").write_text(figure.svg, encoding="utf-8")
    print(f"{table(results).caption}\n{to_text(table(results))}\n{arguments.out.resolve()}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--vocabularies",
        nargs="+",
        type=positive,
        default=VOCABULARIES,
        metavar="N",
        help="types; default: 10,000 to 800,000",
    )
    parser.add_argument("--hidden-dim", type=positive, default=512, metavar="N", help="channels; default: %(default)s")
    parser.add_argument("--tokens", type=positive, default=512, metavar="N", help="of a batch; default: %(default)s")
    parser.add_argument(
        "--rounds", type=positive, default=5, metavar="N", help="whose median counts; default: %(default)s"
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads; default: all cores")
    parser.add_argument(
        "--memory", type=float, default=14, metavar="GIB", help="what may take more is not run; default: %(default)s"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/softmax_size.json"),
        metavar="FILE",
        help="the figures as JSON; default: %(default)s",
    )
    return parser.parse_args()
