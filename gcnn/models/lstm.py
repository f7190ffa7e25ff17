"""The LSTM baseline (Grave et al. 2016; Jozefowicz et al. 2016), on torch's own LSTM."""

import math

import torch
from torch import Tensor, nn

from gcnn.config.models import LSTMConfig
from gcnn.models.layers import drop, linear

EMBEDDING = 0.1  # embeddings are initialised uniformly in [-EMBEDDING, EMBEDDING]
State = list[Tensor]  # h and c, (batch, layers, units)


class LSTM(nn.Module):
    """The LSTM encoder: tokens to hidden states; the context is unbounded.

    With `projection_dim`, a linear layer maps the units to that many channels before the softmax,
    as in LSTM-2048-512 (Jozefowicz et al. 2016): a larger part of the operations is then the
    LSTM's own.
    """

    def __init__(self, config: LSTMConfig, vocabulary_size: int):
        """Initialises the weights from torch's random state.

        The config's dropout is on the embeddings and between layers, not on the hidden states that
        are returned.
        """
        super().__init__()
        self.receptive_field = config.receptive_field
        self.dropout = config.dropout
        self.embedding = nn.Embedding(vocabulary_size, config.embedding_dim)
        nn.init.uniform_(self.embedding.weight, -EMBEDDING, EMBEDDING)
        between = config.dropout if config.num_layers > 1 else 0.0
        self.lstm = nn.LSTM(
            config.embedding_dim, config.hidden_dim, config.num_layers, dropout=between
        )
        self.units = config.hidden_dim
        self.projection: nn.Linear | None = None
        if config.projection_dim is not None:
            self.projection = linear(config.hidden_dim, config.projection_dim, False, 0.0)
        self.hidden_dim = config.projection_dim or config.hidden_dim  # channels of the output
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Initialise the recurrent layers so that the gates of the first have inputs of variance 1.

        Forget gates start open; `bias_hh` keeps torch's own values. Further layers have less, as h
        is smaller than 1. With torch's own initialisation the output of a second layer differs from
        word to word by 0.004 only, and a learning rate of 1e-2 leaves the model at the perplexity
        of a unigram model.
        """
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("weight_ih"):
                scale = EMBEDDING / math.sqrt(3) if name.endswith("_l0") else 1.0
                nn.init.normal_(parameter, std=1 / (scale * math.sqrt(parameter.shape[1])))
            elif name.startswith("weight_hh"):
                for gate in parameter.chunk(4):
                    nn.init.orthogonal_(gate)
            elif name.startswith("bias_ih"):
                # Forget gates start open: f is the second of the four gates
                parameter.zero_()
                parameter[self.units : 2 * self.units] = 1.0

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """tokens (batch, time) -> hidden (batch, time, hidden_dim), and the state after them.

        The state is [h, c], each (batch, layers, units); None: zeros. The one returned has the type
        of the recurrent layers (see `recur`), is a view of their output and is not detached.
        There must be at least one token.
        """
        # Time first: torch's fast path
        embedded = drop(self.embedding(tokens.T), self.dropout, self.training)
        before = None
        if state is not None:
            h, c = state
            before = h.transpose(0, 1).contiguous(), c.transpose(0, 1).contiguous()
        hidden, after = self.recur(embedded, before)
        if self.projection is not None:
            hidden = self.projection(hidden)
        return hidden.transpose(0, 1), [tensor.transpose(0, 1) for tensor in after]

    def recur(
        self, embedded: Tensor, before: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The recurrent layers alone: embedded (time, batch, channels) -> (time, batch, units), and
        the state after.

        The state is (h, c), each (layers, batch, units); None: zeros. Under autocast, output and
        state are returned in autocast's type; without it, `before` must have the weights' type.
        """
        # A method of its own so that the trainer can exclude it from torch.compile.
        # Left to autocast, cuDNN's LSTM would take float16 even where autocast says bf16.
        if embedded.device.type == "cuda" and torch.is_autocast_enabled("cuda"):
            dtype = torch.get_autocast_dtype("cuda")
            with torch.autocast("cuda", enabled=False):
                return lstm_in(dtype, self.lstm, embedded, before)
        return self.lstm(embedded, before)

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str:
        """Whose code computes the recurrent layers, as results.json names it: "cuDNN's LSTM",
        "oneDNN's LSTM" or "torch's own LSTM".

        dtype: that of the computation, float32 or bf16; it matters on a GPU only.
        """
        if device.type == "cuda":
            example = torch.empty(1, device=device, dtype=dtype)  # cuDNN accepts no empty tensor
            return "cuDNN's LSTM" if torch.cudnn_is_acceptable(example) else "torch's own LSTM"
        return "oneDNN's LSTM" if torch.backends.mkldnn.is_available() else "torch's own LSTM"

    def empty_state(self, batch_size: int) -> State:
        """The state before a text: zeros."""
        zeros = self.embedding.weight.new_zeros(batch_size, self.lstm.num_layers, self.units)
        return [zeros, zeros.clone()]

    def macs(self) -> int:
        """Multiply-accumulate operations per token, without the softmax."""
        inputs = self.embedding.embedding_dim + (self.lstm.num_layers - 1) * self.units
        projection = 0 if self.projection is None else self.units * self.hidden_dim
        return 4 * inputs * self.units + self.recurrent_macs() + projection

    def recurrent_macs(self) -> int:
        """Multiply-accumulate operations per token that must wait for the token before.

        These are the products with h.
        """
        return 4 * self.lstm.num_layers * self.units**2


def lstm_in(
    dtype: torch.dtype,
    lstm: nn.LSTM,
    inputs: Tensor,
    before: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The output and state of `lstm`, computed and returned in `dtype`.

    lstm: one direction, with biases, time first.
    inputs (time, batch, channels) -> (time, batch, hidden_size) and (h, c), each (layers, batch,
    hidden_size). before: the state before; None: zeros. Weights are cast here and stay as they are;
    their gradients have their own type.
    """
    if before is None:
        zeros = inputs.new_zeros(lstm.num_layers, inputs.size(1), lstm.hidden_size)
        before = zeros, zeros
    weights = [weight.to(dtype) for layer in lstm.all_weights for weight in layer]
    state = [part.to(dtype) for part in before]
    sizes = lstm.num_layers, lstm.dropout, lstm.training
    hidden, h, c = torch.lstm(
        inputs.to(dtype), state, weights, True, *sizes, bidirectional=False, batch_first=False
    )
    return hidden, (h, c)
