"""Runs in lm-evaluation-harness: what the harness is told is what the model says."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="lm_eval is not installed (the extra lm-eval)")


@pytest.fixture
def harness(run_dir):
    from lm_eval.api.registry import get_model

    import gcnn.evaluation.lm_eval  # noqa: F401 (registers the model)

    return get_model("gcnn").create_from_arg_string(f"run={run_dir}", {"device": "cpu", "batch_size": 1})


def ask(method, *arguments):
    return method([SimpleNamespace(args=arguments)])[0]


@pytest.mark.parametrize(("context", "text"), [("", "one two"), ("a b", " lo mi"), ("a b ", "lo"), ("a\nb", " c\nd e")])
def test_a_continuation_has_the_tokens_that_follow_the_context(harness, context, text):
    scores = harness.scorer.token_scores(context + text, sentences=False).log_probs[:-1]
    before = len(harness.scorer.token_scores(context).log_probs) - 1 if context.strip() else 0
    total, greedy = ask(harness.loglikelihood, context, text)
    assert total == pytest.approx(scores[before:].sum(), abs=1e-4)
    assert isinstance(greedy, bool)


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
    assert ask(harness.loglikelihood_rolling, text + "\n") == pytest.approx(expected.sum(), abs=1e-4)
    assert ask(harness.loglikelihood_rolling, "") == 0
    eos = harness.scorer.next_log_probs()[harness.scorer.tokenizer.eos_id]
    assert ask(harness.loglikelihood_rolling, "\n") == pytest.approx(eos, abs=1e-5)  # an empty line


def test_generation_ends_where_it_is_told_to(harness):
    whole = ask(harness.generate_until, "a b", {"max_gen_toks": 10})
    assert harness.scorer.generate("a b", 10, temperature=0) == ["a b" + whole]
    end = whole[4:6]
    assert ask(harness.generate_until, "a b", {"max_gen_toks": 10, "until": [end]}) == whole[: whole.index(end)]


@pytest.mark.parametrize("run_dir", [("gcnn", "word")], indirect=True)  # one: it takes a minute
def test_the_harness_itself_evaluates_a_task_of_local_files(harness, corpus, tmp_path):
    from lm_eval import simple_evaluate

    lines = [line for line in (corpus / "test.txt").read_text().splitlines() if line][:5]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    task = {
        "task": "local", "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "test.jsonl")}},
        "output_type": "loglikelihood_rolling", "test_split": "test", "doc_to_text": "", "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}],
    }  # fmt: skip
    found = simple_evaluate(harness, tasks=[task], bootstrap_iters=0)["results"]["local"]
    total = sum(ask(harness.loglikelihood_rolling, line) for line in lines)
    words = sum(len(line.split()) for line in lines)
    assert found["word_perplexity,none"] == pytest.approx(np.exp(-total / words), rel=1e-6)
