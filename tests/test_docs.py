"""What the docs say of the tests and of recorded results is so."""

import ast
import json
import re
from pathlib import Path

import pytest

from tests.torture import markdown

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", re.findall(r"`(tests/[\w/.]+::\w+)`", (DOCS / "RELIABILITY.md").read_text()))
def test_a_promise_names_a_test_that_exists(name):
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_promise_names_what_holds_it():
    rows = [line for line in (DOCS / "RELIABILITY.md").read_text().splitlines() if line.startswith("| ")]
    promises = [row for row in rows if re.match(r"\| (promise|threat|what was done|---)", row) is None]
    recorded = markdown(json.loads((DOCS / "results" / "torture.json").read_text())["rows"])
    for row in promises:
        assert "::test_" in row or "the same" in row or row in recorded.splitlines(), row


def test_the_table_of_the_torture_is_the_recorded_one():
    recorded = json.loads((DOCS / "results" / "torture.json").read_text())
    assert markdown(recorded["rows"]) in (DOCS / "RELIABILITY.md").read_text()
    assert all(row[-1] in (0, "") for row in recorded["rows"])
