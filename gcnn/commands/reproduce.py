"""Make the paper's tables and figures: gcnn reproduce [--figure NAME] [--scale cpu] key=value ...

`make reproduce FIGURE=fig3 SCALE=cpu ARGS="data.path=DIR"` is the same. The sweeps of each figure go on where they
stopped; then their numbers are written as JSON and CSV, and drawn, and what the figures need of each run is kept in
OUT/SCALE/runs. Where --out is given, runs that are kept there already are not trained again, on any machine.
"""

import argparse
import signal
import subprocess
import sys
from pathlib import Path

from gcnn.checks import check_output
from gcnn.commands.arguments import new_parser
from gcnn.errors import RunError, UsageError, outlive_readers
from gcnn.overrides import prepare
from gcnn.reporting.document import to_text
from gcnn.reporting.units import plural
from gcnn.reproduction.figures import drawing, groups_table
from gcnn.reproduction.kept_runs import keep_runs, restore_runs
from gcnn.reproduction.records import FIGURES, count_members, make_record, sweeps, write_record


def main() -> int:
    arguments = parse_arguments()
    overrides = prepare(arguments.overrides)
    outlive_readers()  # it trains for hours
    out = arguments.out or arguments.runs / "figures"
    check_output("--out", out, folder=True)
    chosen = sweeps(arguments.scale, arguments.figure)
    drawn, unfinished = 0, []
    for figure, names in chosen.items():
        folders = [arguments.runs / arguments.scale / name for name in names]
        for number, folder in enumerate(folders, start=1):
            kept = out / arguments.scale / "runs" / f"{folder.name}.jsonl"
            if arguments.out and (restored := restore_runs(kept, folder, overrides)):
                print(f"{figure}: {plural(restored, 'run')} of {folder.name} from {kept}", file=sys.stderr)
            code = 0
            if not arguments.draw_only:
                planned = count_members(arguments.scale, folder.name) or "as many as asked for"
                print(f"{figure}, sweep {number} of {len(names)}: {folder.name}, members: {planned}", file=sys.stderr)
                code = train(f"{arguments.scale}/{folder.name}", folder, overrides)
            keep_runs(folder, kept)
            if code not in (0, 1):
                return code  # it has said why
        members = sum(count_members(arguments.scale, name) for name in names)
        record = make_record(figure, arguments.scale, folders, members)
        if record is None:
            continue
        drawn += 1
        picture = drawing(record)
        write_record(record, out / arguments.scale, picture and picture.svg)
        print(f"{': '.join(FIGURES[figure])}\n{to_text(groups_table(record))}\n{out / arguments.scale / figure}.json\n")
        if record.missing:
            print(f"{figure}: {plural(record.missing, 'run')} not begun", file=sys.stderr)
        if record.missing or any(group.unfinished for group in record.groups):
            unfinished.append(figure)
    if not drawn:
        raise UsageError(f"{arguments.runs / arguments.scale} holds no runs of {', '.join(chosen)}. Train them first.")
    if unfinished and not arguments.draw_only:
        raise RunError(f"members of {', '.join(unfinished)} are not finished; the same command tries them again.")
    return 0


def train(experiment: str, folder: Path, overrides: list[str]) -> int:
    """Run a sweep in a process of its own; returns its exit code, 128 + n after signal n, which it gets from here."""
    command = [sys.executable, "-m", "gcnn", "sweep", f"experiment={experiment}", f"run_dir={folder}", "resume=true"]
    process = subprocess.Popen([*command, *overrides])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both; the sweep saves first
    forwarded = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]  # as nohup does
    for number in forwarded:
        signal.signal(number, lambda number, frame: process.send_signal(number))
    try:
        code = process.wait()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in forwarded:
            signal.signal(number, signal.SIG_DFL)
    return code if code >= 0 else 128 - code


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--figure", metavar="NAME", help="fig2 to fig6, table2, table3, ...; default: all")
    parser.add_argument("--scale", default="cpu", metavar="NAME", help="a folder of sweeps; default: %(default)s")
    help = "of the sweeps; default: %(default)s"
    parser.add_argument("--runs", type=Path, default="runs/reproduce", metavar="DIR", help=help)
    parser.add_argument("--out", type=Path, metavar="DIR", help="of the figures; default: RUNS/figures")
    help = "train nothing: draw the runs that are there; default: off"
    parser.add_argument("--draw-only", action="store_true", help=help)
    help = "for training, as data.path=DIR; default: none"
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=help)
    arguments = parser.parse_intermixed_args()
    for figure in FIGURES.keys() & set(arguments.overrides):
        raise UsageError(f"{figure}: type it as --figure {figure}.")
    return arguments
