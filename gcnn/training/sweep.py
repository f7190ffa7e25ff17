"""Sweeps: one command, many runs. Each is a member with a folder of its own, whatever launcher of Hydra runs it."""

import contextlib
import fcntl
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, ClassVar

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict

from gcnn.base import torchrun
from gcnn.base.errors import Interrupted, UsageError, one_line
from gcnn.base.files import check_output, write_json
from gcnn.base.process import explain, one_line_errors
from gcnn.base.provenance import command_to_resume
from gcnn.base.values import RESUME, check_value
from gcnn.config.complaints import usage_errors
from gcnn.config.compose import typed
from gcnn.config.rules import check_read, keys_of
from gcnn.runs.directory import CONFIG, MEMBER, RESULTS, check_run_name, lock_or_owner
from gcnn.training.resume import (
    begin_with_model_of_source,
    checked,
    may_fit_cutoffs,
    resumed_config,
)
from gcnn.training.search import continue_search

log = logging.getLogger(__name__)


class SweepFolder(Callback):
    """Chooses the sweep's folder, in the process that was called, before any member starts."""

    path: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with one_line_errors():  # Hydra would make a warning of an error
            folder = choose_folder(config)
            check_configs(config)
            SweepFolder.path = folder
            continue_search(config, folder)
        print(f"sweep: each member logs into {folder}/<number>/train.log", file=sys.stderr)
        config.hydra.sweep.dir = str(folder)
        quoted = str(folder).replace("'", "\\'")
        config.hydra.overrides.hydra.append(
            f"hydra.sweep.dir='{quoted}'"
        )  # each member composes its config anew
        for number in STOPPING:
            if (
                signal.getsignal(number) != signal.SIG_IGN or number != signal.SIGHUP
            ):  # which nohup has ignored
                signal.signal(number, stop_sweep)
        if "submitit" in config.hydra.launcher._target_:  # its members write to files of their own
            threading.Thread(target=report_progress, args=(folder,), daemon=True).start()


def is_search(hydra_config: DictConfig) -> bool:
    """Whether a sweeper chooses each member by what those before it have found; else the members are a grid."""
    return not hydra_config.sweeper._target_.endswith(".BasicSweeper")


@usage_errors()
def check_configs(config: DictConfig) -> None:
    """Compose and check the config of every member of a grid; of a search, every choice and both ends of every
    interval. Raises UsageError for the first that is wrong, as the member would, before anything is trained."""
    loader = GlobalHydra.instance().config_loader()
    params = [
        f"{key}={choices}" for key, choices in (config.hydra.sweeper.get("params") or {}).items()
    ]
    parser = OverridesParser.create(config_loader=loader)
    overrides = parser.parse_overrides([*params, *config.hydra.overrides.task])
    swept = [override.get_key_element() for override in overrides if override.is_sweep_override()]
    members = search_samples(overrides) if is_search(config.hydra) else grid(overrides)
    for number, member in enumerate(members):
        try:
            check_member(config, member)
        except Exception as error:
            explained = explain(error)
            if explained is None:
                raise
            given = " ".join(part for part in member if part.partition("=")[0] in swept)
            raise UsageError(f"member {number} ({given}): {explained[0]}") from None


@usage_errors()
def check_member(config: DictConfig, overrides: list[str]) -> None:
    """Compose and check one member's config. Raises UsageError where it is wrong."""
    composed = GlobalHydra.instance().config_loader().load_sweep_config(config, list(overrides))
    with open_dict(composed):
        del composed["hydra"]
    begin_with_model_of_source(composed, list(overrides))
    check_read(typed(composed), keys_of(overrides))


def grid(overrides: list[Override]) -> list[list[str]]:
    """The overrides of each member of a grid, in Hydra's order."""
    [members] = BasicSweeper.split_arguments(overrides, None)
    return members


def search_samples(overrides: list[Override]) -> list[list[str]]:
    """Members that a search might have: each value that is named, beside the first of every other key."""
    values = {}
    for override in overrides:
        key, value = override.get_key_element(), override.value()
        if override.is_interval_sweep():
            values[key] = [f"{key}={value.start}", f"{key}={value.end}"]
        elif override.is_sweep_override():
            values[key] = [f"{key}={text}" for text in override.sweep_string_iterator()]
        else:
            values[key] = [f"{key}={override.get_value_element_as_str()}"]
    first = {key: texts[0] for key, texts in values.items()}
    others = [(key, text) for key, texts in values.items() for text in texts[1:]]
    return [list(first.values()), *(list({**first, key: text}.values()) for key, text in others)]


def report_progress(folder: Path) -> None:
    """Say which members begin and end, as long as the sweep lasts."""
    reported = {}
    while SweepFolder.path == folder:
        for path in sorted(folder.glob(f"*/{MEMBER}")):
            failed = "error" in json.loads(path.read_text(encoding="utf-8"))
            state = (
                "done" if path.with_name(RESULTS).exists() else "failed" if failed else "running"
            )
            if reported.get(path) != state:
                print(f"member {path.parent.name}: {state}", file=sys.stderr, flush=True)
                reported[path] = state
        time.sleep(0.5)


def choose_folder(config: DictConfig) -> Path:
    """`run_dir`, or runs/<experiment>/sweep. Raises UsageError where it holds something that may not be overwritten."""
    if torchrun.world_size() > 1:
        raise UsageError(
            "a sweep trains each member in one process; start --multirun without torchrun."
        )
    check_value("resume", config.resume, RESUME)
    experiment = config.hydra.runtime.choices.get("experiment") or config.experiment
    folder = Path(config.run_dir or f"runs/{experiment}/sweep").absolute()
    if (folder / CONFIG).exists():
        raise UsageError(f"run_dir {folder} holds a run; give another run_dir for the sweep.")
    check_output("run_dir", folder, folder=True)
    check_run_name("run_dir", folder)
    for record in folder.glob(f"*/{MEMBER}") if config.resume is False else []:
        if record.with_name(CONFIG).exists():
            raise UsageError(
                f"run_dir {folder} already holds a sweep; set resume=true to go on, or another run_dir."
            )
        record.unlink()  # of a member that was refused before it began
    return folder


def stop_sweep(number: int, frame: Any) -> None:
    """End the sweep when members in other processes of this machine have saved: a launcher would kill them. (One in
    this process has a handler of its own while it trains.)"""
    for number_again in STOPPING:
        again = (
            signal.SIG_IGN if number_again == signal.SIGHUP else signal.default_int_handler
        )  # stops at once
        signal.signal(number_again, again)  # (a terminal that closes says so twice)
    for path in SweepFolder.path.glob("*/.lock"):
        with path.open("a+") as lock:
            owner = lock_or_owner(lock) or {}
            if owner.get("host") == os.uname().nodename and owner["process"] != os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(owner["process"], signal.SIGTERM)
                fcntl.flock(lock, fcntl.LOCK_EX)
    name, go_on = signal.Signals(number).name, command_to_resume()
    print(f"error: {name}: the sweep has stopped; go on with: {go_on}", file=sys.stderr)
    sys.exit(128 + number)


STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def member_overrides(hydra_config: DictConfig) -> list[str]:
    """What was asked of a member, but for where it goes and whether it goes on."""
    return sorted(
        o for o in hydra_config.overrides.task if o.partition("=")[0] not in ("run_dir", "resume")
    )


def train_member(config: DictConfig, hydra_config: DictConfig) -> dict[str, Any] | None:
    """Train a member in its folder; returns its results, None where it failed: its one line is told and kept. Raises
    Interrupted, which ends the sweep."""
    from gcnn.base.provenance import (
        command_to_resume,
    )  # late: Hydra makes the callback above for every command
    from gcnn.training.run import train

    folder = Path(hydra_config.runtime.output_dir)
    number = int(folder.name)  # not hydra.job.num, which a search that goes on counts from 0
    record = {"number": number, "overrides": member_overrides(hydra_config)}
    log.info("member %d: %s", number, " ".join(record["overrides"]))
    config.run_dir = str(folder)
    try:
        write_json(folder / MEMBER, record)
        if config.resume is True and (folder / CONFIG).exists():
            return train(*resumed_config(folder, []))[
                1
            ]  # begun with these overrides, see finished_results
        notes = begin_with_model_of_source(config, record["overrides"])
        return train(checked(config, hydra_config), notes, may_fit_cutoffs(hydra_config))[1]
    except Interrupted as stop:  # all of the sweep is to go on
        raise Interrupted(stop.saved, command_to_resume(), stop.signal_number) from None
    except Exception as error:
        explained = explain(error)
        if explained is None:  # a mistake in the code
            traceback.print_exc()
        message, code = explained or (f"{type(error).__name__}: {one_line(error)}", 1)
        log.error("error: member %d: %s", number, message)
        write_json(folder / MEMBER, {**record, "error": message, "exit_code": code})
        return None
