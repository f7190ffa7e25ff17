import itertools
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcnn.base.errors import UsageError
from gcnn.data.stream import encode_file
from gcnn.evaluation import perplexity, scoring
from gcnn.evaluation.perplexity import evaluate
from gcnn.evaluation.run import load_model
from gcnn.evaluation.scoring import Scorer
from gcnn.models import inference, winograd
from tests.evaluation.conftest import MODELS, RUNS
from tests.unicode_text import any_line, any_lines


@pytest.fixture
def scorer(run):
    return Scorer(run.model, run.tokenizer)


def log_probs(scores):
    return np.array([score.log_prob for score in scores])


def test_scores_equal_one_forward_pass_over_each_sentence(run, scorer, lines, reference):
    lines = [
        *lines,
        "",
        " ",
        lines[4].replace(" ", "\t") + " \r",
        "nothing-known-here",
        "a <eos> <unk> b",
    ]
    for line, score in zip(lines, scorer.score(lines), strict=True):
        tokens = [*run.tokenizer.encode(line), run.tokenizer.eos_id]
        nlls = reference(run, tokens)
        assert score.log_prob == pytest.approx(-float(nlls.sum()), abs=1e-5 * len(tokens))
        assert score.tokens == len(tokens)
        assert score.unknown == tokens.count(run.tokenizer.unk_id)
        assert score.perplexity == pytest.approx(math.exp(-score.log_prob / score.tokens))


@pytest.fixture(scope="module", params=RUNS, ids="-".join)
def any_run(request, made_runs):
    return load_model(made_runs[request.param], "cpu")


@settings(max_examples=40, deadline=None)
@given(
    lines=any_lines,
    others=st.lists(any_line | st.just("a long line " * 20), max_size=3),
    data=st.data(),
)
def test_any_text_has_a_score_a_line_whatever_stands_beside_it(
    any_run, reference, lines, others, data
):
    scorer = Scorer(any_run.model, any_run.tokenizer)
    scores = scorer.score(lines)
    assert len(scores) == len(lines)
    total = 0.0
    for line, score in zip(lines, scores, strict=True):
        tokens = [*any_run.tokenizer.encode(line), any_run.tokenizer.eos_id]
        expected = -float(reference(any_run, tokens).sum())
        total += expected
        assert math.isfinite(score.log_prob)
        assert score.log_prob < 0
        assert score.log_prob / len(tokens) == pytest.approx(expected / len(tokens), abs=1e-5)
        assert (score.tokens, score.unknown) == (
            len(tokens),
            tokens.count(any_run.tokenizer.unk_id),
        )
    assert sum(log_probs(scores)) == pytest.approx(
        total, abs=1e-5 * sum(score.tokens for score in scores)
    )
    mixed = data.draw(st.permutations([*enumerate(lines), *((None, line) for line in others)]))
    for (i, _), score in zip(mixed, scorer.score([line for _, line in mixed]), strict=True):
        if i is not None:
            assert score.log_prob / score.tokens == pytest.approx(
                scores[i].log_prob / score.tokens, abs=1e-5
            )


def test_words_outside_the_vocabulary_count_as_unknown(one_scorer):
    known = one_scorer.tokenizer.types[5]
    scores = one_scorer.score([f"{known} zzz {known} qqq", f"{known} <unk>", known, ""])
    assert [score.unknown for score in scores] == [2, 1, 0, 0]
    assert [score.tokens for score in scores] == [5, 3, 2, 1]


def test_scores_do_not_depend_on_the_batch(scorer, lines):
    together = log_probs(scorer.score(lines))
    alone = np.concatenate([log_probs(scorer.score([line])) for line in lines])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_scores_do_not_depend_on_how_a_batch_of_their_size_is_computed(
    one_scorer, lines, monkeypatch
):
    transformed = []
    original = winograd.between_transforms
    monkeypatch.setattr(
        winograd, "between_transforms", lambda *a: transformed.append(1) or original(*a)
    )
    alone = np.concatenate([log_probs(one_scorer.score([line])) for line in lines])
    assert not transformed
    monkeypatch.setattr(inference, "LEAST_MULTIPLICATIONS", 1)
    together = log_probs(one_scorer.score(lines))
    assert transformed
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_scores_come_in_the_order_of_the_sentences(scorer, lines):
    order = random.Random(0).sample(range(len(lines)), len(lines))
    shuffled = log_probs(scorer.score([lines[i] for i in order]))
    np.testing.assert_allclose(shuffled, log_probs(scorer.score(lines))[order], atol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_narrower_weights_score_nearly_the_same(made_runs, lines, kind):
    """bf16 keeps 8 bits of a weight: a hundredth or so of a nat a token, not none."""
    whole, narrow = (
        Scorer.from_run(made_runs[kind, "word"], "cpu", p).score(lines) for p in ("float32", "bf16")
    )
    tokens = np.array([score.tokens for score in whole])
    difference = (log_probs(narrow) - log_probs(whole)) / tokens
    assert 0 < np.abs(difference).mean() < 0.05


def test_the_sum_of_scores_is_what_evaluation_finds_in_sentence_mode(run, scorer, lines, corpus):
    found = evaluate(run.model, encode_file(corpus / "test.txt", run.tokenizer), sentences=True)
    scores = scorer.score(lines)
    assert -log_probs(scores).sum() == pytest.approx(found["nll_nats"], rel=1e-6)
    assert sum(score.tokens for score in scores) == found["tokens"]


def test_a_long_sentence_is_read_in_blocks_that_give_what_the_whole_does(
    run, scorer, lines, reference, monkeypatch
):
    long = " ".join(lines)
    tokens = [*run.tokenizer.encode(long), run.tokenizer.eos_id]
    sizes = []
    run.model.register_forward_pre_hook(lambda model, inputs: sizes.append(inputs[0].numel()))
    monkeypatch.setattr(perplexity, "POSITIONS", 50)
    monkeypatch.setattr(scoring, "BATCH", {torch.float32: 50})
    scores = scorer.score([lines[1], long, lines[2]])
    assert max(sizes) <= 50
    assert sum(sizes) >= len(tokens) > 300
    assert scores[1].log_prob == pytest.approx(-float(reference(run, tokens).sum()), rel=1e-6)


def test_a_line_of_100_000_words_needs_no_more_memory_at_once_than_a_batch(one_scorer, lines):
    sizes = []
    one_scorer.model.register_forward_pre_hook(
        lambda model, inputs: sizes.append(inputs[0].numel())
    )
    words = " ".join(lines).split()
    (score,) = one_scorer.score([" ".join(itertools.islice(itertools.cycle(words), 100_000))])
    assert score.tokens == 100_001
    assert max(sizes) <= perplexity.POSITIONS
    assert math.isfinite(score.log_prob)


def test_an_endless_stream_is_read_no_further_than_a_window(one_scorer, lines, monkeypatch):
    monkeypatch.setattr(scoring, "WINDOW", 500)
    taken = []
    endless = (taken.append(line) or line for line in itertools.cycle(["", *lines]))
    scores = list(itertools.islice(one_scorer.stream(endless), 200))
    np.testing.assert_allclose(
        log_probs(scores[:61]), log_probs(one_scorer.score(["", *lines])), atol=1e-5
    )
    assert len(taken) < 200 + 500


def test_blank_lines_fill_a_window_too(monkeypatch):
    monkeypatch.setattr(scoring, "WINDOW", 10)
    assert [len(window) for window in scoring.windows([""] * 25)] == [10, 10, 5]


def test_a_text_instead_of_a_list_is_refused(one_scorer):
    with pytest.raises(UsageError, match="list of sentences"):
        one_scorer.score("one sentence")
