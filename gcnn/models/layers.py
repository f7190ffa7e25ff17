"""Causal convolutions, gates and residual blocks (sections 2 and 3 of the paper)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from gcnn.base.gates import GATES
from gcnn.config.models import BlockConfig
from gcnn.models import winograd
from gcnn.models.half_precision import Linear, linear_product, on_tensor_cores, pad_to_multiples

# Least tokens of a batch for winograd.py: with fewer, transforming the weights takes longer than is
# saved
LEAST_TOKENS = 512
# Most input channels for conv_channels_last in bf16 on a CPU: with more, oneDNN is slower that way
MOST_CHANNELS = 512


def apply_gate(projected: Tensor, kind: str) -> Tensor:
    """Apply a gate, `kind` in GATES (sections 2 and 3).

    projected (batch, time, paths * channels), the value path first -> (batch, time, channels).
    """
    if kind == "glu":
        return F.glu(projected, dim=-1)  # the same as its formula, in one pass over memory
    return GATES[kind].formula(*projected.chunk(GATES[kind].paths, dim=-1))


def linear(
    in_features: int, out_features: int, normalised: bool, input_dropout: float
) -> nn.Linear:
    """A fresh linear layer; `normalised`: with weight normalisation, one gain for each output.

    input_dropout: the probability with which the caller drops its input in training. The layer
    drops nothing itself: its initial weights are smaller, so that the output keeps the variance of
    the input.
    """
    layer = Linear(in_features, out_features)
    nn.init.normal_(layer.weight, std=math.sqrt((1 - input_dropout) / in_features))
    nn.init.zeros_(layer.bias)
    return weight_norm(layer, dim=0) if normalised else layer


def drop(hidden: Tensor, probability: float, training: bool) -> Tensor:
    """torch's dropout, on a CPU in a third of the time unless compiled: by 16 bits an element.

    probability: of dropping an element, from 0 to 1; on a CPU rounded to a multiple of 1/65,536,
    unless that is 0 or 1. Draws from torch's random state. Without `training`, and on a CPU for a
    probability of 0, it draws nothing and returns `hidden` itself.
    """
    if torch.compiler.is_compiling():  # it makes wrong code of int64 that is read as int16
        return F.dropout(hidden, probability, training)
    kept = round((1 - probability) * 2**16)  # of the 2^16 values of 16 bits
    if not training or hidden.device.type != "cpu" or kept in (0, 2**16):
        return F.dropout(hidden, probability, training)
    factors = (random_int16(hidden.shape) < kept - 2**15).to(hidden.dtype)  # 1: kept, 0: dropped
    scale = 2**16 / kept
    if hidden.dtype == torch.bfloat16:  # its 8 bits are too few for the scale alone
        return hidden * factors * scale
    return hidden * factors.mul_(scale)


def random_int16(shape: torch.Size) -> Tensor:
    """Integers from -2^15 to 2^15 - 1, int16, each equally likely, drawn from torch's random state.

    Four at a time, as the parts of an int64: torch draws one number for each.
    """
    numbers = torch.empty(-(-shape.numel() // 4), dtype=torch.int64)  # rounded up
    numbers.random_(-(2**63), None)  # over all values of int64
    return numbers.view(torch.int16)[: shape.numel()].view(shape)


def conv_channels_last(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What F.conv1d computes, without copying the activations to (batch, channels, time) first.

    hidden (batch, context + time, in_channels), weight (out_channels, in_channels, kernel_size),
    bias (out_channels,) -> (batch, time, out_channels); context is kernel_size - 1. The weight is
    cast to the type of `hidden`; the bias must have it already, unless autocast is on.
    """
    # In half precision cuDNN would copy from (batch, channels, time) back to channels last itself.
    # An image of height 1, (batch, in_channels, 1, time), is channels last without a copy
    image = hidden.transpose(1, 2).unsqueeze(2)
    # Type and layout in one copy; autocast would make a second one
    weight = weight.unsqueeze(2).to(hidden.dtype, memory_format=torch.channels_last)
    return F.conv2d(image, weight, bias).squeeze(2).transpose(1, 2)


def suits_channels_last(hidden: Tensor) -> bool:
    """Whether `conv_channels_last` is faster on a CPU: in bf16 or under autocast of any type, with
    at most MOST_CHANNELS input channels, the last dimension of `hidden`.

    False for any other device: `GatedConv.project` decides for a GPU by itself.
    """
    if hidden.device.type != "cpu":
        return False
    bf16 = hidden.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    return bf16 and hidden.size(-1) <= MOST_CHANNELS


def last(tensor: Tensor, count: int) -> Tensor:
    """A copy of the last `count` positions: (batch, time, ...) -> (batch, count, ...).

    Where there are fewer, zeros stand before them. A view would keep the whole tensor in memory.
    """
    missing = count - tensor.size(1)
    if missing > 0:
        return torch.cat([tensor.new_zeros(len(tensor), missing, *tensor.shape[2:]), tensor], dim=1)
    return tensor[:, tensor.size(1) - count :].clone()


def weight_count(module: nn.Module) -> int:
    """The number of weights in a module's linear layers and convolutions, without biases.

    Where a module has no other weights, also its multiply-accumulate operations per token. Packed
    and tied layers count, embeddings and an nn.LSTM do not.
    """
    # By the layers' sizes, because packed layers (see inference.py) no longer have parameters
    weights = 0
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d):
            weights += layer.in_channels * layer.out_channels * layer.kernel_size[0]
        elif hasattr(layer, "in_features"):  # linear, tied or packed
            weights += layer.in_features * layer.out_features
    return weights


class GatedConv(nn.Module):
    """h(X) = (X*W + b) ⊗ σ(X*V + c), shifted so that no kernel sees the future (eq. 1).

    That is the gate "glu"; the others of GATES have another formula.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        gate: str,
        normalised: bool,
        dropout: float,
    ):
        """Initialises the weights from torch's random state.

        out_channels: after the gate. gate: a name in GATES. normalised: with weight normalisation.
        dropout: on the input.
        """
        super().__init__()
        self.gate = gate
        self.dropout = dropout
        self.context = kernel_size - 1
        # One convolution computes the paths of the gate, W first
        conv = nn.Conv1d(in_channels, out_channels * GATES[gate].paths, kernel_size)
        # Dropout scales up what it keeps, which the smaller weights make up for
        variance = GATES[gate].gain * (1 - dropout) / (kernel_size * in_channels)
        nn.init.normal_(conv.weight, std=math.sqrt(variance))
        nn.init.zeros_(conv.bias)
        nn.init.constant_(conv.bias[out_channels:], GATES[gate].gate_bias)
        self.conv = weight_norm(conv, dim=0) if normalised else conv

    def empty_state(self, batch_size: int) -> Tensor:
        """The state before a text: zeros, (batch, kernel_size - 1, in_channels)."""
        return self.conv.bias.new_zeros(batch_size, self.context, self.conv.in_channels)

    def forward(self, hidden: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """hidden (batch, time, in_channels) -> (batch, time, out_channels), and the state after it.

        The state is the last kernel_size - 1 inputs, after dropout: (batch, kernel_size - 1,
        in_channels). state: the one before; None: zeros. The one returned is a copy and not
        detached, so gradients flow through it.
        """
        hidden = drop(hidden, self.dropout, self.training)
        if self.context and state is None:
            hidden = F.pad(hidden, (0, 0, self.context, 0))
        elif self.context:
            hidden = torch.cat([state.to(hidden.dtype), hidden], dim=1)
        return apply_gate(self.project(hidden), self.gate), last(hidden, self.context)

    def project(self, hidden: Tensor) -> Tensor:
        """The convolution, in the fastest of six ways; all compute the same to rounding.

        hidden (batch, context + time, in_channels) -> (batch, time, paths * out_channels).

        The first way that applies is taken:
        1. a layer that is packed for inference: its own product or Winograd's (see PackedConv);
        2. kernel size 1: a linear layer;
        3. where `winograd.suits`, if batch * (context + time) is at least LEAST_TOKENS: Winograd's,
           half the multiplications; later inputs may reach earlier outputs as rounding or NaN (see
           winograd.py);
        4. half precision on a GPU: channels padded to multiples of 8, on channels last;
        5. where `suits_channels_last`, bf16 on a CPU: on channels last, no copy;
        6. otherwise: torch's conv1d, on a copy with time last.
        """
        if not isinstance(self.conv, nn.Conv1d):
            return self.conv(hidden)
        if self.context == 0:
            return linear_product(hidden, self.conv.weight.squeeze(2), self.conv.bias)
        enough = hidden.size(0) * hidden.size(1) >= LEAST_TOKENS
        if enough and winograd.suits(hidden, self.context + 1):
            return winograd.conv(hidden, self.conv.weight, self.conv.bias)
        if on_tensor_cores(hidden):
            padded = pad_to_multiples(hidden, self.conv.weight, self.conv.bias)
            return conv_channels_last(*padded)[..., : self.conv.out_channels]
        if suits_channels_last(hidden):
            return conv_channels_last(hidden, self.conv.weight, self.conv.bias)
        return self.conv(hidden.transpose(1, 2)).transpose(1, 2)


class ResidualBlock(nn.Module):
    """Gated convolutions whose input is added to their output (section 2).

    The sum is scaled by sqrt(1/2). The input is projected if its channels are not those of the
    output. Nothing is added or scaled if `block.residual` is false.
    """

    def __init__(
        self, in_channels: int, block: BlockConfig, gate: str, normalised: bool, dropout: float
    ):
        """One repeat of `block`; `gate`, `normalised` and `dropout` are as in GatedConv."""
        super().__init__()
        self.convs = nn.ModuleList()
        channels = in_channels
        for kernel_size, out_channels in block.convs:
            self.convs.append(
                GatedConv(channels, out_channels, kernel_size, gate, normalised, dropout)
            )
            channels = out_channels
        self.out_channels = channels
        self.residual = block.residual
        projects = block.residual and in_channels != channels
        self.projection = linear(in_channels, channels, normalised, 0.0) if projects else None

    def forward(self, hidden: Tensor, states: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """hidden (batch, time, in_channels) -> (batch, time, out_channels), and the states after.

        states: one for each convolution, as in GatedConv; None: zeros.
        """
        residual = hidden if self.projection is None else self.projection(hidden)
        new_states = []
        for i, conv in enumerate(self.convs):
            hidden, state = conv(hidden, states[i] if states is not None else None)
            new_states.append(state)
        if self.residual:
            hidden = (hidden + residual) * math.sqrt(0.5)  # keeps the variance
        return hidden, new_states


def fold_weight_norm(module: nn.Module) -> None:
    """Replace each weight-normalised weight by its current value, in place: for inference.

    The parameters for gain and direction are removed and a plain `weight` takes their place, so
    load weights before. It is a parameter, or a buffer if the removed ones needed no gradient or
    gradients are off. Other modules stay as they are.
    """
    for child in module.modules():
        if parametrize.is_parametrized(child, "weight"):
            parametrize.remove_parametrizations(child, "weight", leave_parametrized=True)
