"""A sweep's members, read from their folders, as one table.

Each member has a folder, with member.json from its start and results.json when it is done. An entry
of sweep.json is a dictionary: `member` (its folder's name, as a number if it is one), `rank` (from
1; None: not ranked), `overrides` (key -> value, those that vary between members), `status` (done,
failed or unfinished), what `measures` has, and if it failed `error`, `exit_code` and `diverged`.
"""

import math
import textwrap
from pathlib import Path

from gcnn.base.errors import RunError, UsageError
from gcnn.base.files import write_json, write_text
from gcnn.reporting.document import Paragraph, Table, table_of, to_markdown, to_text
from gcnn.reporting.ranking import PER_TOKEN, PER_WORD, Ranking, ranking_of
from gcnn.reporting.results import varying_settings
from gcnn.reporting.units import DASH, count, duration, magnitude, mean, perplexity, spread
from gcnn.runs.directory import CONFIG, MEMBER, RESULTS
from gcnn.runs.json_files import all_absent, read_json
from gcnn.runs.results import Member, Results

LEARNING_RATE = "optimizer.lr"
SAME_SIZE = 0.05  # models count as equal in size up to this part of the smaller one's parameters
EQUAL_SIZES = (
    "For equal ones give each a config of its own, the smaller one wider (channels of "
    "model.blocks, model.hidden_dim), and sweep over model=A,B."
)


def finished_results(folder: Path, overrides: list[str]) -> Results | None:
    """The results in a member's folder; None if the member is not done or has no folder.

    overrides: those that the member has now, as key=value, without run_dir and resume. Their order
    and repetitions do not count.
    Raises UsageError if the member has begun (has a config.yaml or results.json) and its
    member.json has other overrides, or if results.json or member.json cannot be read.
    """
    results = read_json(folder / RESULTS, Results)
    member = read_json(folder / MEMBER, Member) or all_absent(Member)
    before = {override for override in member.overrides if override}
    changed = sorted(before ^ set(overrides))
    begun = results is not None or (folder / CONFIG).exists()
    if begun and changed:  # going on would make a run of which each half has other overrides
        raise UsageError(
            f"{folder} was begun with other overrides ({', '.join(changed)}). "
            "Repeat the sweep's own command (a search: with the same hydra.sweeper.sampler.seed), "
            "or give another run_dir."
        )
    return results


def load_members(folder: Path) -> tuple[list[dict], Ranking]:
    """All members of a sweep, as entries of sweep.json, and what ranks them on validation.

    The module's docstring says what an entry has. The best comes first; then those without a finite
    perplexity, and last those not done, both with a rank of None. If nothing ranks them, those that
    are done are in the order of their numbers, with a rank of None. Without members or without the
    folder: no entries.
    Raises UsageError if a file of a member cannot be read.
    """
    paths = sorted(folder.glob(f"*/{MEMBER}"), key=lambda path: by_number(path.parent.name))
    members = [read_json(path, Member) for path in paths]
    finished = [read_json(path.with_name(RESULTS), Results) for path in paths]
    ranking = ranking_of([results for results in finished if results], "validation")
    varied = varying_settings([member.settings for member in members])
    rows = [entry_of(*parts) for parts in zip(paths, members, finished, varied, strict=True)]
    # Sorting leaves equal members in the order of their numbers.
    if ranking.measure:
        measure = f"validation_{ranking.measure}"
        rows.sort(key=lambda row: row[measure] or math.inf)
        ranked = [row for row in rows if row[measure] is not None]
        for rank, row in enumerate(ranked, start=1):
            row["rank"] = rank
    rows.sort(key=lambda row: row["status"] != "done")
    return rows, ranking


def by_number(member: int | str) -> tuple[int, str]:
    """The sort key of members: numbers in their order (2 before 10), names by length first."""
    return len(str(member)), str(member)


def entry_of(path: Path, member: Member, results: Results | None, settings: dict[str, str]) -> dict:
    """A member's entry of sweep.json, with a rank of None.

    path: its member.json. results: None if the member is not done. settings: those that vary
    between members.
    """
    name = path.parent.name
    entry = {
        "member": int(name) if name.isdecimal() else name,
        "rank": None,
        "overrides": settings,
    }
    if results:
        entry["status"] = "done"
    elif member.error:
        entry |= {"status": "failed", "error": member.error}
        entry |= {"exit_code": member.exit_code, "diverged": bool(member.diverged)}
    else:
        entry["status"] = "unfinished"
    return entry | measures(results or all_absent(Results))


def measures(results: Results) -> dict:
    """What an entry of sweep.json has of a member's results; None where these have None.

    Keys: validation_perplexity and test_perplexity (per token), validation_word_perplexity and
    test_word_perplexity, validation_unknown_words, parameters (of the model), and tokens and
    seconds (of training).
    """
    return {
        "validation_perplexity": results.validation.perplexity,
        "test_perplexity": results.test.perplexity,
        "validation_word_perplexity": results.validation.word_perplexity,
        "test_word_perplexity": results.test.word_perplexity,
        "validation_unknown_words": results.validation.unknown_words,
        "parameters": results.parameters.total,
        "tokens": results.train.tokens,
        "seconds": results.train.seconds,
    }


def sweep_table(members: list[dict], ranking: Ranking) -> Table:
    """A row a member, in the order given, with the settings that vary and its results.

    Columns: member's number, one for each setting, status (if it failed with the error, cut to 70
    characters), validation and test, parameters, training tokens and time. Validation and test are
    the perplexity that ranks the members; if nothing ranks them, it is that per token, and there is
    a column of unknown words.
    members, ranking: the entries and what ranks them, as `load_members` returns both.
    """

    def status(member: dict) -> str:
        text = f"{member['status']}: {member['error']}" if "error" in member else member["status"]
        return textwrap.shorten(text, 70, placeholder=" …")  # sweep.json has all of it

    measure = ranking.measure or PER_TOKEN
    keys = sorted({key for member in members for key in member["overrides"]})
    columns = {"member": lambda m: str(m["member"])}
    for key in keys:
        columns[key] = lambda m, key=key: m["overrides"].get(key, DASH)
    columns |= {
        "status": status,
        f"validation{title_suffix(ranking)}": lambda m: perplexity(m[f"validation_{measure}"]),
        f"test{title_suffix(ranking)}": lambda m: perplexity(m[f"test_{measure}"]),
    }
    if ranking.measure is None:
        columns["unknown words"] = lambda m: count(m["validation_unknown_words"])
    columns |= {
        "parameters": lambda m: magnitude(m["parameters"]),
        "tokens": lambda m: count(m["tokens"]),
        "training time": lambda m: duration(m["seconds"]),
    }
    return table_of(members, columns, text_columns=len(keys) + 2)


def title_suffix(ranking: Ranking) -> str:
    """What is put after a split's name in a title: ", per word", ", per token" if nothing ranks the
    members, or nothing if all perplexities are per token.
    """
    return {PER_TOKEN: "", PER_WORD: ", per word", None: ", per token"}[ranking.measure]


def groups_by_seed(members: list[dict]) -> list[list[dict]]:
    """The finished members in groups that differ only in seed, of two or more members each.

    members: entries of sweep.json. A member that repeats the settings and seed of an earlier one,
    as a search may, is left out.
    """
    groups: dict[tuple, dict] = {}  # settings without the seed -> members by their seed
    for member in members:
        settings = dict(member["overrides"])
        seed = settings.pop("seed", None)
        if member["status"] == "done":
            by_seed = groups.setdefault(tuple(sorted(settings.items())), {})
            by_seed.setdefault(seed, member)
    return [list(by_seed.values()) for by_seed in groups.values() if len(by_seed) > 1]


def sweep_seeds_table(members: list[dict], ranking: Ranking) -> Table:
    """Mean and range of perplexities, a row for each group of members that differ only in seed.

    members, ranking: as `load_members` returns them. The groups are those of `groups_by_seed`.
    Columns: the members' numbers, one for each setting that varies but the seed, validation and
    test. The perplexities are those that rank the members, per token if nothing does. The best mean
    on validation comes first; if nothing ranks them, the order is that of the members. The table
    has no rows if no two finished members differ only in their seed.
    """
    measure = ranking.measure or PER_TOKEN
    groups = groups_by_seed(members)

    def validation(group: list[dict]) -> float:
        return mean([member[f"validation_{measure}"] for member in group]) or math.inf

    if ranking.measure:
        groups.sort(key=validation)
    keys = sorted({key for member in members for key in member["overrides"]} - {"seed"})
    splits = ("validation", "test")
    rows = []
    for group in groups:
        numbers = sorted((member["member"] for member in group), key=by_number)
        row = [", ".join(map(str, numbers))]
        row += [group[0]["overrides"].get(key, DASH) for key in keys]
        for split in splits:
            row.append(spread([member[f"{split}_{measure}"] for member in group]))
        rows.append(row)
    titles = [f"{split}{title_suffix(ranking)}: mean (range)" for split in splits]
    return Table(["members", *keys, *titles], rows, text_columns=len(keys) + 1)


def remarks_on(members: list[dict], ranking: Ranking) -> list[str]:
    """Remarks to put below the table: why it is not ranked per token, best learning rates at the
    edge of those tried (`best_at_an_edge`), and that sizes differ.

    Sizes differ if the largest model has over 1 + SAME_SIZE times the parameters of the smallest.
    members, ranking: as `load_members` returns them. Empty if there is nothing to say.
    """
    lines = [ranking.note] if ranking.note else []
    edges = best_at_an_edge(members)
    if edges:
        lines.append(
            f"The best learning rate is the lowest or highest tried: {', '.join(edges)}. "
            "One beyond it may be better."
        )
    member_of_size = {m["parameters"]: m["member"] for m in members if m["parameters"]}
    if member_of_size:
        small = min(member_of_size)
        large = max(member_of_size)
        if large > (1 + SAME_SIZE) * small:
            lines.append(
                f"Members differ in size, from {magnitude(small)} parameters "
                f"(member {member_of_size[small]}) to {magnitude(large)} "
                f"(member {member_of_size[large]}): a difference may be that of their sizes. "
                f"{EQUAL_SIZES}"
            )
    return lines


def best_at_an_edge(members: list[dict]) -> list[str]:
    """The best members, as "member 2 (optimizer.lr=0.1)", that have the lowest or highest rate.

    Compared are members whose settings, seed included, differ in the learning rate alone; a rate
    at which training diverged counts as tried. A list of members that nothing ranks has none.
    members: as `load_members` returns them, the best first.
    """
    grids: dict[tuple, dict[float, dict]] = {}  # settings without the rate -> members by their rate
    for member in members:
        settings = dict(member["overrides"])
        try:
            rate = float(settings.pop(LEARNING_RATE, ""))
        except ValueError:  # not swept over, or an interpolation
            continue
        if member["status"] == "done" or member.get("diverged"):
            grid = grids.setdefault(tuple(sorted(settings.items())), {})
            grid.setdefault(rate, member)
    edges = []
    for grid in grids.values():
        best_rate, best = next(iter(grid.items()))
        if best["rank"] and len(grid) > 1 and best_rate in (min(grid), max(grid)):
            edges.append(f"member {best['member']} ({LEARNING_RATE}={best_rate:g})")
    return edges


def write_sweep(folder: Path) -> list[dict]:
    """Write sweep.json and sweep.md into a sweep's folder, and print the tables.

    sweep.json has the entries of `load_members`, which are returned; sweep.md has `sweep_table`,
    `sweep_seeds_table` (if it has rows) and the remarks of `remarks_on`. Existing files are
    replaced. The tables and remarks are also printed to stdout as text, and then the folder.
    Without members, nothing is written or printed.
    Raises UsageError if a file of a member cannot be read, OSError if one cannot be written.
    """
    members, ranking = load_members(folder)
    if members:
        tables = [sweep_table(members, ranking), sweep_seeds_table(members, ranking)]
        tables = [table for table in tables if table.rows]
        remarks = remarks_on(members, ranking)
        title = f"Sweep in {Path(*folder.parts[-2:])}"  # the default: runs/EXPERIMENT/sweep
        page = to_markdown(title, [*tables, *map(Paragraph, remarks)])
        write_json(folder / "sweep.json", members)
        write_text(folder / "sweep.md", page, errors="replace")
        print("\n\n".join(map(to_text, tables)))
        if remarks:
            print("", *remarks, sep="\n")
        print(f"sweep: {folder}")
    return members


def search_warning(member: Path) -> str:
    """A warning if, with this member, the finished members of a search no longer compare.

    member: the folder of the one that has just finished, with its results.json.
    An empty string if all finished members compare, or if the others did not compare before: a
    search has one warning. Raises UsageError if a results.json cannot be read.
    """
    results = {}
    for path in sorted(member.parent.glob(f"*/{RESULTS}")):
        results[path.parent] = read_json(path, Results)
    now = ranking_of(list(results.values()), "validation")
    own = results.pop(member)
    before = ranking_of(list(results.values()), "validation")
    if now.measure or before.measure is None:
        return ""
    why = own.validation.why_no_words
    unknown = f", and {why}" if why else ""
    return (
        f"member {member.name}: {now.reason}{unknown}. The search goes by the nats of each "
        "word all the same, and the fewer words a model knows the fewer these are. Search with one "
        "tokenizer and one text."
    )


def check_members(members: list[dict]) -> None:
    """Raise an error with the numbers of the members that are not done, if there are any.

    It is a UsageError if every member failed with exit code 2, else a RunError.
    members: entries of sweep.json, of which there may be none.
    """
    failed = [member["member"] for member in members if member["status"] != "done"]
    failed.sort(key=by_number)
    if not failed:
        return
    usage = all(member.get("exit_code") == 2 for member in members)
    kind = UsageError if usage else RunError
    raise kind(
        f"{len(failed)} of {len(members)} members failed: {', '.join(map(str, failed))}. The same "
        "command with resume=true tries them again."
    )
