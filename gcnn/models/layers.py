"""Causal convolutions, gates and residual blocks (sections 2 and 3 of the paper)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from gcnn.base.gates import GATES
from gcnn.config.schema import BlockConfig
from gcnn.models import winograd

LEAST_TOKENS = 512  # for winograd; below, transforming a convolution's weights takes longer than its products then save
MOST_CHANNELS = (
    512  # in bf16 on a CPU, for convolutions with channels last; with more, oneDNN is slower so
)


def gate(projected: Tensor, kind: str) -> Tensor:
    """Apply a gate (sections 2 and 3): (batch, time, channels of all its paths) -> (batch, time, channels)."""
    if kind == "glu":
        return F.glu(projected, dim=-1)  # its formula, in one pass
    return GATES[kind].formula(*projected.chunk(GATES[kind].paths, dim=-1))


def linear(in_features: int, out_features: int, normalised: bool, dropout: float) -> nn.Linear:
    """A linear layer, weight-normalised with one gain per output, for an input under dropout."""
    layer = nn.Linear(in_features, out_features)
    nn.init.normal_(layer.weight, std=math.sqrt((1 - dropout) / in_features))
    nn.init.zeros_(layer.bias)
    return weight_norm(layer, dim=0) if normalised else layer


def dropout(hidden: Tensor, probability: float, training: bool) -> Tensor:
    """torch's dropout; on a CPU with 16 random bits an element instead of a Bernoulli draw, a third of its time.

    The share of elements that are kept is rounded to 1/65,536 there, and their scale is its
    inverse. A share that would be rounded to none or to all is left to torch.
    """
    kept = round((1 - probability) * 2**16)
    if not training or hidden.device.type != "cpu" or kept in (0, 2**16):
        return F.dropout(hidden, probability, training)
    words = torch.empty(-(-hidden.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    mask = words.view(torch.int16)[: hidden.numel()].view(hidden.shape) < kept - 2**15
    factors, scale = mask.to(hidden.dtype), 2**16 / kept
    if hidden.dtype == torch.bfloat16:  # its 8 bits are too few for the scale alone
        return hidden * factors * scale
    return hidden * factors.mul_(scale)


def conv_channels_last(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What F.conv1d computes, on the activations as they lie: conv1d copies its input to time-last, which cuDNN turns
    back in half precision.

    hidden (batch, context + time, in_channels), weight (out_channels, in_channels, kernel_size), bias (out_channels,)
    -> (batch, time, out_channels); context is kernel_size - 1.
    """
    image = hidden.transpose(1, 2).unsqueeze(
        2
    )  # (batch, in_channels, 1, time), channels last in memory
    weight = weight.unsqueeze(2).to(
        hidden.dtype, memory_format=torch.channels_last
    )  # both in one copy, for autocast
    return F.conv2d(image, weight, bias).squeeze(2).transpose(1, 2)


def suits_channels_last(hidden: Tensor) -> bool:
    """Whether a convolution is faster on its input as it lies: on GPUs, and on CPUs for bf16 with few channels."""
    if hidden.device.type != "cpu":
        return hidden.device.type == "cuda"
    bf16 = hidden.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    return bf16 and hidden.size(-1) <= MOST_CHANNELS


def weight_count(module: nn.Module) -> int:
    """Weights of a module's linear layers and convolutions, without biases: multiply-accumulate operations a position.

    Counted by their sizes: packed layers (see inference.py) no longer have parameters.
    """
    linears = (layer for layer in module.modules() if hasattr(layer, "in_features"))
    convs = (layer for layer in module.modules() if isinstance(layer, nn.Conv1d))
    weights = sum(conv.in_channels * conv.out_channels * conv.kernel_size[0] for conv in convs)
    return weights + sum(linear.in_features * linear.out_features for linear in linears)


class GatedConv(nn.Module):
    """h(X) = (X*W + b) ⊗ σ(X*V + c), shifted so that no kernel sees the future (eq. 1)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        gate: str,
        normalised: bool,
        dropout: float,
    ):
        super().__init__()
        self.gate = gate
        self.dropout = dropout
        self.context = kernel_size - 1
        conv = nn.Conv1d(
            in_channels, out_channels * GATES[gate].paths, kernel_size
        )  # the paths computed as one
        # dropout scales up what it keeps
        nn.init.normal_(
            conv.weight,
            std=math.sqrt(GATES[gate].gain * (1 - dropout) / (kernel_size * in_channels)),
        )
        nn.init.zeros_(conv.bias)
        nn.init.constant_(conv.bias[out_channels:], GATES[gate].gate_bias)
        self.conv = weight_norm(conv, dim=0) if normalised else conv

    def empty_state(self, batch_size: int) -> Tensor:
        """The state before a text: zeros, (batch, kernel_size - 1, in_channels)."""
        return self.conv.bias.new_zeros(batch_size, self.context, self.conv.in_channels)

    def forward(self, hidden: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """hidden (batch, time, in_channels) -> (batch, time, out_channels), and the state after it: the
        last kernel_size - 1 inputs, copied, for a view would keep each layer's whole input in memory."""
        hidden = dropout(hidden, self.dropout, self.training)
        if self.context and state is None:
            hidden = F.pad(hidden, (0, 0, self.context, 0))
        elif self.context:
            hidden = torch.cat([state.to(hidden.dtype), hidden], dim=1)
        last = hidden[:, hidden.size(1) - self.context :].clone()
        return gate(self.project(hidden), self.gate), last

    def project(self, hidden: Tensor) -> Tensor:
        """The input of the gate: (batch, context + time, in_channels) -> (batch, time, channels of both paths)."""
        if not isinstance(self.conv, nn.Conv1d):
            return self.conv(hidden)  # packed for inference, channels last
        if self.context == 0:
            return F.linear(hidden, self.conv.weight.squeeze(2), self.conv.bias)
        if hidden.size(0) * hidden.size(1) >= LEAST_TOKENS and winograd.suits(
            hidden, self.context + 1
        ):
            return winograd.conv(hidden, self.conv.weight, self.conv.bias)
        if suits_channels_last(hidden):
            return conv_channels_last(hidden, self.conv.weight, self.conv.bias)
        return self.conv(hidden.transpose(1, 2)).transpose(1, 2)


class ResidualBlock(nn.Module):
    """Gated convolutions whose input is added to their output; a bottleneck block has three of them (section 3)."""

    def __init__(
        self, in_channels: int, block: BlockConfig, gate: str, normalised: bool, dropout: float
    ):
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
        """hidden (batch, time, in_channels) -> (batch, time, out_channels); one state a convolution."""
        residual = hidden if self.projection is None else self.projection(hidden)
        new_states = []
        for i, conv in enumerate(self.convs):
            hidden, state = conv(hidden, states[i] if states is not None else None)
            new_states.append(state)
        if self.residual:
            hidden = (hidden + residual) * math.sqrt(0.5)  # keeps the variance
        return hidden, new_states


def fold_weight_norm(module: nn.Module) -> None:
    """Replace every normalised weight by its value, once and for all: for inference."""
    for child in module.modules():
        if parametrize.is_parametrized(child, "weight"):
            parametrize.remove_parametrizations(child, "weight", leave_parametrized=True)
