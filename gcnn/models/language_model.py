"""The one interface of all language models: an encoder (GCNN, LSTM, Transformer) and a softmax."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gcnn.base.values import check_memory
from gcnn.config.models import GCNNConfig, ModelConfig
from gcnn.models.adaptive_softmax import AdaptiveSoftmax, FullSoftmax, Softmax
from gcnn.models.gcnn import GCNN
from gcnn.models.layers import drop
from gcnn.models.lstm import LSTM
from gcnn.models.size import check_size
from gcnn.models.transformer import Transformer

ENCODERS = {"gcnn": GCNN, "lstm": LSTM, "transformer": Transformer}  # by the kind of their config
# Tensors whose first dimension is the batch; what they hold is up to the encoder
State = list[Tensor]


class LanguageModel(nn.Module):
    """A language model: `forward` makes hidden states, `nll` and `log_prob` turn them into nats.

    A state that is carried from one call to the next gives the same results as one call on the
    whole text. A text begins with `start_state`, and its first token is <eos>.
    """

    def __init__(
        self,
        encoder: GCNN | LSTM | Transformer,
        softmax: Softmax,
        output_dropout: float = 0.0,
        before_text: int | None = None,
    ):
        """output_dropout: on the hidden states, in training.

        before_text: the id that stands before a text, repeated without end (see `start_state`);
        None: zeros. Encoders without a receptive field (the LSTM) ignore it.
        """
        super().__init__()
        self.encoder = encoder
        self.softmax = softmax
        self.output_dropout = output_dropout
        self.before_text = None if encoder.receptive_field is None else before_text
        self._start: State | None = None  # of one text, once it is asked for

    def train(self, mode: bool = True) -> "LanguageModel":
        """As in nn.Module; also drops the cached start state, which depends on the weights."""
        self._start = None
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LanguageModel":
        """As in nn.Module, where all moves and casts call it; also drops the start state."""
        self._start = None
        return super()._apply(fn, recurse)

    @torch.inference_mode(False)
    @torch.no_grad()
    def start_state(self, batch_size: int) -> State | None:
        """The state before a text's first token, which is the <eos> ahead of its first word.

        Without `before_text` it is None, which stands for zeros. With it, it is the state after
        that id, repeated without end, computed exactly from `receptive_field` repetitions. The
        model must be in evaluation mode. The state is cached until the model is moved or cast, or
        `train` or `eval` is called: call `eval` after the weights have changed. The tensors are
        expanded views that all sequences share: do not write to them.
        """
        if self.before_text is None:
            return None
        if self._start is None:
            # Outside of inference mode (the decorator): its tensors could not be used in training
            device = next(self.parameters()).device
            tokens = torch.full((1, self.receptive_field), self.before_text, device=device)
            _, self._start = self(tokens)
        return [part.expand(batch_size, *part.shape[1:]) for part in self._start]

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """tokens (batch, time) -> hidden (batch, time, channels), and the state after them.

        state: the one before them, of an earlier call or `start_state`; None: zeros. The one
        returned is not detached. There must be at least one token.
        """
        hidden, state = self.encoder(tokens, state)
        return drop(hidden, self.output_dropout, self.training), state

    def nll(
        self, hidden: Tensor, targets: Tensor, cluster_indices: list[Tensor] | None = None
    ) -> Tensor:
        """Negative log-likelihood of each target, in nats; 0 where the target is IGNORE.

        hidden (..., channels), targets (...), int64 -> (...), float32 on the device of `hidden`;
        `...` is one dimension or more. cluster_indices: see `Softmax.nll`; None: computed here, and
        the targets may be on the CPU.
        """
        return self.softmax.nll(hidden, targets, cluster_indices)

    def log_prob(self, hidden: Tensor) -> Tensor:
        """Log-probabilities of all types in nats: (..., channels) -> (..., vocabulary)."""
        return self.softmax.log_prob(hidden)

    def empty_state(self, batch_size: int) -> State:
        """A state of zeros. A text begins with `start_state` instead, which may differ."""
        return self.encoder.empty_state(batch_size)

    @property
    def vocabulary_size(self) -> int:
        return self.encoder.embedding.num_embeddings

    @property
    def receptive_field(self) -> int | None:
        """The number of tokens that a prediction depends on; None: all before it."""
        return self.encoder.receptive_field

    def parameter_counts(self) -> dict[str, int]:
        """The number of parameters: "total", and its parts "embedding", "body" and "softmax".

        A tied embedding counts under "embedding" only. Packed weights are not counted: call it
        before `prepare_for_inference`.
        """
        total = sum(p.numel() for p in self.parameters())
        embedding = sum(p.numel() for p in self.encoder.embedding.parameters())
        softmax = sum(p.numel() for p in self.softmax.parameters())
        return {
            "total": total,
            "embedding": embedding,
            "body": total - embedding - softmax,
            "softmax": softmax,
        }

    def flops_per_token(self, frequencies: Tensor | None = None) -> float:
        """Floating-point operations of the forward pass per token (the unit of Fig. 2).

        Only matrix products count, a multiplication and an addition as two.
        frequencies: how often each type is a target, as counts or shares (vocabulary,) in the order
        of ids, because rare clusters of the adaptive softmax cost extra; None: those of `zipf`.
        """
        if frequencies is None:
            frequencies = zipf(self.vocabulary_size)
        return 2 * (self.encoder.macs() + self.softmax.macs(frequencies / frequencies.sum()))


def zipf(types: int) -> Tensor:
    """The share of each type in the tokens of English text, most frequent first: (types,), float64.

    They sum to 1: proportional to 1 / rank up to rank 10,000 and to 1 / rank^2 beyond. The 2,000,
    10,000 and 20,000 most frequent of WikiText-2's 33,278 types make 77, 93 and 98 % of its tokens;
    here it is 78, 93 and 98 %. Raises UsageError if they take more memory than the machine has.
    """
    at_once = 5  # tensors of 8 bytes a type
    check_memory(f"counting with {types:,} types", at_once * 8 * types, "give fewer")
    ranks = torch.arange(1, types + 1, dtype=torch.float64)
    frequencies = torch.minimum(1 / ranks, 10_000 / ranks**2)
    return frequencies / frequencies.sum()


def build_model(
    config: ModelConfig,
    vocabulary_size: int,
    before_text: int | None = None,
) -> LanguageModel:
    """The model of a config, initialised at random, in training mode, on torch's default device.

    before_text: as in LanguageModel. Draws from torch's random state. Raises UsageError if the
    cutoffs are not below vocabulary_size, or if the least that the model can need (`check_size`) is
    more than the machine's main memory; on the device meta, that of its layers without weights.
    """
    shapes_alone = torch.get_default_device().type == "meta"
    check_size(config, vocabulary_size, copies=0 if shapes_alone else 1)
    encoder = ENCODERS[config.kind](config, vocabulary_size)
    output_dropout = config.output_dropout
    sizes = encoder.hidden_dim, vocabulary_size
    if config.cutoffs or config.tie_embeddings:
        embedding = encoder.embedding if config.tie_embeddings else None
        softmax = AdaptiveSoftmax(*sizes, config.cutoffs, config.softmax_dropout, embedding)
    else:
        normalised = getattr(config, "weight_norm", False)
        # The projection of other kinds is a part of their encoder
        projection_dim = config.projection_dim if isinstance(config, GCNNConfig) else None
        softmax = FullSoftmax(*sizes, projection_dim, normalised, config.output_dropout)
        if projection_dim is not None:
            output_dropout = 0.0  # the softmax drops by itself, behind its projection
    return LanguageModel(encoder, softmax, output_dropout, before_text)
