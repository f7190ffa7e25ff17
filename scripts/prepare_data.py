"""Encode a corpus ahead of training: scripts/prepare_data.py data=NAME tokenizer=KIND data.path=DIR ..."""

import sys

from gcnn.command_line import help_lines
from gcnn.config import compose_config
from gcnn.errors import run_command


def main() -> None:
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(__doc__, *help_lines(sys.argv[1:], ("experiment", "data", "tokenizer")), sep="\n")
        return
    from gcnn.data.stream import prepare

    config = compose_config(*sys.argv[1:])
    data = prepare(config.data, config.tokenizer)
    tokenizer = data.tokenizer
    print(f"{data.name}: {tokenizer.vocabulary_size:,} types ({tokenizer.kind}), fingerprint {data.fingerprint[:12]}")
    print(f"{'split':8}{'lines':>12}{'words':>14}{'tokens':>14}{'bytes':>16}")
    for split, stream in data.streams.items():
        print(f"{split:8}{stream.lines:12,}{stream.words:14,}{len(stream):14,}{stream.bytes:16,}")


if __name__ == "__main__":
    run_command(main)
