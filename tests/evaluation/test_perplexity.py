import math
from collections import Counter

import numpy as np
import pytest
import torch

from gcnn.config.models import BlockConfig, GCNNConfig
from gcnn.data.batches import line_ends
from gcnn.data.stream import TokenStream, encode_file
from gcnn.evaluation.perplexity import (
    evaluate,
    nlls_in_order,
    normalised,
    token_nlls,
    type_counts,
    unigram_perplexity,
)
from gcnn.evaluation.run import load_model
from gcnn.models.language_model import build_model


@pytest.fixture
def stream(run, corpus):
    return encode_file(corpus / "test.txt", run.tokenizer)


def first(stream: TokenStream, tokens: int) -> TokenStream:
    return TokenStream(stream.tokens[:tokens], stream.eos_id, stream.vocabulary_size, 1, 1, 1, "")


@pytest.mark.parametrize("block_size", [16, 100, 1000])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_perplexity_is_that_of_one_pass_over_the_text_at_any_block_and_batch_size(
    run, stream, reference, batch_size, block_size
):
    nlls = reference(run, stream.tokens.tolist())
    found = evaluate(run.model, stream, batch_size=batch_size, block_size=block_size)
    assert found["nll_nats"] == pytest.approx(float(nlls.sum()), rel=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(nlls.mean()), rel=1e-6)


@pytest.mark.parametrize("tokens", [1, 2, 5, 9, 40])
def test_a_text_shorter_than_batch_and_context_is_scored_exactly(run, stream, reference, tokens):
    short = first(stream, tokens)
    found = evaluate(run.model, short, batch_size=8, block_size=3)
    assert found["nll_nats"] == pytest.approx(
        float(reference(run, short.tokens.tolist()).sum()), rel=1e-6
    )


def test_every_token_has_its_own_nll_once(run, stream, reference):
    pairs = list(token_nlls(run.model, stream, batch_size=5, block_size=13))
    positions = np.concatenate([positions for positions, _ in pairs])
    assert sorted(positions) == list(range(len(stream)))
    nlls = np.concatenate([nlls for _, nlls in pairs])
    np.testing.assert_allclose(nlls, reference(run, stream.tokens.tolist())[positions], atol=1e-5)


@pytest.mark.parametrize("sentences", [False, True])
@pytest.mark.parametrize("world_size", [2, 3, 40])
def test_processes_share_a_text_out(run, stream, world_size, sentences):
    """Each token is one process's; together they say what one does, however few tokens each has."""
    nlls = np.zeros(len(stream))
    times = np.zeros(len(stream), int)
    for rank in range(world_size):
        for positions, found in token_nlls(run.model, stream, sentences, 3, 20, rank, world_size):
            nlls[positions] = found
            times[positions] += 1
    assert set(times) == {1}
    np.testing.assert_allclose(nlls, nlls_in_order(run.model, stream, sentences), atol=1e-5)


@pytest.mark.parametrize("before_text", [None, 0])
@pytest.mark.parametrize("tokens", [3, 39, 41, 90, 170])
def test_processes_share_a_text_out_that_is_short_for_their_contexts(tokens, before_text):
    config = GCNNConfig(embedding_dim=4, blocks=[BlockConfig([[5, 6]], 10)], cutoffs=[5])
    torch.manual_seed(0)
    model = build_model(config, 20, before_text).eval()
    with torch.no_grad():
        model.encoder.embedding.weight.mul_(10)
    assert model.receptive_field == 41
    ids = np.random.default_rng(0).integers(20, size=tokens).astype(np.int32)
    text = TokenStream(ids, 0, 20, tokens, 4 * tokens, 1, "")
    nlls = np.full(tokens, np.nan)
    for rank in range(4):
        for positions, found in token_nlls(model, text, rank=rank, world_size=4):
            nlls[positions] = found
    state = None if before_text is None else model(torch.zeros(1, 100, dtype=torch.long))[1]
    hidden, _ = model(torch.from_numpy(np.append(0, ids[:-1]).astype(np.int64))[None], state)
    expected = -model.log_prob(hidden)[0].detach().numpy()[np.arange(tokens), ids]
    np.testing.assert_allclose(nlls, expected, atol=1e-5)


def test_a_model_without_context_needs_no_overlap():
    config = GCNNConfig(embedding_dim=4, blocks=[BlockConfig([[1, 6]])], cutoffs=[5])
    torch.manual_seed(0)
    model = build_model(config, 20)
    tokens = np.random.default_rng(0).integers(20, size=101).astype(np.int32)
    text = TokenStream(tokens, 0, 20, 101, 404, 1, "")
    totals = [
        evaluate(model, text, batch_size=b, block_size=s)["nll_nats"]
        for b, s in ((1, 101), (8, 7), (101, 1))
    ]
    assert totals == pytest.approx([totals[0]] * 3, rel=1e-6)


@pytest.mark.parametrize("sizes", [(1, 30), (8, 1000)])
def test_sentence_mode_scores_each_line_by_itself(run, stream, reference, sizes):
    lines = np.split(stream.tokens, line_ends(stream.tokens, stream.eos_id)[:-1])
    expected = np.concatenate([reference(run, line.tolist()) for line in lines])
    np.testing.assert_allclose(nlls_in_order(run.model, stream, True, *sizes), expected, atol=1e-5)
    total = evaluate(run.model, stream, True, *sizes)["nll_nats"]
    assert total == pytest.approx(expected.sum(), rel=1e-6)


def test_evaluation_knows_no_dropout_and_leaves_the_model_as_it_was(run, stream):
    quiet = evaluate(run.model, stream)
    run.model.train()
    assert evaluate(run.model, stream) == quiet
    assert run.model.training


def test_normalisations_follow_from_nats_and_counts():
    text = TokenStream(np.zeros(8, np.int32), 0, 10, words=4, bytes=32, lines=1, fingerprint="")
    found = normalised(8 * math.log(2), text)  # one bit a token
    assert found["perplexity"] == pytest.approx(2)
    assert found["word_perplexity"] == pytest.approx(4)
    assert found["bits_per_byte"] == pytest.approx(0.25)
    assert (found["tokens"], found["words"], found["bytes"]) == (8, 4, 32)


@pytest.mark.parametrize(
    ("nats", "expected"),
    [(705.0, np.exp(705)), (709.7, np.exp(709.7)), (710.0, math.inf), (math.nan, math.nan)],
)
def test_a_perplexity_is_infinite_only_where_no_float_holds_it(nats, expected):
    text = TokenStream(np.zeros(8, np.int32), 0, 10, words=8, bytes=8, lines=1, fingerprint="")
    found = normalised(8 * nats, text)
    for name in ("perplexity", "known_perplexity", "word_perplexity"):
        assert found[name] == pytest.approx(expected, nan_ok=True)


def test_what_a_word_costs_is_null_where_its_spelling_is_not_paid(made_runs, tmp_path):
    """A text's own <unk>, as in WikiText, is a word like others; one in a word's place is not."""
    run = load_model(made_runs["gcnn", "word"], "cpu")
    a, b = [word for word in run.tokenizer.types if word not in ("<eos>", "<unk>")][:2]
    path = tmp_path / "text.txt"
    for text, written, lost in (
        (f"{a} {b}\n", 0, 0),
        (f"{a} <unk> {b}\n<unk> <unk>\n", 3, 0),
        (f"{a} xyzzy <unk> x<unk>\n", 1, 2),
        (f"{a} <eos> {b} <unk>\n", 1, 1),  # the end of a line within one is no word
    ):
        path.write_text(text)
        found = evaluate(run.model, encode_file(path, run.tokenizer))
        assert (found["unknown"], found["out_of_vocabulary"]) == (written + lost, lost)
        if lost:
            assert found["word_perplexity"] is found["bits_per_byte"] is None
        else:
            words = len(text.split()) + text.count("\n")
            assert found["word_perplexity"] == pytest.approx(math.exp(found["nll_nats"] / words))
            assert found["bits_per_byte"] == pytest.approx(
                found["nll_nats"] / math.log(2) / len(text)
            )


@pytest.mark.parametrize("sentences", [False, True])
def test_unknown_tokens_are_counted_and_left_out_of_the_second_perplexity(
    run, stream, reference, sentences
):
    """As KenLM's `query` does: neither their log-probabilities nor their number count."""
    lines = (
        np.split(stream.tokens, line_ends(stream.tokens, stream.eos_id)[:-1])
        if sentences
        else [stream.tokens]
    )
    nlls = torch.cat([reference(run, line.tolist()) for line in lines])
    unknown = torch.from_numpy(stream.tokens == run.tokenizer.unk_id)
    found = evaluate(run.model, stream, sentences, 3, 20)
    assert found["unknown"] == unknown.sum()
    assert unknown.any() == (run.tokenizer.kind == "word")
    assert found["known_perplexity"] == pytest.approx(math.exp(nlls[~unknown].mean()), rel=1e-6)


def test_unigram_perplexity_is_that_of_smoothed_counts(run, stream, corpus):
    train = encode_file(corpus / "train.txt", run.tokenizer)
    counts = Counter(train.tokens.tolist())
    types = run.tokenizer.vocabulary_size
    assert type_counts(train).tolist() == [counts[i] for i in range(types)]
    nats = -sum(math.log((counts[i] + 1) / (len(train) + types)) for i in stream.tokens.tolist())
    assert unigram_perplexity(type_counts(train), stream) == pytest.approx(
        math.exp(nats / len(stream))
    )
