"""Models made ready for inference: weight norm folded, weights packed for a CPU.

A sentence multiplies few rows by a large weight matrix. oneDNN, a part of torch, does so at the
machine's full rate if the weights are in its own blocked layout ("packed"). torch by itself leaves
them in the layout of training, and packs those of an LSTM anew at every call.
"""

import os
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn

from gcnn.models import winograd
from gcnn.models.adaptive_softmax import AdaptiveSoftmax
from gcnn.models.layers import fold_weight_norm

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}  # of weights
# Least multiplications with one kernel position's weights for winograd.py to pay: those of about 40
# words with 900 channels in and 1,800 out
LEAST_MULTIPLICATIONS = 1 << 26
LSTM_MODE = 2  # of ATen's RNN modes


class PackedLinear(nn.Module):
    """A linear layer with packed weights (out_features, in_features), for inference alone.

    The weights are on the CPU, of a type that oneDNN packs (see `packable`). Pickling and copying
    unpack and pack them again. There are no parameters; the state_dict has the bias alone.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
        self.register_buffer("bias", None if bias is None else bias.detach())

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copy, which cannot store packed weights: plain ones in their place."""
        state = self.__dict__ | {"packed": self.packed.to_dense()}
        state.pop("points", None)  # PackedConv's second copy, which it can make again
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.packed)

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs (..., in_features) -> (..., out_features)."""
        return torch.ops.mkldnn._linear_pointwise(inputs, self.packed, self.bias, "none", [], "")


class PackedConv(PackedLinear):
    """A convolution with packed weights, for inference alone.

    It is one matrix product of the input's windows with the weights of all kernel positions. Long
    texts and large batches go through winograd.py instead where it `suits`, with a second,
    transformed copy of the weights that is packed when it is first needed.
    """

    def __init__(self, conv: nn.Conv1d):
        """conv: with a bias, without padding, stride, dilation and groups; it is unchanged."""
        super().__init__(conv.weight.permute(0, 2, 1).flatten(1), conv.bias)
        self.in_channels = conv.in_channels
        self.out_channels = conv.out_channels
        self.kernel_size = conv.kernel_size

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden (batch, kernel_size - 1 + time, in_channels) -> (batch, time, out_channels).

        Not padded: the first kernel_size - 1 positions are the context before the first output.
        """
        kernel_size = self.kernel_size[0]
        rows = hidden.size(0) * (hidden.size(1) - kernel_size + 1)
        enough = rows * self.in_channels * self.out_channels >= LEAST_MULTIPLICATIONS
        if enough and winograd.suits(hidden, kernel_size):
            return winograd.between_transforms(hidden, kernel_size, self.bias, self.products)
        # (batch, time, in_channels, kernel_size), a view
        windows = hidden.unfold(1, kernel_size, 1)
        return super().forward(windows.transpose(2, 3).flatten(2))

    def products(self, inputs: Tensor) -> Tensor:
        """The `products` of winograd.between_transforms, by packed weights.

        (points, n, in_channels) -> (points, n, out_channels). The first call packs `points`.
        """
        outputs = []
        for linear, inputs_at_point in zip(self.points, inputs, strict=True):
            outputs.append(linear(inputs_at_point))
        return torch.stack(outputs)

    @cached_property
    def points(self) -> list[PackedLinear]:
        """A linear layer, without bias, with the transformed weights of each of Winograd's points.

        Packed at the first use and kept: a second copy of the weights. The kernel size must be one
        that `winograd.suits` allows.
        """
        weight = self.packed.to_dense().unflatten(1, (-1, self.in_channels))
        weight = weight.transpose(1, 2).contiguous()  # (out_channels, in_channels, kernel_size)
        return [PackedLinear(matrix, None) for matrix in winograd.at_points(weight)]


class PackedLSTM(nn.Module):
    """torch's LSTM with packed weights, for inference alone; time first.

    It makes the products that `nn.LSTM` makes by oneDNN, in the same order, so that results are
    equal. Pickling and copying unpack and pack the weights again. There are no parameters, and
    nothing in the state_dict.
    """

    def __init__(self, lstm: nn.LSTM):
        """lstm: on the CPU, one direction, with biases and without projections; it is unchanged."""
        super().__init__()
        self.hidden_size = lstm.hidden_size
        self.num_layers = lstm.num_layers
        self.layers = []  # packed input and recurrent weights of each, and the two biases
        for layer in range(lstm.num_layers):
            tensors = []
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                tensors.append(getattr(lstm, f"{kind}_l{layer}").detach())
            self.layers.append(self.pack(*tensors))

    def pack(
        self, input_weight: Tensor, recurrent_weight: Tensor, *biases: Tensor
    ) -> tuple[Tensor, ...]:
        """A layer's input and recurrent weights, packed, then its biases as they are.

        input_weight (4 * hidden_size, channels), recurrent_weight (4 * hidden_size, hidden_size);
        biases: two, (4 * hidden_size,).
        """
        packed = torch.ops.mkldnn._reorder_mkldnn_rnn_layer_weight(
            input_weight,
            recurrent_weight,
            self.hidden_size,
            False,  # reverse
            True,  # has biases
            False,  # batch first
            [1, 1, input_weight.size(1)],  # shape of an input: time, batch, channels
        )
        return (*packed, *biases)

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copy, which cannot store packed weights: plain ones in their place."""
        layers = []
        for *packed, bias_ih, bias_hh in self.layers:
            # From (1, 1, channels, 4, hidden_size) back to (4 * hidden_size, channels)
            plain = [weight.to_dense().flatten(3)[0, 0].T.contiguous() for weight in packed]
            layers.append((*plain, bias_ih, bias_hh))
        return self.__dict__ | {"layers": layers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.layers = [self.pack(*layer) for layer in self.layers]

    def forward(
        self, inputs: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """inputs (time, batch, channels) -> (time, batch, hidden_size), and the state after them.

        The state is (h, c), each (layers, batch, hidden_size); None: zeros.
        """
        if state is None:
            zeros = inputs.new_zeros(self.num_layers, inputs.size(1), self.hidden_size)
            state = zeros, zeros
        hidden = inputs
        last_h = []  # of each layer, (1, batch, hidden_size)
        last_c = []
        for weights, h, c in zip(self.layers, *state, strict=True):
            hidden, h, c, _ = torch.ops.aten.mkldnn_rnn_layer(
                hidden,
                *weights,
                h[None],
                c[None],
                False,  # reverse
                [],  # batch sizes of a packed sequence
                LSTM_MODE,
                self.hidden_size,
                1,  # layers
                True,  # has biases
                False,  # bidirectional
                False,  # batch first
                False,  # train
            )
            last_h.append(h)
            last_c.append(c)
        return hidden, (torch.cat(last_h), torch.cat(last_c))


def prepare_for_inference(model: nn.Module, lstms: bool = True) -> None:
    """Make a model faster and unfit for training, in place; it computes the same to rounding.

    Puts it in evaluation mode without gradients and folds weight normalisation; weights that are
    folded here become buffers. If `packable`, then also replaces its linear layers, its
    convolutions and, with `lstms`, its LSTMs by packed ones, for which tied weights are copied: the
    state_dict then lacks the packed weights. The model itself stays even if it is such a layer.
    Set the model's type and device and load its weights before: packed weights stay as they are.
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
            elif isinstance(child, nn.LSTM) and lstms:
                setattr(parent, name, PackedLSTM(child))


def limit_kernel_cache() -> None:
    """Make oneDNN cache kernels for the last 128 shapes instead of 1,024, which take a gigabyte.

    Batches of many lengths hardly have the same shape again. Sets the environment variables
    ONEDNN_PRIMITIVE_CACHE_CAPACITY and LRU_CACHE_CAPACITY, unless they have a value that is not
    empty. Call it before the first matrix product; later it has no effect.
    """
    # oneDNN's own cache, and torch's in front of it
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ[name] = os.environ.get(name) or "128"


@cache
def compute_alone_after_fork() -> None:
    """Make processes that are forked from this one compute with one thread each.

    OpenMP's threads do not exist after a fork, and a product that waits for them never ends.
    Registers a fork handler for the rest of the process; further calls do nothing.
    """
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def packable(model: nn.Module) -> bool:
    """Whether oneDNN packs this model's weights: on the CPU, in float32, or in bf16 if this
    processor supports it; not in other types, and not if torch has no oneDNN.

    Device and type are those of the model's first parameter; it must have one.
    """
    weight = next(model.parameters())
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        # oneDNN packs it for some processors only; torch multiplies it on any
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype in PRECISIONS.values()
