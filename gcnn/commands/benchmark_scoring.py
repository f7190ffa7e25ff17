"""Measure the scoring of corpora: tokens a second and core, peak memory at two sizes, and what 1 TB of text would cost.

Writes Parquet shards of the lines of --text into --dir and has `gcnn score` score them with a trained run.
"""

import argparse
import json
from itertools import cycle, islice, product
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from gcnn.base.errors import UsageError
from gcnn.base.files import write_json
from gcnn.base.provenance import made_with, run_child
from gcnn.commands.arguments import add_number, add_out, add_run, new_parser
from gcnn.models.inference import PRECISIONS
from gcnn.reporting.document import Table, to_text
from gcnn.reporting.units import count, decimals, gibibytes

TERABYTE = 10**12
HEADER = [
    "precision",
    "processes",
    "rows",
    "tokens/s and core",
    "peak memory",
    "core-hours for 1 TB",
    "$ for 1 TB",
]


def main() -> None:
    arguments = parse_arguments()
    about = made_with()
    arguments.dir.mkdir(parents=True, exist_ok=True)
    lines = [
        line.strip()
        for line in arguments.text.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    if not lines:
        raise UsageError(f"--text: {arguments.text} has no words. Give a file with some text.")
    measurements = []
    few, many = arguments.rows, 4 * arguments.rows
    for precision, (processes, rows) in product(
        arguments.precisions, ((1, few), (1, many), (2, many))
    ):
        texts = list(islice(cycle(lines), rows))
        with TemporaryDirectory(dir=arguments.dir) as folder:
            shards = write_shards(Path(folder), texts)
            entry = measure(arguments.run, shards, Path(folder) / "scores", precision, processes)
        size = sum(len(line.encode()) + 1 for line in texts)
        hours = TERABYTE / size * entry["tokens"] / entry["tokens_per_second_and_core"] / 3600
        cost = {
            "bytes": size,
            "core_hours_for_1_tb": hours,
            "dollars_for_1_tb": hours * arguments.price,
        }
        measurements.append(
            {"precision": precision, "processes": processes, "rows": rows, **entry, **cost}
        )
    print(to_text(Table(HEADER, [cells(entry) for entry in measurements])))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            arguments.out,
            {**about, "dollars_for_a_core_hour": arguments.price, "measurements": measurements},
        )


def write_shards(folder: Path, lines: list[str]) -> list[Path]:
    paths = [folder / "0.parquet", folder / "1.parquet"]
    for i, path in enumerate(paths):
        pq.write_table(pa.table({"text": lines[i::2]}), path)
    return paths


def measure(
    run: Path, shards: list[Path], output: Path, precision: str, processes: int
) -> dict[str, float]:
    """Tokens, their rate, and the peak memory of a process; one thread each."""
    launch = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
        "-m",
        "--",
    ]
    call = [*(launch if processes > 1 else ["-m"]), "gcnn", "score"]
    call += [
        "--run",
        run,
        "--device",
        "cpu",
        "--threads",
        "1",
        "--precision",
        precision,
        "--output",
        output,
    ]
    text, used = run_child([*map(str, call), "--input", *map(str, shards)])
    done = [json.loads(line) for line in text.splitlines()]
    return {
        "tokens": sum(part["tokens"] for part in done),
        "tokens_per_second_and_core": sum(part["tokens_per_second"] for part in done) / processes,
        "peak_memory_bytes": 1024 * used.ru_maxrss,  # the largest of the processes that ended
    }


def cells(entry: dict) -> list[str]:
    return [
        entry["precision"], count(entry["processes"]), count(entry["rows"]), count(entry["tokens_per_second_and_core"]),
        gibibytes(entry["peak_memory_bytes"]), count(entry["core_hours_for_1_tb"]),
        decimals(entry["dollars_for_1_tb"], 0),
    ]  # fmt: skip


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    add_run(parser)
    help = "what the shards are made of, a row a line"
    parser.add_argument("--text", type=Path, required=True, metavar="FILE", help=help)
    help = "where shards are written, and removed after"
    parser.add_argument("--dir", type=Path, required=True, metavar="DIR", help=help)
    add_number(parser, "--rows", 1500, "and four times as many")
    help = "of the weights; default: all"
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help=help
    )
    parser.add_argument(
        "--price", type=float, default=0.04, help="dollars for a core-hour; default: %(default)s"
    )
    add_out(parser)
    return parser.parse_args()
