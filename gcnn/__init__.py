"""Language modeling with gated convolutional networks (Dauphin et al. 2017)."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`gcnn.Scorer`, imported when it is first asked for: torch takes seconds."""
    if name == "Scorer":
        from gcnn.evaluation.scoring import Scorer

        return Scorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
