"""Measure the adaptive and the full softmax at growing vocabularies: time and memory, as a table, JSON and figures.

`make benchmark-softmax` runs the forward and backward pass of 512 tokens with 10,000 to 800,000 types; `--out` names
the JSON, and the figures stand beside it.
"""

import argparse

from tqdm import tqdm

from gcnn.base.files import write_json
from gcnn.base.provenance import made_with
from gcnn.base.values import positive_int
from gcnn.benchmarks.softmax_size import CUTOFFS, VOCABULARIES, Size, growth, measure
from gcnn.commands.arguments import add_number, add_out, add_threads, new_parser
from gcnn.reporting.document import to_text
from gcnn.reporting.softmax_size import softmax_figures, softmax_table


def main() -> None:
    arguments = parse_arguments()
    about = made_with()
    at = {name: getattr(arguments, name) for name in ("hidden_dim", "tokens", "threads")}
    at["threads"] = at["threads"] or about["hardware"]["threads"]
    costs = {}
    for vocabulary in tqdm(sorted(set(arguments.vocabularies)), unit=" vocabularies", disable=None):
        costs[str(vocabulary)] = measure(
            Size(vocabulary, **at), arguments.rounds, arguments.memory * 2**30
        )
    about |= {
        **at,
        "cutoffs": CUTOFFS,
        "rounds": arguments.rounds,
        "vocabularies": costs,
        "growth": growth(costs),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, about)
    for what, figure in softmax_figures(about).items():
        name = arguments.out.stem if what == "seconds" else f"{arguments.out.stem}_memory"
        arguments.out.with_name(f"{name}.svg").write_text(figure.svg, encoding="utf-8")
    table = softmax_table(about)
    print(f"{table.caption}\n{to_text(table)}\n{arguments.out.resolve()}")


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    help = "types; default: 10,000 to 800,000"
    parser.add_argument(
        "--vocabularies", nargs="+", type=positive_int, default=VOCABULARIES, metavar="N", help=help
    )
    add_number(parser, "--hidden-dim", 512, "channels")
    add_number(parser, "--tokens", 512, "of a batch")
    add_number(parser, "--rounds", 5, "whose median counts")
    add_threads(parser)
    help = "what may take more is not run; default: %(default)s"
    parser.add_argument("--memory", type=float, default=14, metavar="GIB", help=help)
    add_out(parser, "runs/softmax_size.json")
    return parser.parse_args()
