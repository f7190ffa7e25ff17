"""A sweep's members, read from their folders, as one table."""

import math
import textwrap
from pathlib import Path

from gcnn.errors import RunError, UsageError
from gcnn.files import MEMBER, write_atomically, write_json
from gcnn.reporting.document import Table, table_of, to_markdown, to_text
from gcnn.reporting.files import checked, read_json
from gcnn.reporting.results import Member, Results, varying
from gcnn.reporting.units import DASH, count, duration, magnitude, perplexity


def finished_results(folder: Path, overrides: list[str]) -> Results | None:
    """The results of a member that is done, None of one that is not.

    Raises UsageError where it was done, or begun, with other overrides: it would be half a run of each.
    """
    results, member = read_json(folder / "results.json", Results), read_json(folder / MEMBER, Member)
    before = member.overrides if member else []
    if (results is not None or (folder / "config.yaml").exists()) and before != overrides:
        changed = ", ".join(sorted(set(before) ^ set(overrides)))
        raise UsageError(
            f"{folder} was begun with other overrides ({changed}). Repeat the sweep's own command (a search: with "
            "the same hydra.sweeper.sampler.seed), or give another run_dir."
        )
    return results


def load_members(folder: Path) -> list[dict]:
    """All members of a sweep as sweep.json has them, the best on validation first, those that are not done last."""
    paths = list(folder.glob(f"*/{MEMBER}"))
    members = [read_json(path, Member) for path in paths]
    rows = []
    for path, member, settings in zip(paths, members, varying([m.settings for m in members]), strict=True):
        finished = read_json(path.with_name("results.json"), Results)
        results = finished or checked({}, Results, "")
        failed = {} if finished or not member.error else {"error": member.error, "exit_code": member.exit_code}
        row = {
            "member": member.number,
            "overrides": settings,
            "status": "done" if finished else "failed" if failed else "unfinished",
            **failed,
            "validation_perplexity": results.validation.perplexity,
            "test_perplexity": results.test.perplexity,
            "parameters": results.parameters.total,
            "tokens": results.train.tokens,
            "seconds": results.train.seconds,
        }
        rows.append(row)
    return sorted(rows, key=lambda m: (m["status"] != "done", m["validation_perplexity"] or math.inf, m["member"]))


def sweep_table(members: list[dict]) -> Table:
    keys = sorted({key for member in members for key in member["overrides"]})
    columns = {"member": lambda m: str(m["member"])}
    columns |= {key: lambda m, key=key: m["overrides"].get(key, DASH) for key in keys}
    columns |= {
        "status": lambda m: textwrap.shorten(  # sweep.json has all of it
            f"{m['status']}: {m['error']}" if "error" in m else m["status"], 70, placeholder=" …"
        ),
        "validation": lambda m: perplexity(m["validation_perplexity"]),
        "test": lambda m: perplexity(m["test_perplexity"]),
        "parameters": lambda m: magnitude(m["parameters"]),
        "tokens": lambda m: count(m["tokens"]),
        "training time": lambda m: duration(m["seconds"]),
    }
    return table_of(members, columns, text_columns=len(keys) + 2)


def write_sweep(folder: Path) -> list[dict]:
    """Write sweep.json and sweep.md about the members that there are, and print the table; returns the members."""
    members = load_members(folder)
    if members:
        table = sweep_table(members)
        page = to_markdown(f"Sweep {folder.name}", [table])
        write_json(folder / "sweep.json", members)
        write_atomically(folder / "sweep.md", lambda aside: aside.write_text(page, encoding="utf-8", errors="replace"))
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
