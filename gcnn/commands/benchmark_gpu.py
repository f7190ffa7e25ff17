"""Test and measure this project on a GPU within some minutes, the most valuable first.

Each part has a process and a time of its own, and writes OUT/NAME.json the moment it knows
something:

  tests      those marked cuda
  training   GCNN-8, GCNN-14 and LSTM-1024 at 16 k tokens an update: speed, memory, share of the
             chip's rate
  latency    Table 4's protocol and single sentences
  compiled   the training, compiled
  graphs     sentences as CUDA graphs
  text       a training of GCNN-8 on a text

What fails leaves its reason there, and the others run. On a CPU all is of toy size. It runs from a
checkout, installed or not: python -m gcnn benchmark-gpu.
"""

import argparse
import datetime
import logging
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from gcnn.base.errors import RunError
from gcnn.base.files import check_output
from gcnn.base.values import positive_number
from gcnn.commands.arguments import add_device, existing_folder, given_path, new_parser

TOY_SECONDS = 60.0  # at least, for each part on a CPU, which may be busy; a GPU's time is dear


def main() -> None:
    """Run `gcnn benchmark-gpu`: run all parts in about --minutes, each writing OUT/<part>.json.

    OUT is --out, or runs/gpu/<time>. It is made; an older <part>.json in it is replaced, and so is
    text_run, the run of the part `text`. The JSON of a part that failed says why. On a CPU each
    part has TOY_SECONDS or more, also past --minutes. Prints a line for each part and the folder.
    Raises UsageError for an invalid option, for a device that is not there and where a file stands
    in the place of OUT, and RunError, after all parts have run, where some failed.
    """
    arguments = parse_arguments()
    from gcnn.benchmarks.gpu import parts
    from gcnn.benchmarks.time_boxes import FORKS, run_parts
    from gcnn.evaluation.run import choose_device

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # Whether the device is there, before anything is written. In a process of its own: to ask torch
    # for a GPU here would spoil CUDA in the parts, which are forked from this process
    with ProcessPoolExecutor(1, FORKS) as pool:
        device = pool.submit(choose_device, arguments.device).result()
    out = arguments.out or Path(f"runs/gpu/{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}")
    check_output("--out", out, folder=True)
    out.mkdir(parents=True, exist_ok=True)
    all_parts = parts(arguments.device, out, arguments.text)
    least = TOY_SECONDS if device.type == "cpu" else 0.0
    outcomes = run_parts(all_parts, 60 * arguments.minutes, out, least)
    print(f"figures: {out.resolve()}")
    failed = [name for name, outcome in outcomes.items() if outcome != "done"]
    if failed:
        raise RunError(
            f"{len(failed)} of {len(outcomes)} parts failed: {', '.join(failed)}. "
            f"Their files in {out} say why."
        )


def parse_arguments() -> argparse.Namespace:
    """The options of `gcnn benchmark-gpu`, from sys.argv. Raises UsageError for an invalid one.

    `out` and `text` are None where they are not given.
    """
    parser = new_parser(__doc__)
    help = "for all parts together; default: %(default)g"
    parser.add_argument("--minutes", type=positive_number, default=8.0, metavar="N", help=help)
    add_device(parser)
    help = "a folder for the figures, a JSON file a part; default: runs/gpu/<time>"
    parser.add_argument("--out", type=given_path, metavar="DIR", help=help)
    help = "a folder with {train,valid,test}.txt to train GCNN-8 on; default: a made-up text"
    parser.add_argument("--text", type=existing_folder, metavar="DIR", help=help)
    return parser.parse_args()
