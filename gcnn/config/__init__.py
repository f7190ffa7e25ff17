"""Typed configs: their schema, composing them by Hydra, and reading a run's own."""

from gcnn.config.compose import compose_config
from gcnn.config.stored import load_config

__all__ = ["compose_config", "load_config"]
