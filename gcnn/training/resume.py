"""Resuming a run: which run it is, and its config.

The config is the run's own. What the command line says besides is applied on top and logged, or
refused where it would make another run of it.
"""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ValidationError

from gcnn.base.errors import UsageError
from gcnn.config.complaints import usage_errors
from gcnn.config.compose import compose_config, typed
from gcnn.config.rules import refuse_without_effect
from gcnn.config.schema import SCHEMAS, TrainConfig
from gcnn.config.stored import load_config
from gcnn.runs.directory import CONFIG, LOG, RESULTS

GROUPS = ("data", *SCHEMAS, "logger")
# Keys in which different choices of a group differ, whatever their other values
IDENTITY = ("kind", "source", "hub_config")
# Keys that a run keeps to its end, those of MAY_CHANGE excepted. Paths may change: the content of
# the files is held by the fingerprints in the checkpoint.
FIXED = re.compile(
    r"(data|tokenizer|model)\..*|seed|init_from|optimizer\.kind|schedule\.kind"
    r"|trainer\.(batch_size|block_size|carry_state)"
)
MAY_CHANGE = re.compile(
    r".*dropout|data\.(path|files|column|cache_dir)(\..*)?|tokenizer\.(vocabulary|model)"
)
UNNAMED = ("run_dir", "resume", "experiment", "data.cache_dir")  # keys whose changes are not logged


@usage_errors()
def parse_overrides(overrides: list[str]) -> list[Override]:
    """Parse command-line overrides (`key=value`), in order; those of Hydra's own keys are left out.

    overrides: quoted, as `prepare_overrides` returns them. Raises UsageError for one that Hydra
    does not understand.
    """
    parsed = OverridesParser.create().parse_overrides(overrides)
    return [override for override in parsed if not override.key_or_group.startswith("hydra")]


def run_to_resume(overrides: list[str], repeated: Path | None = None) -> Path | None:
    """The directory of the run that a command resumes; None if it begins a new one.

    overrides: the command's, quoted as for `parse_overrides`; the last of a key counts.
    None unless `resume` is true or a text. Otherwise the first that applies, where a run is a
    folder with a config.yaml:
    - `run_dir`, if it holds a run;
    - resume=CHECKPOINT: the nearest folder above it that is a run, None if there is none;
    - resume=true with a `run_dir` that holds no run: None;
    - resume=true with `repeated`, the run of --config-path: that run;
    - resume=true alone: the `newest_unfinished` run in ./runs/<experiment> (./runs/custom without
      an experiment).

    Raises UsageError as `parse_overrides` and `newest_unfinished` do.
    """
    overridden = {}
    for override in parse_overrides(overrides):
        overridden[override.key_or_group] = override.value()
    resume = overridden.get("resume", False)
    run_dir = overridden.get("run_dir")
    if resume is False or not isinstance(resume, bool | str):
        return None
    if run_dir is not None and (Path(run_dir) / CONFIG).exists():
        return Path(run_dir)
    if isinstance(resume, str):
        for path in Path(resume).absolute().parents:
            if (path / CONFIG).exists():
                return path
        return None
    if run_dir is not None:
        return None
    if repeated is not None:
        return repeated
    return newest_unfinished(Path("runs", str(overridden.get("experiment") or "custom")))


def newest_unfinished(folder: Path) -> Path:
    """Of the runs directly in `folder` with a log and no results, that with the newest config.yaml.

    Raises UsageError if there is none: no run at all, or all have results.
    """
    runs = [path.parent for path in folder.glob("*/config.yaml") if path.with_name(LOG).exists()]
    runs.sort(key=lambda run: (run / CONFIG).stat().st_mtime_ns)
    unfinished = [run for run in runs if not has_results(run)]
    if not unfinished and not runs:
        raise UsageError(
            f"resume=true: no run in {folder} to go on with. "
            "Leave resume out to begin one, or give its run_dir."
        )
    if not unfinished:
        raise UsageError(
            f"resume=true: all runs in {folder} are finished, the newest is {runs[-1]}. "
            f"To train it further, give run_dir={runs[-1]} resume=true and a later bound, "
            "as trainer.max_steps; for a new run leave resume out."
        )
    return unfinished[-1]


def has_results(run: Path) -> bool:
    """Whether a run has results: it reached a bound and was evaluated."""
    return (run / RESULTS).exists()


@usage_errors()
def resumed_config(
    run: Path, overrides: list[str], config_dir: Path | None = None
) -> tuple[TrainConfig, list[str]]:
    """The config with which a run goes on, and lines to log.

    The lines name its folder, unless `run_dir` is given, what is changed, and what is ignored.
    It is the stored config with the values of `overrides`, the command line's, quoted as for
    `parse_overrides`. Choices of a group (model=NAME) and experiment=NAME are only compared with
    it; of logger=NAME, the kind is applied. Without run_dir the run goes on in its folder; without
    resume=CHECKPOINT, from the checkpoint that it was going back to when it was killed, if any, or
    else from the newest.
    config_dir: the user's own folder of config choices; None: there is none.
    Raises UsageError if `run` holds no valid config, for a change of a key that is fixed (FIXED
    without MAY_CHANGE) or has no effect, for a choice of another kind (see `notes_on_choice`), a
    sweep, a deletion (~key), and keys or values that are unknown or out of their range.
    """
    stored = load_config(run)
    config = OmegaConf.structured(stored)
    config.run_dir = None
    config.resume = True
    overridden = apply_overrides(config, run, stored, overrides, config_dir)
    start = choose_start(config, run, stored)
    resumed = typed(config)
    changes = notes_on_changes(run, stored, resumed)
    return resumed, [*start, *overridden, *changes]


def apply_overrides(
    config: DictConfig,
    run: Path,
    stored: TrainConfig,
    overrides: list[str],
    config_dir: Path | None,
) -> list[str]:
    """Set the values of a command line in a run's config, in place; returns lines to log.

    An experiment and choices of a group are not set, but for the kind of a logger: the lines say
    where they differ from the run's own.
    config: the run's. stored: the same without the values of the command line. The others are those
    of `resumed_config`. Raises UsageError for an override that Hydra does not understand, a choice
    that is unknown or of another kind (see `notes_on_choice`), a sweep and a deletion; and as
    `set_value` does.
    """
    notes = []
    for override in parse_overrides(overrides):
        key = override.key_or_group
        if override.is_sweep_override() or override.is_delete():
            raise UsageError(
                f"resume: {override.input_line} is no value; "
                f"give {key}=VALUE, or --multirun for a sweep."
            )
        value = override.value()
        if key == "experiment":
            notes += notes_on_experiment(run, stored, value)
        elif key in GROUPS and isinstance(value, str):
            notes += notes_on_choice(run, stored, f"{key}={value}", config_dir)
            if key == "logger":
                config.logger.kind = value
        else:
            set_value(config, key, value)
    return notes


def notes_on_experiment(run: Path, stored: TrainConfig, name: str | None) -> list[str]:
    """A line to log if `name`, as typed, is another experiment than the run's; else empty."""
    if name in (None, stored.experiment):
        return []
    return [f"resume: {run} is of {stored.experiment}, not {name}; its own config counts"]


def set_value(config: DictConfig, key: str, value: Any) -> None:
    """Set a key of a run's config, in place.

    Raises UsageError where OmegaConf raises ValidationError, as for most values of another type.
    Its other errors, as for an unknown key, pass through: `resumed_config` makes them UsageErrors.
    """
    try:
        OmegaConf.update(config, key, value)
    except ValidationError:
        raise UsageError(
            f"resume: {key} cannot be {value!r}. All keys and their values: --help."
        ) from None


def choose_start(config: DictConfig, run: Path, stored: TrainConfig) -> list[str]:
    """Complete `resume` and `run_dir` in the config of a run that goes on; the config is changed.

    config: the run's, with the overrides. stored: the same without them. run: its folder.
    `resume`: a path becomes absolute. true becomes the checkpoint to which the run was going back
    when it was killed (`stored.resume`), if there is one; else it stays, and means the newest.
    `run_dir`: empty or null, it becomes `run`, and a list with a line to log is returned; else the
    list is empty.
    """
    if isinstance(config.resume, str):
        config.resume = str(Path(config.resume).absolute())
    elif isinstance(stored.resume, str):  # it was killed while it went back to that checkpoint
        config.resume = stored.resume
    if config.run_dir:
        return []
    config.run_dir = str(run)
    state = "finished" if has_results(run) else "unfinished"
    return [f"resume: going on with the {state} run {run}"]


def notes_on_changes(run: Path, stored: TrainConfig, resumed: TrainConfig) -> list[str]:
    """A line to log for each key that is changed, but for UNNAMED.

    run: its path, for messages. stored: its config. resumed: that with which it goes on. Raises
    UsageError for a change of a key that is fixed (FIXED without MAY_CHANGE) or has no effect.
    """
    changed = differences(stored, resumed)
    refuse_without_effect(resumed, {key for key, _, _ in changed}, all_keys=False)
    notes = []
    for key, old, new in changed:
        if FIXED.fullmatch(key) and not MAY_CHANGE.fullmatch(key):
            raise UsageError(
                f"resume: {key} of {run} is {old} and cannot become {new}. "
                "Leave it out, or train a new run."
            )
        if key not in UNNAMED:
            notes.append(f"resume: {key} {old} -> {new}")
    return notes


def differences(stored: TrainConfig, wanted: TrainConfig) -> list[tuple[str, str, str]]:
    """Each key whose value differs, with the stored and the wanted value as `show_value` has them.

    Keys that end in `.kind` come first, the others in alphabetical order. A key that one of the
    configs lacks has the value null there.
    """
    before, after = dict(flatten(stored)), dict(flatten(wanted))
    keys = sorted(before.keys() | after.keys(), key=lambda key: (not key.endswith(".kind"), key))
    differing = []
    for key in keys:
        old, new = before.get(key), after.get(key)
        if old != new:
            differing.append((key, show_value(old), show_value(new)))
    return differing


def notes_on_choice(
    run: Path, stored: TrainConfig, override: str, config_dir: Path | None
) -> list[str]:
    """A list with one line to log if a choice differs from the run's values, else empty.

    override: the choice, as model=gcnn_8. run: its path, for messages. stored: its config.
    config_dir: the user's own folder of config choices; None: none.
    The line names the differing keys, of those that both have, but not `kind`; the run keeps its
    own values. For data the list is always empty. Raises UsageError if the choice is unknown, or if
    it is of another kind (IDENTITY) than the run's, which only a logger may be.
    """
    group, _, name = override.partition("=")
    chosen = compose_config(override, config_dir=config_dir)
    own = vars(getattr(stored, group))
    choice = vars(getattr(chosen, group))
    if group != "logger" and any(choice.get(key) != own.get(key) for key in IDENTITY):
        kind = own.get("kind") or own["name"]
        raise UsageError(
            f"resume: {group} of {run} is {kind} and cannot become {name}. "
            "Leave it out, or train a new run."
        )
    if group == "data":
        return []
    differing = []
    for key, value in choice.items():
        if key != "kind" and key in own and own[key] != value:
            differing.append(key)
    if not differing:
        return []
    return [f"resume: {group}={name} differs in {', '.join(differing)}; the run keeps its own"]


def flatten(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Each value of nested dataclasses and dictionaries with its key: ("trainer.batch_size", 8).

    Lists count as values; an empty dictionary yields nothing.
    key: the key of `value` itself, which the others begin with; empty: none.
    """
    if dataclasses.is_dataclass(value):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from flatten(inner, f"{key}.{name}" if key else name)
    else:
        yield key, value


def show_value(value: Any) -> str:
    """A config value for messages: null, true, false; others as Python's str writes them."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
