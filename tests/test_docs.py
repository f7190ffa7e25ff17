"""What the docs say of the tests and of recorded results is so."""

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
from gcnn.reporting.latency import load_latency
from gcnn.reporting.results import results_table
from gcnn.reproduction.claims import CLAIMS, verdict
from gcnn.reproduction.rates import best_groups
from gcnn.reproduction.records import FIGURES, load_records
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


def test_the_speeds_in_the_docs_are_those_of_the_results():
    """Every table row of PERFORMANCE.md that has a JSON file beside it."""
    text = (DOCS / "PERFORMANCE.md").read_text()
    found = {path.stem: json.loads(path.read_text()) for path in (DOCS / "results").glob("*.json")}
    for entry in found["training_speed"]["workloads"].values():
        share, evaluation = (
            100 * entry[f"{key}"]
            for key in ("share_of_matrix_product", "evaluation_share_of_forward")
        )
        assert (
            f"| {entry['tokens_per_second']:,.0f} | {entry['flops_per_second'] / 1e9:.0f} |" in text
        )
        assert f"| {share:.0f} % |" in text
        assert f"| {evaluation:.0f} % |" in text
    for entry in found["data_size"]["texts"].values():
        assert f"| {entry['seconds']:.1f} | {entry['tokens_per_second'] / 1e6:.2f} M |" in text
    for entry in found["corpus_scoring"]["measurements"]:
        assert f"| {entry['tokens_per_second_and_core']:,.0f} |" in text
        assert f"| {entry['core_hours_for_1_tb']:,.0f} | ${entry['dollars_for_1_tb']:.0f} |" in text
    for words in ("20", "50"):
        sentence = found["latency_gcnn_8"]["models"]["gcnn_8"]["sentences"][words]
        assert f"{words} words" in text
        assert (
            f"**{sentence['median_ms']:.1f} ms**, "
            f"{sentence['median_ms'] / sentence['bound_ms']:.1f} times" in text
        )


def test_the_wikitext_103_figures_in_the_docs_are_the_results():
    text = (DOCS / "RESULTS.md").read_text()
    found = json.loads((DOCS / "results" / "wikitext103_head.json").read_text())
    valid, test = found["validation"], found["test"]
    assert f"| perplexity | {valid['perplexity']:.1f} | {test['perplexity']:.1f} |" in text
    assert (
        f"| of a unigram model | {valid['unigram_perplexity']:,.1f} "
        f"| {test['unigram_perplexity']:,.1f} |" in text
    )


def test_the_wikitext_2_rows_in_the_docs_are_the_results():
    lines = (DOCS / "RESULTS.md").read_text().splitlines()
    rows = {
        m[1]: line
        for line in lines
        if (m := re.match(r"\| .*\((?:docs/)?(results/wikitext2_\w+\.json)\)", line))
    }
    assert len(rows) >= 2
    for name, row in rows.items():
        found = json.loads((DOCS / name).read_text())
        train = found["train"]
        operations = 3 * found["flops_per_token"] * found["train"]["tokens"]
        perplexities = [f"{found[split]['perplexity']:.1f}" for split in ("test", "validation")]
        cells = [f"{found['parameters']['total'] / 1e6:.1f} M", *perplexities]
        cells += [
            f"{train['tokens'] / 1e6:.1f} M",
            f"{operations:.1e}",
            f"{train['seconds'] / 60:.0f} min",
        ]
        assert " | ".join(cells) in row


def test_the_gates_in_the_docs_are_the_figures():
    groups = [
        g
        for name in ("fig3", "fig5")
        for g in json.loads((DOCS / f"results/reproduction/cpu/{name}.json").read_text())["groups"]
    ]
    means = {
        group["group"]: f"{group['mean']:.2f}"
        for group in groups
        if len(group["test_perplexity"]) == 3
    }
    heading = "### What each gate's own gain and rate changed"
    section = (DOCS / "RESULTS.md").read_text().partition(heading)[2]
    rows = {
        row.split(" | ")[0].removeprefix("| ").lower(): row
        for row in section.splitlines()[:18]
        if "| " in row
    }
    assert len(means) == 6
    for gate, mean in means.items():
        assert rows[gate].endswith(f"| {mean} |")


def test_what_more_text_changed_in_the_docs_is_the_figures():
    records = load_records(DOCS / "results" / "reproduction")
    text = " ".join((DOCS / "RESULTS.md").read_text().split())

    gates = best_groups(records["wikipedia"]["fig5"])
    means = {name: gates[name].mean for name in ("glu", "bilinear", "linear")}
    ahead = f"GLU ({means['glu']:.2f}) is ahead of bilinear units ({means['bilinear']:.2f})"
    lead = f"{means['bilinear'] / means['glu'] - 1:.1%}".replace("%", " %")
    assert f"{ahead} by {lead} on average" in text
    behind = f"{means['linear'] / means['glu'] - 1:.0%}".replace("%", " %")
    assert f"Linear units ({means['linear']:.2f}) are {behind} behind GLU" in text

    gates = best_groups(records["wikipedia"]["fig3"])
    means = {name: gates[name].mean for name in ("glu", "gtu", "relu", "tanh")}
    assert f"GTU ({means['gtu']:.2f}) is ahead of ReLU ({means['relu']:.2f})" in text
    first = f"{means['gtu'] / means['glu'] - 1:.0%}".replace("%", " %")
    last = f"{means['tanh'] / means['relu'] - 1:.0%}".replace("%", " %")
    assert f"GLU is first by {first} and tanh ({means['tanh']:.2f}) last by {last}" in text
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"GLU is the best of the paper's gates, {first} ahead of the next" in readme

    contexts, small = (best_groups(records[scale]["fig4"]) for scale in ("wikipedia", "cpu"))
    means = [f"{words} words {contexts[words].mean:.2f}" for words in ("13", "19", "31", "49")]
    few = f"1 word has {contexts['1'].mean:.2f}, 7 words have {contexts['7'].mean:.2f}"
    assert f"{few}, {means[0]}, {means[1]} (three seeds), {means[2]} and {means[3]}." in text
    assert len(contexts["19"].test_perplexity) == 3
    behind = []
    for at in (contexts, small):
        for words in ("31", "49"):
            behind.append(100 * (at[words].mean / at["19"].mean - 1))
    words = "by {:.1f} and {:.1f} %, where they were by {:.1f} and {:.1f} %".format(*behind)
    assert f"31 and 49 words are behind 19 {words}" in text


def recorded(name: str) -> dict:
    """The results.json of a run, as docs/results has it."""
    return json.loads((DOCS / "results" / f"{name}.json").read_text())


def test_the_readme_fits_two_screens_and_shows_recorded_numbers():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 100
    table = results_table(recorded("quickstart")).splitlines()
    blocks = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    excerpt = next(block for block in blocks if block.startswith("parameters"))
    assert set(excerpt.splitlines()) <= {*table, ""}
    lstm = recorded("quickstart_lstm")["test"]["perplexity"]
    assert f"the LSTM has {lstm:.2f} on test" in " ".join(text.split())


def test_the_quick_starts_trials_in_the_docs_are_recorded_and_its_recipes_the_best_of_them():
    text = (DOCS / "RESULTS.md").read_text()
    trials = json.loads((DOCS / "results" / "quickstart_trials.json").read_text())
    experiments = {
        "GCNN": "quickstart",
        "LSTM": "quickstart_lstm",
        "Transformer": "quickstart_transformer",
    }
    assert {trial["model"] for trial in trials} == set(experiments)
    for model, experiment in experiments.items():
        own = [trial for trial in trials if trial["model"] == model]
        for trial in own:
            perplexities = [trial["validation_perplexity"], trial["test_perplexity"]]
            cells = [model, trial["lr"], trial["order"], *(f"{p:.2f}" for p in perplexities)]
            assert f"| {' | '.join(cells)} |" in text
        best = min(own, key=lambda trial: trial["validation_perplexity"])
        rates = sorted(float(t["lr"]) for t in own if t["order"] == best["order"])
        assert rates[0] < float(best["lr"]) < rates[-1]
        config = compose_config(f"experiment={experiment}")
        assert config.optimizer.lr == float(best["lr"])
        assert config.trainer.carry_state == (best["order"] == "in order")
        assert config.trainer.max_steps == best["steps"]


@pytest.mark.parametrize("page", ["README.md", "docs/RESULTS.md"])
def test_gcnn_and_lstm_in_the_docs_are_the_recorded_runs(page):
    """The rows of the table that the two pages share: test perplexities of GCNN and LSTM."""
    rows = {}
    for line in (ROOT / page).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[3].replace(".", "").isdecimal():
            rows[cells[0]] = cells[3:5]
    records = load_records(DOCS / "results" / "reproduction")["wikipedia"]["figs"]
    means = {}
    for model in ("GCNN", "LSTM"):
        groups = [g for g in records.groups if g.group.startswith(model) and g.mean]
        for tokens in {g.corpus_tokens for g in groups}:
            best = min(
                (g for g in groups if g.corpus_tokens == tokens),
                key=lambda g: min(g.validation_perplexity.values()),
            )
            means[model, round(tokens / 1e6)] = f"{best.mean:.1f}"
    expected = {}
    for title, gcnn, lstm in (
        ("Shakespeare", "quickstart", "quickstart_lstm"),
        ("WikiText-2", "wikitext2_gcnn_small", "wikitext2_lstm_small"),
    ):
        pair = [recorded(name)["test"]["perplexity"] for name in (gcnn, lstm)]
        expected[title] = [f"{perplexity:.1f}" for perplexity in pair]
    table3 = best_groups(load_records(DOCS / "results" / "reproduction")["cpu"]["table3"])
    pair = [table3["gcnn_8"].mean, table3["lstm_1024"].mean]
    expected["the same, smaller models"] = [f"{perplexity:.1f}" for perplexity in pair]
    for tokens in (20, 61):
        lstm = means.get(("LSTM", tokens), "not yet trained")
        expected[f"Wikipedia, {tokens} M words"] = [means["GCNN", tokens], lstm]
    transformers = [g.mean for g in records.groups if g.group.startswith("Transformer")]
    assert f"{min(transformers):.1f}" in (ROOT / page).read_text()
    for title, pair in expected.items():
        [found] = [cells for name, cells in rows.items() if name.startswith(title)]
        assert found == pair, title


@pytest.mark.parametrize("scale", ["cpu", "wikipedia"])
@pytest.mark.parametrize("figure", CLAIMS)
def test_the_docs_begin_each_verdict_as_the_records_have_it(figure, scale):
    """In the table of RESULTS.md: a row a claim, a column a scale; a dash where it is not asked."""
    measured = load_records(DOCS / "results" / "reproduction")[scale].get(figure)
    if figure == "table4":
        measured = load_latency(DOCS / "results/latency_gcnn_8b.json")
    expected = "–"
    if measured:
        missing = getattr(measured, "missing", 0)
        expected = verdict(CLAIMS[figure].compare(measured), missing)
    name = FIGURES[figure][0].partition(",")[0]
    rows = re.findall(rf"^\| {name} \|.*$", (DOCS / "RESULTS.md").read_text(), re.MULTILINE)
    [row] = rows
    cell = row.strip("|").split("|")[2 + ["cpu", "wikipedia"].index(scale)].strip()
    assert re.match(re.escape(expected) + r"\b|–$", cell), cell


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
