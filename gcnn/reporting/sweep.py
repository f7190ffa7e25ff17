"""A sweep's members, read from their folders, as one table."""

import textwrap
from pathlib import Path

from gcnn.errors import RunError, UsageError
from gcnn.files import write_atomically, write_json
from gcnn.reporting.document import Table, to_markdown, to_text
from gcnn.reporting.files import NUMBER, read_json, value
from gcnn.reporting.results import RESULTS
from gcnn.reporting.units import DASH, count, duration, magnitude, perplexity

MEMBER = {"number": NUMBER, "overrides": [str], "error": str, "exit_code": NUMBER}
FIGURES = {
    "validation_perplexity": "validation.perplexity",
    "test_perplexity": "test.perplexity",
    "parameters": "parameters.total",
    "tokens": "train.tokens",
    "seconds": "train.seconds",
}  # of results.json


def finished_results(folder: Path, overrides: list[str]) -> dict | None:
    """The results of a member that is done, None of one that is not.

    Raises UsageError where it was done, or begun, with other overrides: it would be half a run of each.
    """
    results = read_json(folder / "results.json", RESULTS)
    before = (read_json(folder / "member.json", MEMBER) or {}).get("overrides") or []
    if (results is not None or (folder / "config.yaml").exists()) and before != overrides:
        changed = ", ".join(sorted(set(before) ^ set(overrides)))
        raise UsageError(
            f"{folder} was begun with other overrides ({changed}). Repeat the sweep's own command (a search: with "
            "the same hydra.sweeper.sampler.seed), or give another run_dir."
        )
    return results


def load_members(folder: Path) -> list[dict]:
    """All members of a sweep, the best on validation first, those that are not done last."""
    members = []
    for path in folder.glob("*/member.json"):
        record, results = read_json(path, MEMBER), read_json(path.with_name("results.json"), RESULTS)
        status = "done" if results is not None else "failed" if record.get("error") else "unfinished"
        overrides = dict(override.lstrip("+").partition("=")[::2] for override in record.get("overrides") or [])
        member = {"member": record.get("number"), "overrides": overrides, "status": status}
        if status == "failed":
            member |= {"error": record["error"], "exit_code": record.get("exit_code")}
        members.append(member | {name: value(results, key) for name, key in FIGURES.items()})
    for key in {key for member in members for key in member["overrides"]}:
        if len({member["overrides"].get(key) for member in members}) == 1:
            for member in members:
                del member["overrides"][key]
    infinity = float("inf")
    return sorted(members, key=lambda m: (m["status"] != "done", m["validation_perplexity"] or infinity, m["member"]))


def sweep_table(members: list[dict]) -> Table:
    keys = sorted({key for member in members for key in member["overrides"]})
    columns = {"member": lambda m: str(m["member"])}
    columns |= {key: lambda m, key=key: m["overrides"].get(key, DASH) for key in keys}
    columns |= {
        "status": status,
        "validation": lambda m: perplexity(m["validation_perplexity"]),
        "test": lambda m: perplexity(m["test_perplexity"]),
        "parameters": lambda m: magnitude(m["parameters"]),
        "tokens": lambda m: count(m["tokens"]),
        "training time": lambda m: duration(m["seconds"]),
    }
    rows = [[show(member) for show in columns.values()] for member in members]
    return Table(list(columns), rows, text_columns=len(keys) + 2)


def status(member: dict) -> str:
    """A word, and the beginning of the reason; sweep.json has all of it."""
    reason = f": {member['error']}" if "error" in member else ""
    return textwrap.shorten(member["status"] + reason, 70, placeholder=" …")


def write_sweep(folder: Path) -> list[dict]:
    """Write sweep.json and sweep.md about the members that there are, and print the table; returns the members."""
    members = load_members(folder)
    if members:
        table = sweep_table(members)
        page = to_markdown(f"Sweep {folder.name}", [table])
        write_json(folder / "sweep.json", members)
        write_atomically(folder / "sweep.md", lambda aside: aside.write_text(page, encoding="utf-8"))
        print(f"{to_text(table)}\nsweep: {folder}")
    return members


def check_members(members: list[dict]) -> None:
    """Raise RunError where a member is not done, UsageError where all failed for what was asked."""
    failed = sorted(member["member"] for member in members if member["status"] != "done")
    if failed:
        usage = all(member.get("exit_code") == 2 for member in members)
        raise (UsageError if usage else RunError)(
            f"{len(failed)} of {len(members)} members failed: {', '.join(map(str, failed))}. The same command with "
            "resume=true tries them again."
        )
