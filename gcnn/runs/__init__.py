"""The run directory: its file names, lock and search, and its JSON files as dataclasses."""
