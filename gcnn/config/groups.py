"""The config groups, the folder of their files, and the choices in each group."""

from pathlib import Path

from gcnn.config.schema import SCHEMAS

HERE = Path(__file__).resolve()
CONFIGS = HERE.parents[1] / "configs"  # beside the code in an installed package
if not CONFIGS.is_dir():
    CONFIGS = HERE.parents[2] / "configs"  # at the top of a checkout
GROUPS = ("experiment", "data", *SCHEMAS, "logger")


def choices(group: str, config_dir: Path | None = None) -> list[str]:
    """The names that may follow `group=`, sorted: "cpu/glu" of the file cpu/glu.yaml in its folder.

    config_dir: a folder of the user's own configs, whose names are included; None: there is none.
    Empty if there is no folder for the group, as for hydra/launcher.
    """
    folders = [CONFIGS / group]
    if config_dir is not None:
        folders.append(config_dir / group)
    names = set()
    for folder in folders:
        for path in folder.rglob("*.yaml"):
            names.add(str(path.relative_to(folder).with_suffix("")))
    return sorted(names)
