"""Write one page about runs, as HTML and as Markdown."""

from pathlib import Path

from gcnn.base.files import check_output
from gcnn.commands.arguments import given_path, new_parser
from gcnn.runs.directory import find_run


def main() -> None:
    """Run `gcnn report`: write report.html and report.md into --out; print the path of report.html.

    report.md has its figures in figures/. The folder is made; a page that is there is replaced. A
    run that is missing or cannot be read is left out, and named on the page and on stderr. Raises
    UsageError for an invalid option, where no run is left, for `latest` without a finished run,
    where a file stands in the place of --out, and for a file of --latency or --comparison that is
    missing or of another kind; nothing is written then.
    """
    parser = new_parser(__doc__)
    help = "a run, a folder of them, or `latest`: the newest in runs/"
    parser.add_argument("runs", nargs="+", type=given_path, metavar="RUN", help=help)
    parser.add_argument(
        "--latency",
        type=given_path,
        metavar="FILE",
        help="the JSON of the latency benchmark; default: none",
    )
    help = "what `gcnn compare --json` printed; default: none"
    parser.add_argument("--comparison", type=given_path, metavar="FILE", help=help)
    out = Path("runs/report")
    parser.add_argument(
        "--out",
        type=given_path,
        default=out,
        metavar="DIR",
        help="folder of the page; default: %(default)s",
    )
    arguments = parser.parse_args()
    from gcnn.reporting.page import write_report
    from gcnn.reproduction.paper import PAPER

    check_output("--out", arguments.out, folder=True)
    runs = [find_run("latest") if run == Path("latest") else run for run in arguments.runs]
    page, _ = write_report(runs, arguments.out, arguments.latency, PAPER, arguments.comparison)
    print(f"report: {page.resolve()}")
