"""The command: windows of a stream, formats, faulty lines, readers and streams that end early."""

import errno
import json
import os
import re
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcnn.base.errors import UsageError
from gcnn.commands import score as score_command
from gcnn.commands.score import decoded, parse_windows, read_windows, score_windows


def pipe_of(content: bytes) -> int:
    """The end to read of a pipe that holds `content` and ends there."""
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    return reader


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([b"", b"a", b"b c\r", b"long" * 50, b"\xff"])),
    st.booleans(),
    st.integers(1, 100),
)
def test_windows_hold_every_line_once_wherever_reads_end(lines, ended, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_command, "CHUNK", chunk)
        patch.setattr(score_command, "WINDOW", 64)
        content = b"".join(line + b"\n" for line in lines)
        reader = pipe_of(content if ended else content[:-1])
        read = list(read_windows(reader))
        os.close(reader)
    # An empty last line without an end is none.
    expected = lines if ended or not lines or lines[-1] else lines[:-1]
    assert [line for window in read for line in window] == expected
    # The first line may be longer.
    assert all(sum(map(len, window[1:])) <= 64 + chunk for window in read)


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


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("la se ".encode("utf-16-le") * 50, "is not UTF-8 text"),
        (OSError(errno.EIO, "the disk is gone"), "cannot be read (the disk is gone)"),
    ],
)
def test_whole_lines_come_before_a_fault_of_the_stream(fault, message, monkeypatch):
    def read(descriptor, size):
        chunk = next(chunks)
        if isinstance(chunk, OSError):
            raise chunk
        return chunk

    reader = pipe_of(b"there is always more")
    chunks = iter([b"one\ntwo\nthr", b"ee\nfo", fault])
    monkeypatch.setattr(os, "read", read)
    windows = read_windows(reader)
    assert next(windows) == [b"one", b"two", b"three"]
    with pytest.raises(UsageError, match=re.escape(message)):
        next(windows)
    os.close(reader)


def test_a_line_that_is_not_utf8_is_named_after_those_before_it_are_passed_on():
    found = parse_windows(iter([[b"a", b"b\r"], [b"c", b"\xc3\xa9", b"d\xe9", b"e"]]), decoded)
    assert next(found) == ["a", "b"]
    assert next(found) == ["c", "é"]
    with pytest.raises(UsageError, match="line 5 of the input is not UTF-8: byte 0xe9 at offset 1"):
        next(found)


def test_a_byte_order_mark_starts_a_stream_and_no_word():
    mark = "\ufeff".encode()
    windows = [[mark + b"a", mark + b"b"], [mark + b"c"]]
    assert list(parse_windows(iter(windows), decoded)) == [["a", "\ufeffb"], ["\ufeffc"]]


def test_all_commands_count_the_lines_of_a_text_alike(gcnn_dir, tmp_path, call):
    """A line ends at a line feed, as for `wc -l`; other line separators are white space."""
    text = "la se\rno ta\nri\u2028mo\u0085vu\x0b\x0cba\r\n\n\rse\r\r\nde".encode()
    (tmp_path / "text.txt").write_bytes(text)
    number = text.count(b"\n") + 1  # the last one lacks its end
    streamed = call("score", "--run", gcnn_dir, "--format", "tsv", stdin=text).out.splitlines()[1:]
    marked = call(
        "score", "--run", gcnn_dir, "--format", "tsv", stdin="\ufeff".encode() + text
    ).out.splitlines()[1:]
    lines = call(
        "evaluate", "--run", gcnn_dir, "--file", "text.txt", "--sentences", "--per-line"
    ).out.splitlines()
    call("score", "--run", gcnn_dir, "--input", "text.txt", "--output", "out")
    rows = pq.read_table("out/text.parquet").to_pylist()
    assert (len(streamed), len(lines), len(rows)) == (number, number, number)
    assert marked == streamed
    nats = [float(row.split("\t")[0]) for row in streamed]
    assert [float(line.split("\t")[0]) for line in lines] == pytest.approx(nats, abs=1e-4)
    assert [row["log_prob"] for row in rows] == pytest.approx(nats, abs=1e-4)


def test_files_of_repeated_options_are_all_scored_into_the_home_folder(
    gcnn_dir, tmp_path, call, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("one line\n")
    done = call("score", f"--run={gcnn_dir}", "--input=a.txt", "--input", "b.txt", "--output=~/out")
    assert done.code == 0, done.err
    scored = sorted(path.name for path in (tmp_path / "home" / "out").iterdir())
    assert scored == ["a.parquet", "b.parquet"]


@pytest.mark.parametrize("stream", ["__stdin__", "__stdout__"])
def test_a_stream_that_is_closed_is_named(gcnn_dir, call, monkeypatch, stream):
    monkeypatch.setattr(sys, stream, None)  # as Python has it then
    outcome = call("score", "--run", gcnn_dir)
    assert (outcome.code, outcome.out) == (2, "")
    assert (
        outcome.err
        == "error: standard input or output is closed. Give both, or --input and --output.\n"
    )


def test_jsonl_and_tsv_say_what_the_scorer_does(one_scorer, lines):
    scores = one_scorer.score(lines[:5])
    raw = [line.encode() for line in lines[:5]]
    objects = "".join(score_windows(one_scorer, iter([raw]), "jsonl")).splitlines()
    assert [json.loads(text) for text in objects] == [score._asdict() for score in scores]
    header, *rows = "".join(score_windows(one_scorer, iter([raw]), "tsv")).splitlines()
    assert header.split("\t") == ["log_prob", "tokens", "unknown", "perplexity"]
    assert [tuple(map(float, row.split("\t"))) for row in rows] == [
        tuple(score) for score in scores
    ]


def start(run_dir, *options) -> subprocess.Popen:
    command = [sys.executable, "-m", "gcnn", "score", "--run", run_dir, "--threads", "1", *options]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(list(map(str, command)), **pipes)


def test_the_command_answers_a_slow_pipe_line_by_line_and_ends_at_a_fault_with_2(
    made_runs, one_scorer
):
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
        (["--threads", "0"], "--threads: 0 is not from 1"),
        (["--run", "nowhere"], "nowhere is not a run directory"),
    ],
)
def test_what_the_command_cannot_do_is_one_line_and_2(options, message, gcnn_dir, call):
    outcome = call("score", "--run", gcnn_dir, *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
