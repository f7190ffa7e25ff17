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
from gcnn.data.tables import COMPRESSED_SUFFIXES, JSON_SUFFIXES, PARQUET_SUFFIXES, read_rows
from gcnn.evaluation.scoring import SCORES, Scorer, check_new_columns

# Suffixes of file names; a dot before anything else is part of the name.
KINDS = (".txt", *JSON_SUFFIXES, *PARQUET_SUFFIXES, *COMPRESSED_SUFFIXES)
# In the metadata of a file's schema: a JSON object, what its scores were made from. The scores of
# two models have two prefixes, which follow.
METADATA_KEY = "gcnn"
# Its entries on which the scores depend
IDENTITY_KEYS = ("model", "tokenizer", "precision", "before_text", "column", "input")


@dataclass
class ScoringStats:
    """What this process has scored, and which files it left out."""

    files: int = 0
    skipped: int = 0  # their scores were there already
    elsewhere: int = 0  # another process is at work on them
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0  # spent on `files`

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


def score_files(
    scorer: Scorer, files: list[Path], output: Path, column: str = "text", prefix: str = ""
) -> ScoringStats:
    """Score the rows of files into `output`/<name>.parquet; returns what this process did.

    column: the one with the texts; for a text file, the name to give it. prefix: of the names of
    the scores' columns. An output has the rows and columns of `read_rows`, and after them log_prob,
    tokens, unknown and perplexity (see Score), null where the text is. `output` is created if it is
    missing. Files whose scores are there already, or that another process has locked, are left out.
    The others are taken in random order, with a progress bar on a terminal.
    Raises UsageError before anything is scored as `targets_of` and `check_scores` do; and, after
    all other files are scored, for those that `score_file` refuses: damaged, without the column, or
    with a column that has the name of a score. An OSError (a full disk, a file that may not be
    read) ends it at once.
    """
    targets = targets_of(files, output)
    todo = []
    for path, target in targets.items():
        if target.exists():
            check_scores(scorer, path, target, column, prefix)
        else:
            todo.append((path, target))
    done = ScoringStats(skipped=len(files) - len(todo))
    refused = []
    random.shuffle(todo)  # so that processes rarely meet, also where the file system knows no locks
    with remove_if_left_empty(output):
        for path, target in tqdm(todo, unit=" files", disable=None):
            try:
                score_unless_done(scorer, path, target, column, prefix, done)
            except UsageError as error:
                refused.append(str(error))
        if refused:
            more = f" {len(refused) - 3} more files were not scored." if len(refused) > 3 else ""
            raise UsageError(" ".join(refused[:3]) + more)
    return done


def score_unless_done(
    scorer: Scorer, path: Path, target: Path, column: str, prefix: str, done: ScoringStats
) -> None:
    """Score a file as `score_file` does, unless another process is at work on it or has done it.

    Adds to the counts of `done`. Raises UsageError and OSError as score_file and check_scores do.
    """
    with claimed(target) as is_claimed:
        if not is_claimed:
            done.elsewhere += 1
        elif target.exists():
            check_scores(scorer, path, target, column, prefix)
            done.skipped += 1
        else:
            score_file(scorer, path, target, column, prefix, done)


@contextlib.contextmanager
def remove_if_left_empty(folder: Path) -> Iterator[None]:
    """Create a folder and its parents, and remove it again if the `with` block fails and leaves it
    empty.

    A folder that exists already is never removed, nor are parents.
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
    """The path of each file's scores, `output`/<name>.parquet, in the order of `files`.

    The name is without its last ending if that is one of KINDS. Raises UsageError for an input that
    is no regular file, for two with the same target (or one given twice), if a target is one of the
    inputs, and if `output` cannot be a folder.
    """
    targets = []
    for path in files:
        name = path.stem if path.suffix.lower() in KINDS else path.name
        targets.append(output / f"{name}.parquet")
    for path in files:
        if not path.is_file():
            what = f"{path} is no regular file" if path.exists() else f"no file {path}"
            raise UsageError(f"--input: {what}. Give text, JSON lines or Parquet files.")
    twice = [path for path, count in Counter(targets).items() if count > 1]
    if twice:
        raise UsageError(
            f"--input: two files would be written to {twice[0]}. Give them names that differ."
        )
    check_output("--output", output, folder=True)
    if {path.resolve() for path in targets} & {path.resolve() for path in files}:
        raise UsageError(f"--output: {output} would overwrite the input. Give another folder.")
    return dict(zip(files, targets, strict=True))


def made_from(scorer: Scorer, path: Path, column: str) -> dict[str, str]:
    """What the scores of a file are made from, for the metadata of its output.

    The entries of scorer.source (see Scorer.from_run), `column`, `input` (the sha256 of the file,
    which is read for it) and `name` (the file's, without its folder).
    """
    return scorer.source | {"column": column, "input": sha256(path), "name": path.name}


def metadata_key(prefix: str) -> bytes:
    """The key in a file's schema that says what the scores with a prefix were made from."""
    return f"{METADATA_KEY}:{prefix}".encode() if prefix else METADATA_KEY.encode()


def check_scores(scorer: Scorer, path: Path, target: Path, column: str, prefix: str) -> None:
    """Check that `target`, an output that is there, has the scores of the input `path` with this
    prefix, by its metadata: its rows are not read.

    Reads the whole input, for its sha256. Raises UsageError if the scores were made from something
    else, which is a difference in any of IDENTITY_KEYS, or if `target` does not say what scores
    with this prefix were made from, or is no readable Parquet file; OSError if the input cannot be
    read.
    """
    try:
        with pa.OSFile(os.fsencode(target)) as file:
            recorded = dict(json.loads(pq.read_schema(file).metadata[metadata_key(prefix)]))
    except (OSError, TypeError, KeyError, ValueError):  # Arrow's errors are of these, too
        which = f" with the prefix {prefix}" if prefix else ""
        raise UsageError(
            f"--output: {target} does not say what scores it holds{which}. "
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


@contextlib.contextmanager
def claimed(target: Path) -> Iterator[bool]:
    """Try to lock an output file during the `with` block, without waiting; yields whether this
    process may write it.

    The lock is a file `.<name>.lock` beside it, in a folder that must exist. The process that holds
    it removes it afterwards; one that a dead process left is free. Always true on a file system
    without locks (see `lock`).
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
    """Write a file's rows and their scores to `target`, atomically, and add their numbers to
    `done`.

    column, prefix, the columns that are written: as in `score_files`. The metadata of the schema
    gets `made_from`, as JSON under `metadata_key`. A row without a text has null scores. An
    existing `target` is replaced; its folder must exist.
    Raises UsageError as read_rows does, and if the file has a column with the name of a score;
    OSError if the file is missing or may not be read, or if `target` cannot be written. `done` may
    then count rows and tokens that were not written.
    """
    start = time.perf_counter()
    source = to_json(made_from(scorer, path, column))

    def write(aside: Path) -> None:
        """Write the Parquet file at a temporary path, as `score_file` says; adds the rows and
        tokens to `done`.
        """
        tables = read_rows(path, column)
        first = next(tables)
        check_new_columns(first.column_names, prefix, path, "--prefix")
        metadata = {**(first.schema.metadata or {}), metadata_key(prefix): source}
        new_columns = [field.with_name(prefix + field.name) for field in SCORES]
        schema = pa.schema([*first.schema, *new_columns], metadata)
        with pa.OSFile(os.fsencode(aside), "wb") as sink, pq.ParquetWriter(sink, schema) as writer:
            for rows in chain([first], tables):
                scored = scorer.score_table(rows, column, prefix)
                writer.write_table(scored)
                done.rows += len(scored)
                done.tokens += pc.sum(scored[f"{prefix}tokens"]).as_py() or 0

    write_atomically(target, write)
    done.files += 1
    done.seconds += time.perf_counter() - start
