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

SAME_SIZE = 0.05  # part of the smaller one's parameters that another may have more
EQUAL_SIZES = (
    "For equal ones give each a config of its own, the smaller one wider (channels of model.blocks, model.hidden_dim), "
    "and sweep over model=A,B."
)


def finished_results(folder: Path, overrides: list[str]) -> Results | None:
    """The results of a member that is done, None of one that is not.

    Raises UsageError where it was done, or begun, with other overrides: it would be half a run of each.
    """
    results, member = read_json(folder / RESULTS, Results), read_json(folder / MEMBER, Member)
    before = member.overrides if member else []
    if (results is not None or (folder / CONFIG).exists()) and before != overrides:
        changed = ", ".join(sorted(set(before) ^ set(overrides)))
        raise UsageError(
            f"{folder} was begun with other overrides ({changed}). Repeat the sweep's own command (a search: with "
            "the same hydra.sweeper.sampler.seed), or give another run_dir."
        )
    return results


def load_members(folder: Path) -> tuple[list[dict], Ranking]:
    """All members of a sweep as sweep.json has them, and what they are ranked by on validation: the best first, those
    that are not done last. Where nothing ranks them, they come in their order."""
    paths = list(folder.glob(f"*/{MEMBER}"))
    members = [read_json(path, Member) for path in paths]
    finished = [read_json(path.with_name(RESULTS), Results) for path in paths]
    comparison = compare([results for results in finished if results], "validation")
    rows = []
    for member, results, settings in zip(
        members, finished, varying([m.settings for m in members]), strict=True
    ):
        failed = (
            {}
            if results or not member.error
            else {"error": member.error, "exit_code": member.exit_code}
        )
        row = {
            "member": member.number,
            "rank": None,
            "overrides": settings,
            "status": "done" if results else "failed" if failed else "unfinished",
            **failed,
            **measures(results or checked({}, Results, "")),
        }
        rows.append(row)
    measure = f"validation_{comparison.measure}"
    rows.sort(key=lambda m: (m["status"] != "done", m.get(measure) or math.inf, m["member"]))
    if comparison.measure:
        for rank, row in enumerate((row for row in rows if row[measure] is not None), start=1):
            row["rank"] = rank
    return rows, comparison


def measures(results: Results) -> dict:
    """What sweep.json says of a member's results; null where it is not done."""
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
    """A row a member. Validation and test are what ranks the members, or per token where nothing does."""
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
    """What the figures of a sweep are per, after the name of a split; nothing where all are per token and compare."""
    return {PER_TOKEN: "", PER_WORD: ", per word", None: ", per token"}[comparison.measure]


def seeds_table(members: list[dict], comparison: Ranking) -> Table:
    """A row for members that are done and differ in their seed alone: mean and range. The best mean first, where
    something ranks them. Without rows where there are no such members."""
    measure = comparison.measure or PER_TOKEN
    groups: dict[tuple, list[dict]] = {}
    for member in members:
        settings = {key: value for key, value in member["overrides"].items() if key != "seed"}
        if member["status"] == "done":
            groups.setdefault(tuple(sorted(settings.items())), []).append(member)
    several = [group for group in groups.values() if len(group) > 1]
    if comparison.measure:
        several.sort(
            key=lambda group: mean([m[f"validation_{measure}"] for m in group]) or math.inf
        )
    keys = sorted({key for member in members for key in member["overrides"]} - {"seed"})
    columns = {
        "members": lambda group: ", ".join(sorted((str(m["member"]) for m in group), key=int))
    }
    columns |= {key: lambda group, key=key: group[0]["overrides"].get(key, DASH) for key in keys}
    for split in ("validation", "test"):
        title = f"{split}{unit(comparison)}: mean (range)"
        columns[title] = lambda group, split=split: spread([m[f"{split}_{measure}"] for m in group])
    return table_of(several, columns, text_columns=len(keys) + 1)


def notes(members: list[dict], comparison: Ranking) -> list[str]:
    """What a reader of the table should know: what does not compare, and which members differ in size."""
    lines = [comparison.note] if comparison.note else []
    sizes = {m["parameters"]: m["member"] for m in members if m["parameters"]}
    if sizes and max(sizes) > (1 + SAME_SIZE) * min(sizes):
        small, large = min(sizes), max(sizes)
        lines.append(
            f"Members differ in size, from {magnitude(small)} parameters (member {sizes[small]}) to {magnitude(large)} "
            f"(member {sizes[large]}): a difference may be that of their sizes. {EQUAL_SIZES}"
        )
    return lines


def write_sweep(folder: Path) -> list[dict]:
    """Write sweep.json and sweep.md about the members that there are, and print the tables; returns the members."""
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
    """What to say where the member of a search that has just finished is the first that does not compare with the
    others: the search goes by its figure all the same. Empty otherwise."""
    paths = sorted(member.parent.glob("*/results.json"))
    results = {path.parent: read_json(path, Results) for path in paths}
    comparison = compare(list(results.values()), "validation")
    own = results.pop(member)
    if comparison.measure or (
        results and compare(list(results.values()), "validation").measure is None
    ):
        return ""
    unknown = f", and {why}" if (why := own.validation.why_no_words) else ""
    return (
        f"member {member.name}: {comparison.reason}{unknown}. The search goes by the nats of each word all the same, "
        "and the fewer words a model knows the fewer these are. Search with one tokenizer and one text."
    )


def check_members(members: list[dict]) -> None:
    """Raise RunError where a member is not done, UsageError where all failed for what was asked."""
    failed = sorted(member["member"] for member in members if member["status"] != "done")
    if failed:
        usage = all(member.get("exit_code") == 2 for member in members)
        raise (UsageError if usage else RunError)(
            f"{len(failed)} of {len(members)} members failed: {', '.join(map(str, failed))}. The same command with "
            "resume=true tries them again."
        )
