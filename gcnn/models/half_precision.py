"""Products in half precision on a GPU, at the sizes that its tensor cores take.

A matrix product in bf16 or float16 is many times slower where a size is no multiple of 8. Channels
and outputs are padded with zeros within the product and cut off after it: weights keep their names
and shapes, results their values.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MULTIPLE = 8  # of 16 bytes, what a tensor core reads at once
HALF = (torch.bfloat16, torch.float16)


def compute_dtype(hidden: Tensor) -> torch.dtype:
    """The type that a product of `hidden` is computed in: autocast's if it is on, or its own."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return hidden.dtype


def on_tensor_cores(hidden: Tensor) -> bool:
    """Whether products of `hidden` are padded: on a GPU in half precision."""
    return hidden.device.type == "cuda" and compute_dtype(hidden) in HALF


def padding_of(size: int) -> int:
    """How much to add to a size to make it a multiple of 8: 0 to 7."""
    return -size % MULTIPLE


def pad_to_multiples(
    hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The operands of a product, padded with zeros so that `in` and `out` are multiples of 8.

    hidden (..., in), weight (out, in, ...), bias (out,) or None. They are returned in the type that
    the product is computed in. The product's outputs from `out` on are to be cut off.
    """
    out_channels, in_channels = weight.shape[:2]
    more_inputs = padding_of(in_channels)
    more_outputs = padding_of(out_channels)
    # Cast first: the zeros are then written once
    dtype = compute_dtype(hidden)
    hidden = hidden.to(dtype)
    weight = weight.to(dtype)
    if bias is not None:
        bias = F.pad(bias.to(dtype), (0, more_outputs)) if more_outputs else bias.to(dtype)
    if more_inputs:
        hidden = F.pad(hidden, (0, more_inputs))
    if more_inputs or more_outputs:
        rest = [0, 0] * (weight.dim() - 2)  # F.pad counts from the last dimension
        weight = F.pad(weight, (*rest, 0, more_inputs, 0, more_outputs))
    return hidden, weight, bias


def linear_product(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """F.linear, computed with padded sizes if that is faster: (..., in) -> (..., out)."""
    if not on_tensor_cores(hidden):
        return F.linear(hidden, weight, bias)
    return F.linear(*pad_to_multiples(hidden, weight, bias))[..., : weight.size(0)]


class Linear(nn.Linear):
    """torch's linear layer by `linear_product`."""

    def forward(self, hidden: Tensor) -> Tensor:
        return linear_product(hidden, self.weight, self.bias)
