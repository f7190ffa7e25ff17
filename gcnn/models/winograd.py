"""Causal convolutions on a CPU with half the multiplications.

This is F(3, k) of Winograd (1980) and Lavin and Gray (2016).

Three neighbouring outputs of a kernel of k weights are coefficients of a product of two
polynomials. (1) Both factors are evaluated at k + 2 points, (2) multiplied there, which takes k + 2
products of channels instead of 3 k, and (3) the three outputs are interpolated. Evaluating and
interpolating are products with small constant matrices.

The three outputs share their products, so that an input may reach one of the three that does not
depend on it, even an earlier one: as rounding, or as NaN where it is not finite.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Outputs that share their products: with 2 less is saved; with 4 kernels of 6 need too many points,
# and those of 4 are no faster (docs/PERFORMANCE.md)
OUTPUTS = 3
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)  # and infinity; more of them would cost digits
LONGEST_KERNEL = len(POINTS) + 2 - OUTPUTS


class Transforms(NamedTuple):
    """The three matrices of a kernel size, as nested lists; points is kernel_size + OUTPUTS - 1."""

    of_input: list[list[float]]  # (points, points)
    of_weight: list[list[float]]  # (points, kernel_size)
    to_output: list[list[float]]  # (OUTPUTS, points): from the products at the points


def transforms(kernel_size: int) -> Transforms:
    """The matrices for a kernel size from 2 to LONGEST_KERNEL."""
    points = kernel_size + OUTPUTS - 1

    def evaluation(coefficients: int) -> np.ndarray:
        """The matrix (points, coefficients) from a polynomial's coefficients, the constant one
        first, to its values at the points.

        The last point is infinity, where the value is the leading coefficient.
        """
        finite = np.vander(POINTS[: points - 1], coefficients, increasing=True)
        return np.vstack([finite, np.eye(coefficients)[-1]])

    # The convolution of a model is the transposed problem: the inverse matrix, which interpolates,
    # goes to the inputs, and evaluation to the outputs
    of_input = np.linalg.inv(evaluation(points)).T
    of_weight = evaluation(kernel_size)
    to_output = evaluation(OUTPUTS).T
    return Transforms(of_input.tolist(), of_weight.tolist(), to_output.tolist())


TRANSFORMS = {kernel_size: transforms(kernel_size) for kernel_size in range(2, LONGEST_KERNEL + 1)}


def suits(hidden: Tensor, kernel_size: int) -> bool:
    """Whether `conv` may be used: on a CPU in float32 or float64, for kernel sizes in TRANSFORMS.

    In bf16, also by autocast, the transforms would lose too many digits.
    """
    exact = hidden.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    return exact and hidden.device.type == "cpu" and 1 < kernel_size <= LONGEST_KERNEL


def conv(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What F.conv1d computes, to rounding, with channels last; only for inputs that `suits` allows.

    Where an input is not finite, up to two outputs before and two after those that depend on it may
    be NaN, too.
    hidden (batch, context + time, in_channels), weight (out_channels, in_channels, kernel_size),
    bias (out_channels,) -> (batch, time, out_channels); context is kernel_size - 1. All are of one
    type.
    """
    weights = at_points(weight)

    def products(inputs: Tensor) -> Tensor:
        return torch.bmm(inputs, weights.mT)

    return between_transforms(hidden, weight.size(2), bias, products)


def at_points(weight: Tensor) -> Tensor:
    """Transformed weights: (out_channels, in_channels, kernel_size) -> (points, out, in).

    On the CPU, with a kernel size in TRANSFORMS.
    """
    out_channels, in_channels, kernel_size = weight.shape
    of_weight = torch.tensor(TRANSFORMS[kernel_size].of_weight, dtype=weight.dtype)
    return (of_weight @ weight.flatten(0, 1).T).view(-1, out_channels, in_channels)


def between_transforms(
    hidden: Tensor, kernel_size: int, bias: Tensor, products: Callable[[Tensor], Tensor]
) -> Tensor:
    """`conv` with a function of the caller for the products, for example by packed weights.

    products: multiplies inputs by the transformed weights (`at_points`) of each point:
    (points, n, in_channels) -> (points, n, out_channels). Other arguments are as in `conv`.
    """
    of_input = torch.tensor(TRANSFORMS[kernel_size].of_input, dtype=hidden.dtype)
    to_output = torch.tensor(TRANSFORMS[kernel_size].to_output, dtype=hidden.dtype)
    batch = hidden.size(0)
    time = hidden.size(1) - kernel_size + 1
    # (1) Windows of inputs, one for each OUTPUTS outputs, transformed
    tiles = -(-time // OUTPUTS)
    hidden = F.pad(hidden, (0, 0, 0, tiles * OUTPUTS - time))
    # (tiles of all sequences, points, in_channels)
    windows = hidden.unfold(1, len(of_input), OUTPUTS).mT.flatten(0, 1)
    windows = torch.bmm(of_input.expand(len(windows), -1, -1), windows)
    # (2) The products at each point
    point_outputs = products(windows.transpose(0, 1)).transpose(0, 1)
    # (3) Back to outputs, without those past the end
    outputs = torch.baddbmm(bias, to_output.expand(len(windows), -1, -1), point_outputs)
    return outputs.view(batch, tiles * OUTPUTS, -1)[:, :time]
