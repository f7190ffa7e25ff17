"""Measure the adaptive and the full softmax at growing vocabularies: time and memory.

`make benchmark-softmax` runs the forward and backward pass of 512 tokens with 10,000 to 800,000
types. Prints a table; --out names the JSON, and the figures are written beside it.
"""

import argparse
from concurrent.futures.process import BrokenProcessPool

from tqdm import tqdm

from gcnn.base.errors import RunError, UsageError
from gcnn.base.files import write_text
from gcnn.base.provenance import made_with
from gcnn.base.values import positive_int, positive_number
from gcnn.benchmarks.output import write_benchmark
from gcnn.benchmarks.softmax_size import CUTOFFS, VOCABULARIES, Size, growth, measure
from gcnn.commands.arguments import Several, add_number, add_out, add_threads, new_parser
from gcnn.reporting.document import to_text
from gcnn.reporting.softmax_size import softmax_figures, softmax_table


def main() -> None:
    """Run `gcnn benchmark-softmax`: measure each vocabulary, write JSON and figures, print a table.

    The JSON has the entries of `made_with`, the settings, `vocabularies` (by number of types, what
    `softmax_size.measure` returns) and their `growth`. The figures of time and memory are written
    beside the JSON of --out, as <name>.svg and <name>_memory.svg; neither where every softmax may
    need more than --memory. The vocabularies are sorted, each measured once, in processes of their
    own. Raises UsageError for an invalid option, and RunError where one of these processes is
    killed, for memory say; nothing is written then.
    """
    arguments = parse_arguments()
    about = made_with()
    threads = arguments.threads or about["hardware"]["threads"]
    costs = {}
    for vocabulary in tqdm(sorted(set(arguments.vocabularies)), unit=" vocabularies", disable=None):
        size = Size(vocabulary, arguments.hidden_dim, arguments.tokens, threads)
        try:
            costs[str(vocabulary)] = measure(size, arguments.rounds, arguments.memory * 2**30)
        except BrokenProcessPool:
            raise RunError(
                f"the process that measured {vocabulary:,} types was killed, maybe for memory. "
                "Give a smaller --memory, or --vocabularies without it."
            ) from None
    results = {
        "hidden_dim": arguments.hidden_dim,
        "tokens": arguments.tokens,
        "threads": threads,
        "cutoffs": CUTOFFS,
        "rounds": arguments.rounds,
        "vocabularies": costs,
        "growth": growth(costs),
    }
    write_benchmark(arguments.out, about, results)
    for what, figure in softmax_figures(results).items():
        name = arguments.out.stem if what == "seconds" else f"{arguments.out.stem}_memory"
        write_text(arguments.out.with_name(f"{name}.svg"), figure.svg)
    table = softmax_table(results)
    print(f"{table.caption}\n{to_text(table)}\n{arguments.out.resolve()}")


def parse_arguments() -> argparse.Namespace:
    """The options of `gcnn benchmark-softmax`, from sys.argv.

    `threads` is None where it is not given. Raises UsageError for an invalid one, and for an `out`
    that ends in .svg, because a figure of that name would replace the JSON.
    """
    parser = new_parser(__doc__)
    help = "numbers of types to measure; default: 10,000 to 800,000"
    parser.add_argument(
        "--vocabularies",
        nargs="+",
        action=Several,
        type=positive_int,
        default=VOCABULARIES,
        metavar="N",
        help=help,
    )
    add_number(parser, "--hidden-dim", 512, "channels")
    add_number(parser, "--tokens", 512, "of a batch")
    add_number(parser, "--rounds", 5, "rounds, of which the median is taken")
    add_threads(parser)
    help = "a softmax that may need more memory is not run; default: %(default)s"
    parser.add_argument("--memory", type=positive_number, default=14, metavar="GIB", help=help)
    add_out(parser, "runs/softmax_size.json")
    arguments = parser.parse_args()
    if arguments.out.suffix == ".svg":
        raise UsageError(
            f"--out: {arguments.out} would be replaced by a figure. Give a name that ends in .json."
        )
    return arguments
