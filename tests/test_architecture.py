"""Who may import whom: commands -> reproduction, benchmarks, reporting, training -> evaluation -> models, data."""

import ast
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASE = {"config", "checks", "errors", "files", "gates", "provenance", "torchrun"}
MAY_IMPORT = {
    "data": BASE,
    "models": BASE | {"data"},
    "evaluation": BASE | {"data", "models"},
    "training": BASE | {"data", "models", "evaluation"},
    "benchmarks": BASE | {"data", "models", "evaluation", "training"},
    "interop": BASE | {"data", "models"},
    "reporting": {"config", "errors", "files"},
    "reproduction": BASE | {"reporting"},
}


def imported_rooms(path: Path) -> set[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    assert not [name for name in names if name.split(".")[0] == "scripts"], path
    return {name.split(".")[1] for name in names if name.startswith("gcnn.")}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_only_what_lies_below_them(room):
    for path in (ROOT / "gcnn" / room).glob("*.py"):
        assert imported_rooms(path) <= MAY_IMPORT[room] | {room}, path
    # no circles: models may read data (its IGNORE), data never models
    assert "models" not in MAY_IMPORT["data"]


def test_every_file_can_be_read_in_one_sitting():
    long = {str(path): n for path in ROOT.glob("*/**/*.py") if ".venv" not in path.parts
            if (n := len(path.read_text().splitlines())) > 350}  # fmt: skip
    assert not long


def test_a_wheel_holds_every_folder_of_code_and_the_configs():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in (ROOT / "gcnn").rglob("*.py")}
    expected = {".".join(folder.relative_to(ROOT).parts) for folder in folders} | {"gcnn.configs"}
    assert sorted(packages) == sorted(expected)


def test_nothing_else_stands_at_the_top():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=False)
    if listed.returncode or not listed.stdout:
        pytest.skip("not a checkout of git")
    top = {line.partition("/")[0] for line in listed.stdout.splitlines() if not line.startswith(".")}
    folders = {"configs", "docs", "gcnn", "scripts", "tests"}
    assert top == folders | {"CITATION.cff", "LICENSE", "Makefile", "README.md", "constraints.txt", "pyproject.toml"}
