"""Train a model: gcnn train experiment=NAME key=value ...

`make train EXPERIMENT=NAME ARGS="key=value ..."` is the same; `gcnn sweep` (`make sweep`) or --multirun trains one for
each combination of key=a,b.
With --config-dir DIR: choices and experiments of your own too, as DIR/experiment/NAME.yaml.
With --help: the choices of each group, and each key with its value under the other arguments (--hydra-help: Hydra's).
"""

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
from gcnn.config.stored import load_config
from gcnn.reporting.ranking import search_objective
from gcnn.reporting.results import results_table
from gcnn.reporting.sweep import check_members, finished_results, search_warning, write_sweep
from gcnn.training.resume import (
    begin_with_model_of_source,
    checked,
    may_fit_cutoffs,
    resumed_config,
    run_to_resume,
)
from gcnn.training.sweep import SweepFolder, is_search, member_overrides, train_member

log = logging.getLogger(__name__)
register_schemas()
# Here and not in configs/train.yaml, which a run that is repeated by its stored config never reads: Hydra would leave
# folders of its own, and a second log, where the command is typed.
hydra_config = HydraConf(
    output_subdir=None,
    run=RunDir("."),
    callbacks={"sweep": {"_target_": "gcnn.training.sweep.SweepFolder"}},
)
hydra_config.job.chdir = False
hydra_config.defaults = [
    {group: "none" if group.endswith("_logging") else name for group, name in choice.items()}
    if isinstance(choice, dict) else choice
    for choice in hydra_config.defaults
]  # fmt: skip
ConfigStore.instance().store(group="hydra", name="config", node=hydra_config, provider="hydra")


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
def compose_and_run(config: DictConfig) -> float | None:
    with one_line_errors():  # here, before Hydra adds lines of its own
        return run(config, HydraConfig.get())


def run(config: DictConfig, hydra_config: DictConfig) -> float | None:
    """Train, and say how it went; returns, of a sweep's member, what a search minimises.

    A member that failed counts as infinitely bad: a search then keeps away from there, and goes on.
    """
    from gcnn.training.run import train

    start_log()
    config.experiment = hydra_config.runtime.choices.get("experiment") or config.experiment
    if hydra_config.mode == RunMode.MULTIRUN:
        return run_member(config, hydra_config)
    refuse_sweep(hydra_config)
    notes = begin_with_model_of_source(config, hydra_config.overrides.task)
    print_results(*train(checked(config, hydra_config), notes, may_fit_cutoffs(hydra_config)))
    return None


def run_member(config: DictConfig, hydra_config: DictConfig) -> float:
    """Train a member of a sweep unless it is done; returns what a search minimises, infinity where it failed."""
    run_dir, overrides = Path(hydra_config.runtime.output_dir), member_overrides(hydra_config)
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
    """Print the table of a run that is done; None is what the processes of torchrun but the first have."""
    if results is not None:
        print(results_table(results))
        print(f"run: {run_dir}")


def refuse_sweep(hydra_config: DictConfig) -> None:
    """Raise UsageError where the experiment is a sweep and the command line does not choose one of its members."""
    overridden = {
        override.lstrip("+").partition("=")[0] for override in hydra_config.overrides.task
    }
    swept = [key for key in hydra_config.sweeper.get("params") or {} if key not in overridden]
    if swept:
        name = hydra_config.runtime.choices.experiment
        raise UsageError(
            f"experiment {name} is a sweep: type make sweep EXPERIMENT={name} (or --multirun) for all of it; for one "
            f"member, give {', '.join(swept)}."
        )


def start_log() -> None:
    """Messages to standard error, without the lines of progress where a bar shows it."""
    ignore_closed_output()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    logging.root.handlers[0].setLevel(logging.INFO if on_terminal() else logging.DEBUG)
    logging.getLogger("gcnn").setLevel(logging.DEBUG)


def go_on(run: Path, overrides: list[str], config_dir: Path | None) -> None:
    from gcnn.training.run import train

    start_log()
    print_results(*train(*resumed_config(run, overrides, config_dir)))


def new_train_parser() -> Parser:
    """Hydra's options and ours. Not --experimental-rerun, which unpickles a file, and no option by its beginning alone,
    which --experiment is of that."""
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    add_config_dir(parser)
    for names in (("--config-name", "-cn"), ("--package", "-p")):
        parser.add_argument(*names)
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    parser.add_argument("--config-path", "-cp", type=Path)
    info = ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]
    parser.add_argument("--info", "-i", nargs="?", const="all", choices=info)
    for names in (
        ("--multirun", "-m"),
        ("--help", "-h"),
        ("--hydra-help",),
        ("--resolve",),
        ("--shell-completion",),
    ):
        parser.add_argument(*names, action="store_true")
    return parser


def main() -> None:
    """Train; a run to be repeated may be a stranger's, and Hydra would obey its config: it must be plain data."""
    parsed, unknown = new_train_parser().parse_known_intermixed_args()
    if parsed.help:
        print(__doc__, *help_lines(parsed.overrides, config_dir=parsed.config_dir), sep="\n")
        return
    if parsed.shell_completion and not any(
        re.match("(un)?install=|query=", word) for word in sys.argv[1:]
    ):
        raise UsageError(
            "--shell-completion takes install=bash, uninstall=bash or query=bash; fish and zsh likewise."
        )
    overrides = prepare_overrides([*unknown, *parsed.overrides], sweep=parsed.multirun)
    options = [argument for argument in sys.argv[1:] if argument not in parsed.overrides]
    if parsed.config_path is not None:
        load_config(parsed.config_path)
        options += [
            "--config-path",
            str(parsed.config_path.absolute()),
        ]  # Hydra would look beside this file
    sys.argv[1:] = [*overrides, *options]
    asks_hydra = parsed.cfg or parsed.info or parsed.hydra_help or parsed.shell_completion
    if not (parsed.multirun or asks_hydra):
        run = run_to_resume(overrides, parsed.config_path)
        if run is not None:
            return go_on(run, overrides, parsed.config_dir)
    ignore_closed_output()
    SweepFolder.path = None
    members = []
    try:
        with usage_errors():
            compose_and_run()
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("joblib", "submitit"):
            raise
        raise RunError(
            f"a member's process has ended ({type(error).__name__}); the same command with resume=true goes on."
        ) from None
    finally:
        if SweepFolder.path is not None:
            members = write_sweep(SweepFolder.path)
    check_members(members)
