"""Make the paper's tables and figures: gcnn reproduce [--figure NAME] [--scale cpu] key=value ...

`make reproduce FIGURE=fig3 SCALE=cpu ARGS="data.path=DIR"` is the same. The steps:

1. configs/reproduce/SCALE/FIGURE.yaml says what is trained: each group at its learning rates, then
   more seeds at the best of them. A run that has ended is not trained again, an interrupted one is
   resumed.
2. What the figures need of each run is kept in OUT/SCALE/runs. Where --out is given, a run that is
   kept there is not trained again, on any machine.
3. The numbers are written as JSON and CSV, and drawn.
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
from gcnn.reproduction.kept_runs import KeptRun, keep_runs, read_kept, read_runs
from gcnn.reproduction.plans import Part, figures_of, load_plan, parts_of
from gcnn.reproduction.progress import adopt, count_missing, known_runs, next_runs
from gcnn.reproduction.records import FIGURES, Record, make_record, write_record

MEMBER_FOLDER = "hydra.sweep.subdir=lr_${optimizer.lr}_seed_${seed}"


def main() -> int:
    """Returns the exit code: 0, or that of a sweep that was stopped."""
    arguments = parse_arguments()
    overrides = prepare_overrides(arguments.overrides)
    ignore_closed_output()  # it trains for hours, maybe longer than the terminal is open
    out = arguments.out or arguments.runs / "figures"
    check_output("--out", out, folder=True)
    figures = figures_of(arguments.scale, arguments.figure)
    for folder in arguments.add:
        add_runs(folder, arguments.scale, figures, out)
    drawn = 0
    unfinished = []
    for figure in figures:
        try:
            record = make_figure(figure, arguments, out, overrides)
        except SweepStopped as stopped:
            return stopped.exit_code  # the sweep has said why
        if record is None:
            continue
        drawn += 1
        picture = drawing(record)
        write_record(record, out / arguments.scale, picture and picture.svg)
        print(": ".join(FIGURES[figure]))
        print(to_text(groups_table(record)))
        print(f"{out / arguments.scale / figure}.json\n")
        if record.missing:
            print(f"{figure}: {plural(record.missing, 'run')} not begun", file=sys.stderr)
        if record.missing or any(group.unfinished for group in record.groups):
            unfinished.append(figure)
    if not drawn:
        raise UsageError(
            f"{arguments.runs / arguments.scale} holds no runs of {', '.join(figures)}. Train them "
            "first."
        )
    if unfinished and not (arguments.draw_only or arguments.add):
        raise RunError(
            f"runs of {', '.join(unfinished)} are not finished; the same command tries them again."
        )
    return 0


class SweepStopped(Exception):
    """A sweep was stopped, or refused to begin, instead of running its members."""

    def __init__(self, exit_code: int):
        super().__init__(exit_code)
        self.exit_code = exit_code


def make_figure(
    figure: str, arguments: argparse.Namespace, out: Path, overrides: list[str]
) -> Record | None:
    """Train what is missing of a figure and return the record of all its runs; None without any.

    With --draw-only or --add nothing is trained. Runs that have ended are kept below `out`, those
    of a group that belongs to another figure with that one's. Raises SweepStopped.
    """
    scale = arguments.scale
    train = not (arguments.draw_only or arguments.add)
    runs = []
    for experiment in load_plan(scale, figure).sweeps:
        folder = arguments.runs / experiment
        if train:
            run_sweep([f"experiment={experiment}", *overrides], folder)
        runs += read_runs(folder)
    missing = 0
    settings = []
    parts = parts_of(scale, figure)
    if arguments.out:
        check_groups_are_planned(scale, figure, kept_file(out, scale, figure))
    for number, part in enumerate(parts, start=1):
        kept = kept_file(out, scale, part.figure)
        known = known_runs(part, arguments.runs, kept if arguments.out else None, overrides)
        if train:
            print(f"{figure}, group {number} of {len(parts)}: {part.group}", file=sys.stderr)
            known = train_part(part, known, arguments, kept, overrides)
        keep_runs(known, kept)
        runs += known
        missing += count_missing(part, known)
        settings += part.settings
    return make_record(figure, scale, runs, settings, missing)


def kept_file(out: Path, scale: str, figure: str) -> Path:
    """The file with what is kept of a figure's own runs."""
    return out / scale / "runs" / f"{figure}.jsonl"


def check_groups_are_planned(scale: str, figure: str, kept: Path) -> None:
    """Raise UsageError where runs are kept of a group that the figure's plan does not have."""
    planned = load_plan(scale, figure).groups.keys()
    others = sorted({run.group for run in read_kept(kept)} - planned)
    if others:
        raise UsageError(
            f"{kept} has runs of {', '.join(others)}, which is no group of the plan. Add it there, "
            "or remove its lines."
        )


def train_part(
    part: Part,
    known: list[KeptRun],
    arguments: argparse.Namespace,
    kept: Path,
    overrides: list[str],
) -> list[KeptRun]:
    """Train a group's learning rates, then the other seeds at the best; returns all its runs.

    `known` are the runs that are there already; those that end are written to `kept`, also when a
    sweep is stopped. A run that fails is not tried twice in a call. Raises SweepStopped.
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
        finally:  # a sweep that was stopped has runs that ended, too
            known = known_runs(part, arguments.runs, kept if arguments.out else None, overrides)
            keep_runs(known, kept)
    return known


def add_runs(folder: Path, scale: str, figures: list[str], out: Path) -> None:
    """Keep the runs at or below `folder`, which any command may have trained, with their figure's.

    Prints where each one belongs. Raises UsageError for a run that no group of the figures has
    trained, or that has not ended.
    """
    parts = list(dict.fromkeys(part for figure in figures for part in parts_of(scale, figure)))
    for path in find_runs(folder):
        part, run = adopt(path, parts)
        keep_runs([run], kept_file(out, scale, part.figure))
        _, rate, seed = run.place
        print(
            f"{path}: kept as {part.figure}/{part.group}, learning rate {rate:g}, seed {seed}",
            file=sys.stderr,
        )


def run_sweep(overrides: list[str], folder: Path) -> None:
    """Run a sweep in a process of its own and wait for it; one that was begun is resumed.

    Raises SweepStopped unless it finished its members or failed at some (exit codes 0 and 1). While
    it runs, signals to stop go to the sweep, which saves its state; then they have their default
    handlers, whatever they had before.
    """
    command = [sys.executable, "-m", "gcnn", "sweep", *overrides]
    process = subprocess.Popen([*command, f"run_dir={folder}", "resume=true"])
    # A terminal's interrupt reaches both processes: this one waits until the sweep has saved.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def forward(number: int, frame: object) -> None:
        process.send_signal(number)

    forwarded = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP; so it stays
            forwarded.append(number)
            signal.signal(number, forward)
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
    help = "folder of the runs; default: %(default)s"
    parser.add_argument("--runs", type=Path, default="runs/reproduce", metavar="DIR", help=help)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the figures; default: RUNS/figures"
    )
    help = "train nothing: draw the runs that are there; default: off"
    parser.add_argument("--draw-only", action="store_true", help=help)
    help = (
        "train nothing: keep this run, or those in this folder, in --out, in the group that has "
        "its recipe; may be repeated"
    )
    parser.add_argument("--add", type=Path, action="append", default=[], metavar="RUN", help=help)
    help = "keys of the config for all runs, as data.path=DIR; default: none"
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=help)
    arguments = parser.parse_intermixed_args()
    for figure in FIGURES.keys() & set(arguments.overrides):
        raise UsageError(f"{figure}: type it as --figure {figure}.")
    if arguments.add and not arguments.out:
        raise UsageError(
            "--add keeps runs in the folder of --out; give --out DIR, as docs/results/reproduction."
        )
    return arguments
