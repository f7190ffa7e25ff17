"""Files that are no text, or stand for another file: UTF-16 without its mark, pointers of Git LFS."""

from collections import Counter
from pathlib import Path

from gcnn.base.errors import UsageError

POINTERS = {  # how the small files begin that stand for large ones, and what fetches those
    b"version https://git-lfs.github.com/spec/": "git lfs pull",
    b"/annex/objects/": "git annex get",
}


def check_no_pointer(beginning: bytes, what: object) -> None:
    """Raise UsageError for a file that Git LFS or git-annex keeps elsewhere, by its first bytes: a clone made without
    them, or a download of the raw file, has a few lines in its place."""
    for start, command in POINTERS.items():
        if beginning.startswith(start):
            raise UsageError(
                f"{what} is not the file itself but a pointer to it. Fetch it with {command}, or download it anew."
            )


def check_no_pointer_at(path: Path) -> None:
    """Raise UsageError, as check_no_pointer does, for the file at a path; a file that is not there is no pointer."""
    if path.is_file():
        with path.open("rb") as file:
            check_no_pointer(file.read(64), path)


def check_no_utf16(text: bytes, what: object) -> None:
    """Raise UsageError for UTF-16 that lacks its mark; a few lines may be anything.

    Of letters below U+0100 every second byte is zero. Of other alphabets only blanks and ends of line have zero bytes,
    and Cyrillic, Arabic or Thai are ASCII, byte by byte: but zero bytes are all over the text, and its bytes at even
    places are not those at odd ones, as in UTF-8.
    """
    text = text[: 1 << 16]
    quarter = 1 + len(text) // 4
    all_over = len(text) > 200 and all(
        0 in text[start : start + quarter] for start in range(0, len(text), quarter)
    )
    full_of_zeros = 4 * text.count(0) > len(text) > 1000
    if full_of_zeros or (all_over and parity_distance(text) > 0.5):
        raise UsageError(
            f"{what} is no UTF-8 text: it has zero bytes as UTF-16 has. Convert it, as with iconv."
        )


def parity_distance(text: bytes) -> float:
    """How the bytes at even places differ from those at odd ones: 0, they are alike, to 1, they have none in common."""
    even, odd = Counter(text[::2]), Counter(text[1::2])
    common = sum(
        min(count / len(text[::2]), odd[byte] / len(text[1::2])) for byte, count in even.items()
    )
    return 1 - common
