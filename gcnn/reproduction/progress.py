"""Which runs of a figure are known, which come next, and where a run trained elsewhere belongs."""

from pathlib import Path

from gcnn.base.errors import UsageError
from gcnn.reproduction.kept_runs import KeptRun, read_kept, read_run, read_runs
from gcnn.reproduction.plans import Part, differences
from gcnn.reproduction.rates import best_group
from gcnn.reproduction.records import make_group


def known_runs(part: Part, runs: Path, kept: Path | None, overrides: list[str]) -> list[KeptRun]:
    """The runs of a part, finished or not, by learning rate, then seed; at most one for each pair.

    runs: the folder of all runs; those of the part are in runs/SCALE/FIGURE/GROUP. Neither need
    exist.
    kept: a file of `keep_runs` with more runs, which need not exist; None: the folder alone. If
    both have a run with one learning rate and seed, the folder's is returned, unless it is
    unfinished.
    overrides: key=value, which the user adds to the plan for all runs.
    Raises UsageError if a run is not in the plan (`check_recipe`), if two runs in the folder have
    the same learning rate and seed, or if a file cannot be read.
    """
    found = {}
    for run in read_kept(kept) if kept else []:
        if run.group == part.group:
            check_recipe(run, part, overrides, str(kept))
            found[run.place] = run
    folder = runs / part.folder
    places = set()
    for run in read_runs(folder, part.group):
        check_recipe(run, part, overrides, str(folder))
        if run.place in places:
            _, rate, seed = run.place
            raise UsageError(
                f"{folder}: two runs have learning rate {rate:g} and seed {seed}. Remove one."
            )
        places.add(run.place)
        if run.status != "unfinished" or run.place not in found:
            found[run.place] = run
    return [found[place] for place in sorted(found)]


def check_recipe(run: KeptRun, part: Part, overrides: list[str], where: str) -> None:
    """Raise UsageError if a run is not one that the part plans.

    That is, if its config differs from the plan's with these overrides (key=value; see
    `differences`), or if its learning rate or seed is not among the part's.
    where: the file or folder of the run, for the message.
    """
    group, rate, seed = run.place
    about = f"{where}: {group} at learning rate {rate:g}, seed {seed},"
    differing = differences(run.recipe, part.recipe(rate, seed, tuple(overrides)))
    if differing:
        key, (then, now) = next(iter(differing.items()))
        raise UsageError(
            f"{about} was trained with {key} {then}; its plan has {now} now. Remove it to "
            "train it again, or give another folder."
        )
    if rate not in part.rates or seed not in part.seeds:
        rates = ", ".join(f"{rate:g}" for rate in part.rates)
        seeds = ", ".join(map(str, part.seeds))
        raise UsageError(
            f"{about} is not in the plan (rates: {rates}; seeds: {seeds}). Add it there, or remove "
            "it."
        )


def chosen_rate(part: Part, runs: list[KeptRun]) -> float | None:
    """The part's best learning rate on validation (`best_group`); None if it is not known yet.

    It is known once all rates have a run of the first seed that is finished or has diverged.
    runs: those of the part, as `known_runs` returns them. Raises UsageError if the results of one
    cannot be read.
    """
    ended = [run for run in runs if run.status != "unfinished"]
    groups = []
    for rate in part.rates:
        at_rate = [run for run in ended if run.recipe.optimizer.lr == rate]
        if part.seeds[0] not in {run.recipe.seed for run in at_rate}:
            return None
        groups.append(make_group(part.group, f"{rate:g}", f"{part.group} at {rate:g}", at_rate))
    return best_group(groups).lr


def next_runs(part: Part, runs: list[KeptRun]) -> list[tuple[float, int]]:
    """The (learning rate, seed) of each run to train next; empty if the part is complete.

    First all rates at the first seed, and once these have ended the other seeds at the best rate.
    A run has ended if it is finished or has diverged. Unfinished ones are returned, to be resumed.
    runs: those of the part, as `known_runs` returns them. Raises UsageError if the results of one
    cannot be read.
    """
    ended = {run.place[1:] for run in runs if run.status != "unfinished"}
    wanted = [(rate, part.seeds[0]) for rate in part.rates]
    best = chosen_rate(part, runs)
    if best is not None:
        wanted = [(best, seed) for seed in part.seeds]
    return [place for place in wanted if place not in ended]


def count_missing(part: Part, runs: list[KeptRun]) -> int:
    """How many planned runs have not begun; an unfinished run has begun.

    Planned are all learning rates at the first seed and one rate, the best, at the other seeds. As
    long as the best rate is not known, all runs of the other seeds are missing.
    runs: those of the part, as `known_runs` returns them. Raises UsageError if the results of one
    cannot be read.
    """
    begun = {run.place[1:] for run in runs}
    first_seed, *other_seeds = part.seeds
    planned = [(rate, first_seed) for rate in part.rates]
    best = chosen_rate(part, runs)  # None, which no run has begun with, if it is not known
    planned += [(best, seed) for seed in other_seeds]
    return sum(place not in begun for place in planned)


def adopt(folder: Path, parts: list[Part]) -> tuple[Part, KeptRun]:
    """The part that plans the run in a run directory, and the run with that part's group.

    Any command may have trained it. The part is the first of `parts` whose recipe does not differ
    from the run's config (`differences`).
    Raises UsageError if there is none (naming the part that differs least), if that part does not
    plan the run's learning rate or seed, if the run is unfinished or began with the weights of
    another run, and as `read_run` does.
    """
    if not parts:
        raise UsageError(f"{folder} fits no figure: those asked for have sweeps and no groups.")
    run = read_run(folder, "")
    if run.status == "unfinished":
        raise UsageError(f"{folder} is not finished. Add it when it is.")
    if run.recipe.init_from is not None:
        raise UsageError(
            f"{folder} began with the weights of {run.recipe.init_from}. The runs of a figure "
            "begin with random ones: train it without init_from."
        )
    _, rate, seed = run.place
    differing = {part: differences(run.recipe, part.recipe(rate, seed)) for part in parts}
    part = min(parts, key=lambda part: len(differing[part]))  # the nearest
    if differing[part]:
        apart = []
        for key, (then, now) in differing[part].items():
            apart.append(f"{key} {then}, planned {now}")
        raise UsageError(
            f"{folder} is in no group of the figure; the nearest is {part.group}, but for "
            f"{', '.join(apart)}."
        )
    run.group = part.group
    check_recipe(run, part, [], str(folder))
    return part, run
