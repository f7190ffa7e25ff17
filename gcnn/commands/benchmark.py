"""Measure latency and throughput of models.

Without --models and --runs: the paper's models with random weights. GCNN-9 and GCNN-8B are compared
with LSTM-2048, GCNN-8 and GCNN-14 with LSTM-1024, all on the CPU or a GPU, in one run. On a CPU
each LSTM is measured twice: as torch.nn.LSTM, which lays out its weights anew at every call, and as
..._packed, with its weights laid out once.
"""

import argparse
import logging
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

import torch

from gcnn.base.errors import UsageError
from gcnn.base.provenance import made_with
from gcnn.base.values import positive_int
from gcnn.benchmarks.bounds import Machine
from gcnn.benchmarks.latency import Candidate, benchmark
from gcnn.benchmarks.output import write_benchmark
from gcnn.commands.arguments import (
    Several,
    add_device,
    add_out,
    add_precision,
    add_threads,
    new_parser,
    set_threads,
)
from gcnn.config.compose import compose_config
from gcnn.config.stored import load_config
from gcnn.data.tokenizers import load_tokenizer
from gcnn.evaluation.run import choose_device, load_model
from gcnn.models.inference import PRECISIONS
from gcnn.models.language_model import LanguageModel, build_model
from gcnn.reporting.document import Table, to_text
from gcnn.reporting.latency import latency_table, load_latency, ratio_table, speed_table
from gcnn.reproduction.paper import LSTM_DATA, TABLE_1, TABLE_4, vocabulary_of
from gcnn.runs.directory import TOKENIZER, find_run

PAPER = [*TABLE_1, *LSTM_DATA]
ROUNDS, QUICK_ROUNDS = (100, 3), (10, 1)  # of sentences, and of Table 4's protocol
DEFAULT = "gcnn_9,gcnn_8b,lstm_2048,gcnn_8,gcnn_14,lstm_1024"


def main() -> None:
    """Run `gcnn benchmark`: measure the models, write the JSON of --out, and print its tables.

    The models are those of --models and --runs, or without either those of DEFAULT. The JSON has
    the entries of `made_with` and what `gcnn.benchmarks.latency.benchmark` returns. Logs progress
    to stderr; sets torch's threads. Raises UsageError for an invalid option, for a model that the
    paper does not have, for --models without a name, for a run that is damaged or has no model yet,
    and for a device that is not there; RunError for damaged weights or a failed download.
    """
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    set_threads(arguments.threads)
    machine = Machine(choose_device(arguments.device), PRECISIONS[arguments.precision])
    models = arguments.models
    if models is None:
        models = "" if arguments.runs else DEFAULT
    elif not models.strip(","):  # as a shell's variable that is not set
        raise UsageError(f"--models {models!r} names no model; choose from {', '.join(PAPER)}.")
    groups = paper_candidates([name for name in models.split(",") if name], machine)
    groups += run_candidates(arguments.runs)
    about = made_with()
    rounds, long_rounds = QUICK_ROUNDS if arguments.quick else ROUNDS
    latency = benchmark(groups, machine, arguments.repeats or rounds, long_rounds)
    write_benchmark(arguments.out, about, latency)
    measured = load_latency(arguments.out)
    tables = [latency_table(measured), speed_table(measured, TABLE_4), bounds_table(latency)]
    ratios = ratio_table(measured, TABLE_4)
    if ratios.rows:
        tables.append(ratios)
    for table in tables:
        print(f"{table.caption}\n{to_text(table)}\n")
    print(f"latency: {arguments.out.resolve()}")


def paper_candidates(names: list[str], machine: Machine) -> list[list[Candidate]]:
    """The paper's models with random weights, those with the same vocabulary size in one group.

    names: of TABLE_1 or LSTM_DATA, as "gcnn_8b"; groups and models keep their order, and a name
    that comes twice counts once; none: no groups. machine: of it only the kind of device is used.
    The models are made later, by the benchmark. On a CPU each LSTM comes a second time, as
    "<name>_packed", with its weights laid out once. Raises UsageError for any other name.
    """
    groups = defaultdict(list)
    for name in dict.fromkeys(names):
        size = vocabulary_of(name)
        if size is None:
            raise UsageError(
                f"--models: the paper has no {name!r}; choose from {', '.join(PAPER)}."
            )
        load = partial(random_model, name, size)
        groups[size].append(Candidate(name, f"random weights, {size:,} types", load))
        if name.startswith("lstm") and machine.device.type == "cpu":
            packed = Candidate(
                f"{name}_packed", "the same, its weights laid out once", load, packed_lstm=True
            )
            groups[size].append(packed)
    return list(groups.values())


def random_model(name: str, vocabulary_size: int) -> LanguageModel:
    """The model of configs/model/<name>.yaml on the CPU with random weights, the same at each call.

    vocabulary_size: must be larger than the model's cutoffs. Sets torch's random seed. Raises
    UsageError for another name, and as `build_model` does.
    """
    torch.manual_seed(1)
    return build_model(compose_config(f"model={name}").model, vocabulary_size)


def trained_model(run: Path) -> LanguageModel:
    """The model of a run directory, on the CPU, ready for inference."""
    return load_model(run, "cpu").model


def run_candidates(runs: list[Path]) -> list[list[Candidate]]:
    """The models of run directories, those with the same vocabulary size in one group.

    Groups are sorted, the smallest vocabulary first; no runs, no groups. A path that comes twice
    counts once. The models are loaded later, by the benchmark; an LSTM has its weights laid out
    once. A model is named by its run's experiment, or by the run's path if another run or a model
    of the paper has that name. Raises UsageError for a run whose config or tokenizer is missing or
    damaged.
    """
    experiments = {run: load_config(run).experiment for run in runs}
    times_named = Counter(experiments.values())
    groups = defaultdict(list)
    for run, experiment in experiments.items():
        is_unique = times_named[experiment] == 1 and experiment not in PAPER
        name = experiment if is_unique else str(run)
        size = load_tokenizer(run / TOKENIZER).vocabulary_size
        load = partial(trained_model, run)
        groups[size].append(Candidate(name, f"trained, {size:,} types", load, packed_lstm=True))
    return [groups[size] for size in sorted(groups)]


def bounds_table(latency: dict) -> Table:
    """A table of what limits each model's speed on this machine, a row a model.

    The columns: its name, and what limits it (a phrase, as "reading weights") for sentences of 20
    words, for these without the softmax, in Table 4's responsiveness and in its throughput. The
    caption has the machine's rates. latency: what `gcnn.benchmarks.latency.benchmark` returned.
    """
    rows = []
    for name, model in latency["models"].items():
        measurements = [
            model["sentences"]["20"],
            model["sentences_without_softmax"]["20"],
            model["responsiveness"],
            model["throughput"],
        ]
        rows.append([name, *(entry["bounded_by"] for entry in measurements)])
    rates = latency["rates"]
    caption = (
        f"What bounds them here: products at {rates['flops_per_second'] / 1e9:.0f} GFLOP/s, "
        f"memory read at {rates['read_bytes_per_second'] / 1e9:.1f} GB/s, {latency['precision']}"
    )
    header = ["Model", "20 words", "20 words, without softmax", "Responsiveness", "Throughput"]
    return Table(header, rows, caption, text_columns=len(header))


def parse_arguments() -> argparse.Namespace:
    """The options of `gcnn benchmark`, from sys.argv.

    `models` stays one string. It, `repeats` and `threads` are None where they are not given; `runs`
    is then empty. --runs are found, maybe downloaded, by `find_run`. Raises UsageError for an
    invalid option, and UsageError and RunError as find_run does.
    """
    parser = new_parser(__doc__)
    parser.add_argument(
        "--models",
        metavar="NAME,...",
        help=f"of the paper, with random weights; default: {DEFAULT}",
    )
    help = "trained runs to measure, or `latest`; default: none"
    parser.add_argument(
        "--runs", nargs="+", action=Several, type=find_run, default=[], metavar="RUN", help=help
    )
    add_device(parser)
    add_threads(parser)
    help = f"rounds of sentences; default: {ROUNDS[0]}, with --quick {QUICK_ROUNDS[0]}"
    parser.add_argument("--repeats", type=positive_int, metavar="N", help=help)
    help = (
        f"fewer rounds of sentences, and {QUICK_ROUNDS[1]} round of Table 4's protocol instead of "
        f"{ROUNDS[1]}; default: off"
    )
    parser.add_argument("--quick", action="store_true", help=help)
    add_precision(parser)
    add_out(parser, "runs/latency.json")
    return parser.parse_args()
