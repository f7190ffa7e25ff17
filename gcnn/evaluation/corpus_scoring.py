"""Score columns for whole corpora: shards of text, JSON lines or Parquet in, Parquet with the scores out.

Shards are shared out over processes and machines, each is written whole or not at all, and those that are there
already are not scored again: an interrupted job is called anew and goes on.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from gcnn.data.corpus import check_utf8, load_files
from gcnn.errors import RunError, UsageError, one_line
from gcnn.evaluation.scoring import Score, Scorer
from gcnn.files import write_atomically

ROWS = 1000  # in memory together
TYPES = {"log_prob": pa.float64(), "tokens": pa.int64(), "unknown": pa.int64(), "perplexity": pa.float64()}


@dataclass
class Done:
    """What a process did."""

    files: int = 0
    skipped: int = 0  # their scores were there already
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


def share_of_this_process() -> tuple[int, int]:
    """Its index among all processes, and their number: torchrun's ranks within the tasks of a Slurm array."""
    number = {name: int(os.environ.get(name, default)) for name, default in (
        ("RANK", 0), ("WORLD_SIZE", 1), ("SLURM_ARRAY_TASK_ID", 0), ("SLURM_ARRAY_TASK_MIN", 0),
        ("SLURM_ARRAY_TASK_COUNT", 1),
    )}  # fmt: skip
    task = number["SLURM_ARRAY_TASK_ID"] - number["SLURM_ARRAY_TASK_MIN"]
    return task * number["WORLD_SIZE"] + number["RANK"], number["SLURM_ARRAY_TASK_COUNT"] * number["WORLD_SIZE"]


def score_files(
    scorer: Scorer, files: list[Path], output: Path, column: str = "text", process: int = 0, processes: int = 1
) -> Done:
    """Score the rows of every `processes`-th file, from number `process` on, into `output`/<name>.parquet.

    Raises UsageError for a file that is missing, not readable or without the column, RunError where a row breaks off.
    """
    targets = [output / f"{path.stem}.parquet" for path in files]
    twice = [path.name for path, count in Counter(targets).items() if count > 1]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise UsageError(f"--input: no file {missing[0]}. Give text, JSON lines or Parquet files.")
    if twice:
        raise UsageError(f"--input: two files would be written to {output / twice[0]}. Give them names that differ.")
    if {path.resolve() for path in targets} & {path.resolve() for path in files} or output.is_file():
        raise UsageError(f"--output: {output} would overwrite the input. Give another folder.")
    output.mkdir(parents=True, exist_ok=True)
    done = Done()
    mine = list(zip(files, targets, strict=True))[process::processes]
    for path, target in tqdm(mine, unit=" files", disable=None):
        if target.exists():
            done.skipped += 1
            continue
        start = time.perf_counter()
        write_atomically(target, lambda aside, path=path: write_scores(scorer, path, aside, column, done))
        done.files += 1
        done.seconds += time.perf_counter() - start
    return done


def write_scores(scorer: Scorer, path: Path, aside: Path, column: str, done: Done) -> None:
    writer = None
    try:
        for rows in read_rows(path, column):
            scores = scorer.score([text or "" for text in rows[column].to_pylist()])
            done.rows += len(scores)
            done.tokens += sum(score.tokens for score in scores)
            for name, values in zip(Score._fields, zip(*scores, strict=True), strict=True):
                rows = rows.append_column(name, pa.array(values, TYPES[name]))
            writer = writer or pq.ParquetWriter(aside, rows.schema)
            writer.write_table(rows)
    except (pa.ArrowException, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            check_utf8([path])
        raise RunError(f"{path}: {one_line(error)}. Mend or leave out the file and call again.") from None
    finally:
        if writer:
            writer.close()
    if writer is None:
        pq.write_table(pa.table({column: pa.array([], pa.string())}), aside)


def read_rows(path: Path, column: str) -> Iterator[pa.Table]:
    """The rows of a file, ROWS at a time. Raises UsageError where `column` is absent or no text."""
    if not path.stat().st_size:
        return  # `datasets` makes no table of nothing
    for rows in load_files([path], column=column, streaming=True).with_format("arrow").iter(batch_size=ROWS):
        if column not in rows.column_names:
            raise UsageError(f"{path} has no column {column} (found: {', '.join(rows.column_names)}).")
        kind = rows.schema.field(column).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
            raise UsageError(f"{path}: the column {column} is of type {kind}, not text. Give another with --column.")
        if taken := set(TYPES) & set(rows.column_names):
            raise UsageError(f"{path} has a column {min(taken)} already. Rename it first.")
        yield rows
