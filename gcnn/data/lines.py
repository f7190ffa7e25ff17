"""Lines of text as Arrow arrays, and what is done with them: join, split, count words.

Arrow's functions give the same results as Python's, faster, and without the GIL.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Lines = Sequence[str] | pa.Array
TEXT = pa.large_string()


def join_lines(lines: pa.Array, end: str) -> pa.Array:
    """All lines as one text: each is stripped at both ends and followed by `end`.

    lines: large_string without nulls. Returns an array of one element, the text; "" for no lines.
    """
    # The empty line at the end makes the join put `end` after the last line, too.
    lines = pa.concat_arrays([pc.utf8_trim_whitespace(lines), pa.array([""], TEXT)])
    return pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), pa.scalar(end, TEXT))


def without_end_marks(lines: Lines, eos: str) -> pa.Array:
    """The lines (large_string) without the word `eos` at the end of each, even repeated.

    Some toolkits write it there, where tokenizers add one themselves.
    lines: without nulls. White space around a removed `eos` goes with it; other lines stay as they
    are.
    """
    lines = pa.array(lines, TEXT)
    if not contains_text(lines, eos):
        return lines

    def unmarked(line: str) -> str:
        while line.rsplit(None, 1)[-1:] == [eos]:
            line = line.rstrip().removesuffix(eos).rstrip()
        return line

    return pa.array(map(unmarked, lines.to_pylist()), TEXT)


def first_lines(batches: Iterable[pa.Array], tokens: int) -> Iterator[pa.Array]:
    """The first lines of a text, until they have `tokens` words and line ends together.

    Yields the batches, the last one cut behind the line that reaches this number; no batch after it
    is read. If the text has fewer, yields all lines. tokens: 1 or more. Words are what white space
    separates, also an <eos> that is written in the text. Null rows are kept and not counted.
    """
    for lines in batches:
        counts = []
        for line in lines.to_pylist():
            counts.append(0 if line is None else len(line.split()) + 1)
        # The lines up to the first whose cumulative count reaches `tokens`; len + 1 if none does.
        needed = int(np.searchsorted(np.cumsum(counts), tokens)) + 1
        yield lines[:needed]
        if needed <= len(lines):
            return
        tokens -= sum(counts)


def count_word(lines: pa.Array, word: str) -> int:
    """How often `word` is one of the white-space words of the lines (large_string)."""
    if not contains_text(lines, word):
        return 0
    words = pc.utf8_split_whitespace(lines).flatten()
    return pc.sum(pc.equal(words, word)).as_py() or 0


def contains_text(lines: pa.Array, text: str) -> bool:
    """Whether `text` occurs anywhere in the lines, also as part of a word."""
    return bool(pc.any(pc.match_substring(lines, text)).as_py())


def split_lines(lines: Lines, eos: str, unk: str) -> pa.Array:
    """The white-space words of all lines as one flat large_string array, `eos` after each line.

    lines: without nulls. An empty line gives `eos` alone, and no lines give an empty array. The
    word `eos` at the end of a line, even repeated, is dropped before `eos` is added; elsewhere in a
    line it becomes `unk`.
    """
    lines = without_end_marks(lines, eos)
    if not len(lines):
        return lines
    if contains_text(lines, eos):
        replaced = []
        for line in lines.to_pylist():
            words = [unk if word == eos else word for word in line.split()]
            replaced.append(" ".join(words))
        lines = pa.array(replaced, TEXT)
    text = join_lines(lines, f" {eos} ")
    text = pc.utf8_trim_whitespace(text)  # otherwise Arrow finds empty words at both ends
    return pc.utf8_split_whitespace(text).flatten()
