"""Arithmetic whose result no float may hold."""

import math


def exp(nats: float) -> float:
    """exp(nats), as a perplexity: infinity where it is too large for a float; nan for nan."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf
