"""What Python code can ask of a model: equal to the commands' results, and to a slow reference."""

import copy
import json
import math
import multiprocessing
import os
import pickle
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
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
    rows = call(
        "evaluate", "--run", run_dir, "--file", corpus / "valid.txt", mode, "--per-token"
    ).out.splitlines()
    assert [row.split("\t")[0] for row in rows] == found.types
    np.testing.assert_allclose(
        [float(row.split("\t")[1]) for row in rows], found.log_probs, atol=1e-5
    )


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
            total += model.next_log_probs(prompt)[
                model.tokenizer.index.get(word, model.tokenizer.unk_id)
            ]
            prompt += f" {word}"
        assert total == pytest.approx(model.score([sentence])[0].log_prob, abs=1e-4)
    assert model.token_scores(sentence).log_probs.sum() == pytest.approx(
        model.score([sentence])[0].log_prob, abs=1e-4
    )


@pytest.mark.parametrize("sentences", [None, True])
def test_perplexity_is_that_of_the_command(sentences, model, run_dir, text, corpus, call):
    found = model.evaluate(text, sentences)
    mode = ["--sentences"] if sentences else []
    printed = call(
        "evaluate", "--run", run_dir, "--file", corpus / "valid.txt", "--json", *mode
    ).out
    command = json.loads(printed)
    numbers = {name for name, value in found.items() if isinstance(value, int | float)}
    assert {name: command[name] for name in numbers} == pytest.approx(
        {name: found[name] for name in numbers}, rel=1e-6
    )
    assert {name: command[name] for name in command if name not in numbers} == {
        name: found.get(name) for name in command if name not in numbers
    }
    assert model.perplexity(text, sentences) == found["perplexity"]


def test_samples_are_those_of_the_command(model, run_dir, call):
    options = ["--tokens", 12, "--samples", 3, "--temperature", 0.8, "--top-k", 20, "--seed", 5]
    printed = call("generate", "--run", run_dir, "--prompt", "a b", *options).out
    assert (
        "\n---\n".join(model.generate("a b", 12, 3, temperature=0.8, top_k=20, seed=5)) + "\n"
        == printed
    )


def test_lines_are_scored_as_the_run_was_trained(one_scorer):
    one_scorer.sentences = True
    assert one_scorer.perplexity(TEXT) == one_scorer.perplexity(TEXT, sentences=True)
    assert one_scorer.perplexity(TEXT) != one_scorer.perplexity(TEXT, sentences=False)


def test_what_cannot_be_done_is_said_in_a_line(one_scorer, made_runs, tmp_path):
    asked = [one_scorer.perplexity, one_scorer.evaluate]
    asked += [one_scorer.token_scores, one_scorer.word_scores]
    for ask in asked:
        for refused in ("", "\n \n"):
            with pytest.raises(gcnn.UsageError, match=r"^the text has no words\. Give"):
                ask(refused)
        with pytest.raises(gcnn.UsageError, match="the text is not UTF-8"):
            ask("a \udcff")
    with pytest.raises(gcnn.UsageError, match="prompt is not UTF-8"):
        one_scorer.next_log_probs("\udcff")
    with pytest.raises(gcnn.UsageError, match="temperature"):
        one_scorer.generate("a", temperature=-1)
    with pytest.raises(gcnn.UsageError, match="not a run directory"):
        gcnn.load(tmp_path / "nowhere")
    with pytest.raises(gcnn.UsageError, match="precision is 'fp8'"):
        gcnn.load(made_runs["gcnn", "word"], precision="fp8")


TABLES = [
    {"text": ["one two"]},
    pa.table({"text": ["one two"]}),
    datasets.Dataset.from_dict({"text": ["one two"]}),
    type("DataFrame", (), {"columns": ["text"], "__iter__": lambda self: iter(self.columns)})(),
]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: type(table).__name__)
def test_a_table_instead_of_its_column_is_refused(one_scorer, table):
    with pytest.raises(gcnn.UsageError, match="a table was given"):
        one_scorer.score(table)


def test_a_column_is_scored(one_scorer):
    expected = one_scorer.score(["one two"])
    for column in (
        ["one two"],
        ("one two",),
        np.array(["one two"]),
        iter(["one two"]),
        TABLES[2]["text"],
    ):
        assert one_scorer.score(column) == expected


NO_TEXT = [math.nan, None, b"one two", 7, ["one", "two"], [5, 3], "half \ud83d of a pair"]


@pytest.mark.parametrize("value", NO_TEXT, ids=repr)
def test_what_is_no_text_is_refused_and_named(one_scorer, value):
    with pytest.raises(gcnn.UsageError, match="sentence 2 is no"):
        one_scorer.score(["fine", value])
    for ask in (one_scorer.perplexity, one_scorer.evaluate, one_scorer.token_scores):
        with pytest.raises(gcnn.UsageError, match="the text is no"):
            ask(value)
    for ask in (one_scorer.next_log_probs, one_scorer.generate):
        with pytest.raises(gcnn.UsageError, match="the prompt is no"):
            ask(value)


@pytest.mark.parametrize("value", [None, 7, math.nan])
def test_what_holds_no_sentences_is_refused(one_scorer, value):
    with pytest.raises(gcnn.UsageError, match="instead of a list of sentences"):
        one_scorer.score(value)


@pytest.mark.parametrize("option", ["tokens", "samples", "top_k", "seed", "temperature"])
@pytest.mark.parametrize("value", ["5", [5]])
def test_options_of_the_wrong_type_are_refused(one_scorer, option, value):
    with pytest.raises(gcnn.UsageError, match=f"{option.replace('_', '-')} is .*5.*; give"):
        one_scorer.generate("a", **{option: value})


def test_a_model_goes_into_other_processes(model, lines):
    """Pickled into a spawned process (joblib, Ray, datasets.map); inherited by a forked one."""
    expected = [score.log_prob for score in model.score(lines[:9])]
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert [score.log_prob for score in other.score(lines[:9])] == expected


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_process_scores_with_a_model_that_was_used_before(one_scorer, lines, method, monkeypatch):
    """With two threads a forked process would wait for ever for the one that it lacks."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        large = torch.ones(600, 600)
        assert (large @ large)[0, 0] == 600  # both threads at work
        expected = [score.log_prob for score in one_scorer.score(lines)]
        with multiprocessing.get_context(method).Pool(1) as pool:
            found = pool.apply_async(score_and_multiply, (one_scorer, lines)).get(timeout=60)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def score_and_multiply(model, lines):
    large = torch.ones(600, 600)
    assert (large @ large)[0, 0] == 600
    return [score.log_prob for score in model.score(lines)]


def test_a_loaded_model_keeps_few_kernels_in_memory(made_runs, monkeypatch):
    """oneDNN reads the variables at its first product."""
    names = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    gcnn.load(made_runs["gcnn", "word"], "cpu")
    assert [os.environ[name] for name in names] == ["128", "128"]
    for name in names:
        monkeypatch.setenv(name, "500")  # the user's own
    gcnn.load(made_runs["gcnn", "word"], "cpu")
    assert [os.environ[name] for name in names] == ["500", "500"]


def test_the_package_lists_its_names_and_importing_it_stays_cheap():
    assert (
        gcnn.__version__
        == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    )
    assert dir(gcnn) == sorted(gcnn.__all__)
    assert all(hasattr(gcnn, name) for name in gcnn.__all__)
    with pytest.raises(AttributeError, match="Scores"):
        _ = gcnn.Scores
    code = "import sys, gcnn; dir(gcnn), gcnn.__version__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
