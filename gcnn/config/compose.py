"""From the YAML files of configs/ and a command line to typed configs."""

import glob
import operator
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from gcnn.base.errors import UsageError
from gcnn.base.files import user_path
from gcnn.config.complaints import usage_errors
from gcnn.config.groups import CONFIGS
from gcnn.config.overrides import prepare, quoted
from gcnn.config.rules import check, check_read, keys_of
from gcnn.config.schema import SCHEMAS, DataConfig, LoggerConfig, TrainConfig


@cache
def register_schemas() -> None:
    """Give Hydra the schemas, once: `train_schema`, and `<group>/schema_<kind>` for groups with a choice of kinds."""
    OmegaConf.register_new_resolver(
        "not", operator.not_, replace=True
    )  # what an experiment derives from a choice
    OmegaConf.register_new_resolver(
        "plus", operator.add, replace=True
    )  # the number of a search's member
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(group="data", name="schema", node=DataConfig)
    store.store(group="logger", name="schema", node=LoggerConfig)
    for group, kinds in SCHEMAS.items():
        for kind, schema in kinds.items():
            store.store(group=group, name=f"schema_{kind}", node=schema)


@usage_errors()
def typed(config: DictConfig) -> TrainConfig:
    """The dataclass instances of a composed or stored config. Raises UsageError for an
    unknown key, a missing value, a wrong type or range."""
    content = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    for group, kinds in SCHEMAS.items():
        chosen = content.get(group)
        kind = chosen.get("kind") if isinstance(chosen, dict) else None
        if kind not in kinds:
            raise UsageError(f"{group}.kind is {kind!r}; choose one of: {', '.join(kinds)}.")
        content[group] = OmegaConf.unsafe_merge(OmegaConf.structured(kinds[kind]), chosen)
    result = OmegaConf.to_object(OmegaConf.unsafe_merge(OmegaConf.structured(TrainConfig), content))
    if result.trainer.carry_state is None:
        result.trainer.carry_state = result.model.recurrent and not result.data.sentences
    check(result)
    make_absolute(result)
    return result


def make_absolute(config: TrainConfig) -> None:
    """Let the paths of a config's inputs hold in any folder, as a stored config needs."""
    words = config.tokenizer
    for owner, name in (
        (config, "init_from"),
        (config.data, "path"),
        (words, "vocabulary"),
        (words, "model"),
    ):
        if getattr(owner, name, None) is not None:
            setattr(
                owner,
                name,
                str(user_path(getattr(owner, name), "its files; give the path").absolute()),
            )
    for patterns in config.data.files.values():
        for i, pattern in enumerate(patterns):
            path = user_path(pattern, "its files; give the path")
            here = Path.cwd() if path.exists() else glob.escape(str(Path.cwd()))
            patterns[i] = str(Path(here, path))


@usage_errors()
def compose_config(*overrides: str, config_dir: Path | None = None) -> TrainConfig:
    """The config that a training command with these overrides, and --config-dir, would have. Raises UsageError
    for an override that does not fit."""
    register_schemas()
    own = [] if config_dir is None else [f"hydra.searchpath=[{quoted(f'file://{config_dir}')}]"]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = typed(compose("train", overrides=[*prepare(list(overrides)), *own]))
    check_read(config, keys_of(overrides))
    return config
