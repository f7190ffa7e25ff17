"""Measure the preparation of text at size: tokens a second, CPU seconds and peak memory, with a cold and a warm cache.

Writes synthetic texts, as frequent as English and with WikiText-103's 267,735 types, into --dir, and has
`gcnn data` prepare each: running text, the same with ten times as many lines, Billion Word's shards.
"""

import argparse
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gcnn.base.files import remove, write_json
from gcnn.base.provenance import made_with, run_child
from gcnn.benchmarks.latency import Zipf
from gcnn.commands.arguments import add_number, add_out, new_parser
from gcnn.data.sources import BILLION_WORD
from gcnn.reporting.document import Table, to_text
from gcnn.reporting.units import count, decimals, gibibytes

TYPES = 267_735
AT_ONCE = 1 << 20  # tokens
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
    arguments = parse_arguments()
    about = made_with()
    words = pa.array([f"x{letters(rank)}y" for rank in range(TYPES - 2)])  # besides <eos> and <unk>
    tokens, lines = arguments.tokens, arguments.tokens // 25
    texts = {}
    for name, number in (
        ("running", lines),
        ("ten_times_the_lines", 10 * lines),
        ("billion_word", arguments.shards),
    ):
        if name not in arguments.texts:
            continue
        folder = arguments.dir / name
        if name == "billion_word":
            files = {
                BILLION_WORD["train"].replace("*", f"{i:05}"): (500_000, 20_000)
                for i in range(number)
            }
            files |= {
                BILLION_WORD[split]: (HELD_OUT, HELD_OUT // 25) for split in ("valid", "test")
            }
        else:
            held_out = HELD_OUT * number // tokens
            files = {
                "train.txt": (tokens, number),
                "valid.txt": (HELD_OUT, held_out),
                "test.txt": (HELD_OUT, held_out),
            }
        for seed, (path, (size, number)) in enumerate(files.items()):
            write_text(folder / path, words, size, number, seed)
        texts[name] = measure(folder, "billion_word" if name == "billion_word" else "local")
        shutil.rmtree(folder)
    rows = [[name, *cells(entry)] for name, entry in texts.items()]
    print(to_text(Table(HEADER, rows)))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out, {**about, "types": TYPES, "texts": texts})


def letters(rank: int) -> str:
    return (letters(rank // 26 - 1) if rank >= 26 else "") + chr(ord("a") + rank % 26)


def write_text(path: Path, words: pa.Array, tokens: int, lines: int, seed: int) -> None:
    """A text of `tokens`, the ends of its `lines` among them, with every word where it is long enough."""
    zipf, random = Zipf(len(words), seed), np.random.default_rng(seed)
    every = random.permutation(len(words))
    parts = -(-(tokens - lines) // AT_ONCE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for part in range(parts):
            size, number = (
                (part + 1) * n // parts - part * n // parts for n in (tokens - lines, lines)
            )
            ids = zipf.words(size).numpy()
            if part == 0 and size > 2 * len(words):
                ids[: len(words)] = every
            line_offsets = np.concatenate(
                [[0], np.sort(random.integers(0, size, number - 1)), [size]]
            )
            in_lines = pa.ListArray.from_arrays(
                pa.array(line_offsets, pa.int32()), words.take(pa.array(ids))
            )
            file.write("\n".join([*pc.binary_join(in_lines, " ").to_pylist(), ""]).encode())


def measure(folder: Path, data: str) -> dict[str, float]:
    cache = folder / "cache"
    remove(cache)
    call = [
        "-m",
        "gcnn",
        "data",
        f"data={data}",
        f"data.path={folder}",
        f"data.cache_dir={cache}",
        "tokenizer=word",
    ]
    start = time.perf_counter()
    text, used = run_child(call)
    middle = time.perf_counter()
    run_child(call)
    seconds, warm = middle - start, time.perf_counter() - middle
    columns = zip(
        *(line.replace(",", "").split()[1:] for line in text.splitlines()[2:-1]), strict=True
    )
    lines, _, tokens, size = (sum(map(int, column)) for column in columns)
    return {
        "tokens": tokens, "lines": lines, "bytes": size, "seconds": seconds, "tokens_per_second": tokens / seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime, "peak_memory_bytes": 1024 * used.ru_maxrss,
        "warm_seconds": warm, "printed": text.splitlines()[0],
    }  # fmt: skip


def cells(entry: dict) -> list[str]:
    return [
        *(count(entry[key]) for key in ("tokens", "lines")), count(entry["bytes"] / 1e6), decimals(entry["seconds"], 1),
        count(entry["tokens_per_second"]), decimals(entry["cpu_seconds"], 1), gibibytes(entry["peak_memory_bytes"]),
        decimals(entry["warm_seconds"], 1),
    ]  # fmt: skip


def parse_arguments() -> argparse.Namespace:
    texts = ("running", "ten_times_the_lines", "billion_word")
    parser = new_parser(__doc__)
    help = "where texts and caches are written, and removed after"
    parser.add_argument("--dir", type=Path, required=True, metavar="DIR", help=help)
    parser.add_argument(
        "--texts", nargs="+", choices=texts, default=texts, help="kinds of text; default: all"
    )
    add_number(parser, "--tokens", 100_000_000, "of running text")
    add_number(parser, "--shards", 100, "of 500,000 tokens each")
    add_out(parser)
    return parser.parse_args()
