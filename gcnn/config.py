"""The typed schema of every config group; the meaning and the range of a value stand beside its field.

Hydra composes the YAML files of configs/ against these dataclasses, so that a wrong key or type fails before any
data is read. The rest of the code receives the dataclass instances, never dictionaries.
"""

import glob
import operator
import os
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from gcnn.checks import (
    BETAS,
    COUNT,
    CUTOFFS,
    FRACTION,
    PATH,
    POSITIVE,
    RESUME,
    SEED,
    THREADS,
    UNSIGNED,
    between,
    check,
    check_no_pointer_at,
    check_plain,
    check_read,
    choice,
    key,
    keys_of,
    one_of,
)
from gcnn.errors import UsageError, one_line
from gcnn.files import refuse_links_out, user_path
from gcnn.gates import GATES

CONFIGS = next(path for path in (Path(__file__).resolve().parents[i] / "configs" for i in (0, 1)) if path.is_dir())


@dataclass
class DataConfig:
    """A corpus with the splits train, valid and test.

    source: shakespeare (the embedded default), wikitext (the Hub's `Salesforce/wikitext`, or its files in `path`),
    local (one's own files), billion_word (the published folder of shards).
    """

    name: str = key(MISSING, "in tables")
    source: str = choice(MISSING, "shakespeare", "wikitext", "local", "billion_word")
    path: str | None = key(None, "the folder of the corpus's files", PATH)
    hub_config: str | None = key(None, "the Hub's name of a WikiText variant")
    files: dict[str, list[str]] = key(
        {"train": [], "valid": [], "test": []}, "local: split -> files or globs of any kind, instead of `path`"
    )
    column: str = key("text", "the text's, in JSON lines and Parquet")
    train_tokens: int | None = key(None, "the training split's first lines, of so many words and ends of line", COUNT)
    sentences: bool = key(False, "each line is scored alone, as on Billion Word; otherwise running text")
    cache_dir: str | None = key(None, "default: $GCNN_CACHE, or ~/.cache/gcnn; no part of a stored config", PATH)


@dataclass
class WordTokenizerConfig:
    """White-space words, types sorted by frequency; rarer or surplus types become <unk>."""

    kind: str = "word"
    min_count: int = key(1, "rarer words become <unk>", COUNT)
    max_size: int | None = key(None, "types, <unk> and <eos> included", COUNT)
    vocabulary: str | None = key(None, "a file with a word a line: the types are these, <unk> and <eos>", PATH)


@dataclass
class SentencePieceConfig:
    """SentencePiece, trained on the training split; ids re-ranked by frequency."""

    kind: str = "sentencepiece"
    model_type: str = choice("bpe", "bpe", "unigram")
    vocabulary_size: int | None = key(None, "pieces; null: 8,000, or as many as a smaller text gives", COUNT)
    model: str | None = key(
        None, "a sentencepiece.model that exists already: none is trained, and its size counts", PATH
    )


@dataclass
class BlockConfig:
    """A residual block of Table 1: gated convolutions `[kernel_size, out_channels]`, repeated."""

    convs: list[list[int]] = MISSING
    repeat: int = 1
    residual: bool = True


@dataclass
class GCNNConfig:
    kind: str = "gcnn"
    embedding_dim: int = key(MISSING, "the lookup table's vectors", COUNT)
    blocks: list[BlockConfig] = key(MISSING, "[{convs: [[kernel_size, out_channels], ...], repeat: r}, ...]")
    cutoffs: list[int] = key(MISSING, "adaptive softmax; empty: a full softmax", CUTOFFS)
    gate: str = choice("glu", *GATES)
    tie_embeddings: bool = key(False, "the softmax's vectors are the embeddings; not in the paper")
    projection_dim: int | None = key(None, "full softmax: a narrower linear layer before it", COUNT)
    weight_norm: bool = key(True, "of convolutions and projections")
    dropout: float = key(0.0, "on the embedding and before every convolution", FRACTION)
    embedding_dropout: float | None = key(None, "on the embedding instead", FRACTION)
    output_dropout: float = key(0.0, "before the softmax", FRACTION)
    softmax_dropout: float = key(0.0, "within the adaptive softmax's clusters", FRACTION)


@dataclass
class LSTMConfig:
    kind: str = "lstm"
    embedding_dim: int = key(MISSING, "the lookup table's vectors", COUNT)
    hidden_dim: int = key(MISSING, "units of a layer", COUNT)
    num_layers: int = key(1, "layers", COUNT)
    cutoffs: list[int] = key(MISSING, "adaptive softmax; empty: a full softmax", CUTOFFS)
    tie_embeddings: bool = key(False, "the softmax's vectors are the embeddings")
    projection_dim: int | None = key(None, "channels of a linear layer between the units and the softmax", COUNT)
    dropout: float = key(0.0, "on the embedding and between layers", FRACTION)
    output_dropout: float = key(0.0, "before the softmax", FRACTION)
    softmax_dropout: float = key(0.0, "within the adaptive softmax's clusters", FRACTION)


@dataclass
class TransformerConfig:
    """Not in the paper: attention over a sliding window, to compare with."""

    kind: str = "transformer"
    embedding_dim: int = key(MISSING, "the lookup table's vectors", COUNT)
    hidden_dim: int = key(MISSING, "channels of a layer", COUNT)
    num_layers: int = key(MISSING, "layers, each of attention and feed-forward", COUNT)
    num_heads: int = key(MISSING, "of attention; twice as many divide hidden_dim", COUNT)
    feed_forward_dim: int = key(MISSING, "channels within the feed-forward layer", COUNT)
    window: int = key(MISSING, "tokens that a token attends to, itself among them", COUNT)
    cutoffs: list[int] = key(MISSING, "adaptive softmax; empty: a full softmax", CUTOFFS)
    gate: str = choice("swiglu", *GATES)
    tie_embeddings: bool = key(False, "the softmax's vectors are the embeddings")
    dropout: float = key(0.0, "on the embedding and on what each layer adds", FRACTION)
    output_dropout: float = key(0.0, "before the softmax", FRACTION)
    softmax_dropout: float = key(0.0, "within the adaptive softmax's clusters", FRACTION)


@dataclass
class NesterovConfig:
    """The paper's optimizer; weight decay is decoupled, as in fairseq's `nag`."""

    kind: str = "nesterov"
    lr: float = key(1.0, "learning rate, before the schedule", POSITIVE)
    momentum: float = key(0.99, "part of the velocity that a step keeps", FRACTION)
    weight_decay: float = key(0.0, "a step takes lr * weight_decay of each weight", UNSIGNED)


@dataclass
class AdamWConfig:
    kind: str = "adamw"
    lr: float = key(2e-3, "learning rate, before the schedule", POSITIVE)
    betas: list[float] = key([0.9, 0.99], "decay of the averages of gradients and squares", BETAS)
    weight_decay: float = key(0.01, "a step takes lr * weight_decay of each weight", UNSIGNED)


@dataclass
class ConstantScheduleConfig:
    kind: str = "constant"
    warmup_steps: int = key(0, "the learning rate grows linearly over them", UNSIGNED)


@dataclass
class PlateauScheduleConfig:
    """Multiply the learning rate by `factor` whenever validation has not improved for more than `patience` checks."""

    kind: str = "plateau"
    factor: float = key(0.5, "on the learning rate", FRACTION)
    patience: int = key(0, "validations without a better perplexity that are waited for", UNSIGNED)
    min_lr: float = key(0.0, "the learning rate never falls below it", UNSIGNED)
    warmup_steps: int = key(0, "the learning rate grows linearly over them", UNSIGNED)


@dataclass
class CosineScheduleConfig:
    """Linear warm-up, then a half cosine down to `final_fraction` of the learning rate at the end of the run."""

    kind: str = "cosine"
    warmup_steps: int = key(300, "the learning rate grows linearly over them", UNSIGNED)
    final_fraction: float = key(0.0, "of the learning rate, at the end", FRACTION)


@dataclass
class TrainerConfig:
    batch_size: int = key(8, "sequences of an update, over all processes", COUNT)
    micro_batch_size: int | None = key(None, "sequences that a process computes at once; null: its whole share", COUNT)
    block_size: int = key(256, "tokens a sequence", COUNT)
    max_steps: int | None = key(None, "updates; of the four bounds, the first that is reached ends the run", COUNT)
    max_epochs: int | None = key(None, "passes over the training split", COUNT)
    max_minutes: float | None = key(None, "of training; validation is not counted", POSITIVE)
    max_flops: float | None = key(None, "of training: three times the forward pass's", POSITIVE)
    validate_every: int = key(1000, "steps", COUNT)
    patience: int | None = key(None, "validations in a row without a better perplexity that end the run", COUNT)
    checkpoint_every: int | None = key(1000, "steps; null: by minutes alone", COUNT)
    checkpoint_minutes: float | None = key(None, "a checkpoint at least this often, besides", POSITIVE)
    keep_checkpoints: int = key(2, "the newest", COUNT)
    log_every: int = key(50, "steps", COUNT)
    clip_norm: float | None = key(0.1, "of the gradient, all parameters together; null: none", POSITIVE)
    carry_state: bool | None = key(
        None, "blocks in the text's order, the state carried on; else shuffled; null: carried for an LSTM"
    )
    precision: str = choice("float32", "float32", "bf16")
    compile: bool = key(False, "torch.compile the model")
    skip_nonfinite: int = key(0, "updates that may be skipped for a loss or gradient that is not finite", UNSIGNED)


@dataclass
class LoggerConfig:
    kind: str = choice("none", "none", "wandb", "tensorboard")
    project: str | None = key(None, "of Weights & Biases; null: $WANDB_PROJECT, or gcnn")
    mode: str | None = key(None, "offline | online; null: $WANDB_MODE, or offline", one_of("offline", "online"))


@dataclass
class TrainConfig:
    """All of a training run; a run directory holds it, resolved, as config.yaml."""

    experiment: str = key("custom", "its name, a folder of runs/")
    run_dir: str | None = key(None, "default: runs/<experiment>/<time>", PATH)
    seed: int = key(1, "of weights, order and dropout", SEED)
    device: str = choice("auto", "auto", "cpu", "cuda")
    threads: int | None = key(None, "CPU threads; default: all cores", between(1, THREADS))
    init_from: str | None = key(None, "a run: its weights and tokenizer are what this one begins with", PATH)
    resume: Any = key(False, "false | true (the newest intact checkpoint) | a checkpoint's path", RESUME)
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: Any = MISSING
    model: Any = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


SCHEMAS = {
    "tokenizer": {"word": WordTokenizerConfig, "sentencepiece": SentencePieceConfig},
    "model": {"gcnn": GCNNConfig, "lstm": LSTMConfig, "transformer": TransformerConfig},
    "optimizer": {"nesterov": NesterovConfig, "adamw": AdamWConfig},
    "schedule": {"constant": ConstantScheduleConfig, "plateau": PlateauScheduleConfig, "cosine": CosineScheduleConfig},
}


@cache
def register_schemas() -> None:
    """Give Hydra the schemas, once: `train_schema`, and `<group>/schema_<kind>` for groups with a choice of kinds."""
    OmegaConf.register_new_resolver("not", operator.not_, replace=True)  # what an experiment derives from a choice
    OmegaConf.register_new_resolver("plus", operator.add, replace=True)  # the number of a search's member
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(group="data", name="schema", node=DataConfig)
    store.store(group="logger", name="schema", node=LoggerConfig)
    for group, kinds in SCHEMAS.items():
        for kind, schema in kinds.items():
            store.store(group=group, name=f"schema_{kind}", node=schema)


def typed(config: DictConfig) -> TrainConfig:
    """The dataclass instances of a composed or stored config. Raises UsageError, or OmegaConf's own error, for an
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
        result.trainer.carry_state = result.model.kind == "lstm" and not result.data.sentences
    check(result)
    make_absolute(result)
    return result


def make_absolute(config: TrainConfig) -> None:
    """Let the paths of a config's inputs hold in any folder, as a stored config needs."""
    words = config.tokenizer
    for owner, name in ((config, "init_from"), (config.data, "path"), (words, "vocabulary"), (words, "model")):
        if getattr(owner, name, None) is not None:
            setattr(owner, name, str(user_path(getattr(owner, name), "its files; give the path").absolute()))
    for patterns in config.data.files.values():
        for i, pattern in enumerate(patterns):
            path = user_path(pattern, "its files; give the path")
            here = Path.cwd() if path.exists() else glob.escape(str(Path.cwd()))
            patterns[i] = str(Path(here, path))


def compose_config(*overrides: str, config_dir: Path | None = None) -> TrainConfig:
    """The config that a training command with these overrides, and --config-dir, would have. Raises UsageError, Hydra's
    or OmegaConf's own error for an override that does not fit."""
    from gcnn.overrides import prepare, quoted  # late: it lists this file's schemas

    register_schemas()
    own = [] if config_dir is None else [f"hydra.searchpath=[{quoted(f'file://{config_dir}')}]"]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = typed(compose("train", overrides=[*prepare(list(overrides)), *own]))
    check_read(config, keys_of(overrides))
    return config


def load_config(run_dir: str | Path) -> TrainConfig:
    """The config stored in a run directory, which may be a stranger's: it is read as plain data. Raises UsageError
    where there is none, or none of this project, and where a link in the folder leads out of it."""
    path = Path(run_dir) / "config.yaml"
    if os.path.lexists(path):  # else it is no run, and may be a folder of any size
        refuse_links_out(Path(run_dir))
    try:
        check_no_pointer_at(path)
        text = path.read_text(encoding="utf-8")
        check_plain(text)
        config = typed(migrated(OmegaConf.create(text)))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{run_dir} is not a run directory: no config.yaml. Give the folder of a run.") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except Exception as error:
        raise UsageError(f"{path} is not a config of this project ({one_line(error)}). Give a run's folder.") from None
    config.data.cache_dir = None
    for name, file in (("vocabulary", "vocabulary.txt"), ("model", "sentencepiece.model")):
        given, own = getattr(config.tokenizer, name, None), Path(run_dir).absolute() / "tokenizer" / file
        if given is not None and not Path(given).exists() and own.exists():  # the run has its own copy
            setattr(config.tokenizer, name, str(own))
    return config


def migrated(config: DictConfig) -> DictConfig:
    """A stored config in today's keys, meaning what it meant when it was stored; changes `config` itself."""
    trainer, model = config.get("trainer", {}), config.get("model", {})
    if "accumulate" in trainer:  # trainer.batch_size was what is now trainer.micro_batch_size
        trainer.micro_batch_size = trainer.batch_size
        trainer.batch_size *= trainer.pop("accumulate")
    trainer.pop("shard", None)  # parameters were shared out over processes, which changed no result
    if "kind" in model and "softmax_dropout" not in model:  # model.dropout was within the clusters, too
        has_clusters = bool(model.get("cutoffs")) and not model.get("tie_embeddings")
        model.softmax_dropout = model.get("dropout", 0.0) if has_clusters else 0.0
        if model.get("cutoffs") or model.get("tie_embeddings"):  # it was read of a full softmax alone
            model.projection_dim = None
    return config


def save_config(config: TrainConfig, path: Path) -> None:
    config = replace(config, data=replace(config.data, cache_dir=None))
    path.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)), encoding="utf-8")
