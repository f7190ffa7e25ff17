"""Measure the preparation of text at size: speed, CPU seconds and memory, without and with a cache.

Writes synthetic texts into --dir, with words as frequent as in English and WikiText-103's 267,735
types, and has `gcnn data` prepare each: running text, the same with ten times as many lines, and
Billion Word's shards. The second preparation finds the cache of the first (warm).
"""

import argparse
import math
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gcnn.base.errors import UsageError
from gcnn.base.files import remove
from gcnn.base.provenance import made_with, run_child
from gcnn.benchmarks.latency import Zipf
from gcnn.benchmarks.output import write_benchmark
from gcnn.commands.arguments import Several, add_number, add_out, given_path, new_parser
from gcnn.data.sources import BILLION_WORD
from gcnn.reporting.document import Table, to_text
from gcnn.reporting.units import count, decimals, gibibytes

TEXTS = ("running", "ten_times_the_lines", "billion_word")
TYPES = 267_735  # WikiText-103's
AT_ONCE = 1 << 20  # most words that are drawn together
WHOLE_SPLIT = 100  # shards of Billion Word's training split
LINE = 25  # tokens of a line, on average, its end included
HELD_OUT = 200_000  # tokens of the validation and of the test split
HEADER = [
    "text",
    "tokens",
    "lines",
    "MB",
    "seconds",
    "tokens/s",
    "CPU seconds",
    "peak memory",
    "warm, seconds",
]


def main() -> None:
    """Run `gcnn benchmark-data`: prepare each text of --texts, print a table, write --out (if any).

    The texts come in the order of TEXTS, each once. Each is written to the folder DIR/<text>, which
    is made, and removed after its measurement with all that was in it before; DIR stays. The JSON
    has the entries of `made_with`, `types` and `texts`: by text, what `measure` returns. Raises
    UsageError for an invalid option, and RunError where a preparation fails; that folder then
    stays, and there is no table and no JSON.
    """
    arguments = parse_arguments()
    about = made_with()
    types = pa.array([f"x{letters(rank)}y" for rank in range(TYPES - 2)])  # besides <eos> and <unk>
    texts = {}
    for name in TEXTS:
        if name not in arguments.texts:
            continue
        folder = arguments.dir / name
        files = files_of(name, arguments.tokens, arguments.shards)
        for seed, (path, (tokens, lines)) in enumerate(files.items()):
            write_text(folder / path, types, tokens, lines, seed)
        texts[name] = measure(folder, "billion_word" if name == "billion_word" else "local")
        shutil.rmtree(folder)
    rows = [[name, *cells(entry)] for name, entry in texts.items()]
    print(to_text(Table(HEADER, rows)))
    write_benchmark(arguments.out, about, {"types": TYPES, "texts": texts})


def files_of(text: str, tokens: int, shards: int) -> dict[str, tuple[int, int]]:
    """The files of a text to write: by path in its folder, the numbers of tokens and of lines.

    Line ends count as tokens. The validation and the test split have HELD_OUT tokens each.
    text: one of TEXTS. tokens: of the training split, LINE or more; not used for "billion_word".
    shards: how many files of 500,000 tokens the training split of "billion_word" has; `gcnn data`
    refuses fewer than WHOLE_SPLIT. It is not used for the other texts.
    """
    files = {}
    if text == "billion_word":
        for i in range(shards):
            files[BILLION_WORD["train"].replace("*", f"{i:05}")] = (500_000, 20_000)
        for split in ("valid", "test"):
            files[BILLION_WORD[split]] = (HELD_OUT, HELD_OUT // LINE)
        return files
    lines = tokens // LINE
    if text == "ten_times_the_lines":
        lines *= 10
    held_out_lines = HELD_OUT * lines // tokens
    files["train.txt"] = (tokens, lines)
    files["valid.txt"] = (HELD_OUT, held_out_lines)
    files["test.txt"] = (HELD_OUT, held_out_lines)
    return files


def letters(rank: int) -> str:
    """A word of letters for a rank from 0 on, each rank another word: a, b, ... z, aa, ab, ..."""
    return (letters(rank // 26 - 1) if rank >= 26 else "") + chr(ord("a") + rank % 26)


def write_text(path: Path, types: pa.Array, tokens: int, lines: int, seed: int) -> None:
    """Write a random text of `tokens` tokens, each line end counted as one, in `lines` lines.

    types: the words to draw from, the most frequent one first; each is drawn as often as an English
    word of its rank. The text is drawn in almost equal parts of up to AT_ONCE words. If the first
    part has more than twice as many words as there are types, it begins with each type once,
    shuffled. lines: fewer than `tokens`, and one or more for each part. A line may be empty; each
    ends with a newline. The same arguments write the same text. Makes the folder; an existing file
    is replaced.
    """
    zipf = Zipf(len(types), seed)
    random = np.random.default_rng(seed)
    every_type = random.permutation(len(types))
    words = tokens - lines  # the other tokens are line ends
    parts = math.ceil(words / AT_ONCE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for part in range(parts):
            words_here = share(words, part, parts)
            lines_here = share(lines, part, parts)
            ids = zipf.words(words_here).numpy()
            if part == 0 and words_here > 2 * len(types):
                ids[: len(types)] = every_type
            # Lines end at random places: each is the words between two offsets
            breaks = np.sort(random.integers(0, words_here, lines_here - 1))
            offsets = pa.array(np.concatenate([[0], breaks, [words_here]]), pa.int32())
            words_by_line = pa.ListArray.from_arrays(offsets, types.take(pa.array(ids)))
            text = "\n".join(pc.binary_join(words_by_line, " ").to_pylist())
            file.write(f"{text}\n".encode())


def share(total: int, part: int, parts: int) -> int:
    """The size of part number `part`, from 0, where `total` is split into almost equal parts."""
    return (part + 1) * total // parts - part * total // parts


def measure(folder: Path, data: str) -> dict[str, float | str]:
    """Run `gcnn data` twice on the corpus in a folder; returns its entry in the benchmark's JSON.

    folder: with the files of all splits. data: the choice of configs/data. Tokens are words.
    The keys: tokens, lines and bytes, of all splits together; seconds (wall-clock, as
    warm_seconds), tokens_per_second, cpu_seconds and peak_memory_bytes, of the first run, which has
    no cache; warm_seconds, of the second; printed, the command's first line.
    The cache is folder/cache, which is removed first and left in the end. Raises RunError where the
    command fails.
    """
    cache = folder / "cache"
    remove(cache)
    call = ["-m", "gcnn", "data", f"data={data}", f"data.path={folder}"]
    call += [f"data.cache_dir={cache}", "tokenizer=word"]
    start = time.perf_counter()
    printed, used = run_child(call)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    run_child(call)
    warm_seconds = time.perf_counter() - start

    # What it printed: a title, a header, and a row for each split.
    title, _, *rows, _ = printed.split("\n")
    lines = tokens = size = 0
    for row in rows:  # a split: lines, words, tokens, bytes
        _, split_lines, _, split_tokens, split_bytes = row.replace(",", "").split()
        lines += int(split_lines)
        tokens += int(split_tokens)
        size += int(split_bytes)
    return {
        "tokens": tokens,
        "lines": lines,
        "bytes": size,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_memory_bytes": 1024 * used.ru_maxrss,
        "warm_seconds": warm_seconds,
        "printed": title,
    }


def cells(entry: dict) -> list[str]:
    """The cells of a text under HEADER, without its name. entry: what `measure` returned."""
    return [
        count(entry["tokens"]),
        count(entry["lines"]),
        count(entry["bytes"] / 1e6),
        decimals(entry["seconds"], 1),
        count(entry["tokens_per_second"]),
        decimals(entry["cpu_seconds"], 1),
        gibibytes(entry["peak_memory_bytes"]),
        decimals(entry["warm_seconds"], 1),
    ]


def parse_arguments() -> argparse.Namespace:
    """The options of `gcnn benchmark-data`, from sys.argv. Raises UsageError for an invalid one.

    `texts` are all of TEXTS and `out` is None where they are not given.
    """
    parser = new_parser(__doc__)
    help = "folder for the texts and caches, which are removed in the end"
    parser.add_argument("--dir", type=given_path, required=True, metavar="DIR", help=help)
    parser.add_argument(
        "--texts",
        nargs="+",
        action=Several,
        choices=TEXTS,
        default=TEXTS,
        help="kinds of text; default: all",
    )
    add_number(parser, "--tokens", 100_000_000, "of running text")
    add_number(parser, "--shards", 100, "of 500,000 tokens each")
    add_out(parser)
    arguments = parser.parse_args()
    if arguments.tokens < LINE:
        raise UsageError(f"--tokens is {arguments.tokens}; give {LINE} or more, those of a line.")
    if "billion_word" in arguments.texts and arguments.shards < WHOLE_SPLIT:
        raise UsageError(
            f"--shards is {arguments.shards}, and of Billion Word gcnn data takes the whole split; "
            f"give {WHOLE_SPLIT} or more, or --texts without billion_word."
        )
    return arguments
