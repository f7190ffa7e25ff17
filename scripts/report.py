"""Write the report about runs: `scripts/report.py RUN [RUN ...] [--latency FILE] [--out DIR]`."""

import argparse
from pathlib import Path

from gcnn.checks import check_output
from gcnn.errors import run_command
from gcnn.reporting.page import write_report


def main() -> None:
    parser = argparse.ArgumentParser(description="Write one page about runs, as HTML and as Markdown.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run directory, or a folder of them")
    parser.add_argument("--latency", type=Path, metavar="FILE", help="the JSON of the latency benchmark")
    parser.add_argument("--out", type=Path, default=Path("runs/report"), metavar="DIR", help="default: %(default)s")
    arguments = parser.parse_args()
    check_output("--out", arguments.out, folder=True)
    page, _ = write_report(arguments.runs, arguments.out, arguments.latency)
    print(f"report: {page.resolve()}")


if __name__ == "__main__":
    run_command(main)
