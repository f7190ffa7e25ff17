"""What all tests share."""

import os
from pathlib import Path

import pytest
import torch

os.environ["WANDB_MODE"] = "offline"
torch.set_num_threads(1)  # the models of the tests are too small to share out


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data; tests that read it are skipped where it is absent."""
    folder = os.environ.get("GCNN_SHARED")
    if not folder:
        pytest.skip("GCNN_SHARED is not set: the real data is not here")
    return Path(folder)
