"""The dataclasses of the config group `model`: one for each kind of network.

Each also says of itself what the rest of the code asks of any kind: `recurrent`, `receptive_field`,
`summary()`, `notation()` and `least_size()`.
"""

from dataclasses import dataclass

from omegaconf import MISSING

from gcnn.base.gates import GATES
from gcnn.base.values import COUNT, CUTOFFS, FRACTION, choice, setting


@dataclass
class BlockConfig:
    """A residual block of Table 1: gated convolutions `[kernel_size, out_channels]`, repeated."""

    convs: list[list[int]] = MISSING
    repeat: int = 1
    residual: bool = True

    def weight_count(self, in_channels: int) -> int:
        """The number of weights in one repeat of the block, where each gate counts as one path.

        Biases and the residual connection's projection are not counted. in_channels: of the
        block's input.
        """
        count = 0
        for kernel_size, out_channels in self.convs:
            count += kernel_size * in_channels * out_channels
            in_channels = out_channels
        return count

    def notation(self) -> str:
        """The block as Table 1 writes it: [4, 256] × 6, or {[1, 64], [5, 64], [1, 128]} × 3.

        A block that is not repeated has no ×.
        """
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
        """The number of tokens that a prediction depends on, the last token included."""
        tokens = 1
        for block in self.blocks:
            for kernel_size, _ in block.convs:
                tokens += block.repeat * (kernel_size - 1)
        return tokens

    def least_size(self) -> tuple[int, int, int]:
        """A lower bound on the encoder's size: (layers, weights, output channels of all layers).

        Layers are convolutions; weights and the sum of channels include the projection of the
        embeddings. Not counted: the table of embeddings, biases, a gate's second path, and the
        projections of residual connections. The config must be valid (see check_model).
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
            weights += block.weight_count(channels)
            weights += (block.repeat - 1) * block.weight_count(widths[-1])
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
        # Each layer has four matrices for its inputs, and four for its own last outputs
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
        """The number of tokens that a prediction depends on, the last token included."""
        return 1 + self.num_layers * (self.window - 1)

    def least_size(self) -> tuple[int, int, int]:
        """A lower bound on layers, weights and channels, as GCNNConfig.least_size has it."""
        # Queries, keys, values and their output; then up and down in the feed-forward layer
        weights = 4 * self.hidden_dim**2 + 2 * self.hidden_dim * self.feed_forward_dim
        width = 4 * self.hidden_dim + self.feed_forward_dim
        return self.num_layers, self.num_layers * weights, self.num_layers * width


ModelConfig = GCNNConfig | LSTMConfig | TransformerConfig
