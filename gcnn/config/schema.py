"""The dataclasses of the config groups, with the meaning and the range of each value.

Hydra composes the YAML files of configs/ against them, so that a wrong key or type fails before any
data is read. The rest of the code receives instances of them, never dictionaries.
Those of the group `model` are in models.py.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from gcnn.base.values import (
    BETAS,
    COUNT,
    FRACTION,
    PATH,
    POSITIVE,
    RESUME,
    SEED,
    THREADS,
    UNSIGNED,
    between,
    choice,
    one_of,
    setting,
)
from gcnn.config.models import GCNNConfig, LSTMConfig, TransformerConfig


@dataclass
class DataConfig:
    """A corpus with the splits train, valid and test.

    source: shakespeare (the embedded default), wikitext (the Hub's `Salesforce/wikitext`, or its
    files in `path`), local (one's own files), billion_word (the published folder of shards).
    """

    name: str = setting(MISSING, "the corpus's name in tables")
    source: str = choice(MISSING, "shakespeare", "wikitext", "local", "billion_word")
    path: str | None = setting(None, "the folder of the corpus's files", PATH)
    hub_config: str | None = setting(None, "the variant of WikiText, as the Hub names it")
    files: dict[str, list[str]] = setting(
        {"train": [], "valid": [], "test": []},
        "local: split -> files or globs of any kind, instead of `path`",
    )
    column: str = setting("text", "the column with the text, in JSON lines and Parquet")
    train_tokens: int | None = setting(
        None, "train only on the first lines, up to so many words and line ends", COUNT
    )
    sentences: bool = setting(
        False, "each line is a text of its own, as in Billion Word; otherwise running text"
    )
    cache_dir: str | None = setting(
        None, "default: $GCNN_CACHE, or ~/.cache/gcnn; no part of a stored config", PATH
    )


@dataclass
class WordTokenizerConfig:
    """White-space words, types sorted by frequency; rarer or surplus types become <unk>."""

    kind: str = "word"
    min_count: int = setting(1, "rarer words become <unk>", COUNT)
    max_size: int | None = setting(
        None, "most types in the vocabulary, <unk> and <eos> included", COUNT
    )
    vocabulary: str | None = setting(
        None, "a file with one word per line: the vocabulary is these, <unk> and <eos>", PATH
    )


@dataclass
class SentencePieceConfig:
    """SentencePiece, trained on the training split; ids re-ranked by frequency."""

    kind: str = "sentencepiece"
    model_type: str = choice("bpe", "bpe", "unigram")
    vocabulary_size: int | None = setting(
        None, "pieces; null: 8,000, or as many as a smaller text gives", COUNT
    )
    model: str | None = setting(
        None,
        "an existing sentencepiece.model, used with its own size instead of training one",
        PATH,
    )


@dataclass
class NesterovConfig:
    """The paper's optimizer; weight decay is decoupled, as in fairseq's `nag`."""

    kind: str = "nesterov"
    lr: float = setting(1.0, "learning rate, before the schedule", POSITIVE)
    momentum: float = setting(0.99, "fraction of the velocity that each step keeps", FRACTION)
    weight_decay: float = setting(
        0.0, "each step subtracts lr * weight_decay times the weight", UNSIGNED
    )


@dataclass
class AdamWConfig:
    """torch's AdamW; weight decay is decoupled, and left out for biases, gains and embeddings."""

    kind: str = "adamw"
    lr: float = setting(2e-3, "learning rate, before the schedule", POSITIVE)
    betas: list[float] = setting(
        [0.9, 0.99], "decay rates of the averages of gradients and of their squares", BETAS
    )
    weight_decay: float = setting(
        0.01,
        "each step subtracts lr * weight_decay times the weight, but for embeddings, biases and "
        "gains; where weights are normalised, it enlarges their later updates alone",
        UNSIGNED,
    )


@dataclass
class ConstantScheduleConfig:
    """The optimizer's learning rate throughout, after a linear warm-up."""

    kind: str = "constant"
    warmup_steps: int = setting(0, "steps over which the learning rate grows linearly", UNSIGNED)


@dataclass
class PlateauScheduleConfig:
    """Multiply the learning rate by `factor` when validation has stopped improving.

    That is, after more than `patience` validations in a row without a new best perplexity.
    """

    kind: str = "plateau"
    factor: float = setting(0.5, "multiplies the learning rate", FRACTION)
    patience: int = setting(
        0, "validations without a better perplexity that are tolerated", UNSIGNED
    )
    min_lr: float = setting(0.0, "the learning rate never falls below it", UNSIGNED)
    warmup_steps: int = setting(0, "steps over which the learning rate grows linearly", UNSIGNED)


@dataclass
class CosineScheduleConfig:
    """Linear warm-up, then a half cosine to `final_fraction` of the rate at the end of the run."""

    kind: str = "cosine"
    warmup_steps: int = setting(300, "steps over which the learning rate grows linearly", UNSIGNED)
    final_fraction: float = setting(
        0.0, "of the learning rate, reached at the end of the run", FRACTION
    )


@dataclass
class TrainerConfig:
    """The training loop: batches, bounds, validation, checkpoints, clipping and precision."""

    batch_size: int = setting(8, "sequences per update, over all processes", COUNT)
    micro_batch_size: int | None = setting(
        None, "sequences that a process computes at once; null: its whole share", COUNT
    )
    block_size: int = setting(256, "tokens per sequence", COUNT)
    max_steps: int | None = setting(
        None, "updates; of the four bounds, the first that is reached ends the run", COUNT
    )
    max_epochs: int | None = setting(None, "passes over the training split", COUNT)
    max_minutes: float | None = setting(None, "minutes of training, without validation", POSITIVE)
    max_flops: float | None = setting(
        None, "operations of training, three times those of the forward passes", POSITIVE
    )
    validate_every: int = setting(1000, "steps between validations", COUNT)
    patience: int | None = setting(
        None, "end the run after so many validations without a better perplexity", COUNT
    )
    checkpoint_every: int | None = setting(
        1000, "steps between checkpoints; null: by minutes alone", COUNT
    )
    checkpoint_minutes: float | None = setting(
        None, "another checkpoint after so many minutes without one", POSITIVE
    )
    keep_checkpoints: int = setting(2, "how many checkpoints are kept, the newest ones", COUNT)
    log_every: int = setting(50, "steps between log lines", COUNT)
    clip_norm: float | None = setting(
        0.1, "largest norm of the gradient of all parameters; null: no clipping", POSITIVE
    )
    carry_state: bool | None = setting(
        None,
        "read blocks in the text's order and carry the state; false: shuffled; null: true for LSTM "
        "and other recurrent models",
    )
    precision: str = choice("float32", "float32", "bf16")
    compile: bool = setting(False, "torch.compile the model")
    skip_nonfinite: int = setting(
        0, "updates that may be skipped for a loss or gradient that is not finite", UNSIGNED
    )


@dataclass
class LoggerConfig:
    """Where metrics go besides metrics.jsonl; project and mode are for Weights & Biases."""

    kind: str = choice("none", "none", "wandb", "tensorboard")
    project: str | None = setting(
        None, "the project of Weights & Biases; null: $WANDB_PROJECT, or gcnn"
    )
    mode: str | None = setting(
        None, "offline | online; null: $WANDB_MODE, or offline", one_of("offline", "online")
    )


@dataclass
class TrainConfig:
    """Everything that a training run depends on; stored in its directory as config.yaml."""

    experiment: str = setting("custom", "its name, and its folder below runs/")
    run_dir: str | None = setting(None, "default: runs/<experiment>/<time>", PATH)
    seed: int = setting(1, "of weights, data order and dropout", SEED)
    device: str = choice("auto", "auto", "cpu", "cuda")
    threads: int | None = setting(None, "CPU threads; default: all cores", between(1, THREADS))
    init_from: str | None = setting(
        None,
        "a run (latest, hf://user/name) whose weights and tokenizer this one starts with",
        PATH,
    )
    resume: Any = setting(
        False, "false | true (the newest intact checkpoint) | a checkpoint's path", RESUME
    )
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
    "schedule": {
        "constant": ConstantScheduleConfig,
        "plateau": PlateauScheduleConfig,
        "cosine": CosineScheduleConfig,
    },
}
