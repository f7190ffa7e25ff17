"""The runs that each table and figure needs: configs/reproduce/<scale>/<figure>.yaml.

A scale is a folder there (cpu, paper, ...); a figure is a key of records.py's FIGURES, tables
included; a group is what a figure compares, such as one gate.
Each group is trained at its learning rates with the first seed, then with the other seeds at the
rate that is best on validation. A group that several figures compare belongs to one of them; the
others name it with `same_as`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gcnn.base.errors import UsageError, one_line
from gcnn.base.provenance import PATH_PLACEHOLDERS
from gcnn.config.compose import compose_config
from gcnn.config.groups import CONFIGS
from gcnn.config.schema import TrainConfig
from gcnn.reproduction.records import FIGURES

PLANS = CONFIGS / "reproduce"
SAVING = ("checkpoint_every", "checkpoint_minutes", "keep_checkpoints", "log_every")
# Keys that change no result: where files are, and when checkpoints and metrics are written.
IGNORED_KEYS = (*PATH_PLACEHOLDERS, "data.cache_dir", *(f"trainer.{key}" for key in SAVING))
RECIPE = ("data", "tokenizer", "model", "optimizer", "schedule", "trainer")  # of a config


@dataclass
class GroupPlan:
    """A group in a plan's file.

    Empty rates: those of the plan; if these are empty too, the learning rate in the group's
    settings. Empty seeds: those of the plan.
    """

    settings: list[str] = field(default_factory=list)  # key=value, after the figure's base
    rates: list[float] = field(default_factory=list)  # learning rates
    seeds: list[int] = field(default_factory=list)
    # figure/group of the same scale, which is used instead; all other fields are then ignored. That
    # group has no same_as.
    same_as: str | None = None


@dataclass
class Plan:
    """The content of a plan's file."""

    base: list[str] = field(default_factory=list)  # key=value, for all groups
    rates: list[float] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [1])
    groups: dict[str, GroupPlan] = field(default_factory=dict)
    # Instead of groups: experiments that are sweeps of their own.
    sweeps: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """A group of a plan, complete: its runs differ in learning rate and seed alone.

    figure: the one whose plan has the group; other figures may use it by `same_as`.
    settings: key=value, those of the plan's base first.
    """

    scale: str
    figure: str
    group: str
    settings: tuple[str, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]

    @property
    def folder(self) -> Path:
        """The sweep with its runs, relative to the folder of all runs: scale/figure/group."""
        return Path(self.scale, self.figure, self.group)

    def recipe(self, rate: float, seed: int, overrides: tuple[str, ...] = ()) -> TrainConfig:
        """The config of the run with this learning rate and seed.

        overrides: the user's, key=value, applied after the settings; rate and seed come last, and
        are not checked.
        Do not change the config: its parts are shared with other runs'.
        Raises UsageError if a setting or override is invalid.
        """
        config = composed_once(*self.settings, *overrides)
        return replace(config, seed=seed, optimizer=replace(config.optimizer, lr=rate))


composed_once = cache(compose_config)  # composing takes 0.3 s; all rates and seeds share one config


def figures_of(scale: str, chosen: Sequence[str] = ()) -> list[str]:
    """The names of the figures that have a plan at a scale, in the order of FIGURES.

    chosen: return these alone; empty: all of them.
    Raises UsageError if there is no such scale, or no plan for one of `chosen` at it.
    """
    found = [name for name in FIGURES if (PLANS / scale / f"{name}.yaml").is_file()]
    if not found:
        scales = sorted(path.name for path in PLANS.iterdir())
        raise UsageError(f"there is no scale {scale!r}; choose one of: {', '.join(scales)}.")
    for figure in chosen:
        if figure not in found:
            raise UsageError(
                f"there is no figure {figure!r} at scale {scale}; "
                f"choose one of: {', '.join(found)}."
            )
    return [name for name in found if name in chosen] if chosen else found


@cache
def load_plan(scale: str, figure: str) -> Plan:
    """The plan of a figure at a scale, read once: all callers share it, so do not change it.

    Raises UsageError if the file is missing, is not YAML, has other keys or types than a plan, or
    no seed.
    """
    path = PLANS / scale / f"{figure}.yaml"
    try:
        plan = OmegaConf.merge(OmegaConf.structured(Plan), OmegaConf.load(path))
        plan = OmegaConf.to_object(plan)
    except (OSError, UnicodeDecodeError, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UsageError(f"{path}: {one_line(error)}") from None
    if not plan.seeds:
        raise UsageError(f"{path}: seeds is empty; give one or more, as [1, 2, 3].")
    return plan


def parts_of(scale: str, figure: str) -> list[Part]:
    """The groups of a figure in the order of its file; empty for a plan of sweeps.

    Raises UsageError as `part_of`.
    """
    return [part_of(scale, figure, group) for group in load_plan(scale, figure).groups]


def part_of(scale: str, figure: str, group: str) -> Part:
    """A group of a figure with its settings, learning rates and seeds filled in.

    For a group with `same_as` it is that group of the other figure. Without learning rates in the
    plan, the rate is the one that the settings give.
    Raises UsageError if a plan cannot be read or lacks the group, or if `same_as` is not a group of
    another figure, or one with `same_as` itself. Settings are checked only where they give the
    rate.
    """
    asked = group_plan(scale, figure, group)
    if asked.same_as:
        owner, slash, name = asked.same_as.partition("/")
        if not slash or owner == figure or group_plan(scale, owner, name).same_as:
            raise UsageError(
                f"{PLANS / scale / figure}.yaml: same_as of {group} is {asked.same_as!r}; give a "
                "group of another figure, as fig3/glu, that has no same_as."
            )
        return part_of(scale, owner, name)
    plan = load_plan(scale, figure)
    settings = (*plan.base, *asked.settings)
    rates = asked.rates or plan.rates or [composed_once(*settings).optimizer.lr]
    return Part(scale, figure, group, settings, tuple(rates), tuple(asked.seeds or plan.seeds))


def group_plan(scale: str, figure: str, group: str) -> GroupPlan:
    """A group as it stands in its figure's plan.

    Raises UsageError if the plan cannot be read or lacks the group.
    """
    groups = load_plan(scale, figure).groups
    if group not in groups:
        raise UsageError(
            f"{PLANS / scale / figure}.yaml has no group {group!r}; it has: {', '.join(groups)}."
        )
    return groups[group]


def differences(found: TrainConfig, planned: TrainConfig) -> dict[str, tuple]:
    """Where two configs differ: {"model.gate": (value in `found`, value in `planned`)}.

    Only the config groups in RECIPE are compared, without IGNORED_KEYS: not the seed or the device,
    but the learning rate. A key that one config lacks has the value None there.
    """
    differing = {}
    for name in RECIPE:
        first = asdict(getattr(found, name))
        second = asdict(getattr(planned, name))
        for key in sorted(first.keys() | second.keys()):
            if first.get(key) != second.get(key) and f"{name}.{key}" not in IGNORED_KEYS:
                differing[f"{name}.{key}"] = (first.get(key), second.get(key))
    return differing
