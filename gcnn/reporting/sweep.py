"""A sweep's members, read from their folders, as one table."""

import math
import textwrap
from pathlib import Path

from gcnn.base.errors import RunError, UsageError
from gcnn.base.files import write_atomically, write_json
from gcnn.reporting.document import Paragraph, Table, table_of, to_markdown, to_text
from gcnn.reporting.ranking import PER_TOKEN, PER_WORD, Ranking, compare
from gcnn.reporting.results import varying
from gcnn.reporting.units import DASH, count, duration, magnitude, mean, perplexity, spread
from gcnn.runs.directory import CONFIG, MEMBER, RESULTS
from gcnn.runs.json_files import checked, read_json
from gcnn.runs.results import Member, Results

SAME_SIZE = 0.05  # models count as equal in size up to this part of the smaller one's parameters
EQUAL_SIZES = (
    "For equal ones give each a config of its own, the smaller one wider (channels of "
    "model.blocks, model.hidden_dim), and sweep over model=A,B."
)


def finished_results(folder: Path, overrides: list[str]) -> Results | None:
    """The results in a member's folder; None where the member is not done.

    Raises UsageError where it was done, or begun, with other overrides: it would be half a run of
    each.
    """
    results = read_json(folder / RESULTS, Results)
    member = read_json(folder / MEMBER, Member)
    before = member.overrides if member else []
    begun = results is not None or (folder / CONFIG).exists()
    if begun and before != overrides:
        changed = ", ".join(sorted(set(before) ^ set(overrides)))
        raise UsageError(
            f"{folder} was begun with other overrides ({changed}). Repeat the sweep's own command "
            "(a search: with the same hydra.sweeper.sampler.seed), or give another run_dir."
        )
    return results


def load_members(folder: Path) -> tuple[list[dict], Ranking]:
    """All members of a sweep, as the entries of sweep.json, and what they are ranked by.

    They come in the order of their validation perplexity, the best first, those that are not done
    last; where nothing ranks them, in that of their numbers, with a rank of None.
    """
    paths = list(folder.glob(f"*/{MEMBER}"))
    members = [read_json(path, Member) for path in paths]
    finished = [read_json(path.with_name(RESULTS), Results) for path in paths]
    comparison = compare([results for results in finished if results], "validation")
    varied = varying([member.settings for member in members])
    rows = []
    for member, results, settings in zip(members, finished, varied, strict=True):
        row = {"member": member.number, "rank": None, "overrides": settings}
        if results:
            row["status"] = "done"
        elif member.error:
            row |= {"status": "failed", "error": member.error, "exit_code": member.exit_code}
        else:
            row["status"] = "unfinished"
        rows.append(row | measures(results or checked({}, Results, "")))
    measure = f"validation_{comparison.measure}"

    def order(row: dict) -> tuple:
        return row["status"] != "done", row.get(measure) or math.inf, row["member"]

    rows.sort(key=order)
    if comparison.measure:
        ranked = [row for row in rows if row[measure] is not None]
        for rank, row in enumerate(ranked, start=1):
            row["rank"] = rank
    return rows, comparison


def measures(results: Results) -> dict:
    """What sweep.json has of a member's results; None for each where it is not done."""
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


def sweep_table(members: list[dict], comparison: Ranking) -> Table:
    """A row a member (an entry of sweep.json), with the settings that vary.

    Validation and test are the perplexity that ranks the members, or per token where nothing does.
    """
    measure = comparison.measure or PER_TOKEN
    keys = sorted({key for member in members for key in member["overrides"]})
    columns = {"member": lambda m: str(m["member"])}
    columns |= {key: lambda m, key=key: m["overrides"].get(key, DASH) for key in keys}
    columns |= {
        "status": lambda m: textwrap.shorten(  # sweep.json has all of it
            f"{m['status']}: {m['error']}" if "error" in m else m["status"], 70, placeholder=" …"
        ),
        f"validation{unit(comparison)}": lambda m: perplexity(m[f"validation_{measure}"]),
        f"test{unit(comparison)}": lambda m: perplexity(m[f"test_{measure}"]),
    }
    if comparison.measure is None:
        columns["unknown words"] = lambda m: count(m["validation_unknown_words"])
    columns |= {
        "parameters": lambda m: magnitude(m["parameters"]),
        "tokens": lambda m: count(m["tokens"]),
        "training time": lambda m: duration(m["seconds"]),
    }
    return table_of(members, columns, text_columns=len(keys) + 2)


def unit(comparison: Ranking) -> str:
    """What perplexities are per, as ", per word" after a split's name; empty where all are per
    token.
    """
    return {PER_TOKEN: "", PER_WORD: ", per word", None: ", per token"}[comparison.measure]


def seeds_table(members: list[dict], comparison: Ranking) -> Table:
    """A row for finished members that differ in their seed alone: mean and range of perplexities.

    `members` are entries of sweep.json. The perplexities are those that rank the members, or per
    token where nothing does. The best mean on validation comes first where something ranks them,
    else the first member. Without rows where there are no two such members.
    """
    measure = comparison.measure or PER_TOKEN
    groups: dict[tuple, list[dict]] = {}
    for member in members:
        settings = {key: value for key, value in member["overrides"].items() if key != "seed"}
        if member["status"] == "done":
            groups.setdefault(tuple(sorted(settings.items())), []).append(member)
    several = [group for group in groups.values() if len(group) > 1]

    def validation(group: list[dict]) -> float:
        return mean([member[f"validation_{measure}"] for member in group]) or math.inf

    if comparison.measure:
        several.sort(key=validation)
    keys = sorted({key for member in members for key in member["overrides"]} - {"seed"})
    splits = ("validation", "test")
    rows = []
    for group in several:
        numbers = sorted(member["member"] for member in group)
        row = [", ".join(map(str, numbers))]
        row += [group[0]["overrides"].get(key, DASH) for key in keys]
        for split in splits:
            row.append(spread([member[f"{split}_{measure}"] for member in group]))
        rows.append(row)
    titles = [f"{split}{unit(comparison)}: mean (range)" for split in splits]
    return Table(["members", *keys, *titles], rows, text_columns=len(keys) + 1)


def notes(members: list[dict], comparison: Ranking) -> list[str]:
    """Remarks below the table, without one an empty list: what does not compare, unequal sizes.

    `members` are the entries of sweep.json, `comparison` what ranks them.
    """
    lines = [comparison.note] if comparison.note else []
    sizes = {m["parameters"]: m["member"] for m in members if m["parameters"]}
    if sizes and max(sizes) > (1 + SAME_SIZE) * min(sizes):
        small, large = min(sizes), max(sizes)
        lines.append(
            f"Members differ in size, from {magnitude(small)} parameters (member {sizes[small]}) "
            f"to {magnitude(large)} (member {sizes[large]}): a difference may be that of their "
            f"sizes. {EQUAL_SIZES}"
        )
    return lines


def write_sweep(folder: Path) -> list[dict]:
    """Write sweep.json and sweep.md of the members in a sweep's folder, and print the tables.

    Returns the members; without any, nothing is written or printed.
    """
    members, comparison = load_members(folder)
    if members:
        tables = [sweep_table(members, comparison), seeds_table(members, comparison)]
        tables = [table for table in tables if table.rows]
        remarks = notes(members, comparison)
        page = to_markdown(f"Sweep {folder.name}", [*tables, *map(Paragraph, remarks)])
        write_json(folder / "sweep.json", members)
        write_atomically(
            folder / "sweep.md",
            lambda aside: aside.write_text(page, encoding="utf-8", errors="replace"),
        )
        print("\n\n".join(map(to_text, tables)))
        print(*("", *remarks) if remarks else (), f"sweep: {folder}", sep="\n")
    return members


def search_warning(member: Path) -> str:
    """A warning for the member of a search that is the first not to compare with the others.

    `member` is the folder of the one that has just finished. The search goes by its perplexity all
    the same. Empty where all compare, and where the others alone did not.
    """
    results = {}
    for path in sorted(member.parent.glob(f"*/{RESULTS}")):
        results[path.parent] = read_json(path, Results)
    comparison = compare(list(results.values()), "validation")
    if comparison.measure:
        return ""
    own = results.pop(member)
    if results and compare(list(results.values()), "validation").measure is None:
        return ""
    unknown = f", and {why}" if (why := own.validation.why_no_words) else ""
    return (
        f"member {member.name}: {comparison.reason}{unknown}. The search goes by the nats of each "
        "word all the same, and the fewer words a model knows the fewer these are. Search with one "
        "tokenizer and one text."
    )


def check_members(members: list[dict]) -> None:
    """Raise RunError where a member is not done; UsageError where all were usage errors."""
    failed = sorted(member["member"] for member in members if member["status"] != "done")
    if not failed:
        return
    usage = all(member.get("exit_code") == 2 for member in members)
    kind = UsageError if usage else RunError
    raise kind(
        f"{len(failed)} of {len(members)} members failed: {', '.join(map(str, failed))}. The same "
        "command with resume=true tries them again."
    )
