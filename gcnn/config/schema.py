"""The dataclasses of all config groups, with the meaning and the range of each value.

Hydra composes the YAML files of configs/ against them, so that a wrong key or type fails before any
data is read. The rest of the code receives instances of them, never dictionaries.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from gcnn.base.gates import GATES
from gcnn.base.values import (
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
    choice,
    one_of,
    setting,
)


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
class BlockConfig:
    """A residual block of Table 1: gated convolutions `[kernel_size, out_channels]`, repeated."""

    convs: list[list[int]] = MISSING
    repeat: int = 1
    residual: bool = True

    def weights(self, in_channels: int) -> int:
        """The weights of one repeat of the block, for one of a gate's paths, without biases.

        in_channels: of the block's input.
        """
        count = 0
        for kernel_size, out_channels in self.convs:
            count += kernel_size * in_channels * out_channels
            in_channels = out_channels
        return count

    def notation(self) -> str:
        """The block as Table 1 writes it: [4, 256] × 6, or {[1, 64], [5, 64], [1, 128]} × 3."""
        text = ", ".join(map(str, self.convs))
        if len(self.convs) > 1:
            text = f"{{{text}}}"
        if self.repeat > 1:
            text = f"{text} × {self.repeat}"
        return text


@dataclass
class GCNNConfig:
    """The paper's model: residual blocks of gated convolutions (section 2, Table 1)."""

    kind: str = "gcnn"
    embedding_dim: int = setting(MISSING, "size of a word embedding", COUNT)
    blocks: list[BlockConfig] = setting(
        MISSING, "[{convs: [[kernel_size, out_channels], ...], repeat: r}, ...]"
    )
    cutoffs: list[int] = setting(
        MISSING, "adaptive softmax: where its clusters begin; empty: full softmax", CUTOFFS
    )
    gate: str = choice("glu", *GATES)
    tie_embeddings: bool = setting(
        False, "the softmax uses the embeddings as weights; not in the paper"
    )
    projection_dim: int | None = setting(
        None, "full softmax: a narrower linear layer before it", COUNT
    )
    weight_norm: bool = setting(True, "weight normalisation of convolutions and projections")
    dropout: float = setting(0.0, "on the embedding and before every convolution", FRACTION)
    embedding_dropout: float | None = setting(
        None, "on the embedding, instead of dropout; null: the same", FRACTION
    )
    output_dropout: float = setting(0.0, "before the softmax", FRACTION)
    softmax_dropout: float = setting(0.0, "within the adaptive softmax's clusters", FRACTION)

    recurrent = False  # no token waits for the one before

    def summary(self) -> str:
        """Kind and size in a few words for tables, and the gate unless it is GLU."""
        convolutions = sum(block.repeat * len(block.convs) for block in self.blocks)
        gate = f", {self.gate}" if self.gate != "glu" else ""
        return f"GCNN, {convolutions} layers{gate}"

    def notation(self) -> str:
        """The blocks as Table 1 writes them: [kernel size, channels] × repeats; see BlockConfig."""
        return "; ".join(block.notation() for block in self.blocks)

    @property
    def receptive_field(self) -> int:
        """The number of tokens that a prediction depends on."""
        tokens = 1
        for block in self.blocks:
            for kernel_size, _ in block.convs:
                tokens += block.repeat * (kernel_size - 1)
        return tokens

    def least_size(self) -> tuple[int, int, int]:
        """A lower bound on the encoder's size, without its lookup table and a gate's second path.

        Returns the layers, the weights, and the channels of all layers' outputs together.
        """
        channels = self.blocks[0].convs[0][1]
        layers = 0
        weights = self.embedding_dim * channels
        width = channels
        for block in self.blocks:
            widths = [out_channels for _, out_channels in block.convs]
            layers += block.repeat * len(widths)
            width += block.repeat * sum(widths)
            # Only the first repeat takes the channels of the block before.
            weights += block.weights(channels) + (block.repeat - 1) * block.weights(widths[-1])
            channels = widths[-1]
        return layers, weights, width


@dataclass
class LSTMConfig:
    """The paper's baseline (section 5)."""

    kind: str = "lstm"
    embedding_dim: int = setting(MISSING, "size of a word embedding", COUNT)
    hidden_dim: int = setting(MISSING, "units per layer", COUNT)
    num_layers: int = setting(1, "number of layers", COUNT)
    cutoffs: list[int] = setting(
        MISSING, "adaptive softmax: where its clusters begin; empty: full softmax", CUTOFFS
    )
    tie_embeddings: bool = setting(False, "the softmax uses the embeddings as weights")
    projection_dim: int | None = setting(
        None, "channels of a linear layer between the units and the softmax", COUNT
    )
    dropout: float = setting(0.0, "on the embedding and between layers", FRACTION)
    output_dropout: float = setting(0.0, "before the softmax", FRACTION)
    softmax_dropout: float = setting(0.0, "within the adaptive softmax's clusters", FRACTION)

    recurrent = True  # each token waits for the one before: in training the state is carried on

    def summary(self) -> str:
        """Kind and size in a few words, for tables."""
        projection = f", projection {self.projection_dim}" if self.projection_dim else ""
        return f"LSTM, {self.num_layers} × {self.hidden_dim}{projection}"

    def notation(self) -> str:
        """The architecture as a table shows it where a GCNN has its blocks: the summary."""
        return self.summary()

    @property
    def receptive_field(self) -> None:
        """None: a prediction depends on all tokens before it."""

    def least_size(self) -> tuple[int, int, int]:
        """A lower bound on layers, weights and channels, as GCNNConfig.least_size has it."""
        inputs = self.embedding_dim + (2 * self.num_layers - 1) * self.hidden_dim
        return self.num_layers, 4 * inputs * self.hidden_dim, self.num_layers * self.hidden_dim


@dataclass
class TransformerConfig:
    """Not in the paper: attention over a sliding window, to compare with."""

    kind: str = "transformer"
    embedding_dim: int = setting(MISSING, "size of a word embedding", COUNT)
    hidden_dim: int = setting(MISSING, "channels per layer", COUNT)
    num_layers: int = setting(MISSING, "layers, each of attention and feed-forward", COUNT)
    num_heads: int = setting(
        MISSING, "attention heads; hidden_dim is a multiple of twice as many", COUNT
    )
    feed_forward_dim: int = setting(MISSING, "channels within the feed-forward layer", COUNT)
    window: int = setting(MISSING, "tokens that a token attends to, itself included", COUNT)
    cutoffs: list[int] = setting(
        MISSING, "adaptive softmax: where its clusters begin; empty: full softmax", CUTOFFS
    )
    gate: str = choice("swiglu", *GATES)
    tie_embeddings: bool = setting(False, "the softmax uses the embeddings as weights")
    dropout: float = setting(0.0, "on the embedding and on what each layer adds", FRACTION)
    output_dropout: float = setting(0.0, "before the softmax", FRACTION)
    softmax_dropout: float = setting(0.0, "within the adaptive softmax's clusters", FRACTION)

    recurrent = False

    def summary(self) -> str:
        """Kind and size in a few words, for tables."""
        gate = f", {self.gate}" if self.gate != "swiglu" else ""
        return f"Transformer, {self.num_layers} × {self.hidden_dim}, window {self.window}{gate}"

    def notation(self) -> str:
        """The architecture as a table shows it where a GCNN has its blocks: the summary."""
        return self.summary()

    @property
    def receptive_field(self) -> int:
        """The number of tokens that a prediction depends on."""
        return 1 + self.num_layers * (self.window - 1)

    def least_size(self) -> tuple[int, int, int]:
        """A lower bound on layers, weights and channels, as GCNNConfig.least_size has it."""
        weights = 4 * self.hidden_dim**2 + 2 * self.hidden_dim * self.feed_forward_dim
        width = 4 * self.hidden_dim + self.feed_forward_dim
        return self.num_layers, self.num_layers * weights, self.num_layers * width


# All of them have recurrent, receptive_field, summary(), notation() and least_size().
ModelConfig = GCNNConfig | LSTMConfig | TransformerConfig


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
    kind: str = "adamw"
    lr: float = setting(2e-3, "learning rate, before the schedule", POSITIVE)
    betas: list[float] = setting(
        [0.9, 0.99], "decay rates of the averages of gradients and of their squares", BETAS
    )
    weight_decay: float = setting(
        0.01, "each step subtracts lr * weight_decay times the weight", UNSIGNED
    )


@dataclass
class ConstantScheduleConfig:
    kind: str = "constant"
    warmup_steps: int = setting(0, "steps over which the learning rate grows linearly", UNSIGNED)


@dataclass
class PlateauScheduleConfig:
    """Multiply the learning rate by `factor` if validation stops to improve.

    That is: the best perplexity is older than `patience` validations.
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
        "read blocks in the text's order and carry the state; false: shuffled; null: true for LSTM",
    )
    precision: str = choice("float32", "float32", "bf16")
    compile: bool = setting(False, "torch.compile the model")
    skip_nonfinite: int = setting(
        0, "updates that may be skipped for a loss or gradient that is not finite", UNSIGNED
    )


@dataclass
class LoggerConfig:
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
        None, "a run whose weights and tokenizer this one starts with", PATH
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
