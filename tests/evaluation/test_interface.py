"""What Python code can ask of a model: equal to the commands' results, and to a slow reference."""

import json
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

import gcnn

ROOT = Path(__file__).parents[2]
TEXT = "once upon\n\nnowhere-known abé\n"


@pytest.fixture
def model(run_dir):
    return gcnn.load(run_dir, "cpu")


@pytest.fixture
def text(corpus):
    return (corpus / "valid.txt").read_text()


@pytest.mark.parametrize("sentences", [False, True])
def test_token_scores_are_those_of_one_forward_pass_and_of_the_command(
    sentences, model, run, run_dir, text, corpus, reference, call
):
    found = model.token_scores(text, sentences)
    ids = [run.tokenizer.types.index(name) for name in found.types]
    lines = [[*run.tokenizer.encode(line), run.tokenizer.eos_id] for line in text.splitlines()]
    assert ids == list(chain(*lines))
    parts = lines if sentences else [ids]
    expected = -np.concatenate([reference(run, tokens) for tokens in parts])
    np.testing.assert_allclose(found.log_probs, expected, atol=1e-5)
    mode = "--sentences" if sentences else "--no-sentences"
    rows = call("evaluate", "--run", run_dir, "--file", corpus / "valid.txt", mode, "--per-token").out.splitlines()
    assert [row.split("\t")[0] for row in rows] == found.types
    np.testing.assert_allclose([float(row.split("\t")[1]) for row in rows], found.log_probs, atol=1e-5)


@pytest.mark.parametrize("prompt", ["", TEXT, "one two three " * 40])
def test_what_comes_next_is_the_distribution_of_one_forward_pass(prompt, model, run):
    found = model.next_log_probs(prompt)
    lines = [run.tokenizer.encode(line) for line in prompt.split("\n")]
    eos = run.tokenizer.eos_id
    tokens = [eos, *chain(*([*line, eos] for line in lines))][:-1]
    hidden, _ = run.model(torch.tensor([tokens]))
    np.testing.assert_allclose(found, run.model.log_prob(hidden)[0, -1], atol=1e-5)
    assert found.shape == (run.tokenizer.vocabulary_size,)
    assert np.exp(found).sum() == pytest.approx(1)


def test_what_comes_next_adds_up_to_the_score_of_a_sentence(model, lines):
    sentence = next(line for line in lines if line)
    total, prompt = 0.0, ""
    if model.tokenizer.kind == "word":
        for word in [*sentence.split(), "<eos>"]:
            total += model.next_log_probs(prompt)[model.tokenizer.index.get(word, model.tokenizer.unk_id)]
            prompt += f" {word}"
        assert total == pytest.approx(model.score([sentence])[0].log_prob, abs=1e-4)
    assert model.token_scores(sentence).log_probs.sum() == pytest.approx(model.score([sentence])[0].log_prob, abs=1e-4)


@pytest.mark.parametrize("sentences", [None, True])
def test_perplexity_is_that_of_the_command(sentences, model, run_dir, text, corpus, call):
    found = model.evaluate(text, sentences)
    mode = ["--sentences"] if sentences else []
    printed = call("evaluate", "--run", run_dir, "--file", corpus / "valid.txt", "--json", *mode).out
    assert found == pytest.approx(json.loads(printed), rel=1e-6)
    assert model.perplexity(text, sentences) == found["perplexity"]


def test_samples_are_those_of_the_command(model, run_dir, call):
    options = ["--tokens", 12, "--samples", 3, "--temperature", 0.8, "--top-k", 20, "--seed", 5]
    printed = call("generate", "--run", run_dir, "--prompt", "a b", *options).out
    assert "\n---\n".join(model.generate("a b", 12, 3, temperature=0.8, top_k=20, seed=5)) + "\n" == printed


def test_lines_are_scored_as_the_run_was_trained(one_scorer):
    one_scorer.sentences = True
    assert one_scorer.perplexity(TEXT) == one_scorer.perplexity(TEXT, sentences=True)
    assert one_scorer.perplexity(TEXT) != one_scorer.perplexity(TEXT, sentences=False)


def test_what_cannot_be_done_is_said_in_a_line(one_scorer, made_runs, tmp_path):
    for refused in ("", "\n \n", "a \udcff"):
        with pytest.raises(gcnn.UsageError, match="the text"):
            one_scorer.perplexity(refused)
    with pytest.raises(gcnn.UsageError, match="prompt is not UTF-8"):
        one_scorer.next_log_probs("\udcff")
    with pytest.raises(gcnn.UsageError, match="temperature"):
        one_scorer.generate("a", temperature=-1)
    with pytest.raises(gcnn.UsageError, match="not a run directory"):
        gcnn.load(tmp_path / "nowhere")
    with pytest.raises(gcnn.UsageError, match="precision is 'fp8'"):
        gcnn.load(made_runs["gcnn", "word"], precision="fp8")


def test_the_package_lists_its_names_and_importing_it_stays_cheap():
    assert gcnn.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert dir(gcnn) == sorted(gcnn.__all__)
    assert all(hasattr(gcnn, name) for name in gcnn.__all__)
    with pytest.raises(AttributeError, match="Scores"):
        _ = gcnn.Scores
    code = "import sys, gcnn; dir(gcnn), gcnn.__version__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
