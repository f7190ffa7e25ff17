"""How far the runs of a figure are: which are known, which come next, and where a run trained elsewhere belongs."""

from pathlib import Path

from gcnn.base.errors import UsageError
from gcnn.reproduction.kept_runs import KeptRun, read_kept, read_run, read_runs
from gcnn.reproduction.plans import Part, differences
from gcnn.reproduction.rates import best_rate
from gcnn.reproduction.records import make_group


def known_runs(part: Part, runs: Path, kept: Path | None, overrides: list[str]) -> list[KeptRun]:
    """The runs of a part in the folder of all runs, and those that `kept` has besides, by learning rate and seed.

    Raises UsageError where `kept` has one of another recipe than the plan's with these overrides.
    """
    found = {}
    for run in read_kept(kept) if kept else []:
        if run.group == part.group:
            check_recipe(run, part, overrides, str(kept))
            found[run.place] = run
    for run in read_runs(runs / part.folder, part.group):
        if run.status != "unfinished" or run.place not in found:
            found[run.place] = run
    return [found[place] for place in sorted(found)]


def check_recipe(run: KeptRun, part: Part, overrides: list[str], where: str) -> None:
    """Raise UsageError for a run that the plan does not have: of another recipe, or at another rate or seed."""
    group, rate, seed = run.place
    about = f"{where}: {group} at learning rate {rate:g}, seed {seed},"
    for key, (then, now) in differences(
        run.recipe, part.recipe(rate, seed, tuple(overrides))
    ).items():
        raise UsageError(
            f"{about} was trained with {key} {then}; its plan has {now} now. Remove its line to train it again, or "
            "give another --out."
        )
    if rate not in part.rates or seed not in part.seeds:
        raise UsageError(
            f"{about} is not in the plan (rates: {', '.join(f'{r:g}' for r in part.rates)}; seeds: "
            f"{', '.join(map(str, part.seeds))}). Add it there, or remove its line."
        )


def chosen_rate(part: Part, runs: list[KeptRun]) -> float | None:
    """The best learning rate on validation; None before each has ended at the first seed."""
    ended = [run for run in runs if run.status != "unfinished"]
    groups = []
    for rate in part.rates:
        there = [run for run in ended if run.recipe.optimizer.lr == rate]
        if part.seeds[0] not in {run.recipe.seed for run in there}:
            return None
        groups.append(make_group(part.group, f"{rate:g}", f"{part.group} at {rate:g}", there))
    return best_rate(groups).lr


def next_runs(part: Part, runs: list[KeptRun]) -> list[tuple[float, int]]:
    """Learning rate and seed of those to train next: all rates at the first seed, then the other seeds at the best."""
    ended = {run.place[1:] for run in runs if run.status != "unfinished"}
    wanted = [(rate, part.seeds[0]) for rate in part.rates]
    best = chosen_rate(part, runs)
    if best is not None:
        wanted = [(best, seed) for seed in part.seeds]
    return [place for place in wanted if place not in ended]


def count_missing(part: Part, runs: list[KeptRun]) -> int:
    """The planned runs that have not begun."""
    begun = {run.place[1:] for run in runs}
    tuning = sum((rate, part.seeds[0]) not in begun for rate in part.rates)
    best = chosen_rate(part, runs)
    return tuning + sum((best, seed) not in begun for seed in part.seeds[1:])


def adopt(folder: Path, parts: list[Part]) -> tuple[Part, KeptRun]:
    """A run trained by any command, and the part that it belongs to by its recipe. Raises UsageError where there is
    none, and where the run has not ended."""
    run = read_run(folder, "")
    if run.status == "unfinished":
        raise UsageError(f"{folder} is not finished. Add it when it is.")
    _, rate, seed = run.place
    differing = {part: differences(run.recipe, part.recipe(rate, seed)) for part in parts}
    part = min(parts, key=lambda part: len(differing[part]))
    if differing[part]:
        apart = ", ".join(
            f"{key} {then}, planned {now}" for key, (then, now) in differing[part].items()
        )
        raise UsageError(
            f"{folder} is in no group of the figure; the nearest is {part.group}, but for {apart}."
        )
    run.group = part.group
    check_recipe(run, part, [], str(folder))
    return part, run
