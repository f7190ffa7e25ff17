"""What a text begins with: <eos> without end for a GCNN or a Transformer that was trained with the
state carried.
"""

import math
import re
import shutil

import numpy as np
import pytest
import torch

from gcnn.base.errors import UsageError
from gcnn.data.batches import line_ends
from gcnn.data.stream import encode_file
from gcnn.evaluation.corpus_scoring import score_files
from gcnn.evaluation.generation import Sampling, generate
from gcnn.evaluation.perplexity import evaluate, nlls_in_order, token_nlls
from gcnn.evaluation.run import load_model
from gcnn.evaluation.scoring import Scorer
from tests.evaluation.conftest import MODELS, RUNS

LONG = 60  # <eos> tokens, more than the context of the tests' models


@pytest.fixture
def carried(made_runs, tmp_path):
    """Makes a run directory whose config says that the state was carried in training."""

    def make(kind, tokenizer):
        folder = shutil.copytree(made_runs[kind, tokenizer], tmp_path / f"{kind}_{tokenizer}")
        config = (folder / "config.yaml").read_text()
        config, count = re.subn(r"carry_state: \w+", "carry_state: true", config)
        assert count == 1
        (folder / "config.yaml").write_text(config)
        return folder

    return make


@pytest.fixture(params=[run for run in RUNS if MODELS[run[0]].receptive_field], ids="-".join)
def run(request, carried):
    return load_model(carried(*request.param), "cpu")


@pytest.fixture
def stream(run, corpus):
    return encode_file(corpus / "test.txt", run.tokenizer)


def after_many_eos(run, tokens: list[int]) -> np.ndarray:
    """The log-probabilities of all types at each token of a text and after it.

    (tokens + 1, vocabulary), by one forward pass from zeros over LONG times <eos> and the text.
    """
    hidden, _ = run.model(torch.tensor([[run.tokenizer.eos_id] * LONG + tokens]))
    return run.model.log_prob(hidden)[0, LONG - 1 :].double().numpy()


def nlls_of(run, tokens: list[int]) -> np.ndarray:
    return -after_many_eos(run, tokens)[np.arange(len(tokens)), tokens]


@pytest.mark.parametrize("block_size", [1, 7, 1000])
@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("length", [1, 5, 30, None])
def test_running_text_begins_after_eos_without_end(run, stream, block_size, batch_size, length):
    stream.tokens = stream.tokens[:length]
    found = nlls_in_order(run.model, stream, False, batch_size, block_size)
    np.testing.assert_allclose(found, nlls_of(run, stream.tokens.tolist()), atol=1e-5)


def test_each_sentence_alone_begins_so(run, stream, lines):
    split = np.split(stream.tokens, line_ends(stream.tokens, stream.eos_id)[:-1])
    expected = [nlls_of(run, line.tolist()) for line in split]
    np.testing.assert_allclose(
        nlls_in_order(run.model, stream, True), np.concatenate(expected), atol=1e-5
    )
    scores = [score.log_prob for score in Scorer(run.model, run.tokenizer).score(lines)]
    np.testing.assert_allclose(scores, [-nlls.sum() for nlls in expected], atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_python_interface_rests_on_the_same_start(carried, lines, precision):
    scorer = Scorer.from_run(carried("gcnn", "word"), "cpu", precision)
    sentence = next(line for line in lines if len(line.split()) > 4)
    alone = scorer.score([sentence])[0].log_prob
    close = 1e-4 if precision == "float32" else 0.5
    assert scorer.token_scores(sentence, sentences=False).log_probs.sum() == pytest.approx(
        alone, abs=close
    )
    first = scorer.tokenizer.encode(sentence)[0]
    assert scorer.next_log_probs()[first] == pytest.approx(
        scorer.token_scores(sentence).log_probs[0], abs=close
    )


def test_generation_begins_so(run):
    (text,) = generate(run.model, run.tokenizer, "", 8, 1, Sampling(temperature=0))
    read = []
    for _ in range(8):
        log_probs = after_many_eos(run, read)[-1]
        log_probs[run.tokenizer.unk_id] = -math.inf
        read.append(int(log_probs.argmax()))
    assert text == run.tokenizer.decode(read)


def test_processes_share_such_a_text_out(run, stream):
    found = np.zeros(len(stream))
    for rank in range(3):
        for positions, nlls in token_nlls(run.model, stream, False, 2, 20, rank, 3):
            found[positions] += nlls
    np.testing.assert_allclose(found, nlls_of(run, stream.tokens.tolist()), atol=1e-5)


def test_other_models_begin_with_zeros(carried, made_runs, lines):
    """One of unbounded context however it was trained, and another model of shuffled blocks."""
    for kind in MODELS:
        plain = load_model(made_runs[kind, "word"], "cpu")
        marked = load_model(carried(kind, "word"), "cpu")
        sentence = next(line for line in lines if line)
        scores = [
            Scorer(run.model, run.tokenizer).score([sentence])[0].log_prob
            for run in (plain, marked)
        ]
        assert (scores[0] == scores[1]) == (plain.model.receptive_field is None)


def test_the_command_warns_once_and_says_what_to_set(carried, made_runs, call):
    outcome = call("score", "--run", carried("gcnn", "word"), stdin=b"a b\n" * 9)
    assert outcome.code == 0
    assert outcome.out.count("\n") == 9
    assert outcome.err.count("\n") == 1
    assert "data.sentences=true" in outcome.err
    for run in (carried("lstm", "word"), made_runs["gcnn", "word"]):
        assert call("score", "--run", run, stdin=b"a b\n").err == ""


def test_scores_of_a_corpus_say_the_start(carried, made_runs, corpus, tmp_path):
    """A job that goes on does not mix them with scores of the same weights after zeros."""
    after_zeros = Scorer.from_run(made_runs["gcnn", "word"], "cpu")
    score_files(after_zeros, [corpus / "test.txt"], tmp_path / "scores")
    after_eos = Scorer.from_run(carried("gcnn", "word"), "cpu")
    with pytest.raises(UsageError, match="another before_text"):
        score_files(after_eos, [corpus / "test.txt"], tmp_path / "scores")


def test_evaluation_in_training_begins_as_that_of_the_run(run, stream):
    """Whatever the weights were when the start was asked for last."""
    run.model.start_state(1)
    with torch.no_grad():
        run.model.encoder.embedding.weight.mul_(1.5)
    run.model.train()
    found = evaluate(run.model, stream)["nll_nats"]
    run.model.eval()
    assert found == pytest.approx(nlls_of(run, stream.tokens.tolist()).sum(), rel=1e-6)
