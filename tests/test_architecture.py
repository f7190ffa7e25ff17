"""Who may import whom, without a circle: commands -> reproduction, benchmarks, reporting, training
-> evaluation -> models -> data -> config -> base.
"""

import ast
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {  # a room's own files besides; nothing imports commands but gcnn/__main__.py
    "base": set(),
    "config": {"base"},
    "runs": {"base", "config"},
    "data": {"base", "config"},
    "models": {"base", "config", "runs", "data"},
    "evaluation": {"base", "config", "runs", "data", "models"},
    "training": {"base", "config", "runs", "data", "models", "evaluation"},
    "benchmarks": {"base", "config", "runs", "data", "models", "evaluation", "training"},
    "interop": {"base", "config", "runs", "data", "models"},
    "reporting": {"base", "config", "runs"},
    "reproduction": {"base", "config", "runs", "reporting"},
}
HEAVY = {"torch", "hydra", "omegaconf"}  # what the base does without until it is asked for


@cache
def imports_of(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """All import statements of a file: those within functions and for type checkers, too."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def modules() -> dict[str, Path]:
    """Every module of the package by its name."""
    found = {}
    for path in (ROOT / "gcnn").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def import_graph() -> dict[str, set[str]]:
    """The modules of the package that each module imports."""
    known = modules()
    graph = {}
    for name, path in known.items():
        graph[name] = set()
        for node in imports_of(path):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                within = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [target if target in known else node.module for target in within]
            graph[name] |= {target for target in targets if target in known}
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Some modules that import one another in turn; empty where there are none."""
    finished: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in finished:
            return []
        for target in sorted(graph.get(name, ())):
            found = visit(target, [*path, name])
            if found:
                return found
        finished.add(name)
        return []

    for name in sorted(graph):
        found = visit(name, [])
        if found:
            return found
    return []


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_only_what_lies_below_them(room):
    for name, targets in import_graph().items():
        if name.split(".")[1:2] == [room]:
            rooms = {target.split(".")[1] for target in targets}
            assert rooms <= MAY_IMPORT[room] | {room}, name


def test_every_room_has_its_place_and_nothing_imports_the_commands_or_the_scripts():
    rooms = {path.parent.name for path in (ROOT / "gcnn").glob("*/*.py")}
    assert rooms == {*MAY_IMPORT, "commands"}
    for name, targets in import_graph().items():
        uses_commands = any(target.startswith("gcnn.commands") for target in targets)
        assert not uses_commands or name.startswith("gcnn.commands") or name == "gcnn.__main__", (
            name
        )
    for path in modules().values():
        assert not [node for node in imports_of(path) if "scripts" in ast.unparse(node)], path


def test_no_module_imports_itself_by_way_of_others():
    graph = import_graph()
    assert circle(graph) == []
    graph["gcnn.base.errors"].add("gcnn.config.complaints")  # as it was: it ends in a circle
    found = circle(graph)
    assert found[0] == found[-1]
    assert "gcnn.base.errors" in found


def test_the_base_knows_neither_torch_nor_hydra_when_it_is_imported():
    for path in (ROOT / "gcnn" / "base").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module]
                )
                assert not {name.split(".")[0] for name in names} & HEAVY, path


def test_every_file_can_be_read_in_one_sitting():
    long = {}
    for folder in ("gcnn", "scripts", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            lines = len(path.read_text().splitlines())
            if lines > 400:
                long[path] = lines
    assert not long


def test_a_wheel_holds_every_folder_of_code_and_the_configs():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "packages"
    ]
    folders = {path.parent for path in (ROOT / "gcnn").rglob("*.py")}
    expected = {".".join(folder.relative_to(ROOT).parts) for folder in folders} | {"gcnn.configs"}
    assert sorted(packages) == sorted(expected)


def test_nothing_else_stands_at_the_top():
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=False
    )
    if listed.returncode or not listed.stdout:
        pytest.skip("not a checkout of git")
    top = {
        line.partition("/")[0] for line in listed.stdout.splitlines() if not line.startswith(".")
    }
    folders = {"configs", "docs", "gcnn", "scripts", "tests"}
    assert top == folders | {
        "CITATION.cff",
        "LICENSE",
        "Makefile",
        "README.md",
        "constraints.txt",
        "pyproject.toml",
    }
