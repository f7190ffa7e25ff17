"""Log-probabilities of words, and of texts after others: sums and differences of what else is
measured.
"""

import numpy as np
import pytest
from hypothesis import given, settings

import gcnn
from gcnn.evaluation import perplexity
from gcnn.evaluation.run import load_model
from gcnn.evaluation.scoring import Scorer
from tests.evaluation.conftest import RUNS
from tests.unicode_text import any_lines

ODD = "once upon  a\u3000time\n\n nowhere-known abé \nla se\n"


@pytest.fixture(scope="module", params=RUNS, ids="-".join)
def double(request, made_runs) -> Scorer:
    """A model that computes in float64."""
    run = load_model(made_runs[request.param], "cpu")
    return Scorer(run.model.double(), run.tokenizer)


def nats(scorer: Scorer, text: str) -> float:
    """The log-probability of running text."""
    return scorer.token_scores(text, sentences=False).log_probs.sum()


def test_words_add_up_to_the_sentence(double, lines):
    for line, score in zip(lines[:20], double.score(lines[:20]), strict=True):
        if not line:
            continue
        found = double.word_scores(line)
        assert found.words == [*line.split(), double.tokenizer.eos]
        assert found.log_probs.sum() == pytest.approx(score.log_prob, rel=1e-12)
        assert (found.tokens.sum(), found.unknown.sum()) == (score.tokens, score.unknown)


@pytest.mark.parametrize("sentences", [False, True])
def test_a_word_has_the_log_probabilities_of_its_pieces(double, sentences):
    """A word's first piece begins with a blank; in odd text the sum at least is that of all
    tokens.
    """
    text = "once upon a time\n\nabé la se\n"
    tokens = double.token_scores(text, sentences)
    expected = [0.0]
    for kind, log_prob in zip(tokens.types, tokens.log_probs, strict=True):
        ends_line = kind == double.tokenizer.eos
        if (ends_line or kind.startswith("▁")) and expected[-1] != 0:
            expected.append(0.0)
        expected[-1] += log_prob
        if ends_line or double.tokenizer.kind == "word":
            expected.append(0.0)
    found = double.word_scores(text, sentences)
    assert " ".join(found.words) == "once upon a time <eos> <eos> abé la se <eos>".replace(
        "<eos>", double.tokenizer.eos
    )
    np.testing.assert_allclose(found.log_probs, expected[:-1], rtol=1e-12)
    odd = double.token_scores(ODD, sentences)
    assert double.word_scores(ODD, sentences).log_probs.sum() == pytest.approx(odd.log_probs.sum())


@settings(max_examples=60, deadline=None)
@given(lines=any_lines)
def test_any_text_is_its_words_and_their_tokens(double, lines):
    tokenizer = double.tokenizer
    words, counts = tokenizer.split_words(lines)
    assert counts.sum() == len(tokenizer.encode_lines(lines))
    assert len(counts) == len(words)
    start = 0
    for line in lines:
        mine, sizes = tokenizer.split_words([line])
        assert sizes.sum() == len(tokenizer.encode_lines([line]))
        assert words[start : start + len(mine)] == mine
        start += len(mine)


@pytest.mark.parametrize("block", [7, 2048])
def test_a_text_after_another_is_the_whole_less_the_context(double, lines, block, monkeypatch):
    """Of lines that follow one another, and of one that goes on."""
    monkeypatch.setattr(perplexity, "POSITIONS", block)
    before = "\n".join([*lines[:6], ""])
    after = [line for line in lines[6:20] if line]
    for line, score in zip(after, double.score(after, context=before), strict=True):
        expected = nats(double, before + line) - nats(double, before)
        assert score.log_prob == pytest.approx(expected, rel=1e-10)
        assert score.log_prob != pytest.approx(double.score([line])[0].log_prob, rel=1e-4)
        assert score.tokens == double.score([line])[0].tokens
    first, second = after[:2]
    tokens = double.token_scores(f"{before}{first} {second}", sentences=False).log_probs
    (score,) = double.score([second], context=before + first)
    assert score.log_prob == pytest.approx(tokens[-score.tokens :].sum(), rel=1e-10)


def test_no_context_is_the_start_of_a_text(double, lines):
    assert double.score(lines[:5], context="") == double.score(lines[:5])
    with pytest.raises(gcnn.UsageError, match="the context is not a string"):
        double.score(["a"], context=None)


def test_a_packed_model_gives_the_same_to_rounding(made_runs, lines):
    for run in made_runs.values():
        exact = load_model(run, "cpu")
        packed = gcnn.load(run, "cpu")
        slow = Scorer(exact.model, exact.tokenizer)
        before = "\n".join(lines[:4])
        found, expected = (model.score(lines, context=before) for model in (packed, slow))
        np.testing.assert_allclose(
            [score.log_prob for score in found], [score.log_prob for score in expected], atol=1e-4
        )


def test_a_line_a_word_is_what_python_says(run_dir, run, corpus, call):
    text = (corpus / "valid.txt").read_text()
    expected = Scorer(run.model, run.tokenizer).word_scores(text, sentences=False)
    command = ["evaluate", "--run", run_dir, "--per-word"]
    split = call(*command, "--split", "valid")
    assert split.code == 0, split.err
    rows = [line.split("\t") for line in split.out.splitlines()]
    assert [word for word, *_ in rows] == expected.words
    assert [float(row[1]) for row in rows] == pytest.approx(expected.log_probs, abs=1e-5)
    counts = list(zip(expected.tokens, expected.unknown, strict=True))
    assert [(int(row[2]), int(row[3])) for row in rows] == counts
    assert call(*command, "--file", "-", stdin=text.encode()).out == split.out
