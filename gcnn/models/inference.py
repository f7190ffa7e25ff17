"""Models made ready for inference: gains folded into weights, and weights packed once for a CPU's matrix products.

A sentence brings few rows to a large weight matrix. oneDNN, a part of torch, multiplies them at the machine's full
rate once the weights lie in its own blocked layout; torch otherwise keeps them as training left them, and reorders
those of an LSTM at every call.
"""

import os
from functools import cached_property

import torch
from torch import Tensor, nn

from gcnn.models import winograd
from gcnn.models.adaptive_softmax import AdaptiveSoftmax
from gcnn.models.layers import fold_weight_norm

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}  # of weights
LEAST_MULTIPLICATIONS = 1 << 26  # of a tap, for winograd: about 40 words of 900 channels in and 1,800 out


class PackedLinear(nn.Module):
    """A linear layer for inference alone."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs (..., in_features) -> (..., out_features)."""
        return torch.ops.mkldnn._linear_pointwise(inputs, self.packed, self.bias, "none", [], "")


class PackedConv(PackedLinear):
    """A convolution for inference alone: one product of the windows with all taps' weights; for long texts and large
    batches by `winograd`, with its own copy of the weights, packed when they first come."""

    def __init__(self, conv: nn.Conv1d):
        super().__init__(conv.weight.permute(0, 2, 1).flatten(1), conv.bias)
        self.in_channels, self.out_channels, self.kernel_size = conv.in_channels, conv.out_channels, conv.kernel_size

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden (batch, kernel_size - 1 + time, in_channels) -> (batch, time, out_channels)."""
        kernel_size = self.kernel_size[0]
        rows = hidden.size(0) * (hidden.size(1) - kernel_size + 1)
        enough = rows * self.in_channels * self.out_channels >= LEAST_MULTIPLICATIONS
        if enough and winograd.suits(hidden, kernel_size):
            return winograd.between_transforms(hidden, kernel_size, self.bias, self.products)
        windows = hidden.unfold(1, kernel_size, 1)  # (batch, time, in_channels, kernel_size), a view
        return super().forward(windows.transpose(2, 3).flatten(2))

    def products(self, inputs: Tensor) -> Tensor:
        """(points, n, in_channels) -> (points, n, out_channels)."""
        return torch.stack([linear(at_point) for linear, at_point in zip(self.points, inputs, strict=True)])

    @cached_property
    def points(self) -> list[PackedLinear]:
        weight = self.packed.to_dense().unflatten(1, (-1, self.in_channels)).transpose(1, 2).contiguous()
        return [PackedLinear(matrix, None) for matrix in winograd.at_points(weight)]


class PackedLSTM(nn.Module):
    """torch's LSTM for inference alone, time first, in the products and order of `nn.LSTM` on oneDNN."""

    def __init__(self, lstm: nn.LSTM):
        super().__init__()
        self.hidden_size, self.num_layers = lstm.hidden_size, lstm.num_layers
        self.layers = []
        for layer in range(lstm.num_layers):
            names = (f"{kind}_l{layer}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
            inputs, recurrent, *biases = (getattr(lstm, name).detach() for name in names)
            packed = torch.ops.mkldnn._reorder_mkldnn_rnn_layer_weight(
                inputs, recurrent, self.hidden_size, False, True, False, [1, 1, inputs.size(1)]
            )
            self.layers.append((*packed, *biases))

    def forward(
        self, inputs: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """inputs (time, batch, channels) -> (time, batch, hidden_size); h and c are (layers, batch, hidden_size)."""
        if state is None:
            zeros = inputs.new_zeros(self.num_layers, inputs.size(1), self.hidden_size)
            state = zeros, zeros
        after = []
        for weights, h, c in zip(self.layers, *state, strict=True):
            inputs, h, c, _ = torch.ops.aten.mkldnn_rnn_layer(
                inputs, *weights, h[None], c[None], False, [], LSTM_MODE, self.hidden_size, 1, True, False, False, False
            )
            after.append((h, c))
        h, c = (torch.cat(layers) for layers in zip(*after, strict=True))
        return inputs, (h, c)


LSTM_MODE = 2  # of ATen's RNN modes


def prepare_for_inference(model: nn.Module) -> None:
    """Make a model fast, and unfit for training: weight norm folded, linear layers and convolutions packed on a CPU.

    What it computes stays the same to rounding. An LSTM's own weights stay as they are: see `pack_lstm`.
    """
    model.eval().requires_grad_(False)
    fold_weight_norm(model)
    if not packable(model):
        return
    for module in list(model.modules()):
        if isinstance(module, AdaptiveSoftmax):
            module.untie()
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                setattr(parent, name, PackedLinear(child.weight, child.bias))
            elif isinstance(child, nn.Conv1d):
                setattr(parent, name, PackedConv(child))


def forget_kernels() -> None:
    """Have oneDNN keep its kernels for the last 128 shapes instead of 1,024: those of batches of many lengths hardly
    come again, and take a gigabyte. To be called before the first product; the user's own settings stay."""
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):  # oneDNN's own, and torch's before it
        os.environ[name] = os.environ.get(name) or "128"


def pack_lstm(model: nn.Module) -> None:
    """Pack the weights of every LSTM in a model, for inference on a CPU: short texts gain, the results are the same."""
    if not packable(model):
        return
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.LSTM):
                setattr(parent, name, PackedLSTM(child))


def packable(model: nn.Module) -> bool:
    weight = next(model.parameters())
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:  # oneDNN packs it for some processors only; torch multiplies it on any
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype in PRECISIONS.values()
