"""The config.yaml of a run directory: reading, updating old keys, and writing.

A run may come from a stranger, so its config is read as plain data: nothing in it is evaluated.
"""

import logging
import os
from dataclasses import replace
from pathlib import Path

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf

from gcnn.base.errors import UsageError, one_line
from gcnn.base.files import refuse_links_out
from gcnn.base.text_files import check_no_pointer_at
from gcnn.config.compose import typed
from gcnn.config.schema import TrainConfig

log = logging.getLogger(__name__)


def load_config(run_dir: str | Path) -> TrainConfig:
    """The config stored in a run directory, checked, with the keys of older versions updated.

    data.cache_dir is None. run_dir is as stored, even if the run was moved since. A vocabulary or
    SentencePiece model that is no longer at its path is replaced by the run's own copy, if it has
    one. Other inputs need not exist. Logs a warning as `migrated` does.
    Raises UsageError if there is no config, if it is damaged, invalid or not one of this project,
    and if a symbolic link in the folder points outside of it.
    """
    path = Path(run_dir) / "config.yaml"
    if os.path.lexists(path):  # otherwise it is not a run, and may be a folder of any size
        refuse_links_out(Path(run_dir))

    # Read the file as plain data and check it.
    try:
        check_no_pointer_at(path)
        text = path.read_text(encoding="utf-8")
        reject_unsafe_yaml(text)
        config = checked_config(OmegaConf.create(text))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{run_dir} is not a run directory: no config.yaml. Give the folder of a run."
        ) from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except Exception as error:
        raise UsageError(
            f"{path} is not a config of this project ({one_line(error)}). Give a run's folder."
        ) from None

    # Replace what only held on the machine that wrote it.
    config.data.cache_dir = None
    for name, file in (("vocabulary", "vocabulary.txt"), ("model", "sentencepiece.model")):
        given = getattr(config.tokenizer, name, None)
        copy = Path(run_dir).absolute() / "tokenizer" / file
        if given is not None and not Path(given).exists() and copy.exists():
            setattr(config.tokenizer, name, str(copy))
    return config


def checked_config(config: DictConfig | ListConfig) -> TrainConfig:
    """A stored config of this or an older version as one of this version, checked.

    config: as read from config.yaml, open to new keys; its old keys are updated in place, and a
    warning logged as by `migrated`.
    Raises UsageError if it is not a config of this project, or has an interpolation `${...}`, which
    could put our environment variables into a report.
    """
    if not isinstance(config, DictConfig):
        raise UsageError("it is a list, not a config of this project. Give a run's folder.")
    # Of the values, since a file can write the characters as escapes. None is resolved here.
    if "${" in str(OmegaConf.to_container(config)):
        raise UsageError("it has an interpolation, which a stored config never has.")
    try:
        return typed(migrated(config))
    except (AttributeError, TypeError) as error:  # a group of keys that is null, a number or a text
        raise UsageError(f"it is not a config of this project ({one_line(error)}).") from None


def migrated(config: DictConfig) -> DictConfig:
    """Update the keys of a config from an older version, in place, without a change of meaning.

    config: as read from config.yaml, without a struct flag, so that keys can be added; one of this
    version stays as it is. Returns `config` itself, which is not checked here: raises
    AttributeError or TypeError if `trainer` or `model` is not a dictionary. Logs a warning if a
    model.projection_dim that had no effect becomes None.
    """
    for group, migrate in (("trainer", migrate_trainer), ("model", migrate_model)):
        if group in config:
            migrate(config[group])
    return config


def migrate_trainer(trainer: DictConfig) -> None:
    """Update the keys of a stored config's `trainer`, in place, as in `migrated`."""
    if "accumulate" in trainer:  # trainer.batch_size meant today's trainer.micro_batch_size
        trainer.micro_batch_size = trainer.batch_size
        trainer.batch_size *= trainer.pop("accumulate")
    trainer.pop("shard", None)  # it spread parameters over processes and changed no result


def migrate_model(model: DictConfig) -> None:
    """Update the keys of a stored config's `model`, in place, as in `migrated`.

    Only one with a kind and without softmax_dropout is of an older version.
    """
    if "kind" not in model or "softmax_dropout" in model:
        return
    has_cutoffs = bool(model.get("cutoffs"))
    is_tied = bool(model.get("tie_embeddings"))
    # model.dropout also applied within the clusters.
    has_clusters = has_cutoffs and not is_tied
    model.softmax_dropout = model.get("dropout", 0.0) if has_clusters else 0.0
    # model.projection_dim was only read for a full softmax that is not tied.
    if has_cutoffs or is_tied:
        if model.get("projection_dim") is not None:
            log.warning(
                "model.projection_dim is left out: the version that stored this config, "
                "without model.softmax_dropout, did not read it."
            )
        model.projection_dim = None


def reject_unsafe_yaml(text: str) -> None:
    """Raise UsageError for YAML that can exhaust memory or time, as a stored config never does.

    Aliases can expand to any size. The time to parse nested text grows with the square of its depth
    (10 is allowed). Raises yaml.YAMLError if the text is not YAML.
    """
    depth = 0
    for event in yaml.parse(text):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if isinstance(event, yaml.AliasEvent) or depth > 10:
            raise UsageError("it has an alias or deep nesting, which a stored config never has.")


def save_config(config: TrainConfig, path: Path) -> None:
    """Write a config as YAML to `path`, an existing file replaced, not atomically.

    The parent folder must exist. data.cache_dir is stored as null; `config` is not changed.
    """
    config = replace(config, data=replace(config.data, cache_dir=None))
    path.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)), encoding="utf-8")
