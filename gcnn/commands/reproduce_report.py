"""Write the paper's tables and figures into docs/REPRODUCTION.md and as one HTML page.

They are made of the records in docs/results/reproduction/, which `gcnn reproduce` writes.
"""

from pathlib import Path

from gcnn.base.files import check_output
from gcnn.commands.arguments import given_path, new_parser
from gcnn.reporting.latency import load_latency
from gcnn.reproduction.page import reproduction_blocks, write_reproduction_page
from gcnn.reproduction.records import load_records

DOCS = Path(__file__).resolve().parents[2] / "docs"


def main() -> None:
    """Run `gcnn reproduce-report`: write docs/REPRODUCTION.md and the HTML page --out.

    Runs from a checkout, whose docs/ it reads; of REPRODUCTION.md only what stands between its
    markers changes. The page's folder is made, and the page's path printed. Raises UsageError for
    an invalid option, where there is no record or a damaged one, where the latency JSON is missing
    or damaged, where REPRODUCTION.md is missing or lacks the markers, and where --out is a folder;
    nothing is written then.
    """
    parser = new_parser(__doc__)
    out = Path("runs/reproduce/report.html")
    parser.add_argument(
        "--out", type=given_path, default=out, metavar="FILE", help="the page; default: %(default)s"
    )
    arguments = parser.parse_args()
    check_output("--out", arguments.out)
    records = load_records(DOCS / "results" / "reproduction")
    latency = load_latency(DOCS / "results" / "latency_gcnn_8b.json")
    write_reproduction_page(
        reproduction_blocks(records, latency), DOCS / "REPRODUCTION.md", arguments.out
    )
    print(f"report: {arguments.out.resolve()}")
