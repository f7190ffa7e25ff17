"""Errors, files, plain values and processes; importable without torch or Hydra."""
