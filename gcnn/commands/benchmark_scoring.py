"""Measure the scoring of corpora: tokens a second and core, memory, and the cost of 1 TB of text.

Writes Parquet shards of the lines of --text into --dir and has `gcnn score` score them with a
trained run, at two sizes: memory must not grow with the text.
"""

import argparse
import json
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from gcnn.base.errors import UsageError
from gcnn.base.provenance import made_with, run_child
from gcnn.base.values import positive_number
from gcnn.benchmarks.output import write_benchmark
from gcnn.commands.arguments import Several, add_number, add_out, add_run, given_path, new_parser
from gcnn.data.tables import read_lines
from gcnn.models.inference import PRECISIONS
from gcnn.reporting.document import Table, to_text
from gcnn.reporting.units import count, decimals, gibibytes, mean

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
    """Run `gcnn benchmark-scoring`: measure all settings, print a table, write the JSON of --out.

    For each precision there are three: one process with --rows rows, one and two processes with
    four times as many. The rows are the lines of --text, which `read_lines` reads, stripped,
    without empty ones, repeated. Makes the folder --dir; the shards and scores that are written
    there are removed again. The JSON has the entries of `made_with`, `dollars_for_a_core_hour` and
    `measurements`: of each, the setting (precision, processes, rows) and what `measure` and
    `cost_of_terabyte` return. Raises UsageError for an invalid option or a text without words,
    UsageError and OSError as read_lines does, and RunError where a download or the scoring fails.
    """
    arguments = parse_arguments()
    about = made_with()
    lines = []
    for rows in read_lines(arguments.text):
        for line in rows.drop_null().to_pylist():
            if line.strip():
                lines.append(line.strip())
    if not lines:
        raise UsageError(f"--text: {arguments.text} has no words. Give a file with some text.")
    arguments.dir.mkdir(parents=True, exist_ok=True)
    few = arguments.rows
    many = 4 * few
    measurements = []
    for precision in arguments.precisions:
        for processes, rows in ((1, few), (1, many), (2, many)):
            texts = list(islice(cycle(lines), rows))
            with TemporaryDirectory(dir=arguments.dir) as folder:
                shards = write_shards(Path(folder), texts)
                output = Path(folder) / "scores"
                entry = measure(arguments.run, shards, output, precision, processes)
            cost = cost_of_terabyte(texts, entry, arguments.price)
            setting = {"precision": precision, "processes": processes, "rows": rows}
            measurements.append(setting | entry | cost)
    print(to_text(Table(HEADER, [cells(entry) for entry in measurements])))
    results = {"dollars_for_a_core_hour": arguments.price, "measurements": measurements}
    write_benchmark(arguments.out, about, results)


def cost_of_terabyte(texts: list[str], entry: dict[str, float], price: float) -> dict[str, float]:
    """The core-hours and dollars that 1 TB (10^12 bytes) of text like `texts` would take.

    texts: at least one. entry: what `measure` returned for them. price: dollars for a core-hour.
    The result has the keys bytes (of `texts`, in UTF-8 with line ends), core_hours_for_1_tb and
    dollars_for_1_tb.
    """
    size = sum(len(line.encode()) + 1 for line in texts)  # bytes, line ends included
    terabyte_tokens = TERABYTE / size * entry["tokens"]
    hours = terabyte_tokens / entry["tokens_per_second_and_core"] / 3600
    return {
        "bytes": size,
        "core_hours_for_1_tb": hours,
        "dollars_for_1_tb": hours * price,
    }


def write_shards(folder: Path, lines: list[str]) -> list[Path]:
    """Write lines, alternately, into two Parquet files with the column `text`; returns their paths.

    folder: exists; files 0.parquet and 1.parquet in it are replaced.
    """
    paths = [folder / "0.parquet", folder / "1.parquet"]
    for i, path in enumerate(paths):
        pq.write_table(pa.table({"text": lines[i::2]}), path)
    return paths


def measure(
    run: Path, shards: list[Path], output: Path, precision: str, processes: int
) -> dict[str, float]:
    """Score files with `gcnn score` on the CPU, in `processes` processes of one thread each.

    run: its directory. shards: the files, as `write_shards` returns them. output: a folder for the
    scores, which is made; it must not have any yet. precision: float32 or bf16, of the weights.
    Returns tokens (the sum over the processes), tokens_per_second_and_core and peak_memory_bytes
    (of the largest process). The speed is the mean over the processes that scored anything, for one
    may score all shards before the other has begun. It leaves out the loading of the model. Raises
    RunError where the command fails.
    """
    call = ["-m"]
    if processes > 1:
        call += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        call += ["-m", "--"]
    call += ["gcnn", "score", "--run", str(run), "--device", "cpu", "--threads", "1"]
    call += ["--precision", precision, "--output", str(output), "--input", *map(str, shards)]
    text, used = run_child(call)
    done = [json.loads(line) for line in text.splitlines()]  # a line a process
    speeds = [part["tokens_per_second"] for part in done if part["tokens"]]
    return {
        "tokens": sum(part["tokens"] for part in done),
        "tokens_per_second_and_core": mean(speeds),
        "peak_memory_bytes": 1024 * used.ru_maxrss,  # the largest of the processes that ended
    }


def cells(entry: dict) -> list[str]:
    """The row of a measurement, an entry of the benchmark's JSON, under HEADER."""
    return [
        entry["precision"],
        count(entry["processes"]),
        count(entry["rows"]),
        count(entry["tokens_per_second_and_core"]),
        gibibytes(entry["peak_memory_bytes"]),
        count(entry["core_hours_for_1_tb"]),
        decimals(entry["dollars_for_1_tb"], 0),
    ]


def parse_arguments() -> argparse.Namespace:
    """The options of `gcnn benchmark-scoring`, from sys.argv.

    `out` is None where it is not given. The run is found, maybe downloaded, and errors raised for
    it, as `add_run` says. Raises UsageError for an invalid option.
    """
    parser = new_parser(__doc__)
    add_run(parser)
    help = "text whose lines, repeated as needed, are the rows of the shards"
    parser.add_argument("--text", type=given_path, required=True, metavar="FILE", help=help)
    help = "folder for the shards, which are removed in the end"
    parser.add_argument("--dir", type=given_path, required=True, metavar="DIR", help=help)
    add_number(
        parser, "--rows", 1500, "rows of the smaller size; the larger has four times as many"
    )
    help = "of the weights; default: all"
    parser.add_argument(
        "--precisions",
        nargs="+",
        action=Several,
        choices=PRECISIONS,
        default=list(PRECISIONS),
        help=help,
    )
    help = "dollars for a core-hour; default: %(default)s"
    parser.add_argument("--price", type=positive_number, default=0.04, metavar="USD", help=help)
    add_out(parser)
    return parser.parse_args()
