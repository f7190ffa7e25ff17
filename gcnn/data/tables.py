"""The rows of one file, by its own kind: text, JSON lines or Parquet, the first two also compressed.

A line ends at "\\n", and a "\\r" just before that is part of the end; the last line may lack it. No other character
ends a line. A byte order mark at the start is no part of the text. Nothing is inferred: of JSON and Parquet, the text
is one column, which must hold strings.
"""

import bz2
import codecs
import contextlib
import gzip
import json
import lzma
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gcnn.base.errors import UsageError, one_line
from gcnn.base.text_files import check_no_pointer, check_no_pointer_at, check_no_utf16
from gcnn.data.lines import TEXT

CHUNK = 1 << 23  # bytes that are in memory together, more where one row is longer
COMPRESSED = {  # by their first bytes, none of which a text has
    rb"\x1f\x8b": gzip.open,
    rb"BZh[1-9](1AY&SY|\x17rE8P\x90)": bz2.open,
    rb"\xfd7zXZ\0": lzma.open,
    rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18": lambda file: pa.CompressedInputStream(
        file, "zstd"
    ),
}
ARCHIVES = rb"PK(\x03\x04|\x05\x06|\x07\x08)|Rar!\x1a|7z\xbc\xaf"
COMPRESSED_SUFFIXES = (".bz2", ".gz", ".xz", ".zst")
JSON_SUFFIXES = (".jsonl", ".jsonlines", ".ndjson", ".json")
PARQUET_SUFFIXES = (".parquet", ".pq")
OTHER_SUFFIXES = (
    ".7z",
    ".arrow",
    ".csv",
    ".feather",
    ".rar",
    ".tar",
    ".tgz",
    ".tsv",
    ".xlsx",
    ".zip",
)
REMEDY = "Give text, JSON lines (.jsonl) or Parquet (.parquet)"


def read_rows(
    path: Path, column: str = "text", option: str = "--column", alone: bool = False
) -> Iterator[pa.Table]:
    """The rows of a file in tables of about CHUNK bytes, the text (large_string, or null) in `column`.

    Text is a row a line. Unless the text is wanted `alone`, Parquet keeps its other columns, and JSON lines have a
    second one, `json`, with each row as it was. `option` is where a user names the column.
    Raises UsageError for a file that is missing, incomplete, not UTF-8, of another kind or without such a column.
    """
    if path.is_dir() or not path.exists():
        raise UsageError(f"no file {path}. {REMEDY}.")
    kind = suffix(path)
    if kind in OTHER_SUFFIXES:
        raise UsageError(f"{path}: {kind} files are not read. {REMEDY}.")
    try:
        if kind in PARQUET_SUFFIXES:
            yield from read_parquet(path, column, option, alone)
        elif kind in JSON_SUFFIXES:
            yield from read_json(path, column, option, alone)
        else:
            yield from (pa.table({column: lines}) for lines in read_text(path))
    except (EOFError, OSError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
        if getattr(error, "errno", None) or isinstance(error, MemoryError):  # not the file's fault
            raise
        if "Frame requires too much memory" in str(error):  # zstd --long=28 to 31, or --ultra
            raise UsageError(
                f"{path} was packed with a window of more than 128 MiB, which is not read here. Unpack it with zstd -d "
                "--long=31, or give the text as a pipe of zstd -dc --long=31."
            ) from None
        raise UsageError(
            f"{path} is damaged or incomplete ({one_line(error)}). Copy it again."
        ) from None


def read_lines(path: Path, column: str = "text", option: str = "--column") -> Iterator[pa.Array]:
    """The text of each row, as read_rows has it: large_string, null where a row has none."""
    for rows in read_rows(path, column, option, alone=True):
        yield rows[column].combine_chunks()


def suffix(path: Path) -> str:
    """What the name says of a file's kind, in small letters: `.jsonl` of `A.JSONL.gz`."""
    path = Path(path.name.lower())
    return path.with_suffix("").suffix if path.suffix in COMPRESSED_SUFFIXES else path.suffix


def read_text(path: Path) -> Iterator[pa.Array]:
    """The lines of a text, compressed or not, as large_string."""
    with open(path, "rb") as raw, decompressed(raw, path) as file:
        number = offset = 0  # of the lines and bytes before a chunk
        for chunk in chunks(file):
            text = chunk if offset else checked_start(chunk, path)
            if not text:  # a byte order mark alone
                continue
            text = pa.array([text.replace(b"\r\n", b"\n").removesuffix(b"\n")], pa.large_binary())
            try:
                lines = pc.split_pattern(text.cast(TEXT), "\n").flatten()
            except pa.ArrowInvalid:
                raise not_utf8(chunk, offset, number, path) from None
            yield lines
            number += len(lines)
            offset += len(chunk)


def decompressed(file: BinaryIO, path: Path) -> BinaryIO:
    beginning = file.peek(10)  # a pipe cannot be read twice
    if re.match(ARCHIVES, beginning):
        raise UsageError(f"{path} is an archive. Unpack it.")
    opened = [reader for magic, reader in COMPRESSED.items() if re.match(magic, beginning)]
    return opened[0](file) if opened else file


def chunks(file: BinaryIO) -> Iterator[bytes]:
    """Whole lines, about CHUNK bytes of them together, or one that is longer."""
    rest = []
    while block := file.read(CHUNK):
        end = block.rfind(b"\n") + 1
        if end:
            yield b"".join([*rest, block[:end]])
            rest = []
        rest.append(block[end:])
    if any(rest):
        yield b"".join(rest)


def checked_start(start: bytes, path: Path) -> bytes:
    """The start of a file without UTF-8's byte order mark.

    Raises UsageError for UTF-16, for a pointer of Git LFS, and for rows of JSON under a name that does not say so:
    braces and quotes are no words.
    """
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UsageError(
            f"{path} is not UTF-8 but UTF-16. Convert it, as with iconv -f utf-16 -t utf-8."
        )
    check_no_utf16(start, path)
    check_no_pointer(start, path)
    start = start.removeprefix(codecs.BOM_UTF8)
    if start.startswith(b"{") and suffix(path) not in (*JSON_SUFFIXES, ".txt"):
        with contextlib.suppress(ValueError, RecursionError):
            json.loads(start.partition(b"\n")[0])
            raise UsageError(
                f"{path} holds JSON. Let its name end in .jsonl, or in .txt where the JSON is the text."
            )
    return start


def not_utf8(chunk: bytes, offset: int, number: int, path: Path) -> UsageError:
    """The error for a chunk's first byte that is not UTF-8; `offset` bytes and `number` lines are before the chunk."""
    try:
        chunk.decode()
    except UnicodeDecodeError as error:
        number += 1 + chunk.count(b"\n", 0, error.start)
        where = f"byte 0x{chunk[error.start]:02x} at offset {offset + error.start}, line {number}"
        return UsageError(f"{path} is not UTF-8: {where}. Convert it, as with iconv.")


def read_json(path: Path, column: str, option: str, alone: bool) -> Iterator[pa.Table]:
    """JSON lines: blank ones are no rows, and a row without text, or with null for it, has none."""
    number, has_column = 0, False
    for lines in read_text(path):
        texts, rows = [], []
        for line in lines.to_pylist():
            number += 1
            if line.strip():
                row = parse_object(line, f"{path}, line {number}")
                has_column = has_column or column in row
                text = row.get(column)
                if not isinstance(text, str | None):
                    raise UsageError(
                        f"{path}, line {number}: `{column}` is {type(text).__name__}, not text. "
                        f"Name another column with {option}."
                    )
                texts.append(text)
                rows.append(line)
        if rows and not has_column:
            raise no_column(path, column, row, option)
        table = pa.table({column: pa.array(texts, TEXT)})
        yield (
            table
            if alone
            else table.append_column(
                "json" if column != "json" else "json_row", pa.array(rows, TEXT)
            )
        )


def parse_object(line: str, where: str) -> dict:
    """One row of JSON. Raises UsageError where the line is no whole object of Unicode text."""
    try:
        row = json.loads(line)
        if "\\u" in line:
            json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{where} is not JSON ({one_line(error)}). Give an object a line, as jq -c writes."
        ) from None
    if not isinstance(row, dict):
        raise UsageError(
            f"{where} is no JSON object. Give an object a line, as jq -c '.[]' writes."
        )
    return row


def read_parquet(path: Path, column: str, option: str, alone: bool) -> Iterator[pa.Table]:
    check_no_pointer_at(path)
    with pa.OSFile(os.fsencode(path)) as source:
        file = pq.ParquetFile(source)
        check_text_column(file.schema_arrow, column, path, option)
        size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
        rows = 1 + CHUNK // (1 + size // max(1, file.metadata.num_rows))
        for batch in file.iter_batches(rows, columns=[column] if alone else None):
            table = pa.Table.from_batches([batch])
            yield table.set_column(
                table.column_names.index(column), column, table[column].cast(TEXT)
            )


def check_text_column(schema: pa.Schema, column: str, what: object, option: str) -> None:
    """Raise UsageError, naming `what`, for a table without the column, and for one that is no text."""
    if column not in schema.names:
        raise no_column(what, column, schema.names, option)
    arrow_type = schema.field(column).type
    kind = arrow_type.value_type if pa.types.is_dictionary(arrow_type) else arrow_type
    if kind not in (pa.string(), pa.large_string(), pa.string_view(), pa.null()):
        raise UsageError(
            f"{what}: `{column}` is {arrow_type}, not text. Name another column with {option}."
        )


def no_column(what: object, column: str, columns: Iterable[str], option: str) -> UsageError:
    return UsageError(
        f"{what} has no column `{column}` (found: {', '.join(columns)}). Name another with {option}."
    )
