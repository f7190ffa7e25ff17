"""When perplexities compare, on made-up results."""

import math
import re

import pytest

from gcnn.reporting.ranking import PER_TOKEN, PER_WORD, ranking_of, search_objective
from gcnn.reporting.results import results_table
from gcnn.runs.json_files import all_absent, checked
from gcnn.runs.results import Results
from tests.reporting.conftest import made_up_results


def results(perplexity=100.0, tokenizer="t1", text="text", unknown=0, **data) -> Results:
    """Results with fingerprints, and so many unknown words in both texts."""
    content = made_up_results("x", "wikitext2", perplexity)
    content["data"] |= {
        "tokenizer_fingerprint": tokenizer,
        "fingerprint": f"{tokenizer} {text}",
    } | data
    for split in ("validation", "test"):
        content[split] |= {
            "text_fingerprint": text,
            "unknown": unknown,
            "out_of_vocabulary": unknown,
        }
        if unknown:
            content[split] |= {"word_perplexity": None, "bits_per_byte": None}
    return checked(content, Results, "")


def older(unknown=None, **data) -> Results:
    """Results as they were before they had fingerprints of tokenizer and texts."""
    content = made_up_results("x", "wikitext2", 100.0)
    content["data"] |= data
    for split in ("validation", "test"):
        content[split]["unknown"] = unknown
    return checked(content, Results, "")


@pytest.mark.parametrize(
    ("runs", "measure", "reason"),
    [
        ([], PER_TOKEN, ""),
        ([results()], PER_TOKEN, ""),
        ([results(unknown=900)], PER_TOKEN, ""),
        (
            [results(unknown=900), results(90, unknown=900)],
            PER_TOKEN,
            "",
        ),  # the same words are unknown to both
        (
            [results(fingerprint="a"), results(fingerprint="b")],
            PER_TOKEN,
            "",
        ),  # trained on texts of other sizes
        ([results(), results(tokenizer="t2")], PER_WORD, "same tokenizer"),
        (
            [results(), results(tokenizer="t2", unknown=5)],
            None,
            r"no word is unknown \(5 of 216,646",
        ),
        ([results(unknown=5), results(tokenizer="t2", unknown=7)], None, r"\(7 of"),
        ([results(), results(text="other")], None, "different texts"),
        ([results(), results(text="other", tokenizer="t2")], None, "different texts"),
        ([older(), older()], PER_TOKEN, ""),
        ([older(0), older(0, fingerprint="else")], PER_WORD, "same tokenizer"),
        (
            [older(), older(fingerprint="else")],
            None,
            "unknown",
        ),  # they do not say how many words are
        ([older(0), older(3, fingerprint="else")], None, "unknown"),
        ([older(0), older(0, fingerprint="else", name="c4")], None, "different texts"),
        ([older(0), results()], PER_WORD, "same tokenizer"),
        ([older(0, fingerprint="same"), results(fingerprint="same")], PER_TOKEN, ""),
    ],
)
@pytest.mark.parametrize("split", ["validation", "test"])
def test_runs_are_ranked_by_what_compares(runs, measure, reason, split):
    if split == "test":
        reason = reason.replace("216,646", "244,569")
    found = ranking_of(runs, split)
    assert found.measure == measure
    assert (found.note == "") == (measure == PER_TOKEN)
    assert re.search(reason, found.reason)


def test_a_search_goes_by_what_a_word_of_the_text_costs():
    """The same order as per token where the tokenizer is one; a number that does not depend on it
    otherwise.
    """
    run = results()
    text = run.validation
    assert search_objective(run) == pytest.approx(text.perplexity ** (text.tokens / text.words))
    assert search_objective(results(unknown=900)) == search_objective(run)
    assert search_objective(results(90)) < search_objective(run)
    for nats in (None, math.inf, 1e9):
        run.validation.nll_nats = nats
        assert search_objective(run) == math.inf
    run.validation.nll_nats = 705.0 * text.words
    assert search_objective(run) == pytest.approx(1.505e306, rel=1e-3)
    assert search_objective(all_absent(Results)) == math.inf


def test_the_table_of_a_run_says_why_a_word_has_no_perplexity():
    table = results_table(results(unknown=12))
    assert "–" in next(line for line in table.splitlines() if line.startswith("bits per byte"))
    assert "test, per word and bits per byte: 12 of 244,569 words are unknown" in table
    assert "words are unknown" not in results_table(results())
    assert "words are unknown" not in results_table(older(12))  # it shows what was recorded
    uncounted = results(unknown=12)
    uncounted.test.words = None
    table = results_table(uncounted)
    assert "test, per word and bits per byte: 12 words are unknown" in table
