"""Train a model: gcnn train experiment=NAME key=value ...

`make train EXPERIMENT=NAME ARGS="key=value ..."` is the same; `gcnn sweep` (`make sweep`) or
--multirun trains one model for each combination of key=a,b.
With --config-dir DIR: choices and experiments of your own too, as DIR/experiment/NAME.yaml.
With --help: the choices of each group, and each key with its value under the other arguments
(--hydra-help: Hydra's own).
"""

import argparse
import logging
import math
import re
import sys
from pathlib import Path

import hydra
from hydra.conf import HydraConf, RunDir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from gcnn.base.errors import RunError, UsageError
from gcnn.base.process import ignore_closed_output, on_terminal, one_line_errors
from gcnn.commands.arguments import Parser, add_config_dir
from gcnn.config.complaints import usage_errors
from gcnn.config.compose import register_schemas
from gcnn.config.groups import CONFIGS
from gcnn.config.help import help_lines
from gcnn.config.overrides import prepare_overrides
from gcnn.config.rules import keys_of
from gcnn.config.stored import load_config
from gcnn.reporting.ranking import search_objective
from gcnn.reporting.results import results_table
from gcnn.reporting.sweep import check_members, finished_results, search_warning, write_sweep
from gcnn.training.new_run import new_run
from gcnn.training.resume import resumed_config, run_to_resume
from gcnn.training.sweep import SweepFolder, is_search, member_overrides, train_member

log = logging.getLogger(__name__)
SHELL_COMPLETION = re.compile("(un)?install=|query=")  # what --shell-completion is followed by
register_schemas()
# Without this, Hydra would leave folders of its own and a second log where the command is typed. It
# stands here and not in configs/train.yaml, which is not read where a run is repeated by its stored
# config.
hydra_config = HydraConf(
    output_subdir=None,
    run=RunDir("."),
    callbacks={"sweep": {"_target_": "gcnn.training.sweep.SweepFolder"}},
)
hydra_config.job.chdir = False
for choice in hydra_config.defaults:
    if isinstance(choice, dict):
        for group in choice:
            if group.endswith("_logging"):
                choice[group] = "none"
ConfigStore.instance().store(group="hydra", name="config", node=hydra_config, provider="hydra")


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
def compose_and_run(config: DictConfig) -> float | None:
    """Compose the config of sys.argv by Hydra and call `run`; for a sweep, once for each member.

    Called without arguments: Hydra passes the config, hands what `run` returns to a search, and
    None is returned. Errors of `run` are printed in one line and raised as SystemExit with their
    exit code (`one_line_errors`); bugs, and errors of composing, are raised as they are.
    """
    with one_line_errors():  # here, before Hydra adds lines of its own
        return run(config, HydraConfig.get())


def run(config: DictConfig, hydra_config: DictConfig) -> float | None:
    """Train a single run, or a member of a sweep, and print its results.

    Returns None for a single run, otherwise what a search minimises, as `run_member` does. Changes
    `config` in place; sets up the log as `start_log` does.
    config: as Hydra composed it, not yet checked. hydra_config: Hydra's own, its `hydra` key.
    A single run raises UsageError for a config that is invalid or a sweep (`refuse_sweep`), and
    what `gcnn.training.run.train` raises; a member raises as `run_member` does.
    """
    from gcnn.training.run import train

    start_log()
    config.experiment = hydra_config.runtime.choices.get("experiment") or config.experiment
    if hydra_config.mode == RunMode.MULTIRUN:
        return run_member(config, hydra_config)
    refuse_sweep(hydra_config)
    print_results(*train(*new_run(config, hydra_config)))
    return None


def run_member(config: DictConfig, hydra_config: DictConfig) -> float:
    """Train a member of a sweep unless it is done; returns what a search minimises.

    That is `search_objective`, by the validation text's perplexity per word. A member's own error
    is logged and kept in its folder (`train_member`), and infinity returned: the sweep goes on, and
    a search avoids such settings. Prints the results of a member that it trained; in a search, logs
    the warning of `search_warning`. Arguments are those of `run`; changes `config` in place. What
    ends the whole sweep is raised: UsageError where the member's folder was begun with other
    overrides or a member's JSON file is damaged, Interrupted at a signal, and OSError where an
    error cannot be written to the member's folder, as on a full disk.
    """
    run_dir = Path(hydra_config.runtime.output_dir)
    overrides = member_overrides(hydra_config)
    results = finished_results(run_dir, overrides)
    if results is None:
        content = train_member(config, hydra_config)
        if content is None:
            return math.inf
        print_results(run_dir, content)
        results = finished_results(run_dir, overrides)
    if is_search(hydra_config) and (warning := search_warning(run_dir)):
        log.warning("%s", warning)
    return search_objective(results)


def print_results(run_dir: Path, results: dict | None) -> None:
    """Print the table and the path of a finished run.

    results: the content of its results.json; None, as on torchrun's ranks above 0, prints nothing.
    """
    if results is not None:
        print(results_table(results))
        print(f"run: {run_dir}")


def refuse_sweep(hydra_config: DictConfig) -> None:
    """Raise UsageError if an experiment that is a sweep is to be trained as a single run.

    It is allowed if the command line sets each key of the sweep, which makes it one member.
    hydra_config: as for `run`.
    """
    overridden = keys_of(hydra_config.overrides.task)
    swept = [key for key in hydra_config.sweeper.get("params") or {} if key not in overridden]
    if swept:
        name = hydra_config.runtime.choices.experiment
        raise UsageError(
            f"experiment {name} is a sweep: type make sweep EXPERIMENT={name} (or --multirun) for "
            f"all of it; for one member, give {', '.join(swept)}."
        )


def start_log() -> None:
    """Log to stderr, for the whole process: all of gcnn's messages, and warnings of libraries.

    Replaces the handlers of the root logger. On a terminal, where a bar shows the progress,
    messages of level DEBUG are left out. From then on it is no error that nobody reads the output
    any more (see `ignore_closed_output`).
    """
    ignore_closed_output()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    least = logging.INFO if on_terminal() else logging.DEBUG
    # Not a level, which `log_file` would lose
    logging.root.handlers[0].addFilter(lambda record: record.levelno >= least)
    logging.getLogger("gcnn").setLevel(logging.DEBUG)


def resume_run(run: Path, overrides: list[str], config_dir: Path | None) -> None:
    """Resume the run in a run directory and print its results. Sets up the log (`start_log`).

    overrides: of the command line, as prepare_overrides returns them; applied to the run's own
    config. config_dir: the folder of --config-dir; None: not given. Raises UsageError as
    `resumed_config` does, as for an override that would make another run of it, and whatever
    `gcnn.training.run.train` raises.
    """
    from gcnn.training.run import train

    start_log()
    print_results(*train(*resumed_config(run, overrides, config_dir)))


def new_train_parser() -> Parser:
    """A parser of the options of `gcnn train`: Hydra's and --config-dir.

    The key=value words are `overrides`; options with a value are None where they are not given.
    --help only sets a flag. Hydra's --experimental-rerun, which unpickles a file, is left out.
    Abbreviations are not accepted: Hydra would take --experiment for --experimental-rerun.
    """
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    add_config_dir(parser)
    parser.add_argument("--config-name", "-cn")
    parser.add_argument("--package", "-p")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    parser.add_argument("--config-path", "-cp", type=Path)
    info = ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]
    parser.add_argument("--info", "-i", nargs="?", const="all", choices=info)
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--help", "-h", action="store_true")
    for name in ("--hydra-help", "--resolve", "--shell-completion"):
        parser.add_argument(name, action="store_true")
    return parser


def hydra_arguments(parsed: argparse.Namespace, unknown: list[str]) -> tuple[list[str], list[str]]:
    """The overrides of the command line, sys.argv, and its other words, as Hydra is to read them.

    The other words are options with their values; --config-path is repeated as an absolute path.
    parsed, unknown: the options that `new_train_parser` knows, and the words that it does not. An
    unknown word without "=" raises UsageError; one with it, as --lr=1, is in both lists, and is
    refused later. Raises UsageError also as `prepare_overrides` does, and unless --config-path is
    the folder of a run (`load_config`).
    """
    overrides = prepare_overrides([*unknown, *parsed.overrides], sweep=parsed.multirun)
    # The words themselves, since argparse does not say which value belonged to which option.
    options = [word for word in sys.argv[1:] if word not in parsed.overrides]
    if parsed.config_path is not None:
        # The run to repeat may be a stranger's, and Hydra does what a config says, as to make an
        # object of any class. This raises for all but plain data.
        load_config(parsed.config_path)
        # The later option counts; a relative path would be one beside this file.
        options += ["--config-path", str(parsed.config_path.absolute())]
    return overrides, options


def main() -> None:
    """Run `gcnn train`: train or resume a run, train a sweep, or have Hydra print the config.

    Prints the results; after a sweep, also one that was stopped, writes sweep.json and sweep.md
    into its folder and prints their tables (`write_sweep`). --help only prints choices and keys
    (`help_lines`). Changes sys.argv, which Hydra reads.
    Raises UsageError for an invalid command line, UsageError or RunError where members of a sweep
    are not done (`check_members`), and RunError where a launcher's process ended. Errors of a
    training are raised too, or printed already and raised as SystemExit with their exit code.
    """
    parsed, unknown = new_train_parser().parse_known_intermixed_args()
    if parsed.help:
        print(__doc__, *help_lines(parsed.overrides, config_dir=parsed.config_dir), sep="\n")
        return
    if parsed.shell_completion and not any(map(SHELL_COMPLETION.match, sys.argv[1:])):
        raise UsageError(
            "--shell-completion takes install=bash, uninstall=bash or query=bash; fish and zsh "
            "likewise."
        )

    overrides, options = hydra_arguments(parsed, unknown)
    sys.argv[1:] = [*overrides, *options]

    # Resume a run, from its own config: without Hydra.
    asks_hydra = parsed.cfg or parsed.info or parsed.hydra_help or parsed.shell_completion
    if not (parsed.multirun or asks_hydra):
        run = run_to_resume(overrides, parsed.config_path)
        if run is not None:
            return resume_run(run, overrides, parsed.config_dir)

    # Hydra composes the config and calls `run`, or answers an option of its own.
    ignore_closed_output()
    SweepFolder.path = None  # set where Hydra begins a sweep
    members = []
    try:
        with usage_errors():
            compose_and_run()
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("joblib", "submitit"):
            raise
        raise RunError(
            f"a member's process has ended ({type(error).__name__}); the same command with "
            "resume=true goes on."
        ) from None
    finally:  # the table of the members that there are, also of a sweep that was stopped
        if SweepFolder.path is not None:
            members = write_sweep(SweepFolder.path)
    check_members(members)
