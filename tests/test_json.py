"""JSON that others than Python read."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from gcnn.base.files import to_json, write_json

ROOT = Path(__file__).parents[1]
OTHER_USES = {  # of json.dumps: none writes a number that may be infinite
    "cache.py": "a key",
    "checkpoints.py": "a digest",
    "help.py": "the values that --help shows",
    "directory.py": "who holds a lock",
    "provenance.py": "how a child process ended, and what it used",
    "stream.py": "counts",
    "tables.py": "whether a row is text",
    "tokenizers.py": "names and ids",
    "weights.py": "a file's digest and its tokenizer's",
}


def strict(text: str):
    """JSON as all other languages read it."""

    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan, np.float64("inf")])
def test_a_number_that_json_lacks_is_null(number, tmp_path):
    value = {
        "a": number,
        "b": [1, (number, "x")],
        "c": {"d": number, "e": 2.5, "f": None, "g": True},
    }
    expected = {"a": None, "b": [1, [None, "x"]], "c": {"d": None, "e": 2.5, "f": None, "g": True}}
    assert strict(to_json(value)) == expected
    write_json(tmp_path / "file.json", value)
    assert strict((tmp_path / "file.json").read_text()) == expected


def test_json_is_written_by_one_function():
    users = {path.name for path in (ROOT / "gcnn").rglob("*.py") if "json.dump" in path.read_text()}
    assert users == {"files.py", *OTHER_USES}
