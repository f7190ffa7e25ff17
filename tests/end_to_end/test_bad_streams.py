"""Bad input on standard input, for scoring: the lines before the bad one are scored, then one line
that names it and the remedy, and exit code 2. Nothing is written.
"""

import bz2
import gzip
import lzma
import os
import re

import pyarrow as pa
import pytest

STREAMS = [
    # what comes in, options, what the line must name, lines that are scored before
    (b"\xff\xfe\n", [], "line 1 of the input is not UTF-8: byte 0xff at offset 0", 0),
    (b"w1\nw2 \xe9\nw3\n", [], "line 2 of the input is not UTF-8: byte 0xe9 at offset 3", 1),
    ("w1 w2\n".encode("utf-16"), [], "line 1 of the input is not UTF-8", 0),
    (
        ("w1 w2\n" * 100).encode("utf-16-le"),
        [],
        "standard input is not UTF-8 text: .* zero bytes",
        0,
    ),
    (
        b"w1 w2\n\0\n\xff\n",
        [],
        "line 3 of the input is not UTF-8",
        2,
    ),  # a line of zero bytes is a line
    (b"w1\n\nw2\ncaf\xc3", [], "line 4 of the input is not UTF-8", 3),
    (b"w1\n\xed\xa0\x80\n", [], "line 2 of the input is not UTF-8", 1),
    (b"w1\n\xff", ["--format", "tsv"], "line 2 of the input is not UTF-8", 2),
    (
        b"1 ||| w1\n2 ||| w2\nw3\n",
        ["--nbest"],
        "line 3 of the input is not `id \\|\\|\\| sentence`",
        1,
    ),
    (b"1 || w1\n", ["--nbest"], "line 1 of the input is not `id", 0),
    (b"\n", ["--nbest"], "line 1 of the input is not `id", 0),
    (b"1 ||| w1\n1 ||| \xff\n", ["--nbest"], "line 2 of the input is not UTF-8", 0),
    (gzip.compress(b"w1\n", mtime=0), [], "standard input is compressed by gzip", 0),
    (bz2.compress(b"w1\n"), [], "standard input is compressed by bzip2", 0),
    (lzma.compress(b"w1\n"), [], "standard input is compressed by xz", 0),
    (
        pa.compress(b"w1\n", "zstd", asbytes=True),
        [],
        "standard input is compressed by zstd",
        0,
    ),
    (b"PK\3\4rest", [], "standard input is an archive", 0),
]


@pytest.mark.parametrize(("stdin", "options", "named", "scored"), STREAMS)
def test_a_bad_line_ends_the_scores_before_it(
    call, run_dir, snapshot, stdin, options, named, scored
):
    before = snapshot()
    done = call("score", "--run", run_dir, *options, stdin=stdin)
    assert (done.code, len(done.out.splitlines())) == (2, scored)
    assert re.fullmatch(f"error: .*{named}.*\\. .*\n", done.err), done.err
    assert snapshot() == before


def test_a_folder_is_no_standard_input(call, run_dir, monkeypatch, tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr("gcnn.commands.score.STDIN", descriptor)
    done = call("score", "--run", run_dir)
    os.close(descriptor)
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch("error: standard input cannot be read .*\n", done.err)
