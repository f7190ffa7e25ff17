"""The typed schema of every config group.

Hydra composes the YAML files of configs/ against these dataclasses, so that a wrong key or type fails before any
data is read. The rest of the code receives the dataclass instances, never dictionaries.
"""

import glob
import operator
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from gcnn.checks import check
from gcnn.errors import UsageError
from gcnn.files import refuse_links_out, user_path

CONFIGS = next(path for path in (Path(__file__).resolve().parents[i] / "configs" for i in (0, 1)) if path.is_dir())


@dataclass
class DataConfig:
    """A corpus with the splits train, valid and test.

    source: shakespeare (the embedded default), wikitext (the Hub's `Salesforce/wikitext`, or its files in `path`),
    local (one's own files), billion_word (the published folder of shards).
    """

    name: str = MISSING  # in tables
    source: str = MISSING  # shakespeare | wikitext | local | billion_word
    path: str | None = None  # the folder of the corpus's files
    hub_config: str | None = None  # the Hub's name of a WikiText variant
    # local: split -> files or globs, instead of `path`; each file is read by its own kind
    files: dict[str, list[str]] = field(default_factory=lambda: {"train": [], "valid": [], "test": []})
    column: str = "text"  # the text's, in JSON lines and Parquet
    train_tokens: int | None = None  # the first lines of the training split alone, up to so many words and ends of line
    sentences: bool = False  # each line is scored alone, as on Billion Word; otherwise running text
    cache_dir: str | None = (
        None  # default: $GCNN_CACHE, or ~/.cache/gcnn; the machine's, and no part of a stored config
    )


@dataclass
class WordTokenizerConfig:
    """White-space words, types sorted by frequency; rarer or surplus types become <unk>."""

    kind: str = "word"
    min_count: int = 1  # rarer words become <unk>
    max_size: int | None = None  # types, <unk> and <eos> included
    vocabulary: str | None = None  # a file with a word a line: the types are these, <unk> and <eos>


@dataclass
class SentencePieceConfig:
    """SentencePiece, trained on the training split; ids re-ranked by frequency."""

    kind: str = "sentencepiece"
    model_type: str = "bpe"  # bpe | unigram
    vocabulary_size: int = 8000  # pieces
    model: str | None = None  # a sentencepiece.model that exists already: none is trained, and its size counts


@dataclass
class BlockConfig:
    """A residual block of Table 1: gated convolutions `[kernel_size, out_channels]`, repeated."""

    convs: list[list[int]] = MISSING
    repeat: int = 1
    residual: bool = True


@dataclass
class GCNNConfig:
    kind: str = "gcnn"
    embedding_dim: int = MISSING  # the lookup table's vectors
    blocks: list[BlockConfig] = MISSING  # [{convs: [[kernel_size, out_channels], ...], repeat: r}, ...]
    cutoffs: list[int] = MISSING  # adaptive softmax; empty: a full softmax
    gate: str = "glu"  # glu | gtu | bilinear | linear | relu | tanh
    tie_embeddings: bool = False  # the softmax's vectors are the embeddings; not in the paper
    projection_dim: int | None = None  # full softmax: a narrower linear layer before it
    weight_norm: bool = True  # of convolutions and projections
    dropout: float = 0.0  # on the embedding, before every convolution, within the softmax's clusters
    embedding_dropout: float | None = None  # on the embedding instead
    output_dropout: float = 0.0  # before the softmax


@dataclass
class LSTMConfig:
    kind: str = "lstm"
    embedding_dim: int = MISSING  # the lookup table's vectors
    hidden_dim: int = MISSING  # units of a layer
    num_layers: int = 1
    cutoffs: list[int] = MISSING  # adaptive softmax; empty: a full softmax
    tie_embeddings: bool = False  # the softmax's vectors are the embeddings
    projection_dim: int | None = None  # full softmax: a narrower linear layer before it
    dropout: float = 0.0  # on the embedding, between layers, within the softmax's clusters
    output_dropout: float = 0.0  # before the softmax


@dataclass
class NesterovConfig:
    """The paper's optimizer; weight decay is decoupled, as in fairseq's `nag`."""

    kind: str = "nesterov"
    lr: float = 1.0  # learning rate, before the schedule
    momentum: float = 0.99
    weight_decay: float = 0.0  # a step takes lr * weight_decay of each weight


@dataclass
class AdamWConfig:
    kind: str = "adamw"
    lr: float = 2e-3  # learning rate, before the schedule
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])  # decay of the averages of gradients and squares
    weight_decay: float = 0.01  # a step takes lr * weight_decay of each weight


@dataclass
class ConstantScheduleConfig:
    kind: str = "constant"
    warmup_steps: int = 0  # the learning rate grows linearly over them


@dataclass
class PlateauScheduleConfig:
    """Multiply the learning rate by `factor` whenever validation has not improved for more than `patience` checks."""

    kind: str = "plateau"
    factor: float = 0.5  # on the learning rate
    patience: int = 0  # validations without a better perplexity that are waited for
    warmup_steps: int = 0  # the learning rate grows linearly over them


@dataclass
class CosineScheduleConfig:
    """Linear warm-up, then a half cosine down to `final_fraction` of the learning rate at the end of the run."""

    kind: str = "cosine"
    warmup_steps: int = 300  # the learning rate grows linearly over them
    final_fraction: float = 0.0  # of the learning rate, at the end


@dataclass
class TrainerConfig:
    batch_size: int = 8  # sequences of an update, over all processes
    micro_batch_size: int | None = None  # sequences that a process computes at once; null: its whole share
    block_size: int = 256  # tokens a sequence
    max_steps: int | None = None  # updates; of the four bounds, the first that is reached ends the run
    max_epochs: int | None = None  # passes over the training split
    max_minutes: float | None = None  # of training; validation is not counted
    max_flops: float | None = None  # of training: three times the forward pass's
    validate_every: int = 1000  # steps
    checkpoint_every: int = 1000  # steps
    checkpoint_minutes: float | None = None  # a checkpoint at least this often, besides
    keep_checkpoints: int = 2  # the newest
    log_every: int = 50  # steps
    clip_norm: float | None = 0.1  # of the gradient, all parameters together; null: none
    carry_state: bool = False  # blocks in the text's order, each with the state of the one before; else shuffled
    precision: str = "float32"  # float32 | bf16
    compile: bool = False  # torch.compile the model
    shard: bool = False  # parameters and optimizer state over the processes of torchrun, not a copy in each
    skip_nonfinite: int = 0  # updates that may be skipped for a loss or gradient that is not finite


@dataclass
class LoggerConfig:
    kind: str = "none"  # none | wandb
    project: str = "gcnn"  # of Weights & Biases
    mode: str = "offline"  # offline | online


@dataclass
class TrainConfig:
    """All of a training run; a run directory holds it, resolved, as config.yaml."""

    experiment: str = "custom"  # its name, a folder of runs/
    run_dir: str | None = None  # default: runs/<experiment>/<time>
    seed: int = 1  # of weights, order and dropout
    device: str = "auto"  # auto | cpu | cuda
    threads: int | None = None  # CPU threads; default: all cores
    resume: Any = False  # false | true (the newest intact checkpoint) | a checkpoint's path
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: Any = MISSING
    model: Any = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


SCHEMAS = {
    "tokenizer": {"word": WordTokenizerConfig, "sentencepiece": SentencePieceConfig},
    "model": {"gcnn": GCNNConfig, "lstm": LSTMConfig},
    "optimizer": {"nesterov": NesterovConfig, "adamw": AdamWConfig},
    "schedule": {
        "constant": ConstantScheduleConfig,
        "plateau": PlateauScheduleConfig,
        "cosine": CosineScheduleConfig,
    },
}


def register_schemas() -> None:
    """Give Hydra the schemas: `schema/train`, and `<group>/schema_<kind>` for the groups with a choice of kinds."""
    OmegaConf.register_new_resolver("not", operator.not_, replace=True)  # what an experiment derives from a choice
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(group="data", name="schema", node=DataConfig)
    store.store(group="logger", name="schema", node=LoggerConfig)
    for group, kinds in SCHEMAS.items():
        for kind, schema in kinds.items():
            store.store(group=group, name=f"schema_{kind}", node=schema)


def typed(config: DictConfig) -> TrainConfig:
    """The dataclass instances of a composed or stored config, every value checked.

    Raises UsageError, or OmegaConf's own error, for an unknown key, a missing value, a wrong type or range.
    """
    config = OmegaConf.create(OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    for group, kinds in SCHEMAS.items():
        kind = OmegaConf.select(config, f"{group}.kind")
        if kind not in kinds:
            raise UsageError(f"{group}.kind is {kind!r}; choose one of: {', '.join(kinds)}.")
        config[group] = OmegaConf.merge(OmegaConf.structured(kinds[kind]), config[group])
    result = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TrainConfig), config))
    check(result)
    make_absolute(result)
    return result


def make_absolute(config: TrainConfig) -> None:
    """Let the paths of a config's inputs hold in any folder, as a stored config needs."""
    for owner, name in ((config.data, "path"), (config.tokenizer, "vocabulary"), (config.tokenizer, "model")):
        if getattr(owner, name, None) is not None:
            setattr(owner, name, str(user_path(getattr(owner, name), "its files; give the path").absolute()))
    for patterns in config.data.files.values():
        for i, pattern in enumerate(patterns):
            path = user_path(pattern, "its files; give the path")
            here = Path.cwd() if path.exists() else glob.escape(str(Path.cwd()))
            patterns[i] = str(Path(here, path))


def compose_config(*overrides: str) -> TrainConfig:
    """The config that a training command with these overrides would have.

    Raises UsageError, Hydra's or OmegaConf's own error for one that does not fit.
    """
    from gcnn.overrides import prepare  # late: it lists this file's schemas

    register_schemas()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return typed(compose("train", overrides=prepare(list(overrides))))


def load_config(run_dir: str | Path) -> TrainConfig:
    """The config stored in a run directory, which may be a stranger's: it is read as plain data.

    Raises UsageError where there is none, where it is not a config of this project, and where a link in the folder
    leads out of it.
    """
    path = Path(run_dir) / "config.yaml"
    if os.path.lexists(path):  # else it is no run, and may be a folder of any size
        refuse_links_out(Path(run_dir))
    try:
        text = path.read_text(encoding="utf-8")
        check_plain(text)
        config = typed(renamed(OmegaConf.create(text)))
    except FileNotFoundError:
        raise UsageError(
            f"{run_dir} is not a run directory: it has no config.yaml. Give the folder of a run."
        ) from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} is not a config of this project ({reason}). Give the folder of a run.") from None
    config.data.cache_dir = None
    for name, file in (("vocabulary", "vocabulary.txt"), ("model", "sentencepiece.model")):
        given, own = getattr(config.tokenizer, name, None), Path(run_dir).absolute() / "tokenizer" / file
        if given is not None and not Path(given).exists() and own.exists():  # the run has its own copy
            setattr(config.tokenizer, name, str(own))
    return config


def renamed(config: DictConfig) -> DictConfig:
    """A config that was stored when `trainer.batch_size` was what is now `trainer.micro_batch_size`."""
    trainer = config.get("trainer", {})
    if "accumulate" in trainer:
        trainer.micro_batch_size = trainer.batch_size
        trainer.batch_size *= trainer.pop("accumulate")
    return config


def check_plain(text: str) -> None:
    """Raise UsageError for YAML that no stored config has: an interpolation would tell our environment to whoever reads
    a report, aliases can grow without bound, and deep nesting takes time with its square."""
    depth = 0
    for event in yaml.parse(text):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if "${" in text or isinstance(event, yaml.AliasEvent) or depth > 10:
            raise UsageError("it has an interpolation, an alias or deep nesting, which a stored config never has.")


def save_config(config: TrainConfig, path: Path) -> None:
    config = replace(config, data=replace(config.data, cache_dir=None))
    path.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)), encoding="utf-8")
