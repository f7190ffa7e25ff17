"""Lines of text as Arrow arrays: Arrow joins, strips and splits as Python does, faster, and lets threads run."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

Lines = Sequence[str] | pa.Array
TEXT = pa.large_string()


def as_strings(lines: Lines) -> Sequence[str]:
    return lines.to_pylist() if isinstance(lines, pa.Array) else lines


def join_lines(lines: Lines, end: str) -> pa.Array:
    """One text: each line stripped at both ends and followed by `end`. Without lines, an empty one."""
    lines = pc.utf8_trim_whitespace(pa.array(lines, TEXT))
    lines = pa.concat_arrays([lines, pa.array([""], TEXT)])
    return pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), pa.scalar(end, TEXT))


def split_lines(lines: Lines, eos: str, unk: str) -> pa.Array:
    """The words of all lines, and `eos` after each; a word of the text that reads `eos` becomes `unk`."""
    if not len(lines):
        return pa.array([], TEXT)
    lines = pa.array(lines, TEXT)
    if pc.any(pc.match_substring(lines, eos)).as_py():
        lines = [" ".join(unk if word == eos else word for word in line.split()) for line in as_strings(lines)]
    text = pc.utf8_trim_whitespace(join_lines(lines, f" {eos} "))  # at its ends Arrow would find empty words
    return pc.utf8_split_whitespace(text).flatten()
