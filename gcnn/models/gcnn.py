"""The gated convolutional network of Table 1: embedding, residual blocks of gated convolutions."""

from torch import Tensor, nn

from gcnn.config.models import GCNNConfig
from gcnn.models.layers import GatedConv, ResidualBlock, drop, linear, weight_count

# The last kernel_size - 1 inputs of each convolution, (batch, kernel_size - 1, channels)
State = list[Tensor]


class GCNN(nn.Module):
    """The encoder of Table 1: tokens to hidden states, which depend on `receptive_field` tokens.

    `hidden_dim` are the channels of the hidden states: the outputs of the last convolution.
    """

    def __init__(self, config: GCNNConfig, vocabulary_size: int):
        """Initialises the weights from torch's random state.

        Dropout is on the embeddings (the config's `embedding_dropout`, or `dropout` if that is
        None) and on the input of each convolution, not on the hidden states that are returned.
        """
        super().__init__()
        self.receptive_field = config.receptive_field
        self.embedding_dropout = (
            config.dropout if config.embedding_dropout is None else config.embedding_dropout
        )
        self.embedding = nn.Embedding(vocabulary_size, config.embedding_dim)
        nn.init.normal_(self.embedding.weight, std=0.1)
        channels = config.blocks[0].convs[0][1]
        self.input_projection = linear(
            config.embedding_dim, channels, config.weight_norm, self.embedding_dropout
        )
        self.blocks = nn.ModuleList()
        for block in config.blocks:
            for _ in range(block.repeat):
                self.blocks.append(
                    ResidualBlock(channels, block, config.gate, config.weight_norm, config.dropout)
                )
                channels = self.blocks[-1].out_channels
        self.hidden_dim = channels

    @property
    def convs(self) -> list[GatedConv]:
        """All gated convolutions, from the input on: the order of the state."""
        return [conv for block in self.blocks for conv in block.convs]

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """tokens (batch, time) -> hidden (batch, time, channels), and the state after them.

        The state is a list: for each of `convs`, in their order, its last kernel_size - 1 inputs,
        (batch, kernel_size - 1, in_channels). None: zeros. The one returned is not detached.
        There must be at least one token.
        """
        embedded = drop(self.embedding(tokens), self.embedding_dropout, self.training)
        hidden = self.input_projection(embedded)  # (batch, time, channels of the first block)
        new_state: State = []
        for block in self.blocks:
            block_state = None
            if state is not None:
                first = len(new_state)  # of the block's convolutions, among all
                block_state = state[first : first + len(block.convs)]
            hidden, block_state = block(hidden, block_state)
            new_state += block_state
        return hidden, new_state

    def empty_state(self, batch_size: int) -> State:
        """The state before a text: zeros."""
        return [conv.empty_state(batch_size) for conv in self.convs]

    def macs(self) -> int:
        """Multiply-accumulate operations per token, without the softmax."""
        return weight_count(self)

    def recurrent_macs(self) -> int:
        """Multiply-accumulate operations per token that must wait for the token before: none."""
        return 0
