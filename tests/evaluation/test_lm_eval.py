"""Runs in lm-evaluation-harness: what the harness is told is what the model says."""

import importlib.util
import json
import runpy
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from tests.evaluation.conftest import MODELS

PRESENT = importlib.util.find_spec("lm_eval") is not None
STAND_INS = {  # the names that the adapter needs, where the package is not installed
    "lm_eval": {},
    "lm_eval.api": {},
    "lm_eval.api.instance": {"Instance": object},
    "lm_eval.api.model": {"LM": object},
    "lm_eval.api.registry": {"register_model": lambda name: lambda kind: kind},
}


@pytest.fixture
def harness(run_dir, monkeypatch):
    if not PRESENT:
        for name, content in STAND_INS.items():
            module = ModuleType(name)
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, name, module)
    from gcnn.evaluation.lm_eval import HarnessModel

    return HarnessModel(str(run_dir), device="cpu", batch_size=1)


def test_a_harness_that_is_not_installed_is_named_with_the_remedy(monkeypatch):
    """In a line for who runs the module, as an ImportError for who imports it."""
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "lm_eval.api.instance", raising=False)
    monkeypatch.delitem(sys.modules, "gcnn.evaluation.lm_eval", raising=False)
    remedy = r"lm_eval.*\. Run: pip install 'gcnn\[lm-eval\]'$"
    with pytest.raises(SystemExit, match=f"^error: .*{remedy}"):
        runpy.run_module("gcnn.evaluation.lm_eval", run_name="__main__")
    with pytest.raises(ModuleNotFoundError, match=remedy):
        importlib.import_module("gcnn.evaluation.lm_eval")


def ask(method, *arguments):
    return method([SimpleNamespace(args=arguments)])[0]


@pytest.mark.parametrize(
    ("context", "text"), [("", "one two"), ("a b", " lo mi"), ("a b ", "lo"), ("a\nb", " c\nd e")]
)
def test_a_continuation_has_the_tokens_that_follow_the_context(harness, context, text):
    scores = harness.scorer.token_scores(context + text, sentences=False).log_probs[:-1]
    before = len(harness.scorer.token_scores(context).log_probs) - 1 if context.strip() else 0
    total, greedy = ask(harness.loglikelihood, context, text)
    assert total == pytest.approx(scores[before:].sum(), abs=1e-4)
    assert isinstance(greedy, bool)


@pytest.mark.parametrize("run_dir", [(kind, "word") for kind in MODELS], indirect=True)
@pytest.mark.parametrize(
    ("context", "text", "first"),
    [
        ("{0}x", "x {1}", 0),
        ("{0} {1} x", "x", 2),
        ("{0} {1:.1}", "{1}", 1),
        ("{0} {1:.2}", "{2} {1}", 1),
    ],
)
def test_a_continuation_that_ends_a_word_has_the_whole_word(harness, context, text, first):
    """It is no certainty: the word that the context breaks off is one of its tokens."""
    known = harness.scorer.tokenizer.types[30:32]
    rest = known[1][2:]
    context = context.format(*known, rest)
    text = text.format(*known, rest)
    scores = harness.scorer.token_scores(context + text, sentences=False).log_probs[first:-1]
    total, greedy = ask(harness.loglikelihood, context, text)
    assert len(scores) == len(text.split())
    assert total == pytest.approx(scores.sum(), abs=1e-4)
    assert total < -0.01
    assert not greedy


@pytest.mark.parametrize("run_dir", [("gcnn", "word")], indirect=True)
@pytest.mark.parametrize("blank", [" ", "\t"])
def test_a_blank_ends_the_last_word_of_the_context_even_if_it_is_unknown(harness, blank):
    word = harness.scorer.tokenizer.types[30]
    scores = harness.scorer.token_scores(f"zebra {word}", sentences=False).log_probs
    total, _ = ask(harness.loglikelihood, f"zebra{blank}", word)
    assert total == pytest.approx(scores[1], abs=1e-4)


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_continuation_is_certain(harness, text):
    assert ask(harness.loglikelihood, "a b", text) == (0, True)


@pytest.mark.parametrize("run_dir", [("gcnn", "word")], indirect=True)
def test_an_unknown_word_is_never_the_likeliest_and_is_counted(harness, monkeypatch, caplog):
    """Not even where the model expects <unk> most of all: it cannot write the word."""
    tokenizer = harness.scorer.tokenizer
    softmax = harness.scorer.model.softmax
    log_prob = softmax.log_prob

    def expect_unknown(hidden):
        log_probs = log_prob(hidden)
        log_probs[..., tokenizer.unk_id] = 0
        return log_probs

    monkeypatch.setattr(softmax, "log_prob", expect_unknown)
    word = tokenizer.types[30]
    for text in (" zebra", f" zebra {word}"):
        caplog.clear()
        total, greedy = ask(harness.loglikelihood, word, text)
        assert total < 0
        assert not greedy
        assert f"1 of {len(text.split())} tokens are unknown" in caplog.text
    caplog.clear()
    ask(harness.loglikelihood, word, f" {word}")
    assert caplog.text == ""
    ask(harness.loglikelihood_rolling, "zebra zebra")
    assert "2 of 2 tokens are unknown" in caplog.text


def test_a_long_text_is_read_in_blocks_that_give_what_the_whole_does(harness, corpus, monkeypatch):
    text = " ".join((corpus / "test.txt").read_text().split())
    whole = ask(harness.loglikelihood, text[:300], text[300:])
    for size in (7, 50):
        monkeypatch.setattr("gcnn.evaluation.perplexity.POSITIONS", size)
        assert ask(harness.loglikelihood, text[:300], text[300:]) == pytest.approx(whole, rel=1e-6)


def test_the_likeliest_token_is_greedy_and_no_other_one(harness):
    scorer = harness.scorer
    if scorer.tokenizer.kind != "word":
        pytest.skip("a piece is not a text of its own")
    order = [scorer.tokenizer.types[i] for i in np.argsort(-scorer.next_log_probs("a b"))]
    words = [word for word in order if word not in ("<eos>", "<unk>")]
    if words[0] == order[0]:
        assert ask(harness.loglikelihood, "a b", f" {words[0]}")[1]
    assert not ask(harness.loglikelihood, "a b", f" {words[-1]}")[1]


def test_rolling_is_the_text_without_the_end_of_its_last_line(harness):
    text = "once upon a time\nthere was"
    expected = harness.scorer.token_scores(text, sentences=False).log_probs
    assert ask(harness.loglikelihood_rolling, text) == pytest.approx(expected[:-1].sum(), abs=1e-4)
    assert ask(harness.loglikelihood_rolling, text + "\n") == pytest.approx(
        expected.sum(), abs=1e-4
    )
    assert ask(harness.loglikelihood_rolling, "") == 0
    eos = harness.scorer.next_log_probs()[harness.scorer.tokenizer.eos_id]
    assert ask(harness.loglikelihood_rolling, "\n") == pytest.approx(eos, abs=1e-5)  # an empty line


def test_generation_ends_where_it_is_told_to(harness):
    whole = ask(harness.generate_until, "a b", {"max_gen_toks": 10})
    assert harness.scorer.generate("a b", 10, temperature=0) == ["a b" + whole]
    end = whole[4:6]
    assert (
        ask(harness.generate_until, "a b", {"max_gen_toks": 10, "until": [end]})
        == whole[: whole.index(end)]
    )


@pytest.mark.skipif(not PRESENT, reason="lm_eval is not installed (the extra lm-eval)")
@pytest.mark.parametrize("run_dir", [("gcnn", "word")], indirect=True)  # one: it takes a minute
def test_the_harness_itself_evaluates_a_task_of_local_files(harness, corpus, tmp_path):
    from lm_eval import simple_evaluate
    from lm_eval.api.registry import get_model

    assert get_model("gcnn") is type(harness)
    lines = [line for line in (corpus / "test.txt").read_text().splitlines() if line][:5]
    (tmp_path / "test.jsonl").write_text(
        "".join(json.dumps({"text": line}) + "\n" for line in lines)
    )
    task = {
        "task": "local", "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "test.jsonl")}},
        "output_type": "loglikelihood_rolling", "test_split": "test", "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}],
    }  # fmt: skip
    found = simple_evaluate(harness, tasks=[task], bootstrap_iters=0)["results"]["local"]
    total = sum(ask(harness.loglikelihood_rolling, line) for line in lines)
    words = sum(len(line.split()) for line in lines)
    assert found["word_perplexity,none"] == pytest.approx(np.exp(-total / words), rel=1e-6)
