import itertools
import json
import math
import os
import random
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gcnn
from gcnn.data.stream import encode_file
from gcnn.errors import UsageError
from gcnn.evaluation import perplexity, score_command, scoring
from gcnn.evaluation.perplexity import evaluate
from gcnn.evaluation.run import load_model
from gcnn.evaluation.score_command import parsed, read_windows, reranked, scored, to_text
from gcnn.evaluation.scoring import Scorer
from tests.unicode_text import any_line, any_lines


@pytest.fixture
def scorer(run):
    return Scorer(run.model, run.tokenizer)


@pytest.fixture
def lines(corpus):
    return (corpus / "test.txt").read_text().split("\n")[:-1]


@pytest.fixture
def one_scorer(made_runs):
    return Scorer.from_run(made_runs["gcnn", "word"], "cpu")


def log_probs(scores):
    return np.array([score.log_prob for score in scores])


def test_scores_equal_one_forward_pass_over_each_sentence(run, scorer, lines, reference):
    lines = [*lines, "", " ", lines[4].replace(" ", "\t") + " \r", "nothing-known-here", "a <eos> <unk> b"]
    for line, score in zip(lines, scorer.score(lines), strict=True):
        tokens = [*run.tokenizer.encode(line), run.tokenizer.eos_id]
        nlls = reference(run, tokens)
        assert score.log_prob == pytest.approx(-float(nlls.sum()), abs=1e-5 * len(tokens))
        assert score.tokens == len(tokens)
        assert score.unknown == tokens.count(run.tokenizer.unk_id)
        assert score.perplexity == pytest.approx(math.exp(-score.log_prob / score.tokens))


@pytest.fixture(scope="module", params=[("gcnn", "word"), ("gcnn", "sentencepiece"), ("lstm", "word")], ids="-".join)
def any_run(request, made_runs):
    return load_model(made_runs[request.param], "cpu")


@settings(max_examples=40, deadline=None)
@given(lines=any_lines, others=st.lists(any_line | st.just("a long line " * 20), max_size=3), data=st.data())
def test_any_text_has_a_score_a_line_whatever_stands_beside_it(any_run, reference, lines, others, data):
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
        assert (score.tokens, score.unknown) == (len(tokens), tokens.count(any_run.tokenizer.unk_id))
    assert sum(log_probs(scores)) == pytest.approx(total, abs=1e-5 * sum(score.tokens for score in scores))
    mixed = data.draw(st.permutations([*enumerate(lines), *((None, line) for line in others)]))
    for (i, _), score in zip(mixed, scorer.score([line for _, line in mixed]), strict=True):
        if i is not None:
            assert score.log_prob / score.tokens == pytest.approx(scores[i].log_prob / score.tokens, abs=1e-5)


def test_words_outside_the_vocabulary_count_as_unknown(one_scorer):
    known = one_scorer.tokenizer.types[5]
    scores = one_scorer.score([f"{known} zzz {known} qqq", f"{known} <unk>", known, ""])
    assert [score.unknown for score in scores] == [2, 1, 0, 0]
    assert [score.tokens for score in scores] == [5, 3, 2, 1]


def test_scores_do_not_depend_on_the_batch(scorer, lines):
    together = log_probs(scorer.score(lines))
    alone = np.concatenate([log_probs(scorer.score([line])) for line in lines])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_scores_come_in_the_order_of_the_sentences(scorer, lines):
    order = random.Random(0).sample(range(len(lines)), len(lines))
    shuffled = log_probs(scorer.score([lines[i] for i in order]))
    np.testing.assert_allclose(shuffled, log_probs(scorer.score(lines))[order], atol=1e-5)


@pytest.mark.parametrize("kind", ["gcnn", "lstm"])
def test_narrower_weights_score_nearly_the_same(made_runs, lines, kind):
    """bf16 keeps 8 bits of a weight: a hundredth or so of a nat a token, not none."""
    whole, narrow = (Scorer.from_run(made_runs[kind, "word"], "cpu", p).score(lines) for p in ("float32", "bf16"))
    tokens = np.array([score.tokens for score in whole])
    difference = (log_probs(narrow) - log_probs(whole)) / tokens
    assert 0 < np.abs(difference).mean() < 0.05


def test_the_sum_of_scores_is_what_evaluation_finds_in_sentence_mode(run, scorer, lines, corpus):
    found = evaluate(run.model, encode_file(corpus / "test.txt", run.tokenizer), sentences=True)
    scores = scorer.score(lines)
    assert -log_probs(scores).sum() == pytest.approx(found["nll_nats"], rel=1e-6)
    assert sum(score.tokens for score in scores) == found["tokens"]


def test_a_long_sentence_is_read_in_blocks_that_give_what_the_whole_does(run, scorer, lines, reference, monkeypatch):
    long = " ".join(lines)
    tokens = [*run.tokenizer.encode(long), run.tokenizer.eos_id]
    sizes = []
    run.model.register_forward_pre_hook(lambda model, inputs: sizes.append(inputs[0].numel()))
    for module in (perplexity, scoring):
        monkeypatch.setattr(module, "POSITIONS", 50)
    scores = scorer.score([lines[1], long, lines[2]])
    assert max(sizes) <= 50
    assert sum(sizes) >= len(tokens) > 300
    assert scores[1].log_prob == pytest.approx(-float(reference(run, tokens).sum()), rel=1e-6)


def test_a_line_of_100_000_words_needs_no_more_memory_at_once_than_a_batch(one_scorer, lines):
    sizes = []
    one_scorer.model.register_forward_pre_hook(lambda model, inputs: sizes.append(inputs[0].numel()))
    words = " ".join(lines).split()
    (score,) = one_scorer.score([" ".join(itertools.islice(itertools.cycle(words), 100_000))])
    assert score.tokens == 100_001
    assert max(sizes) <= scoring.POSITIONS
    assert math.isfinite(score.log_prob)


def test_an_endless_stream_is_read_no_further_than_a_window(one_scorer, lines, monkeypatch):
    monkeypatch.setattr(scoring, "WINDOW", 500)
    taken = []
    endless = (taken.append(line) or line for line in itertools.cycle(["", *lines]))
    scores = list(itertools.islice(one_scorer.stream(endless), 200))
    np.testing.assert_allclose(log_probs(scores[:61]), log_probs(one_scorer.score(["", *lines])), atol=1e-5)
    assert len(taken) < 200 + 500


def test_blank_lines_fill_a_window_too(monkeypatch):
    monkeypatch.setattr(scoring, "WINDOW", 10)
    assert [len(window) for window in scoring.windows([""] * 25)] == [10, 10, 5]


def test_a_text_instead_of_a_list_is_refused(one_scorer):
    with pytest.raises(UsageError, match="list of sentences"):
        one_scorer.score("one sentence")


def test_the_scorer_is_found_in_the_package_and_importing_it_stays_cheap():
    assert gcnn.Scorer is Scorer
    with pytest.raises(AttributeError, match="Scores"):
        _ = gcnn.Scores
    code = "import sys, gcnn; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def pipe_of(content: bytes) -> int:
    """The end to read of a pipe that holds `content` and ends there."""
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    return reader


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"", b"a", b"b c\r", b"long" * 50, b"\xff"])), st.booleans(), st.integers(1, 100))
def test_windows_hold_every_line_once_wherever_reads_end(lines, ended, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_command, "CHUNK", chunk)
        patch.setattr(score_command, "WINDOW", 64)
        content = b"".join(line + b"\n" for line in lines)
        reader = pipe_of(content if ended else content[:-1])
        read = list(read_windows(reader))
        os.close(reader)
    expected = lines if ended or not lines or lines[-1] else lines[:-1]  # an empty last line without an end is none
    assert [line for window in read for line in window] == expected
    assert all(sum(map(len, window[1:])) <= 64 + chunk for window in read)  # the first line may be longer


def test_lines_do_not_wait_for_others_that_do_not_come():
    reader, writer = os.pipe()
    windows = read_windows(reader)
    os.write(writer, b"one\ntwo\nthr")
    assert next(windows) == [b"one", b"two"]
    os.write(writer, b"ee\n")
    assert next(windows) == [b"three"]
    os.close(writer)
    assert list(windows) == []
    os.close(reader)


def test_a_line_that_is_not_utf8_is_named_after_those_before_it_are_passed_on():
    found = parsed(iter([[b"a", b"b\r"], [b"c", b"\xc3\xa9", b"d\xe9", b"e"]]), to_text)
    assert next(found) == ["a", "b"]
    assert next(found) == ["c", "é"]
    with pytest.raises(UsageError, match="line 5 of the input is not UTF-8: byte 0xe9 at offset 1"):
        next(found)


def test_a_byte_order_mark_starts_a_stream_and_no_word():
    mark = "\ufeff".encode()
    assert list(parsed(iter([[mark + b"a", mark + b"b"], [mark + b"c"]]), to_text)) == [["a", "\ufeffb"], ["\ufeffc"]]


def test_all_commands_count_the_lines_of_a_text_alike(gcnn_dir, tmp_path, call):
    """A line ends at a line feed, as for `wc -l`; what else may end lines elsewhere is white space."""
    text = "la se\rno ta\nri\u2028mo\u0085vu\x0b\x0cba\r\n\n\rse\r\r\nde".encode()
    (tmp_path / "text.txt").write_bytes(text)
    number = text.count(b"\n") + 1  # the last one lacks its end
    streamed = call("score", "--run", gcnn_dir, "--format", "tsv", stdin=text).out.splitlines()[1:]
    marked = call("score", "--run", gcnn_dir, "--format", "tsv", stdin="\ufeff".encode() + text).out.splitlines()[1:]
    lines = call("evaluate", "--run", gcnn_dir, "--file", "text.txt", "--sentences", "--per-line").out.splitlines()
    call("score", "--run", gcnn_dir, "--input", "text.txt", "--output", "out")
    rows = pq.read_table("out/text.parquet").to_pylist()
    assert (len(streamed), len(lines), len(rows)) == (number, number, number)
    assert marked == streamed
    nats = [float(row.split("\t")[0]) for row in streamed]
    assert [-float(line.split("\t")[0]) for line in lines] == pytest.approx(nats, abs=1e-4)
    assert [row["log_prob"] for row in rows] == pytest.approx(nats, abs=1e-4)


@pytest.mark.parametrize("stream", ["__stdin__", "__stdout__"])
def test_a_stream_that_is_closed_is_named(gcnn_dir, call, monkeypatch, stream):
    monkeypatch.setattr(sys, stream, None)  # as Python has it then
    outcome = call("score", "--run", gcnn_dir)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "error: standard input or output is closed. Give both, or --input and --output.\n"


def test_jsonl_and_tsv_say_what_the_scorer_does(one_scorer, lines):
    scores = one_scorer.score(lines[:5])
    raw = [line.encode() for line in lines[:5]]
    objects = "".join(scored(one_scorer, iter([raw]), "jsonl")).splitlines()
    assert [json.loads(text) for text in objects] == [score._asdict() for score in scores]
    header, *rows = "".join(scored(one_scorer, iter([raw]), "tsv")).splitlines()
    assert header.split("\t") == ["log_prob", "tokens", "unknown", "perplexity"]
    assert [tuple(map(float, row.split("\t"))) for row in rows] == [tuple(score) for score in scores]


def test_nbest_lists_are_sorted_by_score_each_for_itself(one_scorer, lines):
    full = [line for line in lines if line][:9]
    entries = [f"{'abc'[i // 3]} ||| {line} ||| feature= {i} ||| -1.5" for i, line in enumerate(full)]
    entries += ["a ||| ", "a ||| ", f"a|||{full[0]}\r"]  # an id that comes again is another list
    raw = [entry.encode() for entry in entries]
    printed = "".join(reranked(one_scorer, iter([raw[:4], raw[4:]]))).splitlines()
    expected = []
    for start, stop in ((0, 3), (3, 6), (6, 9), (9, 12)):
        found = one_scorer.score([entry.split("|||")[1] for entry in entries[start:stop]])
        group = zip((entry.rstrip() for entry in entries[start:stop]), log_probs(found), strict=True)
        expected += sorted(group, key=lambda pair: -pair[1])
    assert [line.rpartition(" ||| ")[0] for line in printed] == [entry for entry, _ in expected]
    values = [float(line.rpartition("|||")[2]) for line in printed]
    np.testing.assert_allclose(values, [score for _, score in expected], atol=1e-5)


def test_a_line_that_is_no_nbest_entry_is_named(one_scorer):
    groups = reranked(one_scorer, iter([[b"1 ||| a", b"1 ||| b", b"2 ||| c", b"no entry"]]))
    assert next(groups).count("\n") == 2
    with pytest.raises(UsageError, match="line 4 of the input is not `id"):
        next(groups)


def start(run_dir, *options) -> subprocess.Popen:
    command = [sys.executable, "-m", "gcnn.evaluation.score_command", "--run", run_dir, "--threads", "1", *options]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(list(map(str, command)), **pipes)


def test_the_command_answers_a_slow_pipe_line_by_line_and_ends_at_a_fault_with_2(made_runs, one_scorer):
    process = start(made_runs["gcnn", "word"])
    for line in ("à la", "", "b c d"):
        process.stdin.write(f"{line}\n".encode())
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())  # comes although the pipe stays open
        assert answer["log_prob"] == pytest.approx(one_scorer.score([line])[0].log_prob, abs=1e-5)
    out, err = process.communicate(b"fine\n\xff\nnever scored\n", timeout=60)
    assert len(out.splitlines()) == 1
    assert err.decode().startswith("error: line 5 of the input is not UTF-8")
    assert len(err.splitlines()) == 1
    assert process.returncode == 2


def test_the_command_ends_quietly_when_its_reader_leaves(made_runs):
    process = start(made_runs["gcnn", "word"], "--format", "tsv")
    process.stdin.write(b"a b\n")
    process.stdin.flush()
    process.stdout.readline()
    process.stdout.close()
    process.stdin.write(b"c d\n" * 100)
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threads", "0"], "--threads is 0"),
        (["--run", "nowhere"], "nowhere is not a run directory"),
    ],
)
def test_what_the_command_cannot_do_is_one_line_and_2(options, message, gcnn_dir, call):
    outcome = call("score", "--run", gcnn_dir, *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
