"""The config that a run directory holds: read as plain data, for it may be a stranger's."""

import os
from dataclasses import replace
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf

from gcnn.base.errors import UsageError, one_line
from gcnn.base.files import refuse_links_out
from gcnn.base.text_files import check_no_pointer_at
from gcnn.config.compose import typed
from gcnn.config.schema import TrainConfig


def load_config(run_dir: str | Path) -> TrainConfig:
    """The config stored in a run directory, which may be a stranger's: it is read as plain data. Raises UsageError
    where there is none, or none of this project, and where a link in the folder leads out of it."""
    path = Path(run_dir) / "config.yaml"
    if os.path.lexists(path):  # else it is no run, and may be a folder of any size
        refuse_links_out(Path(run_dir))
    try:
        check_no_pointer_at(path)
        text = path.read_text(encoding="utf-8")
        reject_unsafe_yaml(text)
        config = typed(migrated(OmegaConf.create(text)))
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
    config.data.cache_dir = None
    for name, file in (("vocabulary", "vocabulary.txt"), ("model", "sentencepiece.model")):
        given, own = (
            getattr(config.tokenizer, name, None),
            Path(run_dir).absolute() / "tokenizer" / file,
        )
        if (
            given is not None and not Path(given).exists() and own.exists()
        ):  # the run has its own copy
            setattr(config.tokenizer, name, str(own))
    return config


def migrated(config: DictConfig) -> DictConfig:
    """A stored config in today's keys, meaning what it meant when it was stored; changes `config` itself."""
    trainer, model = config.get("trainer", {}), config.get("model", {})
    if "accumulate" in trainer:  # trainer.batch_size was what is now trainer.micro_batch_size
        trainer.micro_batch_size = trainer.batch_size
        trainer.batch_size *= trainer.pop("accumulate")
    trainer.pop("shard", None)  # parameters were shared out over processes, which changed no result
    if (
        "kind" in model and "softmax_dropout" not in model
    ):  # model.dropout was within the clusters, too
        has_clusters = bool(model.get("cutoffs")) and not model.get("tie_embeddings")
        model.softmax_dropout = model.get("dropout", 0.0) if has_clusters else 0.0
        if model.get("cutoffs") or model.get(
            "tie_embeddings"
        ):  # it was read of a full softmax alone
            model.projection_dim = None
    return config


def reject_unsafe_yaml(text: str) -> None:
    """Raise UsageError for YAML that no stored config has: an interpolation would tell our environment to whoever reads
    a report, aliases can grow without bound, and deep nesting takes time with its square."""
    depth = 0
    for event in yaml.parse(text):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
            event, yaml.CollectionEndEvent
        )
        if "${" in text or isinstance(event, yaml.AliasEvent) or depth > 10:
            raise UsageError(
                "it has an interpolation, an alias or deep nesting, which a stored config never has."
            )


def save_config(config: TrainConfig, path: Path) -> None:
    config = replace(config, data=replace(config.data, cache_dir=None))
    path.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)), encoding="utf-8")
