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
from gcnn.commands.arguments import given_path, new_parser
from gcnn.config.overrides import prepare_overrides
from gcnn.config.rules import keys_of
from gcnn.reporting.document import to_text
from gcnn.reporting.runs import find_runs
from gcnn.reporting.units import plural
from gcnn.reproduction.figures import drawing, groups_table
from gcnn.reproduction.kept_runs import KeptRun, count_not_begun, keep_runs, read_kept, read_runs
from gcnn.reproduction.plans import Part, figures_of, load_plan, parts_of
from gcnn.reproduction.progress import adopt, count_missing, known_runs, next_runs
from gcnn.reproduction.records import FIGURES, Record, make_record, write_record

MEMBER_FOLDER = "hydra.sweep.subdir=lr_${optimizer.lr}_seed_${seed}"


def main() -> int:
    """Run `gcnn reproduce`: train what is missing of each figure, write it, and print its table.

    Writes OUT/SCALE/<figure>.json, .csv and, for a drawing, .svg, and OUT/SCALE/runs/<figure>.jsonl
    of the kept runs; OUT is --out, or RUNS/figures. With --draw-only or --add nothing is trained;
    --add first keeps its runs (`add_runs`). Figures without a run are left out.
    Returns the exit code: 0, or that of a sweep that was stopped or refused what it was to train
    (2), which ends the command.
    Raises UsageError for an invalid option, a word that is no override or sets what plans say, an
    unknown scale or figure, where nothing was to be trained and no figure has a run, and as
    `make_figure` and `add_runs` do; RunError, once all figures are written, where runs that were to
    be trained are neither finished nor diverged, also those of a figure of which no run began.
    """
    arguments = parse_arguments()
    overrides = prepare_overrides(arguments.overrides)
    planned = sorted(keys_of(overrides) & {"run_dir", "resume", "seed", "optimizer.lr"})
    if planned:
        raise UsageError(f"{planned[0]} is not to be set here: the figure's plan says it.")
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
            record, is_finished = make_figure(figure, arguments, out, overrides)
        except SweepStopped as stopped:
            return stopped.exit_code  # the sweep has said why
        if not is_finished:
            unfinished.append(figure)
        if record is None:
            continue
        drawn += 1
        picture = drawing(record)
        svg = picture.svg if picture else None
        write_record(record, out / arguments.scale, svg)
        place, title = FIGURES[figure]
        print(f"{place}: {title}")
        print(to_text(groups_table(record)))
        print(f"{out / arguments.scale / figure}.json\n")
        if record.missing:
            print(f"{figure}: {plural(record.missing, 'run')} not begun", file=sys.stderr)
    if unfinished and arguments.train:
        raise RunError(
            f"runs of {', '.join(unfinished)} are not finished; the same command tries them again."
        )
    if not drawn:
        raise UsageError(
            f"{arguments.runs / arguments.scale} holds no runs of {', '.join(figures)}. Train them "
            "first."
        )
    return 0


class SweepStopped(Exception):
    """A sweep's process was stopped by a signal, or refused to begin; it has printed why."""

    def __init__(self, exit_code: int):
        super().__init__(exit_code)
        self.exit_code = exit_code  # that of the process, as a shell has it: 128 + n for signal n


def make_figure(
    figure: str, arguments: argparse.Namespace, out: Path, overrides: list[str]
) -> tuple[Record | None, bool]:
    """Train what is missing of a figure; returns the record of its runs, and whether they ended.

    Trains only if `arguments.train`. The record is None if there are no runs. A figure has groups
    (`make_from_groups`) or experiments that are sweeps (`make_from_sweeps`); these two say which
    runs the second value is about.
    arguments: of `parse_arguments`. out: the folder of the figures. overrides: key=value, for all
    runs, as prepare_overrides returns them. Raises SweepStopped as `run_sweep` does; UsageError for
    a group that the figure lacks, for runs that are not in its plan or come twice, for an invalid
    plan, and for a damaged file. An invalid override is noticed only where known runs of a group
    are compared with the plan (UsageError) or a sweep is begun, which refuses it (SweepStopped).
    """
    parts = parts_of(arguments.scale, figure)
    check_groups_exist(figure, arguments.group, parts)
    if parts:
        return make_from_groups(figure, parts, arguments, out, overrides)
    return make_from_sweeps(figure, arguments, overrides)


def make_from_sweeps(
    figure: str, arguments: argparse.Namespace, overrides: list[str]
) -> tuple[Record | None, bool]:
    """`make_figure` of a figure whose plan has sweeps (`Plan.sweeps`), each in RUNS/<experiment>.

    The second value is whether each sweep has members, and all of them are finished or have
    diverged. It is so also where nothing is trained.
    """
    runs = []
    missing = 0
    is_finished = True
    for experiment in load_plan(arguments.scale, figure).sweeps:
        folder = arguments.runs / experiment
        if arguments.train:
            run_sweep([f"experiment={experiment}", *overrides], folder)
        begun = read_runs(folder)
        if not begun or any(run.status == "unfinished" for run in begun):
            is_finished = False
        missing += count_not_begun(folder)
        runs += begun
    record = make_record(figure, arguments.scale, runs, missing=missing)
    return record, is_finished and missing == 0


def make_from_groups(
    figure: str,
    parts: list[Part],
    arguments: argparse.Namespace,
    out: Path,
    overrides: list[str],
) -> tuple[Record | None, bool]:
    """`make_figure` of a figure whose plan has groups, its `parts`.

    A part may belong to the plan of another figure (`Part.figure`). With --group, only these groups
    are trained; the record has all groups. The second value is whether all runs of the groups that
    were to be trained are finished or have diverged; True where nothing was to be trained.
    Runs that have ended, of any group, are added to the `kept_file` of the group's own figure in
    `out`. With --out, the runs that are kept there are in the record, too.
    """
    scale = arguments.scale
    if arguments.out:
        check_groups_are_planned(scale, figure, kept_file(out, scale, figure))
    runs = []
    missing = 0
    settings = []
    is_finished = True
    for number, part in enumerate(parts, start=1):
        kept = kept_file(out, scale, part.figure)
        known = known_runs(part, arguments.runs, kept if arguments.out else None, overrides)
        if arguments.train and (not arguments.group or part.group in arguments.group):
            print(f"{figure}, group {number} of {len(parts)}: {part.group}", file=sys.stderr)
            known = train_part(part, known, arguments, kept, overrides)
            is_finished = is_finished and not next_runs(part, known)
        keep_runs(known, kept)
        runs += known
        missing += count_missing(part, known)
        settings += part.settings
    return make_record(figure, scale, runs, settings, missing), is_finished


def check_groups_exist(figure: str, groups: list[str], parts: list[Part]) -> None:
    """Raise UsageError if one of `groups`, the names of --group, is none of the figure's parts."""
    names = [part.group for part in parts]
    for group in groups:
        if group not in names:
            there_are = f"choose one of: {', '.join(names)}" if names else "it has none"
            raise UsageError(f"{figure} has no group {group!r}; {there_are}.")


def kept_file(out: Path, scale: str, figure: str) -> Path:
    """The file of `keep_runs` for the groups that a figure owns; it need not exist."""
    return out / scale / "runs" / f"{figure}.jsonl"


def check_groups_are_planned(scale: str, figure: str, kept: Path) -> None:
    """Raise UsageError if a figure's kept runs have a group that is not in its plan.

    kept: their file; does nothing if it does not exist. Raises it also as `read_kept` does.
    """
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

    They come as from `known_runs`, finished or not; it is `known` itself if there is nothing to
    train. A run that fails is not tried again in this call, so the group may stay incomplete. The
    runs are in RUNS/SCALE/FIGURE/GROUP (`Part.folder`). Prints to stderr what it trains.
    known: the runs so far. arguments: of `parse_arguments`. kept: the file to which runs that have
    ended are added, even if a sweep is stopped; runs in it count as known only with --out.
    overrides: key=value, for all runs, as prepare_overrides returns them. Raises SweepStopped as
    `run_sweep` does, and UsageError as `known_runs` and `keep_runs` do.
    """
    tried: set[tuple[float, int]] = set()
    wanted = next_runs(part, known)
    # It ends: each round adds planned runs to `tried`; a run that fails stays wanted and ends it.
    while wanted and tried.isdisjoint(wanted):
        tried.update(wanted)
        rates = list(dict.fromkeys(rate for rate, _ in wanted))
        seeds = ",".join(dict.fromkeys(str(seed) for _, seed in wanted))
        shown = ",".join(f"{rate:g}" for rate in rates)
        print(f"{part.group}: learning rate {shown}, seed {seeds}", file=sys.stderr)
        # All digits, but 1 and not 1.0: a sweep that was begun is known by its overrides as text
        exact = ",".join(str(rate).removesuffix(".0") for rate in rates)
        settings = [*part.settings, f"optimizer.lr={exact}", f"seed={seeds}", MEMBER_FOLDER]
        try:
            run_sweep([*settings, *overrides], arguments.runs / part.folder)
        finally:  # a sweep that was stopped has runs that ended, too
            known = known_runs(part, arguments.runs, kept if arguments.out else None, overrides)
            keep_runs(known, kept)
        wanted = next_runs(part, known)
    return known


def add_runs(folder: Path, scale: str, figures: list[str], out: Path) -> None:
    """Add all runs at or below `folder`, whatever command trained them, to the kept runs in `out`.

    Each goes into the `kept_file`, made if missing, of the figure that plans its recipe; a run with
    the same group, learning rate and seed is replaced. scale: a folder of configs/reproduce.
    figures: names of those with a plan there. Prints one line a run to stderr. Raises UsageError
    where there is no run or the kept runs are damaged, and for a run that is damaged, has not
    ended, began with the weights of another (init_from) or is not in the plan of any of `figures`;
    those before it stay added.
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
    """Run `gcnn sweep` in a child process and wait for it; a sweep that was begun is resumed.

    overrides: key=value, as Hydra parses them. folder: of the sweep, its run_dir. Call it in the
    main thread. Raises SweepStopped for any exit code but 0 and 1: the child was stopped by a
    signal, or refused the sweep or each of its members (2). After 1, which raises nothing, members
    have failed, or the sweep itself.
    While the child runs, SIGTERM and SIGHUP are passed to it, which makes it save, unless they are
    ignored here, as SIGHUP under nohup; and SIGINT is ignored, since the terminal sends it to both.
    Afterwards the former handlers are back.
    """
    command = [sys.executable, "-m", "gcnn", "sweep", *overrides]
    process = subprocess.Popen([*command, f"run_dir={folder}", "resume=true"])

    def forward(number: int, frame: object) -> None:
        process.send_signal(number)

    # A terminal's interrupt reaches both processes: this one waits until the sweep has saved.
    former = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            former[number] = signal.signal(number, forward)
    try:
        code = process.wait()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if code not in (0, 1):
        raise SweepStopped(code if code >= 0 else 128 - code)


def parse_arguments() -> argparse.Namespace:
    """The options of `gcnn reproduce`, from sys.argv; `overrides` are its key=value words.

    `out` is None, `figure`, `group` and `add` are empty where they are not given; `train` is
    whether anything is to be trained: with neither --draw-only nor --add. Raises UsageError for an
    invalid option, for the name of a figure without --figure, for --group unless there is one
    figure and training, and for --add without --out.
    """
    parser = new_parser(__doc__)
    help = "fig2 to fig6, table2, table3, ...; may be repeated; default: all"
    parser.add_argument("--figure", action="append", default=[], metavar="NAME", help=help)
    help = "train this group of the figure's plan alone; may be repeated; default: all"
    parser.add_argument("--group", action="append", default=[], metavar="NAME", help=help)
    help = "a folder of configs/reproduce; default: %(default)s"
    parser.add_argument("--scale", default="cpu", metavar="NAME", help=help)
    help = "folder of the runs; default: %(default)s"
    parser.add_argument(
        "--runs", type=given_path, default="runs/reproduce", metavar="DIR", help=help
    )
    parser.add_argument(
        "--out", type=given_path, metavar="DIR", help="folder of the figures; default: RUNS/figures"
    )
    help = "train nothing: draw the runs that are there; default: off"
    parser.add_argument("--draw-only", action="store_true", help=help)
    help = (
        "train nothing: keep this run, or those in this folder, in --out, in the group that has "
        "its recipe; may be repeated"
    )
    parser.add_argument(
        "--add", type=given_path, action="append", default=[], metavar="RUN", help=help
    )
    help = "keys of the config for all runs, as data.path=DIR; default: none"
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=help)
    arguments = parser.parse_intermixed_args()
    arguments.train = not (arguments.draw_only or arguments.add)
    for figure in FIGURES.keys() & set(arguments.overrides):
        raise UsageError(f"{figure}: type it as --figure {figure}.")
    if arguments.group and len(arguments.figure) != 1:
        raise UsageError("--group names a group of one figure; give one --figure NAME, too.")
    if arguments.group and not arguments.train:
        raise UsageError("--group says what is trained; leave it out with --draw-only and --add.")
    if arguments.add and not arguments.out:
        raise UsageError(
            "--add keeps runs in the folder of --out; give --out DIR, as docs/results/reproduction."
        )
    return arguments
