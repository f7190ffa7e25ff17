"""What a run directory holds: its folder, and its JSON files as dataclasses that writer and reader share."""
