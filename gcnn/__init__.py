"""Language modeling with gated convolutional networks (Dauphin et al. 2017).

model = gcnn.load("runs/quickstart/...")
model.score(["To be, or not to be."])  # gcnn.Scorer lists all that a model can be asked
"""

from importlib import import_module
from typing import Any

from gcnn.base.provenance import version

MODULES = {  # public name -> the module that defines it
    "Score": "gcnn.evaluation.scoring",
    "Scorer": "gcnn.evaluation.scoring",
    "TokenScores": "gcnn.evaluation.scoring",
    "WordScores": "gcnn.evaluation.words",
    "load": "gcnn.evaluation.scoring",
    "RunError": "gcnn.base.errors",
    "UsageError": "gcnn.base.errors",
}
__all__ = [
    "RunError",
    "Score",
    "Scorer",
    "TokenScores",
    "UsageError",
    "WordScores",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    """A public name of the package, imported on first use, because torch takes seconds to import.

    `gcnn.__version__` is None where the package is not installed. Raises AttributeError for a name
    that is not in __all__.
    """
    if name == "__version__":
        return version("gcnn")
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
