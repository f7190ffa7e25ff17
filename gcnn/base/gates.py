"""The gates of sections 2 and 3 of the paper: name, formula and initialisation of each.

Formulas call methods of their tensors or import torch themselves, so that `--help` can list the
gates without it: importing it takes seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Gate:
    """What a layer computes from its convolutions, and how their weights are initialised.

    formula: takes `paths` tensors, X*W + b (and X*V + c if there are two), and returns the layer's
    output; all are (batch, time, channels).
    gain: the weights start with a variance of gain / (kernel size * input channels), chosen so that
    a stack of residual blocks keeps the second moment of its input.
    """

    title: str  # in tables and figures
    formula: Callable
    paths: int = 1  # convolutions of the same input
    gain: float = 1.0
    gate_bias: float = 0.0  # initial value of c


def silu(x: Any) -> Any:
    """x * sigmoid(x) of each element, by torch in one pass over memory."""
    from torch.nn import functional

    return functional.silu(x)


def gelu(x: Any) -> Any:
    """x * Phi(x) of each element, by torch in one pass over memory.

    Phi: the cumulative distribution function of the standard normal distribution.
    """
    from torch.nn import functional

    return functional.gelu(x)


# Why these gains and biases:
# - GLU, GTU: a sigmoid is 1/2 around 0 and halves the signal, so the variance is 4 times as large.
#   tanh is linear around 0.
# - ReLU: Kaiming's gain of 2 keeps the signal in one layer, but the outputs have a positive mean,
#   which residual connections add up: fifty times the signal after 13 blocks.
# - bilinear: its output grows with the square of its input, so no gain keeps the signal. Its gate
#   path starts around one instead of zero, and modulates the other path as much as GLU's does.
# - SwiGLU, GEGLU, ReGLU (Shazeer, arXiv 2002.05202): the same; their activations are one at their
#   gate_bias. With GLU's gain and a gate path around zero, SwiGLU leaves 1.2 % of the signal's
#   amplitude after 13 blocks.
GATES = {
    "glu": Gate("GLU", lambda values, gates: values * gates.sigmoid(), paths=2, gain=4.0),
    "gtu": Gate("GTU", lambda values, gates: values.tanh() * gates.sigmoid(), paths=2, gain=4.0),
    "bilinear": Gate("bilinear", lambda values, gates: values * gates, paths=2, gate_bias=1.0),
    "swiglu": Gate("SwiGLU", lambda values, gates: values * silu(gates), paths=2, gate_bias=1.278),
    "geglu": Gate("GEGLU", lambda values, gates: values * gelu(gates), paths=2, gate_bias=1.145),
    "reglu": Gate("ReGLU", lambda values, gates: values * gates.relu(), paths=2, gate_bias=1.0),
    "linear": Gate("linear", lambda values: values),
    "relu": Gate("ReLU", lambda values: values.relu()),
    "tanh": Gate("tanh", lambda values: values.tanh()),
}
