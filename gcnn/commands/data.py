"""Encode a corpus ahead of training: gcnn data data=NAME tokenizer=KIND data.path=DIR ...

--config-dir DIR: a folder of your own, whose experiment/NAME.yaml is experiment=NAME.
"""

import sys

from gcnn.commands.arguments import Parser, add_config_dir
from gcnn.config.compose import compose_config
from gcnn.config.help import help_lines


def main() -> None:
    """Run `gcnn data`: prepare the corpus in the cache, and print the sizes of its splits.

    The corpus may be downloaded; what the cache has already is not made again. The path of the
    vocabulary, or of the SentencePiece model, goes to stderr. To stdout go a line with the corpus's
    types and fingerprint, a header, and a row a split: its name, lines, words, tokens and bytes.
    --help only prints how it is called, with the keys and choices of the config that matter here.
    Raises UsageError for an invalid option or override; UsageError and OSError as `prepare` does.
    """
    parser = Parser(add_help=False, allow_abbrev=False)
    add_config_dir(parser)
    parser.add_argument("--help", "-h", action="store_true")
    parsed, overrides = parser.parse_known_args()
    if parsed.help:
        groups = ("experiment", "data", "tokenizer")
        print(__doc__, *help_lines(overrides, groups, parsed.config_dir), sep="\n")
        return
    from gcnn.data.stream import prepare

    config = compose_config(*overrides, config_dir=parsed.config_dir)
    data = prepare(config.data, config.tokenizer)
    tokenizer = data.tokenizer
    vocabulary = data.tokenizer_dir.resolve() / tokenizer.file
    # Not to standard output, which is the same wherever the cache lies.
    print(f"vocabulary: {vocabulary}", file=sys.stderr)
    types = f"{tokenizer.vocabulary_size:,} types ({tokenizer.kind})"
    print(f"{data.name}: {types}, fingerprint {data.fingerprint[:12]}")
    print(f"{'split':8}{'lines':>12}{'words':>14}{'tokens':>14}{'bytes':>16}")
    for split, stream in data.streams.items():
        print(f"{split:8}{stream.lines:12,}{stream.words:14,}{len(stream):14,}{stream.bytes:16,}")
