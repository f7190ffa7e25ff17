"""Encode a corpus ahead of training: gcnn data data=NAME tokenizer=KIND data.path=DIR ..."""

import sys

from gcnn.config import compose_config
from gcnn.overrides import help_lines


def main() -> None:
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(__doc__, *help_lines(sys.argv[1:], ("experiment", "data", "tokenizer")), sep="\n")
        return
    from gcnn.data.stream import prepare

    config = compose_config(*sys.argv[1:])
    data = prepare(config.data, config.tokenizer)
    tokenizer = data.tokenizer
    print(f"vocabulary: {data.tokenizer_dir.resolve() / tokenizer.file}", file=sys.stderr)  # the same text, elsewhere
    print(f"{data.name}: {tokenizer.vocabulary_size:,} types ({tokenizer.kind}), fingerprint {data.fingerprint[:12]}")
    print(f"{'split':8}{'lines':>12}{'words':>14}{'tokens':>14}{'bytes':>16}")
    for split, stream in data.streams.items():
        print(f"{split:8}{stream.lines:12,}{stream.words:14,}{len(stream):14,}{stream.bytes:16,}")
