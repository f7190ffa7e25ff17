"""Causal convolutions on a CPU with half the multiplications (Winograd 1980; Lavin and Gray 2016, F(3, k)).

Three neighbouring outputs of a kernel of k weights are the coefficients of a product of polynomials. Its factors are
evaluated at k + 2 points, multiplied there, and interpolated: k + 2 products of channels instead of 3 k. Evaluating and
interpolating are products with small constant matrices. What comes later reaches the outputs before it, in the same
three, as rounding; as NaN where it is not finite.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

OUTPUTS = 3  # that share their products; with 2 the gain is smaller, with 4 more time goes into the transforms
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)  # and infinity; more of them would cost digits
LONGEST_KERNEL = len(POINTS) + 2 - OUTPUTS


def matrices(kernel_size: int) -> tuple[list, list, list]:
    """What transforms inputs (points, points), weights (points, kernel_size) and outputs (OUTPUTS, points)."""
    points = kernel_size + OUTPUTS - 1

    def evaluation(coefficients: int) -> np.ndarray:
        """Takes a polynomial's coefficients to its values at the points; the last one, infinity, to the leading one."""
        return np.vstack(
            [
                np.vander(POINTS[: points - 1], coefficients, increasing=True),
                np.eye(coefficients)[-1],
            ]
        )

    transforms = np.linalg.inv(evaluation(points)).T, evaluation(kernel_size), evaluation(OUTPUTS).T
    return tuple(matrix.tolist() for matrix in transforms)


MATRICES = {kernel_size: matrices(kernel_size) for kernel_size in range(2, LONGEST_KERNEL + 1)}


def suits(hidden: Tensor, kernel_size: int) -> bool:
    """Whether an input may be transformed; in bf16 that would cost what digits there are."""
    exact = hidden.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    return exact and hidden.device.type == "cpu" and 1 < kernel_size <= LONGEST_KERNEL


def conv(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What F.conv1d computes, with channels last.

    hidden (batch, context + time, in_channels), weight (out_channels, in_channels, kernel_size), bias (out_channels,)
    -> (batch, time, out_channels); context is kernel_size - 1.
    """
    weights = at_points(weight)
    return between_transforms(
        hidden, weight.size(2), bias, lambda inputs: torch.bmm(inputs, weights.mT)
    )


def at_points(weight: Tensor) -> Tensor:
    """weight (out_channels, in_channels, kernel_size) -> (points, out_channels, in_channels)."""
    out_channels, in_channels, kernel_size = weight.shape
    of_weight = torch.tensor(MATRICES[kernel_size][1], dtype=weight.dtype)
    return (of_weight @ weight.flatten(0, 1).T).view(-1, out_channels, in_channels)


def between_transforms(
    hidden: Tensor, kernel_size: int, bias: Tensor, products: Callable[[Tensor], Tensor]
) -> Tensor:
    """`conv`, whose products with the weights of each point `products` makes: (points, n, in_channels) ->
    (points, n, out_channels)."""
    of_input, _, to_output = (
        torch.tensor(matrix, dtype=hidden.dtype) for matrix in MATRICES[kernel_size]
    )
    batch, time = hidden.size(0), hidden.size(1) - kernel_size + 1
    tiles = -(-time // OUTPUTS)
    hidden = F.pad(hidden, (0, 0, 0, tiles * OUTPUTS - time))
    windows = hidden.unfold(1, len(of_input), OUTPUTS).mT.flatten(
        0, 1
    )  # (tiles of all sequences, points, in_channels)
    windows = torch.bmm(of_input.expand(len(windows), -1, -1), windows)
    point_outputs = products(windows.transpose(0, 1)).transpose(0, 1)
    outputs = torch.baddbmm(bias, to_output.expand(len(windows), -1, -1), point_outputs)
    return outputs.view(batch, tiles * OUTPUTS, -1)[:, :time]
