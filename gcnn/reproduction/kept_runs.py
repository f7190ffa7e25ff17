"""The runs of a sweep that have ended in one small file, to be committed: another machine goes on from them."""

import dataclasses
import json
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from gcnn.config import compose_config, migrated, typed
from gcnn.errors import UsageError
from gcnn.files import MEMBER, to_json, write_atomically, write_json
from gcnn.provenance import PLACES, portable
from gcnn.reporting.files import Number, read_json_lines, read_text
from gcnn.reporting.results import Run, load_run
from gcnn.reproduction.records import WIKITEXT_103, run_status

FILES = (MEMBER, "results.json", WIKITEXT_103)
SAVING = ("checkpoint_every", "checkpoint_minutes", "keep_checkpoints", "log_every")
INDIFFERENT = (*PLACES, "data.cache_dir", *(f"trainer.{key}" for key in SAVING))  # to what a run finds


@dataclass(kw_only=True)
class KeptRun:
    """What the figures read of a member: a line of the file."""

    number: Number
    config: dict[str, Any]
    validation: list[Any]  # those lines of metrics.jsonl
    files: dict[str, Any]  # the content of FILES


def keep_runs(sweep: Path, path: Path) -> None:
    """Write the members of a sweep that are finished, or have diverged, to `path`, a line of JSON each, with nothing of
    where this machine has its files. Members that only `path` has stay there."""
    kept = {run.number: run for run in read_json_lines(path, KeptRun)}
    for member in sweep.glob(f"*/{MEMBER}"):
        if not member.with_name("config.yaml").exists():
            continue  # refused before it began
        run = load_run(member.parent)
        if run_status(run) != "unfinished":
            kept[run.member.number] = kept_run(run)
    if kept:
        lines = [to_json(dataclasses.asdict(kept[number]), ensure_ascii=False) + "\n" for number in sorted(kept)]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda aside: aside.write_text("".join(lines), encoding="utf-8"))


def kept_run(run: Run) -> KeptRun:
    config = OmegaConf.structured(run.config)
    config.run_dir = None
    for key, name in PLACES.items():
        if OmegaConf.select(config, key) is not None:
            OmegaConf.update(config, key, name)
    files = {name: json.loads(read_text(run.path / name)) for name in FILES if (run.path / name).exists()}
    files[MEMBER]["overrides"] = portable(run.member.overrides, named=False)
    if run.member.error:
        files[MEMBER]["error"] = run.member.error.partition(";")[0]  # the rest names a checkpoint here
    if run.finished:
        files["results.json"]["command"] = shlex.join(portable(shlex.split(run.results.command or "")))
    return KeptRun(
        number=run.member.number,
        config=OmegaConf.to_container(config),
        validation=[dataclasses.asdict(line) for line in run.validation],
        files=files,
    )


def restore_runs(path: Path, sweep: Path, overrides: list[str]) -> int:
    """Make a run directory of each member at `path` that the sweep lacks; returns their number.

    Where their files lie is what `overrides` say. Raises UsageError for a file that `keep_runs` has not written.
    """
    places = [override for override in overrides if override.partition("=")[0] in PLACES]
    missing = [run for run in read_json_lines(path, KeptRun) if not (sweep / f"{run.number}" / "config.yaml").exists()]
    for run in missing:
        check_recipe(run, path)
        folder, config = sweep / f"{run.number}", OmegaConf.create(run.config)
        folder.mkdir(parents=True, exist_ok=True)
        for place in OverridesParser.create().parse_overrides(places):
            OmegaConf.update(config, place.key_or_group, place.value())
        run.files[MEMBER]["overrides"] = sorted([*run.files[MEMBER]["overrides"], *places])
        for name in (name for name in FILES if name in run.files):
            write_json(folder / name, run.files[name])
        metrics = "".join(to_json(line) + "\n" for line in run.validation)
        (folder / "metrics.jsonl").write_text(metrics, encoding="utf-8")
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(config), encoding="utf-8")  # last: now it counts as a run
    return len(missing)


composed_once = cache(compose_config)  # a third of a second; the seeds of a recipe share it


def check_recipe(run: KeptRun, path: Path) -> None:
    """Raise UsageError for a run that was trained by another recipe than its experiment is today."""
    overrides = (override for override in run.files[MEMBER]["overrides"] if not override.startswith("seed="))
    today, then = composed_once(*overrides), typed(migrated(OmegaConf.create(run.config)))
    for group in ("data", "tokenizer", "model", "optimizer", "schedule", "trainer"):
        new, old = (dataclasses.asdict(getattr(config, group)) for config in (today, then))
        for key in sorted(new.keys() | old.keys()):
            if new.get(key) != old.get(key) and f"{group}.{key}" not in INDIFFERENT:
                raise UsageError(
                    f"{path}: member {run.number} was trained with {group}.{key} {old.get(key)}; its experiment has "
                    f"{new.get(key)} now. Remove its line to train it again, or give another --out."
                )
