"""Typed configs from the YAML files of configs/ and command-line overrides.

In order: `prepare_overrides` quotes the overrides, Hydra composes the files, `typed` makes
dataclasses of the result and checks it, `refuse_without_effect` looks for settings without one.
"""

import contextlib
import copy
import glob
import operator
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gcnn.base.errors import UsageError
from gcnn.base.files import user_path
from gcnn.config.complaints import usage_errors
from gcnn.config.groups import CONFIGS, GROUPS
from gcnn.config.overrides import prepare_overrides, quoted
from gcnn.config.rules import check_config, keys_of, refuse_without_effect
from gcnn.config.schema import SCHEMAS, DataConfig, LoggerConfig, TrainConfig


@cache
def register_schemas() -> None:
    """Register the config schemas with Hydra; must run before Hydra composes a config.

    The schema of a training run is `train_schema`; that of a group is `<group>/schema`, or
    `<group>/schema_<kind>` if it has several kinds. Also registers the resolvers `not` (for files
    in configs/experiment) and `plus` (for sweeps). Changes global state of Hydra and OmegaConf;
    later calls do nothing.
    """
    OmegaConf.register_new_resolver("not", operator.not_, replace=True)
    OmegaConf.register_new_resolver("plus", operator.add, replace=True)
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(group="data", name="schema", node=DataConfig)
    store.store(group="logger", name="schema", node=LoggerConfig)
    for group, kinds in SCHEMAS.items():
        for kind, schema in kinds.items():
            store.store(group=group, name=f"schema_{kind}", node=schema)


# Of a schema. Cached, since building one takes longer than merging into it.
structured = cache(OmegaConf.structured)


@usage_errors()
def typed(config: DictConfig) -> TrainConfig:
    """A composed or stored config as a TrainConfig, checked; each group is a dataclass of its kind.

    `trainer.carry_state: null` becomes true for a recurrent model of running text, otherwise false.
    Interpolations `${...}` are resolved. The paths listed at `make_absolute` become absolute from
    the current folder; run_dir, resume and data.cache_dir stay as they are. `config` itself is not
    changed; it must not contain Hydra's own `hydra`.
    Raises UsageError for an unknown key, a missing value, a wrong type, a value out of its range
    and for values that contradict each other, and as `make_absolute` does.
    """
    content = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    schemas = {}
    for group, kinds in SCHEMAS.items():
        chosen = content.get(group)
        kind = chosen.get("kind") if isinstance(chosen, dict) else None
        if kind not in list(kinds):  # a list, since what cannot be hashed may be given as a kind
            raise UsageError(f"{group}.kind is {kind!r}; choose one of: {', '.join(kinds)}.")
        schemas[group] = structured(kinds[kind])
    # In one merge, for OmegaConf's errors to have full keys.
    result = OmegaConf.to_object(OmegaConf.merge(structured(TrainConfig), schemas, content))
    if result.trainer.carry_state is None:
        result.trainer.carry_state = result.model.recurrent and not result.data.sentences
    check_config(result)
    make_absolute(result)
    return result


def make_absolute(config: TrainConfig) -> None:
    """Make the paths of a config's inputs absolute, in place, so that they hold in any folder.

    These are init_from, data.path, data.files (paths or globs) and the tokenizer's vocabulary or
    model; None stays. A leading `~` is expanded. Relative ones are from the current folder. An
    entry of data.files that does not exist is taken for a glob: the current folder is escaped in
    it. Raises UsageError as `user_path` does if there is no such home folder.
    """
    use = "its files; give the path"  # for the message of user_path
    inputs = (
        (config, "init_from"),
        (config.data, "path"),
        (config.tokenizer, "vocabulary"),
        (config.tokenizer, "model"),
    )
    for owner, name in inputs:
        path = getattr(owner, name, None)
        if path is not None:
            setattr(owner, name, str(user_path(path, use).absolute()))
    for patterns in config.data.files.values():
        for i, pattern in enumerate(patterns):
            path = user_path(pattern, use)
            # In a glob, brackets in the name of the current folder must stand for themselves.
            here = str(Path.cwd()) if path.exists() else glob.escape(str(Path.cwd()))
            patterns[i] = str(Path(here, path))  # an absolute path stays as it is


def compose_by_hydra(*overrides: str) -> DictConfig:
    """What Hydra composes of configs/train.yaml, the files that it names, and overrides.

    Keys and types are checked against the schemas. Ranges are not, and values may be missing.
    overrides: as prepare_overrides returns them. `register_schemas` must have been called.
    Raises the errors that `complaint_of` has messages for.
    """
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", overrides=list(overrides))


compose_choices = cache(compose_by_hydra)  # 0.15 s; what it returns is shared: not to be changed


def set_values(config: DictConfig, values: list[str]) -> None:
    """Set key=value overrides in a composed config, in place, as Hydra does.

    values: as prepare_overrides returns them, without those that choose a file (group=name).
    Raises HydraException, OmegaConfBaseException or ValueError for one that cannot be parsed, does
    not fit or is more than a plain key=value: an addition, a deletion, a sweep or one with a
    package (key@package=value). Some of the others may be set then.
    """
    for override in OverridesParser.create().parse_overrides(values):
        is_plain = override.type == OverrideType.CHANGE and override.package is None
        if not is_plain or override.is_sweep_override():
            raise HydraException(f"{override.input_line} is no plain key=value")
        OmegaConf.update(config, override.key_or_group, override.value(), merge=True)


def compose_or_reuse(overrides: list[str]) -> DictConfig:
    """What Hydra composes of these overrides, as `compose_by_hydra`, but faster.

    Each combination of choices (group=name) is composed once a process; the result is a copy that
    the caller may change. Raises as `compose_by_hydra` does.
    """
    of_groups = [override for override in overrides if override.partition("=")[0] in GROUPS]
    values = [override for override in overrides if override not in of_groups]
    with contextlib.suppress(HydraException, OmegaConfBaseException):
        config = copy.deepcopy(compose_choices(*of_groups))
        set_values(config, values)
        return config
    # Its errors say more, and a value may be what makes a choice known (hydra.searchpath)
    return compose_by_hydra(*overrides)


@usage_errors()
def compose_config(*overrides: str, config_dir: Path | None = None) -> TrainConfig:
    """The checked config of overrides, as `gcnn train` has it before it reads a run or data.

    The runs that init_from and resume name are not read: model and tokenizer are those of the
    overrides. With experiment=NAME, `experiment` stays "custom", where `gcnn train` sets it to the
    name.
    overrides: as typed, "key=value" or "group=name"; of several for a key or group the last counts.
    config_dir: the folder of --config-dir with the user's own configs, besides the project's; None:
    there is none. Hydra only warns if it does not exist.
    Raises UsageError for an override or file that cannot be read, for a key without an effect
    (`refuse_without_effect`), and as `typed` does.
    Side effect: registers the schemas with Hydra.
    """
    register_schemas()
    prepared = prepare_overrides(list(overrides))
    if config_dir is None:
        config = typed(compose_or_reuse(prepared))
    else:
        search_path = f"hydra.searchpath=[{quoted(f'file://{config_dir}')}]"
        config = typed(compose_by_hydra(*prepared, search_path))
    refuse_without_effect(config, keys_of(overrides))
    return config
