"""The figures in README and docs are those of the recorded results."""

import json
import re
from pathlib import Path

import pytest

from gcnn.config.compose import compose_config
from gcnn.reporting.comparison import Comparison, load_comparison
from gcnn.reporting.results import results_table
from gcnn.reproduction.rates import best_groups
from gcnn.reproduction.records import load_records

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MODELS = ("GCNN", "LSTM")


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
    """The table of GCNN and LSTM, of which RESULTS has two rows more: test perplexities."""
    rows = {}
    for line in (ROOT / page).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[3].replace(".", "").isdecimal():
            rows[cells[0]] = cells[3:5]
    records = load_records(DOCS / "results" / "reproduction")["wikipedia"]["figs"]
    means = {}
    for model in MODELS:
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
    for title, scale in (
        ("the same, smaller models", "cpu"),
        ("the same, all of them", "wikipedia"),
    ):
        table3 = best_groups(load_records(DOCS / "results" / "reproduction")[scale]["table3"])
        pair = [table3["gcnn_8"].mean, table3["lstm_1024"].mean]
        expected[title] = [f"{perplexity:.1f}" for perplexity in pair]
    for tokens in (20, 61) if page == "README.md" else (2, 6, 20, 61):
        expected[f"Wikipedia, {tokens} M words"] = [means[model, tokens] for model in MODELS]
    transformers = [g.mean for g in records.groups if g.group.startswith("Transformer")]
    decimals = 1 if page == "README.md" else 2
    assert f"{min(transformers):.{decimals}f}" in (ROOT / page).read_text()
    for title, pair in expected.items():
        [found] = [cells for name, cells in rows.items() if name.startswith(title)]
        assert found == pair, title


PARTS = {  # of a text: a row in RESULTS.md -> where a comparison of two runs has it
    "new in their article": ("recall", "new token"),
    "there before, after another word than now": ("recall", "new bigram, repeated token"),
    "frequent, and there before after the same word": ("recall", "repeated bigram, frequent token"),
    "rare (past rank 1,000), and there before after the same word": (
        "recall",
        "repeated bigram, rare token (rank > 1,000)",
    ),
    "past rank 10,000": ("frequency", "10,001 or more"),
}


def gains_of_lstm(comparison: Comparison) -> dict[str, str]:
    """By how many nats a word the LSTM, run B, is better than the GCNN: as RESULTS.md says it."""
    gains = {"all": f"{-comparison.difference:.3f}"}
    for title, (way, label) in PARTS.items():
        [part] = [part for part in comparison.parts[way] if part.part == label]
        gcnn, lstm = part.nats_per_token
        gains[title] = f"{gcnn - lstm:.3f}"
    return gains


def test_on_which_words_gcnn_and_lstm_differ_in_the_docs_is_recorded():
    names = ("2m_seed_2", "2m_seed_3", "61m")
    comparisons = [load_comparison(DOCS / f"results/comparison_{name}.json") for name in names]
    section = (DOCS / "RESULTS.md").read_text().partition("once more, at three sizes")[2]
    section = section.partition("\n## ")[0]
    rows = {}
    for line in section.splitlines():
        title, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[title] = cells
    first, second, large = [gains_of_lstm(comparison) for comparison in comparisons]
    for title in ("all", *PARTS):
        in_2m, _, in_61m = rows[title]
        assert (in_2m, in_61m) == (f"{first[title]}, {second[title]}", large[title])

    seen = [part for part in comparisons[2].parts["recall"] if part.part != "new token"]
    lead = sum(part.contribution for part in seen) / comparisons[2].difference
    words = sum(part.tokens for part in seen) / comparisons[2].tokens
    shares = (
        f"{100 * lead:.0f} % of its lead is on words that were in the article before, which are"
    )
    assert f"{shares} {100 * words:.0f} % of all" in " ".join(section.split())


def test_where_the_lstm_leads_on_wikitext_2_in_the_docs_is_recorded():
    comparison = load_comparison(DOCS / "results/comparison_wikitext2.json")
    pair = [
        recorded(f"wikitext2_{name}") for name in ("gcnn_small_long_blocks", "lstm_small_new_start")
    ]
    assert comparison.perplexity == pytest.approx([run["test"]["perplexity"] for run in pair], 1e-6)
    section = (DOCS / "RESULTS.md").read_text().partition("Where does its lead come from?")[2]
    section = section.partition("\n## ")[0]
    for title, gain in gains_of_lstm(comparison).items():
        assert re.search(rf"^\| {re.escape(title)} \| \d+ % \| {gain} \|$", section, re.MULTILINE)
    low, high = (-end for end in comparison.difference_interval)
    assert f"interval of {high:.3f} to {low:.3f} over all words" in section
    [new] = [part for part in comparison.parts["recall"] if part.part == "new token"]
    lead = 100 * new.contribution / comparison.difference
    words = 100 * new.tokens / comparison.tokens
    share = f"{lead:.0f} % of the lead is on words that are new in their article"
    assert f"{share}, which are {words:.0f} % of all" in " ".join(section.split())
