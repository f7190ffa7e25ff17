"""Measure training's speed beside the machine's own matrix product, or profile it.

`make benchmark-train` times the real update on synthetic text with 33,280 types: gcnn_small (8 x
256 tokens), lstm_small and GCNN-14 (1 x 1,024 tokens); on request GCNN-8, GCNN-13 and LSTM-1024
too. For other batches give trainer.batch_size=N. `make profile` prints where the time of one
workload goes, by operator and by module; on a GPU, the GPU's own time.
"""

import argparse
import logging
from operator import attrgetter
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from gcnn.base.errors import UsageError
from gcnn.base.provenance import made_with
from gcnn.benchmarks.output import write_benchmark
from gcnn.benchmarks.training import USUAL, WORKLOADS, make_trainer, measure
from gcnn.commands.arguments import (
    Several,
    add_number,
    add_out,
    add_precision,
    add_threads,
    new_parser,
    set_threads,
)
from gcnn.reporting.document import Table, table_of, to_text
from gcnn.reporting.units import count, decimals, gibibytes
from gcnn.training.trainer import Trainer

COLUMNS = {
    "workload": lambda entry: entry["workload"],
    "tokens/s": lambda entry: count(entry["tokens_per_second"]),
    "GFLOP/s": lambda entry: decimals(entry["flops_per_second"] / 1e9, 0),
    "matrix product, GFLOP/s": lambda entry: decimals(
        entry["matrix_product_flops_per_second"] / 1e9, 0
    ),
    "share": lambda entry: f"{100 * entry['share_of_matrix_product']:.0f} %",
    "evaluation, tokens/s": lambda entry: count(entry["evaluation_tokens_per_second"]),
    "of bare forward": lambda entry: f"{100 * entry['evaluation_share_of_forward']:.0f} %",
    "peak memory": lambda entry: gibibytes(entry["peak_memory_bytes"]),
}


class Attributes(NamedTuple):
    """Where an event of torch's profiler has its microseconds, and the bytes that it kept."""

    time: attrgetter
    memory: attrgetter


ATTRIBUTES = {  # by the kind of device: of an event alone, and with all within it
    "cpu": (
        Attributes(attrgetter("self_cpu_time_total"), attrgetter("self_cpu_memory_usage")),
        Attributes(attrgetter("cpu_time_total"), attrgetter("cpu_memory_usage")),
    ),
    "cuda": (
        Attributes(attrgetter("self_device_time_total"), attrgetter("self_device_memory_usage")),
        Attributes(attrgetter("device_time_total"), attrgetter("device_memory_usage")),
    ),
}


def main() -> None:
    """Run `gcnn benchmark-train`: time the workloads, print a table, and write the JSON of --out.

    The table has a row a workload, by COLUMNS; the JSON has the entries of `made_with`, `precision`
    and `workloads`: by name, what `Speed.report` returns. With --profile it only prints the profile
    of the first workload. Sets torch's threads, and changes the process as `make_trainer` does.
    Raises UsageError for an invalid option or override, a device that is not there, and --profile
    with --out; RunError as `Trainer.step` does for an update that is not finite.
    """
    arguments = parse_arguments()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    set_threads(arguments.threads)
    overrides = [f"trainer.precision={arguments.precision}", *arguments.overrides]
    if arguments.profile:
        if arguments.out is not None:
            raise UsageError("--profile only prints its tables; leave --out out.")
        print_profile(make_trainer(arguments.workloads[0], *overrides))
        return
    about = made_with()
    speeds = {}
    for name in arguments.workloads:
        trainer = make_trainer(name, *overrides)
        speeds[name] = measure(trainer, name, arguments.rounds, arguments.steps).report()
    precision = trainer.config.trainer.precision  # an override may set another than --precision
    threads = torch.get_num_threads()
    print(f"{precision}, {threads} threads, median of {arguments.rounds} rounds")
    print(to_text(table_of([{"workload": name} | speeds[name] for name in speeds], COLUMNS)))
    results = {"precision": precision, "workloads": speeds}
    write_benchmark(arguments.out, about, results)


def print_profile(trainer: Trainer, warm_up: int = 3, steps: int = 5) -> None:
    """Print where an update's time and memory go: one table by operator, one by module.

    Both have the 25 with the most time; on a GPU the GPU's time and memory. The columns: name; ms
    an update; share of all time; calls an update; MiB an update that it takes and does not free. An
    operator has its own time and memory. The modules are the encoder, its blocks, and the layers
    outside of the blocks. A module has the time and memory of its forward pass, with all modules
    within: the encoder's includes its blocks'.
    trainer: of `make_trainer`. Trains its model `warm_up + steps` updates, the first `warm_up`
    unmeasured, and leaves the forward methods of its modules wrapped by the profiler. Raises
    RunError as `Trainer.step` does for an update that is not finite.
    """
    for name, module in trainer.model.named_modules():
        if name and name.count(".") <= 2:  # not the whole model, nor what is within a block
            module.forward = record_function(f"module {name}")(module.forward)
    for _ in range(warm_up):
        trainer.step()
    activities = [ProfilerActivity.CPU]
    if trainer.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities, profile_memory=True) as profiler:
        for _ in range(steps):
            trainer.step()
    events = profiler.key_averages()
    own, whole = ATTRIBUTES[trainer.device.type]
    total = sum(own.time(event) for event in events)
    by_operator = [event for event in events if not event.key.startswith("module ")]
    by_module = [event for event in events if event.key.startswith("module ")]
    for title, chosen, attributes in (
        ("by operator, its own time", by_operator, own),
        ("by module, forward pass with all within", by_module, whole),
    ):
        rows = []
        for event in sorted(chosen, key=attributes.time, reverse=True)[:25]:
            row = [
                event.key.removeprefix("module "),
                decimals(attributes.time(event) / steps / 1000, 2),
                f"{100 * attributes.time(event) / total:.1f} %",
                count(event.count / steps),
                decimals(attributes.memory(event) / steps / 2**20, 1),
            ]
            rows.append(row)
        header = [title, "ms a step", "of all", "calls a step", "MiB kept"]
        print(to_text(Table(header, rows)), end="\n\n")


def parse_arguments() -> argparse.Namespace:
    """The options of `gcnn benchmark-train`, from sys.argv; `overrides` are its key=value words.

    `out` and `threads` are None where they are not given. Raises UsageError for an invalid one.
    """
    parser = new_parser(__doc__)
    help = "keys of the config, as for training; default: none"
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=help)
    help = f"models and batches; default: {' '.join(USUAL)}"
    parser.add_argument(
        "--workloads", nargs="+", action=Several, choices=list(WORKLOADS), default=USUAL, help=help
    )
    parser.add_argument(
        "--profile", action="store_true", help="only profile the first workload; default: off"
    )
    add_precision(parser, "products")
    add_threads(parser)
    add_number(parser, "--rounds", 5, "rounds, of which the median is taken")
    add_number(parser, "--steps", 3, "updates a round")
    add_out(parser)
    return parser.parse_args()
