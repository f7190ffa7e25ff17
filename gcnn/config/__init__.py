"""Typed configs: the schema, composing them with Hydra, and reading those stored in runs."""

from gcnn.config.compose import compose_config
from gcnn.config.stored import load_config

__all__ = ["compose_config", "load_config"]
