"""The typed schema of every config group; the meaning and the range of a value stand beside its field.

Hydra composes the YAML files of configs/ against these dataclasses, so that a wrong key or type fails before any
data is read. The rest of the code receives the dataclass instances, never dictionaries.
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

    source: shakespeare (the embedded default), wikitext (the Hub's `Salesforce/wikitext`, or its files in `path`),
    local (one's own files), billion_word (the published folder of shards).
    """

    name: str = setting(MISSING, "in tables")
    source: str = choice(MISSING, "shakespeare", "wikitext", "local", "billion_word")
    path: str | None = setting(None, "the folder of the corpus's files", PATH)
    hub_config: str | None = setting(None, "the Hub's name of a WikiText variant")
    files: dict[str, list[str]] = setting(
        {"train": [], "valid": [], "test": []},
        "local: split -> files or globs of any kind, instead of `path`",
    )
    column: str = setting("text", "the text's, in JSON lines and Parquet")
    train_tokens: int | None = setting(
        None, "the training split's first lines, of so many words and line ends", COUNT
    )
    sentences: bool = setting(
        False, "each line is scored alone, as on Billion Word; otherwise running text"
    )
    cache_dir: str | None = setting(
        None, "default: $GCNN_CACHE, or ~/.cache/gcnn; no part of a stored config", PATH
    )


@dataclass
class WordTokenizerConfig:
    """White-space words, types sorted by frequency; rarer or surplus types become <unk>."""

    kind: str = "word"
    min_count: int = setting(1, "rarer words become <unk>", COUNT)
    max_size: int | None = setting(None, "types, <unk> and <eos> included", COUNT)
    vocabulary: str | None = setting(
        None, "a file with a word a line: the types are these, <unk> and <eos>", PATH
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
        "a sentencepiece.model that exists already: none is trained, and its size counts",
        PATH,
    )


@dataclass
class BlockConfig:
    """A residual block of Table 1: gated convolutions `[kernel_size, out_channels]`, repeated."""

    convs: list[list[int]] = MISSING
    repeat: int = 1
    residual: bool = True

    def weights(self, in_channels: int) -> int:
        """Of one path of the convolutions of one repeat."""
        count = 0
        for kernel_size, out_channels in self.convs:
            count += kernel_size * in_channels * out_channels
            in_channels = out_channels
        return count

    def notation(self) -> str:
        """As Table 1 writes it: [4, 256] × 6, or {[1, 64], [5, 64], [1, 128]} × 3."""
        convs = ", ".join(map(str, self.convs))
        convs = f"{{{convs}}}" if len(self.convs) > 1 else convs
        return f"{convs} × {self.repeat}" if self.repeat > 1 else convs


@dataclass
class GCNNConfig:
    kind: str = "gcnn"
    embedding_dim: int = setting(MISSING, "the lookup table's vectors", COUNT)
    blocks: list[BlockConfig] = setting(
        MISSING, "[{convs: [[kernel_size, out_channels], ...], repeat: r}, ...]"
    )
    cutoffs: list[int] = setting(MISSING, "adaptive softmax; empty: a full softmax", CUTOFFS)
    gate: str = choice("glu", *GATES)
    tie_embeddings: bool = setting(
        False, "the softmax's vectors are the embeddings; not in the paper"
    )
    projection_dim: int | None = setting(
        None, "full softmax: a narrower linear layer before it", COUNT
    )
    weight_norm: bool = setting(True, "of convolutions and projections")
    dropout: float = setting(0.0, "on the embedding and before every convolution", FRACTION)
    embedding_dropout: float | None = setting(None, "on the embedding instead", FRACTION)
    output_dropout: float = setting(0.0, "before the softmax", FRACTION)
    softmax_dropout: float = setting(0.0, "within the adaptive softmax's clusters", FRACTION)

    recurrent = False  # no token waits for the one before

    def summary(self) -> str:
        """Kind and size in a few words, for tables."""
        convolutions = sum(block.repeat * len(block.convs) for block in self.blocks)
        return f"GCNN, {convolutions} layers" + (f", {self.gate}" if self.gate != "glu" else "")

    def notation(self) -> str:
        """As Table 1: [kernel size, channels] × repeats, {} around a block of several convolutions."""
        return "; ".join(block.notation() for block in self.blocks)

    @property
    def receptive_field(self) -> int:
        """Tokens that a prediction depends on."""
        return 1 + sum(
            block.repeat * sum(kernel - 1 for kernel, _ in block.convs) for block in self.blocks
        )

    def least_size(self) -> tuple[int, int, int]:
        """Layers, weights and channels of the encoder without its lookup table, counted from below."""
        channels = self.blocks[0].convs[0][1]
        layers, weights, width = 0, self.embedding_dim * channels, channels
        for block in self.blocks:
            widths = [out_channels for _, out_channels in block.convs]
            layers += block.repeat * len(widths)
            width += block.repeat * sum(widths)
            weights += block.weights(channels) + (block.repeat - 1) * block.weights(widths[-1])
            channels = widths[-1]
        return layers, weights, width


@dataclass
class LSTMConfig:
    kind: str = "lstm"
    embedding_dim: int = setting(MISSING, "the lookup table's vectors", COUNT)
    hidden_dim: int = setting(MISSING, "units of a layer", COUNT)
    num_layers: int = setting(1, "layers", COUNT)
    cutoffs: list[int] = setting(MISSING, "adaptive softmax; empty: a full softmax", CUTOFFS)
    tie_embeddings: bool = setting(False, "the softmax's vectors are the embeddings")
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
        """Its layers in a table beside Table 1."""
        return self.summary()

    @property
    def receptive_field(self) -> None:
        """None: a prediction depends on all that came before."""

    def least_size(self) -> tuple[int, int, int]:
        """Layers, weights and channels of the encoder without its lookup table, counted from below."""
        inputs = self.embedding_dim + (2 * self.num_layers - 1) * self.hidden_dim
        return self.num_layers, 4 * inputs * self.hidden_dim, self.num_layers * self.hidden_dim


@dataclass
class TransformerConfig:
    """Not in the paper: attention over a sliding window, to compare with."""

    kind: str = "transformer"
    embedding_dim: int = setting(MISSING, "the lookup table's vectors", COUNT)
    hidden_dim: int = setting(MISSING, "channels of a layer", COUNT)
    num_layers: int = setting(MISSING, "layers, each of attention and feed-forward", COUNT)
    num_heads: int = setting(MISSING, "of attention; twice as many divide hidden_dim", COUNT)
    feed_forward_dim: int = setting(MISSING, "channels within the feed-forward layer", COUNT)
    window: int = setting(MISSING, "tokens that a token attends to, itself among them", COUNT)
    cutoffs: list[int] = setting(MISSING, "adaptive softmax; empty: a full softmax", CUTOFFS)
    gate: str = choice("swiglu", *GATES)
    tie_embeddings: bool = setting(False, "the softmax's vectors are the embeddings")
    dropout: float = setting(0.0, "on the embedding and on what each layer adds", FRACTION)
    output_dropout: float = setting(0.0, "before the softmax", FRACTION)
    softmax_dropout: float = setting(0.0, "within the adaptive softmax's clusters", FRACTION)

    recurrent = False

    def summary(self) -> str:
        """Kind and size in a few words, for tables."""
        gate = f", {self.gate}" if self.gate != "swiglu" else ""
        return f"Transformer, {self.num_layers} × {self.hidden_dim}, window {self.window}{gate}"

    def notation(self) -> str:
        """Its layers in a table beside Table 1."""
        return self.summary()

    @property
    def receptive_field(self) -> int:
        """Tokens that a prediction depends on."""
        return 1 + self.num_layers * (self.window - 1)

    def least_size(self) -> tuple[int, int, int]:
        """Layers, weights and channels of the encoder without its lookup table, counted from below."""
        weights = 4 * self.hidden_dim**2 + 2 * self.hidden_dim * self.feed_forward_dim
        width = 4 * self.hidden_dim + self.feed_forward_dim
        return self.num_layers, self.num_layers * weights, self.num_layers * width


ModelConfig = (
    GCNNConfig | LSTMConfig | TransformerConfig
)  # what each says of itself has one name in all


@dataclass
class NesterovConfig:
    """The paper's optimizer; weight decay is decoupled, as in fairseq's `nag`."""

    kind: str = "nesterov"
    lr: float = setting(1.0, "learning rate, before the schedule", POSITIVE)
    momentum: float = setting(0.99, "part of the velocity that a step keeps", FRACTION)
    weight_decay: float = setting(0.0, "a step takes lr * weight_decay of each weight", UNSIGNED)


@dataclass
class AdamWConfig:
    kind: str = "adamw"
    lr: float = setting(2e-3, "learning rate, before the schedule", POSITIVE)
    betas: list[float] = setting(
        [0.9, 0.99], "decay of the averages of gradients and squares", BETAS
    )
    weight_decay: float = setting(0.01, "a step takes lr * weight_decay of each weight", UNSIGNED)


@dataclass
class ConstantScheduleConfig:
    kind: str = "constant"
    warmup_steps: int = setting(0, "the learning rate grows linearly over them", UNSIGNED)


@dataclass
class PlateauScheduleConfig:
    """Multiply the learning rate by `factor` whenever validation has not improved for more than `patience` checks."""

    kind: str = "plateau"
    factor: float = setting(0.5, "on the learning rate", FRACTION)
    patience: int = setting(
        0, "validations without a better perplexity that are waited for", UNSIGNED
    )
    min_lr: float = setting(0.0, "the learning rate never falls below it", UNSIGNED)
    warmup_steps: int = setting(0, "the learning rate grows linearly over them", UNSIGNED)


@dataclass
class CosineScheduleConfig:
    """Linear warm-up, then a half cosine down to `final_fraction` of the learning rate at the end of the run."""

    kind: str = "cosine"
    warmup_steps: int = setting(300, "the learning rate grows linearly over them", UNSIGNED)
    final_fraction: float = setting(0.0, "of the learning rate, at the end", FRACTION)


@dataclass
class TrainerConfig:
    batch_size: int = setting(8, "sequences of an update, over all processes", COUNT)
    micro_batch_size: int | None = setting(
        None, "sequences a process computes at once; null: its whole share", COUNT
    )
    block_size: int = setting(256, "tokens a sequence", COUNT)
    max_steps: int | None = setting(
        None, "updates; of the four bounds, the first that is reached ends the run", COUNT
    )
    max_epochs: int | None = setting(None, "passes over the training split", COUNT)
    max_minutes: float | None = setting(None, "of training; validation is not counted", POSITIVE)
    max_flops: float | None = setting(None, "of training: three times the forward pass's", POSITIVE)
    validate_every: int = setting(1000, "steps", COUNT)
    patience: int | None = setting(
        None, "validations in a row without a better perplexity that end the run", COUNT
    )
    checkpoint_every: int | None = setting(1000, "steps; null: by minutes alone", COUNT)
    checkpoint_minutes: float | None = setting(
        None, "a checkpoint at least this often, besides", POSITIVE
    )
    keep_checkpoints: int = setting(2, "the newest", COUNT)
    log_every: int = setting(50, "steps", COUNT)
    clip_norm: float | None = setting(
        0.1, "of the gradient, all parameters together; null: none", POSITIVE
    )
    carry_state: bool | None = setting(
        None,
        "blocks in the text's order, the state carried on; else shuffled; null: carried for an LSTM",
    )
    precision: str = choice("float32", "float32", "bf16")
    compile: bool = setting(False, "torch.compile the model")
    skip_nonfinite: int = setting(
        0, "updates that may be skipped for a loss or gradient that is not finite", UNSIGNED
    )


@dataclass
class LoggerConfig:
    kind: str = choice("none", "none", "wandb", "tensorboard")
    project: str | None = setting(None, "of Weights & Biases; null: $WANDB_PROJECT, or gcnn")
    mode: str | None = setting(
        None, "offline | online; null: $WANDB_MODE, or offline", one_of("offline", "online")
    )


@dataclass
class TrainConfig:
    """All of a training run; a run directory holds it, resolved, as config.yaml."""

    experiment: str = setting("custom", "its name, a folder of runs/")
    run_dir: str | None = setting(None, "default: runs/<experiment>/<time>", PATH)
    seed: int = setting(1, "of weights, order and dropout", SEED)
    device: str = choice("auto", "auto", "cpu", "cuda")
    threads: int | None = setting(None, "CPU threads; default: all cores", between(1, THREADS))
    init_from: str | None = setting(
        None, "a run: its weights and tokenizer are what this one begins with", PATH
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
