"""Sweeps: one command, many runs. Each member has a folder of its own, under any launcher of Hydra.

Order: `SweepFolder` chooses the folder and checks all members' configs, in the process that was
called; Hydra's launcher then calls `train_member` for each, here or in other processes.
"""

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
from gcnn.base.errors import Diverged, Interrupted, UsageError, one_line
from gcnn.base.files import check_output, write_json
from gcnn.base.process import message_and_code, one_line_errors
from gcnn.base.provenance import command_to_resume, override_key
from gcnn.base.values import RESUME, check_value
from gcnn.config.complaints import usage_errors
from gcnn.runs.directory import CONFIG, MEMBER, RESULTS, check_run_name, lock_or_owner
from gcnn.training.new_run import begin_with_model_of_source, checked_composed, new_run
from gcnn.training.resume import resumed_config
from gcnn.training.search import continue_search
from gcnn.training.signals import without_ignored_hangup

log = logging.getLogger(__name__)
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # signals that end a sweep


class SweepFolder(Callback):
    """Hydra's callback before a sweep: chooses its folder and checks its members' configs.

    `path` is that folder, absolute, for the whole process; None: no sweep has begun.
    """

    path: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Prepare a sweep, in the process that was called.

        config: as composed, `hydra` included; changed in place (hydra.sweep.dir, and of a search as
        `continue_search` says, which changes its database, too). May remove files of an earlier
        sweep as `choose_folder` does. Sets `path`, prints it to stderr, and makes `stop_sweep` the
        handler of STOPPING until the process ends (not of SIGHUP under nohup). With submitit,
        starts a thread that prints which members begin and end. An error ends the process with one
        line (see `one_line_errors`).
        """
        with one_line_errors():  # Hydra would only warn of an error
            folder = choose_folder(config)
            check_configs(config)
            SweepFolder.path = folder
            continue_search(config, folder)
        print(
            f"sweep: each member logs into train.log in its folder below {folder}", file=sys.stderr
        )
        config.hydra.sweep.dir = str(folder)
        # Each member composes its config anew
        quoted = str(folder).replace("'", "\\'")
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{quoted}'")
        for number in without_ignored_hangup(STOPPING):
            signal.signal(number, stop_sweep)
        if "submitit" in config.hydra.launcher._target_:  # its members write to files of their own
            threading.Thread(target=report_progress, args=(folder,), daemon=True).start()


def is_search(hydra_config: DictConfig) -> bool:
    """Whether the sweeper is a search (Optuna), which chooses members by results; else a grid."""
    return not hydra_config.sweeper._target_.endswith(".BasicSweeper")


@usage_errors()
def check_configs(config: DictConfig) -> None:
    """Compose and check every member's config, before anything is trained.

    Call it while Hydra runs: its global loader composes. config: the sweep's, as composed, `hydra`
    included; not changed. A search draws its members as it goes: of it, every named choice and both
    ends of every interval are checked, one key at a time. Raises UsageError for the first member
    that is wrong, with its number from 0 (unless it is a search), its swept values and the reason.
    """
    loader = GlobalHydra.instance().config_loader()
    sweeper_params = config.hydra.sweeper.get("params") or {}
    params = [f"{key}={choices}" for key, choices in sweeper_params.items()]
    parser = OverridesParser.create(config_loader=loader)
    overrides = parser.parse_overrides([*params, *config.hydra.overrides.task])
    swept = [override.get_key_element() for override in overrides if override.is_sweep_override()]
    members = search_samples(overrides) if is_search(config.hydra) else grid(overrides)
    for number, member in enumerate(members):
        try:
            check_member(config, member)
        except Exception as error:
            explained = message_and_code(error)
            if explained is None:
                raise
            given = " ".join(part for part in member if part.partition("=")[0] in swept)
            # Of a search, these are not the members' numbers
            who = "a member" if is_search(config.hydra) else f"member {number}"
            raise UsageError(f"{who} ({given}): {explained[0]}") from None


@usage_errors()
def check_member(config: DictConfig, overrides: list[str]) -> None:
    """Compose and check one member's config.

    config: the sweep's, which does not change. overrides: all of the member's, as key=value. Raises
    UsageError if they do not compose, and as `begin_with_model_of_source` and `checked_composed`
    do. Call it while Hydra runs.
    """
    composed = GlobalHydra.instance().config_loader().load_sweep_config(config, list(overrides))
    with open_dict(composed):
        hydra_config = composed.pop("hydra")
    begin_with_model_of_source(composed, hydra_config)
    checked_composed(composed, hydra_config)


def grid(overrides: list[Override]) -> list[list[str]]:
    """The overrides of each member of a grid, in Hydra's order; also those that are not swept."""
    [members] = BasicSweeper.split_arguments(overrides, None)  # None: all in one batch
    return members


def search_samples(overrides: list[Override]) -> list[list[str]]:
    """The overrides of members that a search might have, to be checked.

    The first has the first value of every key; each further one has another value of one key. The
    values of an interval are its two ends. Of several overrides of a key the last counts.
    """
    values = {}  # key -> its overrides, as key=value
    for override in overrides:
        key, value = override.get_key_element(), override.value()
        if override.is_interval_sweep():
            values[key] = [f"{key}={value.start}", f"{key}={value.end}"]
        elif override.is_sweep_override():
            values[key] = [f"{key}={text}" for text in override.sweep_string_iterator()]
        else:
            values[key] = [f"{key}={override.get_value_element_as_str()}"]
    first = {key: texts[0] for key, texts in values.items()}
    members = [list(first.values())]
    for key, texts in values.items():
        for text in texts[1:]:
            members.append(list({**first, key: text}.values()))
    return members


def report_progress(folder: Path) -> None:
    """Print a line to stderr for each member in a sweep's folder, and when its state changes.

    The states are done (it has results.json), failed (member.json has an error) and running.
    Members that a resumed sweep has are printed at once. Meant for a daemon thread: it looks at the
    members' files twice a second, and returns when SweepFolder.path is no longer `folder`.
    """
    reported = {}
    while SweepFolder.path == folder:
        for path in sorted(folder.glob(f"*/{MEMBER}")):
            state = "running"
            if "error" in json.loads(path.read_text(encoding="utf-8")):
                state = "failed"
            if path.with_name(RESULTS).exists():
                state = "done"
            if reported.get(path) != state:
                print(f"member {path.parent.name}: {state}", file=sys.stderr, flush=True)
                reported[path] = state
        time.sleep(0.5)


def choose_folder(config: DictConfig) -> Path:
    """The absolute path of a sweep's folder: `run_dir`, or ./runs/<experiment>/sweep.

    config: as composed, `hydra` included. Makes no folder. With resume=false it removes the
    member.json of members that never began (they have no config.yaml). Raises UsageError if the
    folder holds a run, if a member has begun and `resume` is false, if a file is in its way, if its
    name is not UTF-8, for an invalid `resume`, and under torchrun.
    """
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
    if config.resume is not False:
        return folder
    for record in folder.glob(f"*/{MEMBER}"):
        if record.with_name(CONFIG).exists():
            raise UsageError(
                f"run_dir {folder} already holds a sweep; "
                "set resume=true to go on, or another run_dir."
            )
        record.unlink()  # of a member that was refused before it began
    return folder


def stop_sweep(number: int, frame: Any) -> None:
    """Signal handler: end members in other processes of this machine, wait, and end the sweep.

    Members get SIGTERM, on which they save; Hydra's launcher would kill them. A second signal
    (other than SIGHUP) stops the waiting by KeyboardInterrupt. A member in this process has a
    handler of its own while it trains. Prints the command to resume to stderr and raises SystemExit
    with code 128 + number.
    """
    for other in STOPPING:
        if other == signal.SIGHUP:  # a terminal that closes sends it twice
            signal.signal(other, signal.SIG_IGN)
        else:
            signal.signal(other, signal.default_int_handler)
    for path in SweepFolder.path.glob("*/.lock"):
        with path.open("a+") as lock:
            owner = lock_or_owner(lock) or {}
            if owner.get("host") == os.uname().nodename and owner["process"] != os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(owner["process"], signal.SIGTERM)
                fcntl.flock(lock, fcntl.LOCK_EX)  # waits until the member has ended
    name, go_on = signal.Signals(number).name, command_to_resume()
    print(f"error: {name}: the sweep has stopped; go on with: {go_on}", file=sys.stderr)
    sys.exit(128 + number)


def member_overrides(hydra_config: DictConfig) -> list[str]:
    """A member's overrides, as key=value, sorted, without `run_dir` and `resume`."""
    overrides = []
    for override in hydra_config.overrides.task:
        if override_key(override) not in ("run_dir", "resume"):
            overrides.append(override)
    return sorted(overrides)


def train_member(config: DictConfig, hydra_config: DictConfig) -> dict[str, Any] | None:
    """Train a member in its folder, or go on with it; returns its results, None if it failed.

    The folder is hydra.runtime.output_dir, which exists. Its name, a number or what
    hydra.sweep.subdir says, is the member's.
    config: the member's; it is changed. With resume=true, a member that was begun goes on with its
    stored config. Call `finished_results` (reporting/sweep.py) first: it refuses a member that was
    begun with other overrides, which is not checked here.
    Writes what `train` writes, and member.json: `overrides`. An error is logged and stored there
    (see `record_of_failure`), so that the sweep goes on. Raises what ends the sweep: Interrupted,
    and OSError if the error cannot be stored, as on a full disk.
    """
    from gcnn.training.run import train  # late: Hydra makes the callback above for every command

    folder = Path(hydra_config.runtime.output_dir)
    record = {"overrides": member_overrides(hydra_config)}
    log.info("member %s: %s", folder.name, " ".join(record["overrides"]))
    config.run_dir = str(folder)
    try:
        write_json(folder / MEMBER, record)
        if config.resume is True and (folder / CONFIG).exists():
            # It was begun with the same overrides
            _, results = train(*resumed_config(folder, []))
            return results
        _, results = train(*new_run(config, hydra_config))
        return results
    except Interrupted as stop:  # the command to resume is the sweep's, not the member's
        raise Interrupted(stop.saved, command_to_resume(), stop.signal_number) from None
    except Exception as error:
        failure = record_of_failure(error)
        log.error("error: member %s: %s", folder.name, failure["error"])
        write_json(folder / MEMBER, {**record, **failure})
        return None


def record_of_failure(error: Exception) -> dict[str, Any]:
    """The entries of member.json for an error.

    Keys: error (its message in one line), exit_code and diverged (whether the run did).
    Call it where the error is handled: that of a mistake in the code is printed to stderr with its
    traceback.
    """
    explained = message_and_code(error)
    if explained is None:  # a mistake in the code
        traceback.print_exc()
        explained = f"{type(error).__name__}: {one_line(error)}", 1
    message, code = explained
    return {"error": message, "exit_code": code, "diverged": isinstance(error, Diverged)}
