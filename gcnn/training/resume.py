"""Going on with a run: which one it is, and its config. The run's own counts; what a command line says besides is
applied on top, and named."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ValidationError

from gcnn.base.errors import UsageError
from gcnn.config.complaints import usage_errors
from gcnn.config.compose import compose_config, typed
from gcnn.config.rules import check_read, keys_of
from gcnn.config.schema import SCHEMAS, TrainConfig
from gcnn.config.stored import load_config, migrated
from gcnn.runs.directory import CONFIG, LOG, RESULTS

GROUPS = ("data", *SCHEMAS, "logger")
IDENTITY = (
    "kind",
    "source",
    "hub_config",
)  # what tells the choices of a group apart, whatever their values
# What a run keeps to its end. Where files lie may change: their content is held by its fingerprint in the checkpoint.
FIXED = re.compile(
    r"(data|tokenizer|model)\..*|seed|init_from|optimizer\.kind|schedule\.kind|trainer\.(batch_size|block_size|carry_state)"
)
MAY_CHANGE = re.compile(
    r".*dropout|data\.(path|files|column|cache_dir)(\..*)?|tokenizer\.(vocabulary|model)"
)
UNNAMED = ("run_dir", "resume", "experiment", "data.cache_dir")


@usage_errors()
def parse_overrides(overrides: list[str]) -> list[Override]:
    """Command-line overrides as Hydra reads them, without Hydra's own keys. Raises UsageError for one that is none."""
    return [
        o
        for o in OverridesParser.create().parse_overrides(overrides)
        if not o.key_or_group.startswith("hydra")
    ]


def run_to_resume(overrides: list[str], repeated: Path | None = None) -> Path | None:
    """The run that a command goes on with: `run_dir`, the one `repeated` with --config-path, that of the
    checkpoint, or the experiment's newest that is not finished. None where `resume` is not asked for,
    or no run is there yet in the folder that the command names.

    Raises UsageError where none is named, and none is unfinished."""
    overridden = {
        override.key_or_group: override.value() for override in parse_overrides(overrides)
    }
    resume, run_dir = overridden.get("resume", False), overridden.get("run_dir")
    if resume is False or not isinstance(resume, bool | str):
        return None
    if run_dir is not None and (Path(run_dir) / CONFIG).exists():
        return Path(run_dir)
    if isinstance(resume, str):
        return next(
            (path for path in Path(resume).absolute().parents if (path / CONFIG).exists()), None
        )
    if run_dir is not None or repeated is not None:
        return repeated if run_dir is None else None
    folder = Path("runs", str(overridden.get("experiment") or "custom"))
    runs = [path.parent for path in folder.glob("*/config.yaml") if path.with_name(LOG).exists()]
    runs.sort(key=lambda run: (run / CONFIG).stat().st_mtime_ns)
    unfinished = [run for run in runs if not finished(run)]
    if not unfinished and not runs:
        raise UsageError(
            f"resume=true: no run in {folder} to go on with. Leave resume out to begin one, or give its run_dir."
        )
    if not unfinished:
        raise UsageError(
            f"resume=true: all runs in {folder} are finished, the newest is {runs[-1]}. To train it further, give "
            f"run_dir={runs[-1]} resume=true and a later bound, as trainer.max_steps; for a new run leave resume out."
        )
    return unfinished[-1]


def finished(run: Path) -> bool:
    return (run / RESULTS).exists()


def resumed_config(
    run: Path, overrides: list[str], config_dir: Path | None = None
) -> tuple[TrainConfig, list[str]]:
    """The config of a run as it goes on, and a line for each thing that a command line changes.
    `config_dir` is the user's own folder of choices.

    Raises UsageError, naming what was stored and what was asked, for a change that would make another run of it."""
    stored = load_config(run)
    config, notes = OmegaConf.structured(stored), []
    config.run_dir, config.resume = None, True
    for override in parse_overrides(overrides):
        key, value = override.key_or_group, override.value()
        if override.is_sweep_override() or override.is_delete():
            raise UsageError(
                f"resume: {override.input_line} is no value; give {key}=VALUE, or --multirun for a sweep."
            )
        if key == "experiment":
            if value not in (None, stored.experiment):
                notes.append(
                    f"resume: {run} is of {stored.experiment}, not {value}; its own config counts"
                )
        elif key in GROUPS and isinstance(value, str):
            notes += compare_choice(run, stored, f"{key}={value}", config_dir)
            if key == "logger":
                config.logger.kind = value
        else:
            try:
                OmegaConf.update(config, key, value)
            except ValidationError:
                raise UsageError(
                    f"resume: {key} cannot be {value!r}. All keys and their values: --help."
                ) from None
    if isinstance(config.resume, str):
        config.resume = str(Path(config.resume).absolute())
    elif isinstance(stored.resume, str):  # it was killed while it turned back to that checkpoint
        config.resume = stored.resume
    if not config.run_dir:
        config.run_dir = str(run)
        notes.insert(
            0,
            f"resume: going on with the {'finished' if finished(run) else 'unfinished'} run {run}",
        )
    resumed = typed(config)
    check_read(resumed, {key for key, _, _ in differences(stored, resumed)}, all_keys=False)
    for key, old, new in differences(stored, resumed):
        if FIXED.fullmatch(key) and not MAY_CHANGE.fullmatch(key):
            raise UsageError(
                f"resume: {key} of {run} is {old} and cannot become {new}. Leave it out, or train a new run."
            )
        if key not in UNNAMED:
            notes.append(f"resume: {key} {old} -> {new}")
    return resumed, notes


def checked(config: DictConfig, hydra_config: DictConfig) -> TrainConfig:
    """A composed config, typed. Raises UsageError where it sets what changes nothing. (A stored config that
    is repeated may be of an older version: there the command line alone counts.)"""
    composed = hydra_config.job.config_name == "train"
    if not composed:
        with open_dict(config):
            migrated(config)
    result = typed(config)
    check_read(result, keys_of(hydra_config.overrides.task), all_keys=composed)
    return result


def may_fit_cutoffs(hydra_config: DictConfig) -> bool:
    """Whether model.cutoffs are those of a choice, not of the command line."""
    return "model.cutoffs" not in keys_of(hydra_config.overrides.task)


def differences(stored: TrainConfig, wanted: TrainConfig) -> list[tuple[str, str, str]]:
    """Each key whose value differs, kinds first, with the stored and the wanted value as they are typed."""
    before, after = dict(flatten(stored)), dict(flatten(wanted))
    keys = sorted(before.keys() | after.keys(), key=lambda key: (not key.endswith(".kind"), key))
    values = [(key, before.get(key), after.get(key)) for key in keys]
    return [(key, show_value(old), show_value(new)) for key, old, new in values if old != new]


@usage_errors()
def begin_with_model_of_source(config: DictConfig, overrides: list[str]) -> list[str]:
    """Give a composed config the model and the tokenizer of the run that `init_from` names, but for what the overrides
    say of their keys, or choose themselves. Returns a line for each that was taken over."""
    if config.init_from is None:
        return []
    stored, given, notes = load_config(config.init_from), parse_overrides(overrides), []
    for group in sorted({"model", "tokenizer"} - {override.key_or_group for override in given}):
        config[group] = OmegaConf.structured(getattr(stored, group))
        notes.append(f"init_from: {group} as in {config.init_from}")
        for override in given:
            if override.key_or_group.startswith(f"{group}."):
                OmegaConf.update(config, override.key_or_group, override.value())
    return notes


def compare_choice(
    run: Path, stored: TrainConfig, override: str, config_dir: Path | None
) -> list[str]:
    """A line where a choice of a group (`model=gcnn_8`) has other values than the run, whose own stay.
    Raises UsageError where it is of another kind."""
    group, _, name = override.partition("=")
    chosen = compose_config(override, config_dir=config_dir)
    own, choice = (vars(getattr(config, group)) for config in (stored, chosen))
    if group != "logger" and any(choice.get(key) != own.get(key) for key in IDENTITY):
        kind = own.get("kind") or own["name"]
        raise UsageError(
            f"resume: {group} of {run} is {kind} and cannot become {name}. Leave it out, or train a new run."
        )
    kept = [
        key for key, value in choice.items() if key != "kind" and key in own and own[key] != value
    ]
    kept = ", ".join(kept) if group != "data" else ""
    return [f"resume: {group}={name} differs in {kept}; the run keeps its own"] if kept else []


def flatten(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Each value of a config with its key, as ("trainer.batch_size", 8)."""
    if dataclasses.is_dataclass(value):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from flatten(inner, f"{key}.{name}" if key else name)
    else:
        yield key, value


def show_value(value: Any) -> str:
    return (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )
