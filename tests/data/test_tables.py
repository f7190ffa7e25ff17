"""Rows of files against plain Python: line ends, every kind of file, nothing inferred or lost."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcnn.base.errors import UsageError
from gcnn.data import tables
from gcnn.data.tables import read_lines, read_rows
from tests.unicode_text import any_lines

PACKERS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


# Strings that Arrow made of bytes without looking at them
NOT_UTF8 = pa.array([b"ok", b"\xff\xfe"], pa.binary()).view(pa.string())


def written(path: Path, content: bytes | pa.Table) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        pq.write_table(content, path)
    return path


def texts(path: Path, **options) -> list[str | None]:
    return [text for lines in read_lines(path, **options) for text in lines.to_pylist()]


def refusal(path: Path, **options) -> str:
    with pytest.raises(UsageError) as error:
        texts(path, **options)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


@given(
    lines=any_lines,
    ends=st.lists(st.sampled_from(["\n", "\r\n"]), min_size=8, max_size=8),
    chunk=st.integers(1, 40),
)
def test_lines_end_at_newlines_alone_wherever_chunks_do(tmp_path_factory, lines, ends, chunk):
    text = "".join(line + end for line, end in zip(lines, ends, strict=False))
    path = written(tmp_path_factory.getbasetemp() / "lines.txt", text.encode())
    expected = text.removeprefix("\ufeff").split("\n")
    expected = [line.removesuffix("\r") for line in expected[:-1]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "CHUNK", chunk)
        assert texts(path) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"\xef\xbb\xbf", []),
        (b"a\n\nlast", ["a", "", "last"]),
        (b"a\rb\r\nc\r", ["a\rb", "c\r"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"]),
        (b"a\0b\xe2\x80\xa8c\x85\n".replace(b"\x85", b"\xc2\x85"), ["a\0b\u2028c\x85"]),
        (b"BZhang left\n", ["BZhang left"]),
    ],
)
def test_what_a_line_is(tmp_path, content, expected):
    assert texts(written(tmp_path / "text", content)) == expected


@pytest.mark.parametrize("packer", PACKERS)
def test_compressed_text_is_its_text_and_never_a_part_of_it(tmp_path, packer):
    lines = [f"line {i}" for i in range(1000)]
    packed = PACKERS[packer]("".join(f"{line}\n" for line in lines).encode())
    assert texts(written(tmp_path / f"a.txt.{packer}", packed)) == lines
    # As `cat` puts two together.
    assert texts(written(tmp_path / "no_suffix", packed + packed)) == 2 * lines
    row = json.dumps({"text": "a b"}).encode()
    assert texts(written(tmp_path / f"a.jsonl.{packer}", PACKERS[packer](row))) == ["a b"]
    for size in (len(packed) // 2, len(packed) - 3):
        assert "damaged or incomplete" in refusal(
            written(tmp_path / f"cut.{packer}", packed[:size])
        )


def skippable(size: int) -> bytes:
    """A frame of zstd that holds no text, as pzstd writes before each one of its own."""
    return b"\x50\x2a\x4d\x18" + size.to_bytes(4, "little") + bytes(size)


@pytest.mark.parametrize("sizes", [(4, 4, 0), (0, 100_000, 0), (0, 0, 100_000), (100_000, 3, 3)])
def test_zstd_of_parallel_writers_is_read_frame_by_frame(tmp_path, sizes):
    lines = [f"line {i}" for i in range(20_000)]
    text = "".join(f"{line}\n" for line in lines).encode()
    first, second = (PACKERS["zst"](part) for part in (text[:77_777], text[77_777:]))
    packed = (
        skippable(sizes[0])
        + first
        + skippable(sizes[1])
        + PACKERS["zst"](b"")
        + second
        + skippable(sizes[2])
    )
    path = written(tmp_path / "a.zst", packed)
    assert texts(path) == lines
    for cut in (len(packed) - sizes[2] - 12, len(skippable(sizes[0]) + first) - 5):
        assert "damaged or incomplete" in refusal(written(path, packed[:cut]))


@pytest.mark.parametrize("log", [28, 31])
def test_zstd_of_a_long_window_is_not_called_damaged(tmp_path, log):
    text = b"a b\n" * 10
    header = b"\x28\xb5\x2f\xfd\0" + bytes([(log - 10) << 3])
    raw_block = (1 | len(text) << 3).to_bytes(3, "little") + text
    said = refusal(written(tmp_path / "a.zst", header + raw_block))
    assert "zstd -d --long=31" in said
    assert "damaged" not in said
    assert (
        texts(written(tmp_path / "a.zst", header[:-1] + bytes([(27 - 10) << 3]) + raw_block))
        == ["a b"] * 10
    )


ALPHABETS = {
    "Latin": "the cat sat on the mat and saw a dog run",
    "Cyrillic": "\u043c\u0430\u043c\u0430 \u043c\u044b\u043b\u0430 \u0440\u0430\u043c\u0443",
    "Greek": "\u03b7 \u03b3\u03ac\u03c4\u03b1 \u03ba\u03ac\u03b8\u03b7\u03c3\u03b5",
    "Arabic": "\u062c\u0644\u0633\u062a \u0627\u0644\u0642\u0637\u0629",
    "Hebrew": "\u05d4\u05d7\u05ea\u05d5\u05dc \u05d9\u05e9\u05d1",
    "Devanagari": "\u092c\u093f\u0932\u094d\u0932\u0940 \u092c\u0948\u0920\u0940",
    "Thai": "\u0e41\u0e21\u0e27\u0e19\u0e31\u0e48\u0e07\u0e1a\u0e19\u0e40\u0e2a\u0e37\u0e48\u0e2d",
    "Chinese": "\u732b\u5750\u5728\u57ab\u5b50\u4e0a\u3002\u4e00\u53ea\u72d7\u8dd1\u4e86",
    "Japanese": "\u732b\u304c\u30de\u30c3\u30c8\u306b\u5ea7\u3063\u305f",
    "Korean": "\uace0\uc591\uc774\uac00 \uc549\uc558\ub2e4",
}


@pytest.mark.parametrize("alphabet", ALPHABETS)
@pytest.mark.parametrize("lines", [12, 3000])
def test_utf16_without_a_mark_is_refused_in_every_alphabet(tmp_path, alphabet, lines):
    text = "".join(f"{ALPHABETS[alphabet]}\n" for _ in range(lines))
    for order in ("utf-16-le", "utf-16-be"):
        said = refusal(written(tmp_path / "a.txt", text.encode(order)))
        assert "zero bytes as UTF-16 has" in said
        assert "iconv" in said
    for stray in ("", "\0", "\0" * 8 + "\n"):  # in UTF-8, zero bytes are text
        assert (
            texts(written(tmp_path / "a.txt", (stray + text).encode()))
            == (stray + text).split("\n")[:-1]
        )


@pytest.mark.parametrize("line", ["t h e _ c a t", "\0" * 300, "a\0" * 20, "0 1 1 0 1 0"])
def test_text_that_only_looks_a_little_like_utf16_is_text(tmp_path, line):
    lines = [line, *["t h e _ c a t _ s a t"] * 400]
    assert (
        texts(written(tmp_path / "a.txt", "".join(f"{line}\n" for line in lines).encode())) == lines
    )


@pytest.mark.parametrize("packer", [bytes, gzip.compress])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("size", [4, 100_000])
def test_a_tar_archive_by_another_name_is_named(tmp_path, packer, form, size):
    """Of a short text, which zero bytes surround, and of a long one, in which they are few."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=form) as tar:
        member = tarfile.TarInfo("train.txt")
        member.size = size
        tar.addfile(member, io.BytesIO(b"a b\n" * (size // 4)))
    said = refusal(written(tmp_path / "train.txt", packer(archive.getvalue())))
    assert "is an archive. Unpack it." in said


POINTERS = {
    "git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:0007\nsize 1256449\n",
    "git annex get": b"/annex/objects/MD5E-s10--0007.txt\n",
}


@pytest.mark.parametrize("name", ["a.txt", "a", "a.jsonl", "a.parquet", "a.txt.gz", "a.jsonl.zst"])
@pytest.mark.parametrize("command", POINTERS)
def test_a_pointer_is_no_text(tmp_path, name, command):
    said = refusal(written(tmp_path / name, POINTERS[command]))
    assert "is not the file itself but a pointer" in said
    assert command in said
    assert "damaged" not in said


@pytest.mark.parametrize("packer", [bytes, gzip.compress])
def test_a_pipe_is_read_once(tmp_path, packer):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    content = packer(b"a b\nc\n" * 20_000)
    writer = threading.Thread(target=path.write_bytes, args=[content])
    writer.start()
    assert texts(path) == ["a b", "c"] * 20_000
    writer.join()


@pytest.mark.parametrize(
    "name", ["a[1].txt", "a::b.txt", "what? *.txt", "file:a.txt", "caf\u00e9 \u732b.txt", "#=,.txt"]
)
def test_any_name_is_a_name(tmp_path, name):
    assert texts(written(tmp_path / name, b"a\n")) == ["a"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.JSONL", "a.Json"])
def test_rows_of_json_are_kept_as_they_are(tmp_path, name):
    rows = [
        '{"text": "2020-01-01", "n": 123456789012345678901234567890, "lang": null}',
        '{"lang": "en", "text": "two\\nlines \\u00e9", "n": {"drifting": [1.0]}}\t',
        '{"text":null}',
        '{"other":"nan"}',
    ]
    path = written(tmp_path / name, ("\r\n".join(rows[:2]) + "\n\n" + "\n".join(rows[2:])).encode())
    assert texts(path) == ["2020-01-01", "two\nlines \u00e9", None, None]
    found = pa.concat_tables(read_rows(path))
    assert found["json"].to_pylist() == rows
    assert found["text"].to_pylist() == ["2020-01-01", "two\nlines \u00e9", None, None]
    written(path, b'{"json":"a"}')
    assert [table.to_pydict() for table in read_rows(path, "json")] == [
        {"json": ["a"], "json_row": ['{"json":"a"}']}
    ]


def test_text_in_parquet_is_text_whatever_arrow_calls_it(tmp_path):
    words = ["a", None, "c d"]
    plain = pa.array(words)
    other = pa.array([{"x": 1}, None, {"x": 2}])
    for kind in (
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
    ):
        column = plain.dictionary_encode() if pa.types.is_dictionary(kind) else plain.cast(kind)
        path = written(
            tmp_path / "A.Parquet",
            pa.table({"n": other, "text": column, "label": plain.dictionary_encode()}),
        )
        (rows,) = read_rows(path)
        assert rows.column_names == ["n", "text", "label"]
        assert rows.schema.types == [other.type, pa.large_string(), plain.dictionary_encode().type]
        assert rows["text"].to_pylist() == words
        assert texts(path) == words
    assert texts(written(tmp_path / "null.parquet", pa.table({"text": pa.nulls(2)}))) == [
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("a.txt", b"", ["text"]),
        ("a.txt", b"\xef\xbb\xbf", ["text"]),
        ("a.jsonl", b"", ["text", "json"]),
        ("a.jsonl", b"\n\n", ["text", "json"]),
        ("a.parquet", pa.table({"n": pa.array([], pa.int8()), "text": pa.nulls(0)}), ["n", "text"]),
    ],
)
def test_a_file_without_rows_keeps_its_columns(tmp_path, name, content, columns):
    path = written(tmp_path / name, content)
    (rows,) = read_rows(path)
    assert (len(rows), rows.column_names) == (0, columns)
    assert rows["text"].type == pa.large_string()
    (alone,) = read_rows(path, text_only=True)
    assert alone.column_names == ["text"]
    assert texts(path) == []


def test_large_parquet_comes_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "CHUNK", 1000)
    path = written(tmp_path / "a.parquet", pa.table({"text": [f"row {i}" for i in range(1000)]}))
    assert len(list(read_rows(path))) > 5
    assert texts(path) == [f"row {i}" for i in range(1000)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"text\na\n", ".csv files are not read"),
        ("a.tsv.gz", b"", ".tsv files are not read"),
        ("a.zip", b"", ".zip files are not read"),
        ("a.txt", b"PK\3\4rest", "is an archive"),
        ("a.txt", "a b\n".encode("utf-16"), "is not UTF-8 but UTF-16"),
        ("a.txt", b"a\n\xc3\xa9\xe9\n", "is not UTF-8: byte 0xe9 at offset 4, line 2"),
        (
            "a.jsonl",
            b'{"text":"a"}\n{"text":"\xff"}\n',
            "is not UTF-8: byte 0xff at offset 22, line 2",
        ),
        (
            "a.txt.gz",
            gzip.compress(b"\xef\xbb\xbfa\n\xff", mtime=0),
            "is not UTF-8: byte 0xff at offset 5, line 2",
        ),
        ("a", b'{"text": "a"}\n', "holds JSON. Let its name end in .jsonl"),
        ("a.jsonl", b'{"text":"a"}\n{"te', "line 2 is not JSON"),
        ("a.json", b'[{"text":"a"}]', "line 1 is not a JSON object"),
        ("a.json", b'{\n  "text": "a"\n}', "line 1 is not JSON"),
        ("a.jsonl", b'{"text":"\\ud800"}', "line 1 is not JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1 is not JSON"),
        (
            "a.jsonl",
            b'{"text":"a"}\n{"text":5}',
            "line 2: `text` is int, not text. Name another column with",
        ),
        (
            "a.jsonl",
            b'{"content":"a","id":1}',
            r"no column `text` (found: content, id). Name another with data.column",
        ),
        (
            "a.parquet",
            pa.table({"text": [1]}),
            "`text` is int64, not text. Name another column with data.column",
        ),
        ("a.parquet", pa.table({"text": [["a"]]}), "`text` is list<element: string>, not text"),
        (
            "a.parquet",
            pa.table({"b": ["a"]}),
            "no column `text` (found: b). Name another with data.column",
        ),
        (
            "a.parquet",
            pa.table([["a"], ["b"]], ["text", "text"]),
            "has more than one column `text`. Rename the others, or name another with data.column",
        ),
        ("a.parquet", pa.table({"text": NOT_UTF8}), "`text` is not UTF-8 (In chunk 0:"),
        ("a.parquet", b"", "damaged or incomplete"),
        ("a.parquet", b"PAR1 and no more", "damaged or incomplete"),
    ],
)
def test_what_cannot_be_read_whole_is_named(tmp_path, name, content, message):
    assert message in refusal(written(tmp_path / name, content), option="data.column")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    assert "no file" in refusal(tmp_path)
    assert "no file" in refusal(tmp_path / "none.txt")
