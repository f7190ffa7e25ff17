"""Recognise what is not the text it should be: compressed, archives, UTF-16, Git LFS pointers."""

import re
from collections import Counter
from pathlib import Path

from gcnn.base.errors import UsageError

POINTERS = {  # how a pointer file begins -> the command that fetches the file it stands for
    b"version https://git-lfs.github.com/spec/": "git lfs pull",
    b"/annex/objects/": "git annex get",
}
COMPRESSED = {  # program that decompresses it -> pattern of the first bytes, which no text has
    "gzip": rb"\x1f\x8b",
    "bzip2": rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
    "xz": rb"\xfd7zXZ\0",
    "zstd": rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",
}
ARCHIVES = rb"PK(\x03\x04|\x05\x06|\x07\x08)|Rar!\x1a|7z\xbc\xaf"
TAR = (b"ustar\x0000", b"ustar  \0")  # at byte 257 of a tar archive: of POSIX, and of GNU


def check_no_pointer(beginning: bytes, what: object) -> None:
    """Raise UsageError if a file is a pointer of Git LFS or git-annex instead of its content.

    A clone made without these tools, or a download of the raw file, has such a pointer.
    beginning: the file's first 64 bytes or more, fewer if it is shorter. what: the file's name, for
    the message.
    """
    for start, command in POINTERS.items():
        if beginning.startswith(start):
            raise UsageError(
                f"{what} is not the file itself but a pointer to it. "
                f"Fetch it with {command}, or download it anew."
            )


def check_no_pointer_at(path: Path) -> None:
    """Raise UsageError if the file at a path is a pointer of Git LFS or git-annex.

    Does nothing if there is no file; its reader reports that. Raises OSError if it cannot be read.
    """
    if path.is_file():
        with path.open("rb") as file:
            check_no_pointer(file.read(64), path)


def compression(beginning: bytes) -> str | None:
    """The program, a key of COMPRESSED, that decompresses a file; None if it is not compressed.

    beginning: the file's first 10 bytes or more, fewer if it is shorter.
    """
    for program, pattern in COMPRESSED.items():
        if re.match(pattern, beginning):
            return program
    return None


def check_no_archive(beginning: bytes, what: object) -> None:
    """Raise UsageError for a .zip, .rar, .7z or .tar.

    beginning: the file's first bytes; 4 tell a .zip, .rar or .7z, and 265 a .tar. what: its name,
    for the message.
    """
    if re.match(ARCHIVES, beginning) or beginning[257:265] in TAR:
        raise UsageError(f"{what} is an archive. Unpack it.")


def check_no_utf16(text: bytes, what: object) -> None:
    """Raise UsageError for text that seems to be UTF-16, by its zero bytes.

    For text without a byte order mark, which the caller looks for. Any other binary file with many
    zero bytes is taken for UTF-16, too.
    text: the start of a file; its first 64 KiB are examined. what: its name, for the message.
    Nothing is raised for 200 bytes or fewer, which are too few to tell.
    """
    text = text[: 1 << 16]
    # First sign, for letters below U+0100: every second byte is zero.
    full_of_zeros = len(text) > 1000 and text.count(0) > len(text) / 4

    # Second sign. In other alphabets only blanks and line ends have zero bytes, and the rest may be
    # valid ASCII byte by byte (Cyrillic, Arabic, Thai). But then zero bytes occur in every quarter
    # of the text, and bytes at even positions differ from those at odd ones, unlike in UTF-8.
    zeros_everywhere = len(text) > 200
    quarter = 1 + len(text) // 4
    for start in range(0, len(text), quarter):
        if 0 not in text[start : start + quarter]:
            zeros_everywhere = False
    if full_of_zeros or (zeros_everywhere and parity_distance(text) > 0.5):
        raise UsageError(
            f"{what} is not UTF-8 text: it has zero bytes as UTF-16 has. Convert it, as with iconv."
        )


def parity_distance(text: bytes) -> float:
    """The total variation distance between the bytes at even and at odd positions.

    From 0, the same distribution, to 1, no byte in common. `text` has at least two bytes.
    """
    even = Counter(text[::2])
    odd = Counter(text[1::2])
    common = 0.0
    for byte, count in even.items():
        common += min(count / even.total(), odd[byte] / odd.total())
    return 1 - common
