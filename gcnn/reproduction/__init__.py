"""The paper: its numbers, its claims and how far our runs bear them out."""
