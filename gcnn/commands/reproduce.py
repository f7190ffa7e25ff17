"""Make the paper's tables and figures: gcnn reproduce [--figure NAME] [--scale cpu] key=value ...

`make reproduce FIGURE=fig3 SCALE=cpu ARGS="data.path=DIR"` is the same. configs/reproduce/SCALE/FIGURE.yaml says what
is trained: each group at its learning rates, then more seeds at the best of them; what has ended is not trained again,
and what was stopped goes on. Then the numbers are written as JSON and CSV, and drawn, and what the figures need of each
run is kept in OUT/SCALE/runs. Where --out is given, runs that are kept there already are not trained, on any machine.
"""

import argparse
import signal
import subprocess
import sys
from pathlib import Path

from gcnn.base.errors import RunError, UsageError
from gcnn.base.files import check_output
from gcnn.base.process import ignore_closed_output
from gcnn.commands.arguments import new_parser
from gcnn.config.overrides import prepare_overrides
from gcnn.reporting.document import to_text
from gcnn.reporting.runs import find_runs
from gcnn.reporting.units import plural
from gcnn.reproduction.figures import drawing, groups_table
from gcnn.reproduction.kept_runs import KeptRun, keep_runs, read_runs
from gcnn.reproduction.plans import Part, figures_of, load_plan, parts_of
from gcnn.reproduction.progress import adopt, count_missing, known_runs, next_runs
from gcnn.reproduction.records import FIGURES, Record, make_record, write_record

MEMBER_FOLDER = "hydra.sweep.subdir=lr_${optimizer.lr}_seed_${seed}"


def main() -> int:
    arguments = parse_arguments()
    overrides = prepare_overrides(arguments.overrides)
    ignore_closed_output()  # it trains for hours
    out = arguments.out or arguments.runs / "figures"
    check_output("--out", out, folder=True)
    figures = figures_of(arguments.scale, arguments.figure)
    for folder in arguments.add:
        add_runs(folder, arguments.scale, figures, out)
    drawn, unfinished = 0, []
    for figure in figures:
        try:
            record = make_figure(figure, arguments, out, overrides)
        except SweepStopped as stopped:
            return stopped.args[0]  # it has said why
        if record is None:
            continue
        drawn += 1
        picture = drawing(record)
        write_record(record, out / arguments.scale, picture and picture.svg)
        print(
            f"{': '.join(FIGURES[figure])}\n{to_text(groups_table(record))}\n{out / arguments.scale / figure}.json\n"
        )
        if record.missing:
            print(f"{figure}: {plural(record.missing, 'run')} not begun", file=sys.stderr)
        if record.missing or any(group.unfinished for group in record.groups):
            unfinished.append(figure)
    if not drawn:
        raise UsageError(
            f"{arguments.runs / arguments.scale} holds no runs of {', '.join(figures)}. Train them first."
        )
    if unfinished and not (arguments.draw_only or arguments.add):
        raise RunError(
            f"runs of {', '.join(unfinished)} are not finished; the same command tries them again."
        )
    return 0


class SweepStopped(Exception):
    """A sweep ended otherwise than by finishing its members or failing at some; its exit code."""


def make_figure(
    figure: str, arguments: argparse.Namespace, out: Path, overrides: list[str]
) -> Record | None:
    """Train what is missing, unless it is only drawn, and keep it; returns the record of all that there is."""
    scale, runs, missing = arguments.scale, [], 0
    train = not (arguments.draw_only or arguments.add)
    for experiment in load_plan(scale, figure).sweeps:
        folder = arguments.runs / experiment
        if train:
            run_sweep([f"experiment={experiment}", *overrides], folder)
        runs += read_runs(folder)
    parts = parts_of(scale, figure)
    for number, part in enumerate(parts, start=1):
        kept = out / scale / "runs" / f"{part.figure}.jsonl"
        known = known_runs(part, arguments.runs, kept if arguments.out else None, overrides)
        if train:
            print(f"{figure}, group {number} of {len(parts)}: {part.group}", file=sys.stderr)
            known = train_part(part, known, arguments, kept, overrides)
        keep_runs(known, kept)
        missing += count_missing(part, known)
        runs += known
    settings = [setting for part in parts for setting in part.settings]
    return make_record(figure, scale, runs, settings, missing)


def train_part(
    part: Part,
    known: list[KeptRun],
    arguments: argparse.Namespace,
    kept: Path,
    overrides: list[str],
) -> list[KeptRun]:
    """Train the learning rates, then the seeds at the best; returns all runs of the part.

    What has failed is left for another call.
    """
    tried: list[tuple[float, int]] = []
    while (wanted := next_runs(part, known)) and not set(wanted) & set(tried):
        tried += wanted
        rates = ",".join(dict.fromkeys(f"{rate:g}" for rate, _ in wanted))
        seeds = ",".join(dict.fromkeys(str(seed) for _, seed in wanted))
        print(f"{part.group}: learning rate {rates}, seed {seeds}", file=sys.stderr)
        settings = [*part.settings, f"optimizer.lr={rates}", f"seed={seeds}", MEMBER_FOLDER]
        try:
            run_sweep([*settings, *overrides], arguments.runs / part.folder)
        finally:  # of one that was stopped, too, what has ended
            known = known_runs(part, arguments.runs, kept if arguments.out else None, overrides)
            keep_runs(known, kept)
    return known


def add_runs(folder: Path, scale: str, figures: list[str], out: Path) -> None:
    """Keep the runs at or below a folder, which any command has trained, with those of the figures they belong to."""
    parts = list(dict.fromkeys(part for figure in figures for part in parts_of(scale, figure)))
    for path in find_runs(folder):
        part, run = adopt(path, parts)
        keep_runs([run], out / scale / "runs" / f"{part.figure}.jsonl")
        _, rate, seed = run.place
        print(
            f"{path}: kept as {part.figure}/{part.group}, learning rate {rate:g}, seed {seed}",
            file=sys.stderr,
        )


def run_sweep(overrides: list[str], folder: Path) -> None:
    """Run a sweep in a process of its own, which gets our signals. Raises SweepStopped unless it finished its members
    or failed at some (exit codes 0 and 1)."""
    command = [
        sys.executable,
        "-m",
        "gcnn",
        "sweep",
        *overrides,
        f"run_dir={folder}",
        "resume=true",
    ]
    process = subprocess.Popen(command)
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a terminal sends it to both; the sweep saves first
    forwarded = [
        n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN
    ]  # as nohup does
    for number in forwarded:
        signal.signal(number, lambda number, frame: process.send_signal(number))
    try:
        code = process.wait()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in forwarded:
            signal.signal(number, signal.SIG_DFL)
    if code not in (0, 1):
        raise SweepStopped(code if code >= 0 else 128 - code)


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument(
        "--figure", metavar="NAME", help="fig2 to fig6, table2, table3, ...; default: all"
    )
    help = "a folder of configs/reproduce; default: %(default)s"
    parser.add_argument("--scale", default="cpu", metavar="NAME", help=help)
    help = "where they are trained; default: %(default)s"
    parser.add_argument("--runs", type=Path, default="runs/reproduce", metavar="DIR", help=help)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="of the figures; default: RUNS/figures"
    )
    help = "train nothing: draw the runs that are there; default: off"
    parser.add_argument("--draw-only", action="store_true", help=help)
    help = "train nothing: keep this run, or those in this folder, in --out by its recipe; may be repeated"
    parser.add_argument("--add", type=Path, action="append", default=[], metavar="RUN", help=help)
    help = "for training, as data.path=DIR; default: none"
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=help)
    arguments = parser.parse_intermixed_args()
    for figure in FIGURES.keys() & set(arguments.overrides):
        raise UsageError(f"{figure}: type it as --figure {figure}.")
    if arguments.add and not arguments.out:
        raise UsageError(
            "--add keeps runs in the folder of --out; give --out DIR, as docs/results/reproduction."
        )
    return arguments
