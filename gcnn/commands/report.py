"""Write the report about runs: `gcnn report RUN [RUN ...] [--latency FILE] [--out DIR]`."""

import argparse
from pathlib import Path

from gcnn.checks import check_output
from gcnn.evaluation.run import find_run
from gcnn.reporting.page import write_report


def main() -> None:
    parser = argparse.ArgumentParser(description="Write one page about runs, as HTML and as Markdown.")
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run, a folder of them, or `latest`: the newest in runs/"
    )
    parser.add_argument("--latency", type=Path, metavar="FILE", help="the JSON of the latency benchmark; default: none")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/report"), metavar="DIR", help="of the page; default: %(default)s"
    )
    arguments = parser.parse_args()
    check_output("--out", arguments.out, folder=True)
    runs = [find_run("latest") if run == Path("latest") else run for run in arguments.runs]
    page, _ = write_report(runs, arguments.out, arguments.latency)
    print(f"report: {page.resolve()}")
