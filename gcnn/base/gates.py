"""The gates of sections 2 and 3 of the paper: what a block makes of its convolution. All of a gate stands here.

Formulas are methods of their tensors: `--help` lists the gates, and need not wait the seconds that torch takes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Gate:
    """`formula` takes as many convolutions of one input as there are `paths`, X*W + b or X*W + b and X*V + c, and
    returns the block's output: (batch, time, channels) each.

    gain: the variance, times a kernel's inputs, that the weights start with. A stack of residual blocks then has the
    second moment of its input.
    """

    title: str  # in tables and figures
    formula: Callable
    paths: int = 1
    gain: float = 1.0
    gate_bias: float = 0.0  # that c starts with


def normal_cdf(x: Any) -> Any:
    """The standard normal distribution's, by which GELU multiplies its input."""
    return 0.5 * (1 + (x / math.sqrt(2)).erf())


# A sigmoid around 0 halves the signal; tanh is linear there. Kaiming's gain of 2 for ReLU would keep it in one layer,
# but its outputs have a positive mean, which the residual path adds up: fifty times the signal after 13 blocks. The
# bilinear gate's output grows with the square of its input, so that no gain keeps it: its gate path starts around one
# instead of zero, and so modulates the other path by as much as GLU's does. So do GLU's descendants (Shazeer,
# arXiv 2002.05202), whose activations are one at their gate_bias: with GLU's gain and a gate path around zero SwiGLU
# leaves 1.2 % of the signal's amplitude after 13 blocks.
GATES = {
    "glu": Gate("GLU", lambda values, gates: values * gates.sigmoid(), paths=2, gain=4.0),
    "gtu": Gate("GTU", lambda values, gates: values.tanh() * gates.sigmoid(), paths=2, gain=4.0),
    "bilinear": Gate("bilinear", lambda values, gates: values * gates, paths=2, gate_bias=1.0),
    "swiglu": Gate(
        "SwiGLU", lambda values, gates: values * gates * gates.sigmoid(), paths=2, gate_bias=1.278
    ),
    "geglu": Gate(
        "GEGLU", lambda values, gates: values * gates * normal_cdf(gates), paths=2, gate_bias=1.145
    ),
    "reglu": Gate("ReGLU", lambda values, gates: values * gates.relu(), paths=2, gate_bias=1.0),
    "linear": Gate("linear", lambda values: values),
    "relu": Gate("ReLU", lambda values: values.relu()),
    "tanh": Gate("tanh", lambda values: values.tanh()),
}
