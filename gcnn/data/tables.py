"""The rows of one file: text, JSON lines or Parquet, the first two also compressed.

A line ends at "\\n" or "\\r\\n" and at no other character; the last line may lack its end. A byte
order mark at the start of a file is not part of the text. In JSON and Parquet the text is one
column, which must hold strings.

`read_rows` chooses the reader by the file's name. Text: `decompressed`, whole lines (`chunks`),
`checked_start`, decoding. `read_json` parses the lines of `read_text`. `read_parquet` is alone.
"""

import bz2
import codecs
import gzip
import json
import lzma
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gcnn.base.errors import UsageError, one_line
from gcnn.base.text_files import (
    check_no_archive,
    check_no_pointer,
    check_no_pointer_at,
    check_no_utf16,
    compression,
)
from gcnn.data.lines import TEXT

CHUNK = 1 << 23  # bytes of rows that are in memory together; more if one row is longer


def open_zstd(file: BinaryIO) -> BinaryIO:
    """A stream that decompresses zstd."""
    return pa.CompressedInputStream(file, "zstd")


OPENERS = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open, "zstd": open_zstd}
COMPRESSED_SUFFIXES = (".bz2", ".gz", ".xz", ".zst")
JSON_SUFFIXES = (".jsonl", ".jsonlines", ".ndjson", ".json")
PARQUET_SUFFIXES = (".parquet", ".pq")
ARCHIVE_SUFFIXES = (".7z", ".rar", ".tar", ".tgz", ".zip")
OTHER_SUFFIXES = (*ARCHIVE_SUFFIXES, ".arrow", ".csv", ".feather", ".tsv", ".xlsx")
REMEDY = "Give text, JSON lines (.jsonl) or Parquet (.parquet)"


def read_rows(
    path: Path, column: str = "text", option: str = "--column", text_only: bool = False
) -> Iterator[pa.Table]:
    """The rows of a file, as tables of about CHUNK bytes (8 MiB) with the text in `column`.

    path: read as JSON lines or Parquet if its name ends in one of JSON_SUFFIXES or
    PARQUET_SUFFIXES, otherwise (also a pipe) as text, a row per line. Text and JSON may be
    compressed, which their first bytes say.
    column: the text's name in JSON and Parquet, and in the tables. It is large_string, not
    stripped; null for a row without a text.
    option: the option that sets the column, for messages.
    text_only: have no other column. If False, Parquet keeps its other columns, and JSON lines get
    one, `json` (`json_row` if the text is in `json`), with each line as it is in the file.
    The file is read while tables are iterated over. A file without rows has a single table, with
    the columns and no rows. Other tables may have no rows, too, as of blank lines in JSON. While
    iterating, raises UsageError if the file is missing, damaged, not UTF-8 (in Parquet only the
    text's column is checked), a pointer of Git LFS, of a kind that is not read, or if the column is
    missing or not text; OSError if it may not be read or the disk fails.
    """
    if path.is_dir() or not path.exists():
        raise UsageError(f"no file {path}. {REMEDY}.")
    kind = suffix(path)
    if kind in OTHER_SUFFIXES:
        raise UsageError(f"{path}: {kind} files are not read. {REMEDY}.")
    try:
        if kind in PARQUET_SUFFIXES:
            yield from read_parquet(path, column, option, text_only)
        elif kind in JSON_SUFFIXES:
            yield from read_json(path, column, option, text_only)
        else:
            yield from (pa.table({column: lines}) for lines in read_text(path))
    except (EOFError, OSError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
        # An error of the disk or of memory, not of the file's content.
        if getattr(error, "errno", None) or isinstance(error, MemoryError):
            raise
        if "Frame requires too much memory" in str(error):  # zstd --long=28 to 31, or --ultra
            raise UsageError(
                f"{path} was packed with a window of more than 128 MiB, which is not read here. "
                "Unpack it with zstd -d --long=31, or give the text as a pipe of "
                "zstd -dc --long=31."
            ) from None
        raise UsageError(
            f"{path} is damaged or incomplete ({one_line(error)}). Copy it again."
        ) from None


def read_lines(path: Path, column: str = "text", option: str = "--column") -> Iterator[pa.Array]:
    """The text of each row of a file in batches: large_string, null for a row without one.

    Text is not stripped, and its empty lines are rows. The arguments and the errors are those of
    read_rows.
    """
    for rows in read_rows(path, column, option, text_only=True):
        yield rows[column].combine_chunks()


def is_text(path: Path) -> bool:
    """Whether a file of this name is taken for text, which has no columns.

    The file is not opened. False for JSON, Parquet and the files that are not read, by
    OTHER_SUFFIXES; the Hub's Arrow files in the cache of `datasets` are among the last.
    """
    return suffix(path) not in (*JSON_SUFFIXES, *PARQUET_SUFFIXES, *OTHER_SUFFIXES)


def suffix(path: Path) -> str:
    """The last ending of a name without that of a compression: .jsonl of A.JSONL.gz.

    In lower case, with its dot; "" if there is none.
    """
    path = Path(path.name.lower())
    if path.suffix in COMPRESSED_SUFFIXES:
        path = path.with_suffix("")
    return path.suffix


def read_text(path: Path) -> Iterator[pa.Array]:
    """The lines of a text file in batches of large_string; it may be compressed, or a pipe.

    Lines are without their ends; the end of the last one adds no empty line. A file without lines
    has a single batch, an empty one. Raises UsageError for bytes that are not UTF-8, and as
    decompressed and checked_start do; OSError if the file cannot be opened. Damaged compressed data
    raises the decompressor's own errors.
    """
    with open(path, "rb") as raw, decompressed(raw, path) as file:
        number = 0  # lines before this chunk
        offset = 0  # bytes before this chunk
        for chunk in chunks(file):
            text = chunk if offset else checked_start(chunk, path)
            if not text:  # the file was nothing but a byte order mark
                continue
            text = text.replace(b"\r\n", b"\n").removesuffix(b"\n")
            # As one string of Arrow's, which checks that it is UTF-8 and splits it fast
            whole = pa.array([text], pa.large_binary())
            try:
                lines = pc.split_pattern(whole.cast(TEXT), "\n").flatten()
            except pa.ArrowInvalid:
                raise not_utf8(chunk, offset, number, path) from None
            yield lines
            number += len(lines)
            offset += len(chunk)
        if number == 0:
            yield pa.array([], TEXT)


def decompressed(file: BinaryIO, path: Path) -> BinaryIO:
    """A stream of the file's content, decompressed if its first bytes are those of a compression.

    file: buffered and at its start; returned as it is if it is not compressed. Otherwise the caller
    must close `file` too: closing the stream may leave it open. path: only for the message.
    Raises UsageError for an archive; for a .tar `checked_start` does.
    """
    beginning = file.peek(10)  # does not consume them: a pipe cannot be read twice
    check_no_archive(beginning, path)
    program = compression(beginning)
    return OPENERS[program](file) if program else file


def chunks(file: BinaryIO) -> Iterator[bytes]:
    """The content in pieces of whole lines, each of about CHUNK bytes or one longer line.

    Lines keep their ends, which the last one of the file may lack. Nothing for an empty file.
    """
    rest = []  # the beginning of a line whose end is not read yet
    while block := file.read(CHUNK):
        end = block.rfind(b"\n") + 1
        if end:
            yield b"".join([*rest, block[:end]])
            rest = []
        rest.append(block[end:])
    if any(rest):
        yield b"".join(rest)


def checked_start(start: bytes, path: Path) -> bytes:
    """The first chunk of a text file without the byte order mark of UTF-8.

    start: at least the whole first line. Raises UsageError for UTF-16, an archive and a pointer
    of Git LFS, and if the first line is a JSON object although the name does not end in one of
    JSON_SUFFIXES or .txt (before that of a compression): its braces and quotes would be read as
    words.
    """
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UsageError(
            f"{path} is not UTF-8 but UTF-16. Convert it, as with iconv -f utf-16 -t utf-8."
        )
    check_no_archive(start, path)
    check_no_utf16(start, path)
    check_no_pointer(start, path)
    start = start.removeprefix(codecs.BOM_UTF8)
    if start.startswith(b"{") and suffix(path) not in (*JSON_SUFFIXES, ".txt"):
        try:
            json.loads(start.partition(b"\n")[0])
        except (ValueError, RecursionError):
            return start  # text that begins with a brace
        raise UsageError(
            f"{path} holds JSON. Let its name end in .jsonl, or in .txt where the JSON is the text."
        )
    return start


def not_utf8(chunk: bytes, offset: int, number: int, path: Path) -> UsageError:
    """The error, to be raised, for the first byte of a chunk that is not UTF-8.

    It names the byte's offset, from 0, and line, from 1, in the file's content, decompressed.
    chunk: bytes that are not UTF-8. offset, number: the bytes and the lines before the chunk.
    """
    try:
        chunk.decode()
    except UnicodeDecodeError as error:
        number += 1 + chunk.count(b"\n", 0, error.start)
        where = f"byte 0x{chunk[error.start]:02x} at offset {offset + error.start}, line {number}"
        return UsageError(f"{path} is not UTF-8: {where}. Convert it, as with iconv.")


def read_json(path: Path, column: str, option: str, text_only: bool) -> Iterator[pa.Table]:
    """The rows of a file of JSON lines, as read_rows has them; blank lines are skipped.

    The arguments are those of read_rows. The text of a row without `column`, or with null there, is
    null. A table of blank lines alone has no rows. Raises UsageError as parse_object does, for a
    text that is not a string, and if no row of the first table that has rows has `column`; also all
    that read_text raises.
    """
    line_number = 0
    has_column = False
    for lines in read_text(path):
        texts = []
        json_lines = []
        for line in lines.to_pylist():
            line_number += 1
            if not line.strip():
                continue
            row = parse_object(line, f"{path}, line {line_number}")
            has_column = has_column or column in row
            text = row.get(column)
            if not isinstance(text, str | None):
                raise UsageError(
                    f"{path}, line {line_number}: `{column}` is {type(text).__name__}, not text. "
                    f"Name another column with {option}."
                )
            texts.append(text)
            json_lines.append(line)
        if json_lines and not has_column:
            raise no_column(path, column, row, option)
        table = pa.table({column: pa.array(texts, TEXT)})
        if not text_only:
            name = "json_row" if column == "json" else "json"
            table = table.append_column(name, pa.array(json_lines, TEXT))
        yield table


def parse_object(line: str, where: str) -> dict:
    """A line of JSON as a dictionary.

    where: the file and line, with which the message begins. Raises UsageError if the line is not a
    JSON object, or has a lone surrogate, which UTF-8 cannot encode.
    """
    try:
        row = json.loads(line)
        if "\\u" in line:
            json.dumps(row, ensure_ascii=False).encode()  # fails for a lone surrogate
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{where} is not JSON ({one_line(error)}). Give an object a line, as jq -c writes."
        ) from None
    if not isinstance(row, dict):
        raise UsageError(
            f"{where} is not a JSON object. Give an object a line, as jq -c '.[]' writes."
        )
    return row


def read_parquet(path: Path, column: str, option: str, text_only: bool) -> Iterator[pa.Table]:
    """The rows of a Parquet file, as read_rows has them.

    The arguments are those of read_rows. Raises UsageError if there is no such column or more than
    one, if it is not text or not UTF-8, and for a pointer of Git LFS. A damaged file raises Arrow's
    own errors.
    """
    check_no_pointer_at(path)
    with pa.OSFile(os.fsencode(path)) as source:
        file = pq.ParquetFile(source)
        check_text_column(file.schema_arrow, column, path, option)
        size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
        bytes_per_row = size // max(1, file.metadata.num_rows)
        rows = 1 + CHUNK // (1 + bytes_per_row)
        columns = [column] if text_only else None  # None: all
        if file.metadata.num_rows == 0:  # there is no batch
            tables = [file.read(columns)]
        else:
            batches = file.iter_batches(rows, columns=columns)
            tables = (pa.Table.from_batches([batch]) for batch in batches)
        for table in tables:
            index = table.column_names.index(column)
            yield table.set_column(index, column, text_column(table, column, path))


def check_text_column(schema: pa.Schema, column: str, what: object, option: str) -> None:
    """Raise UsageError unless a table has the column once, as text or of Arrow's null type.

    Text that is stored as a dictionary counts. what: the file or data set, for the message. option:
    the option that sets the column, for the message.
    """
    if column not in schema.names:
        raise no_column(what, column, schema.names, option)
    if schema.names.count(column) > 1:
        raise UsageError(
            f"{what} has more than one column `{column}`. "
            f"Rename the others, or name another with {option}."
        )
    arrow_type = schema.field(column).type
    kind = arrow_type.value_type if pa.types.is_dictionary(arrow_type) else arrow_type
    if kind not in (pa.string(), pa.large_string(), pa.string_view(), pa.null()):
        raise UsageError(
            f"{what}: `{column}` is {arrow_type}, not text. Name another column with {option}."
        )


def text_column(table: pa.Table, column: str, what: object) -> pa.ChunkedArray:
    """A table's column as large_string.

    column: one that `check_text_column` accepts. what: the file or data set, for the message.
    Raises UsageError for strings that are not UTF-8, which Arrow reads without a check.
    """
    texts = table[column].cast(TEXT)
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid as error:
        raise UsageError(
            f"{what}: `{column}` is not UTF-8 ({one_line(error)}). Write its strings as UTF-8."
        ) from None
    return texts


def no_column(what: object, column: str, columns: Iterable[str], option: str) -> UsageError:
    """The error, to be raised, for a file or data set `what` that lacks the text's column.

    columns: the names of those that it has. option: the option that sets the column.
    """
    found = ", ".join(columns)
    return UsageError(
        f"{what} has no column `{column}` (found: {found}). Name another with {option}."
    )
