"""What the docs promise, link to and show is there. (For numbers see the other test_docs_*.py.)"""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gcnn.commands.main import COMMANDS
from gcnn.config.compose import compose_config
from tests.torture import markdown

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TRAINING = (DOCS / "TRAINING.md").read_text()
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize(
    "name", re.findall(r"`(tests/[\w/.]+::\w+)`", (DOCS / "RELIABILITY.md").read_text())
)
def test_a_promise_names_a_test_that_exists(name):
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_promise_names_what_holds_it():
    rows = [
        line for line in (DOCS / "RELIABILITY.md").read_text().splitlines() if line.startswith("| ")
    ]
    promises = [
        row for row in rows if re.match(r"\| (promise|threat|what was done|---)", row) is None
    ]
    recorded = markdown(json.loads((DOCS / "results" / "torture.json").read_text())["rows"])
    for row in promises:
        assert "::test_" in row or "the same" in row or row in recorded.splitlines(), row


def test_the_table_of_the_torture_is_the_recorded_one():
    recorded = json.loads((DOCS / "results" / "torture.json").read_text())
    assert markdown(recorded["rows"]) in (DOCS / "RELIABILITY.md").read_text()
    assert all(row[-1] in (0, "") for row in recorded["rows"])


def test_the_plan_in_the_docs_is_what_the_command_prints(call):
    done = call("describe", "--plan")
    assert done.code == 0
    assert f"```\n{done.out}```" in (DOCS / "PERFORMANCE.md").read_text()


def test_the_sizes_of_the_models_in_the_docs_are_what_the_command_prints(call):
    done = call("describe")
    assert done.code == 0, done.err
    printed = {line.split()[0]: line.split() for line in done.out.splitlines()[1:] if line}
    rows = re.findall(
        r"^\| `(\w+)` \| [^|]* \| ([\d.]+) M \| (\d*) ?\| ([\d.]+) \|",
        TRAINING,
        re.M,
    )
    assert len(rows) == 14
    for name, parameters, receptive_field, mflops in rows:
        *_, field, flops = printed[name]
        assert (receptive_field or "unbounded", mflops) == (field, flops)
        assert parameters in printed[name]
    said = " ".join(call("describe", "--help").out.split())
    assert "default: those without a slash" in said
    assert not any("/" in name for name in printed)


def test_the_plan_that_the_docs_show_is_the_file():
    shown = re.search(r"`(configs/reproduce/\S+)` says .*?```yaml\n(.*?)```", TRAINING, re.DOTALL)
    lines = (ROOT / shown[1]).read_text().splitlines(keepends=True)
    assert shown[2] == "".join(line for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page):
    """`make TARGET`, `gcnn COMMAND` and scripts, where they stand as code."""
    targets = re.findall(r"^([a-z-]+):.*", (ROOT / "Makefile").read_text(), re.MULTILINE)
    text = page.read_text()
    code = "\n".join(re.findall(r"^```.*?^```|`[^`\n]+`", text, re.DOTALL | re.MULTILINE)).replace(
        "`", "\n"
    )
    assert set(re.findall(r"^make ([a-z-]+)", code, re.MULTILINE)) <= set(targets)
    named = re.findall(r"^(?:\.venv/bin/python -m )?gcnn ([a-z-]+)", code, re.MULTILINE)
    assert {name for name in named if not name.startswith("-")} <= set(COMMANDS)
    assert all((ROOT / name).is_file() for name in re.findall(r"\bscripts/\w+\.py", code))


def test_the_gate_and_the_experiment_that_the_docs_add_work_as_shown(tmp_path):
    """Each `+` line comes after the line that is shown before it, or into a file of its own."""
    for folder in ("gcnn", "configs", "tests/models"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    for diff in re.findall(
        r"^```diff\n(.*?)^```", (DOCS / "ARCHITECTURE.md").read_text(), re.DOTALL | re.MULTILINE
    ):
        lines = diff.splitlines()
        assert len(lines) <= 10
        path = (
            tmp_path
            / next(line for line in lines[::-1] if re.match(r"(---|\+\+\+) ", line)).split()[1]
        )
        added = "".join(line[1:] + "\n" for line in lines if re.match(r"\+(?!\+\+ )", line))
        if shown := "".join(line[1:] + "\n" for line in lines if line.startswith(" ")):
            assert path.read_text().count(shown) == 1
            added = path.read_text().replace(shown, shown + added)
        path.write_text(added)
    code = """
import torch
from gcnn.config import compose_config
from gcnn.models.language_model import build_model
from gcnn.models.layers import apply_gate
from tests.models import test_layers
torch.manual_seed(0)
config = compose_config("model=gcnn_small", "model.cutoffs=[20]", "model.gate=hard_glu")
model = build_model(config.model, 100)
assert model(torch.arange(6).view(2, 3))[0].isfinite().all()
a, b = torch.randn(2, 3, 5)
torch.testing.assert_close(
    apply_gate(torch.cat([a, b], -1), "hard_glu"), a * torch.nn.functional.hardsigmoid(b)
)
test_layers.test_initialisation_keeps_the_signal_through_thirteen_blocks("hard_glu", 0.0)
print(compose_config("experiment=quickstart_relu").model)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(compose_config("experiment=quickstart", "model.gate=relu").model) in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_that_the_docs_name_exists(page):
    """`gcnn/file.py` is a file, and `gcnn/file.py::Class.method` something in it."""
    found = re.findall(r"\b((?:gcnn|configs)/[\w/]+\.(?:py|yaml))(?:::([\w.]+))?", page.read_text())
    shown = {"configs/experiment/quickstart_relu.yaml"}  # what ARCHITECTURE.md tells to write
    for path, name in found:
        assert path in shown or (ROOT / path).is_file(), path
        assert not name or name in definitions(ROOT / path), f"{path}::{name}"
    assert page.name != "ARCHITECTURE.md" or sum(bool(name) for _, name in found) > 20


def definitions(path: Path) -> set[str]:
    """The functions, classes, methods and constants of a file."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
            inner = getattr(node, "body", []) if isinstance(node, ast.ClassDef) else []
            names |= {
                f"{node.name}.{part.name}" for part in inner if isinstance(part, ast.FunctionDef)
            }
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names
