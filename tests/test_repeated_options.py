"""Options with several values: what is typed adds up, however often the option is repeated."""

import sys
from importlib import import_module

import pytest


@pytest.mark.parametrize(
    ("command", "required", "option", "values"),
    [
        ("score", ["--run", "run"], "input", ["a.txt", "b.txt", "c.txt"]),
        ("benchmark", [], "runs", ["a", "b", "c"]),
        ("benchmark_data", ["--dir", "d"], "texts", ["billion_word", "running"]),
        ("benchmark_softmax", [], "vocabularies", ["30000", "40000", "50000"]),
        ("benchmark_train", [], "workloads", ["small", "gcnn_8", "gcnn_14"]),
    ],
)
def test_what_is_typed_adds_up_and_replaces_the_default(
    monkeypatch, command, required, option, values
):
    module = import_module(f"gcnn.commands.{command}")
    found = {}
    first, *others = values
    for name, words in {
        "none": [],
        "once": [f"--{option}", *values],
        "repeated": [f"--{option}", first, f"--{option}", *others],
    }.items():
        monkeypatch.setattr(sys, "argv", [command, *required, *words])
        found[name] = list(getattr(module.parse_arguments(), option) or [])
    assert list(map(str, found["once"])) == values
    assert found["repeated"] == found["once"] != found["none"]
