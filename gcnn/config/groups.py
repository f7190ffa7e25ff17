"""The config groups, their folder, and the choices in it."""

import difflib
from pathlib import Path

from gcnn.config.schema import SCHEMAS

CONFIGS = next(
    path
    for path in (Path(__file__).resolve().parents[i] / "configs" for i in (1, 2))
    if path.is_dir()
)
GROUPS = ("experiment", "data", *SCHEMAS, "logger")


def choices(group: str, config_dir: Path | None = None) -> list[str]:
    """The names that may follow `group=`, those of a folder of the user's own among them."""
    names = set()
    for configs in filter(None, (CONFIGS, config_dir)):
        files = (configs / group).rglob("*.yaml")
        names |= {str(path.relative_to(configs / group).with_suffix("")) for path in files}
    return sorted(names)


def nearest(name: str, names: list[str] | set[str]) -> str:
    matches = difflib.get_close_matches(name, names, n=1)
    return f" The nearest is {matches[0]}." if matches else ""
