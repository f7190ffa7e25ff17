"""Scoring whole corpora: text, JSON lines or Parquet in, Parquet files with columns of scores out.

Any number of processes share the files, however they were started (torchrun, a Slurm array, by
hand): each takes the next file that no other one has locked. An output file is written whole or not
at all, and its metadata says what its scores were made from. Files that are there already and were
made from the same are not scored again, so that a job that was interrupted goes on when it is
called again.
"""

import contextlib
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from gcnn.base.errors import UsageError
from gcnn.base.files import check_output, lock, sha256, to_json, write_atomically
from gcnn.data.lines import TEXT
from gcnn.data.tables import COMPRESSED_SUFFIXES, JSON_SUFFIXES, PARQUET_SUFFIXES, read_rows
from gcnn.evaluation.scoring import SCORES, Scorer, check_new_columns

KINDS = (
    ".txt",
    *JSON_SUFFIXES,
    *PARQUET_SUFFIXES,
    *COMPRESSED_SUFFIXES,
)  # else a dot is part of a name
# In the metadata of a file's schema: a JSON object, what its scores were made from. The scores of
# two models have two prefixes, which follow.
METADATA_KEY = "gcnn"
# The entries of it that make others of the scores
IDENTITY_KEYS = ("model", "tokenizer", "precision", "before_text", "column", "input")


@dataclass
class ScoringStats:
    """What this process has scored."""

    files: int = 0
    skipped: int = 0  # their scores were there already
    elsewhere: int = 0  # another process is at work on them
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


def score_files(
    scorer: Scorer, files: list[Path], output: Path, column: str = "text", prefix: str = ""
) -> ScoringStats:
    """Score the rows of files into `output`/<name>.parquet; returns what this process did.

    `column` has the texts; lines of a text file are a column of that name. `prefix` begins the
    names of the scores' columns. The folder is made where it is missing. Files that are done, or
    that other processes have locked, are left out. Takes them in random order and shows a progress
    bar. Raises UsageError, before anything is scored, for a file that is missing and for scores in
    `output` that were made from something else; and, after all others are scored, for files that
    are damaged or have no such column.
    """
    targets = targets_of(files, output)
    todo = [
        (path, target)
        for path, target in targets.items()
        if not is_done(scorer, path, target, column, prefix)
    ]
    done = ScoringStats(skipped=len(files) - len(todo))
    refused = []
    random.shuffle(todo)  # so that processes rarely meet, also where the file system knows no locks
    with remove_if_left_empty(output):
        for path, target in tqdm(todo, unit=" files", disable=None):
            with claimed(target) as is_claimed:
                try:
                    if not is_claimed:
                        done.elsewhere += 1
                    elif is_done(scorer, path, target, column, prefix):  # meanwhile
                        done.skipped += 1
                    else:
                        score_file(scorer, path, target, column, prefix, done)
                except UsageError as error:
                    refused.append(str(error))
        if refused:
            more = f" {len(refused) - 3} more files were not scored." if len(refused) > 3 else ""
            raise UsageError(" ".join(refused[:3]) + more)
    return done


@contextlib.contextmanager
def remove_if_left_empty(folder: Path) -> Iterator[None]:
    """Make a folder for the time of a `with`; removed again where an error leaves it empty.

    A folder that was there before is not removed.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if made:
            with contextlib.suppress(OSError):  # it holds something
                folder.rmdir()
        raise


def targets_of(files: list[Path], output: Path) -> dict[Path, Path]:
    """The path of each file's scores, in the order of `files`.

    Raises UsageError for a file that is missing, for two with the same path, for one that would be
    overwritten, and where `output` cannot be a folder.
    """
    targets = [
        output / f"{path.stem if path.suffix.lower() in KINDS else path.name}.parquet"
        for path in files
    ]
    twice = [path for path, count in Counter(targets).items() if count > 1]
    for path in files:
        if not path.is_file():
            what = f"{path} is no regular file" if path.exists() else f"no file {path}"
            raise UsageError(f"--input: {what}. Give text, JSON lines or Parquet files.")
    if twice:
        raise UsageError(
            f"--input: two files would be written to {twice[0]}. Give them names that differ."
        )
    check_output("--output", output, folder=True)
    if {path.resolve() for path in targets} & {path.resolve() for path in files}:
        raise UsageError(f"--output: {output} would overwrite the input. Give another folder.")
    return dict(zip(files, targets, strict=True))


def made_from(scorer: Scorer, path: Path, column: str) -> dict[str, str]:
    """What scores are made from: model, precision, column, the input's sha256, and names."""
    return scorer.source | {"column": column, "input": sha256(path), "name": path.name}


def metadata_key(prefix: str) -> bytes:
    """The key in a file's schema that says what the scores with a prefix were made from."""
    return f"{METADATA_KEY}:{prefix}".encode() if prefix else METADATA_KEY.encode()


def is_done(scorer: Scorer, path: Path, target: Path, column: str, prefix: str) -> bool:
    """Whether `target` has the scores of a file, with the prefix, already.

    Raises UsageError where it has other ones, by any of IDENTITY_KEYS, or does not say what it has.
    """
    if not target.exists():
        return False
    try:
        with pa.OSFile(os.fsencode(target)) as file:
            recorded = dict(json.loads(pq.read_schema(file).metadata[metadata_key(prefix)]))
    except (OSError, TypeError, KeyError, ValueError):  # Arrow's errors are of these, too
        raise UsageError(
            f"--output: {target} does not say what scores it holds"
            f"{f' with the prefix {prefix}' if prefix else ''}. "
            "Give another folder or remove the file."
        ) from None
    wanted = made_from(scorer, path, column)
    for key in IDENTITY_KEYS:
        if recorded.get(key) != wanted.get(key):
            raise UsageError(
                f"--output: {target} holds scores of another {key}: "
                f"{str(recorded.get(key))[:16]}, not {str(wanted.get(key))[:16]} "
                f"(they are of {recorded.get('name')} by {recorded.get('run')}). "
                "Give another folder or remove the file."
            )
    return True


@contextlib.contextmanager
def claimed(target: Path) -> Iterator[bool]:
    """Try to lock an output file for the time of a `with`; yields whether it was free.

    It does not wait. The lock is a file beside the output; that of a process that has died is free.
    """
    path = target.with_name(f".{target.name}.lock")
    with path.open("a") as file:
        if not lock(file):
            yield False
            return
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)


def score_file(
    scorer: Scorer, path: Path, target: Path, column: str, prefix: str, done: ScoringStats
) -> None:
    """Write a file's rows and their scores to `target`, and add to `done`.

    A row without a text has null scores. Raises UsageError as read_rows does, and where a column
    has the name of a score.
    """
    start = time.perf_counter()
    source = to_json(made_from(scorer, path, column))

    def write(aside: Path) -> None:
        tables = read_rows(path, column)
        first = next(
            tables, pa.table({column: pa.array([], TEXT)})
        )  # of an empty file, one without rows
        check_new_columns(first.column_names, prefix, path, "--prefix")
        made = {**(first.schema.metadata or {}), metadata_key(prefix): source}
        columns = [field.with_name(prefix + field.name) for field in SCORES]
        schema = pa.schema([*first.schema, *columns], made)
        with pa.OSFile(os.fsencode(aside), "wb") as sink, pq.ParquetWriter(sink, schema) as writer:
            for rows in chain([first], tables):
                scored = scorer.score_table(rows, column, prefix)
                writer.write_table(scored)
                done.rows += len(scored)
                done.tokens += pc.sum(scored[f"{prefix}tokens"]).as_py() or 0

    write_atomically(target, write)
    done.files += 1
    done.seconds += time.perf_counter() - start
