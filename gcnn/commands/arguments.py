"""Options that several commands have.

Nothing here imports torch at the head: it takes seconds, for which --help need not wait.
"""

import argparse
import dataclasses
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from gcnn.base.errors import UsageError
from gcnn.base.files import check_output, user_path
from gcnn.base.values import THREADS, positive_int
from gcnn.runs.directory import RESULTS, find_run
from gcnn.runs.json_files import read_json
from gcnn.runs.results import Results

if TYPE_CHECKING:
    import pyarrow as pa

    from gcnn.config.schema import DataConfig
    from gcnn.data.corpus import Corpus
    from gcnn.data.stream import TokenStream
    from gcnn.data.tokenizers import Tokenizer


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UsageError for an invalid command line; argparse would exit.

    --help still prints and exits.
    """

    stray_words = ""  # hint added to the error for an unexpected positional argument; "": none

    def error(self, message: str) -> NoReturn:
        """Raise UsageError; argparse calls this for every invalid command line."""
        if self.stray_words and re.match("unrecognized arguments: [^-]", message):
            message = f"{message}; {self.stray_words}"
        if message.endswith("expected one argument"):
            message = f"{message}; a value that begins with - is typed as --option=VALUE"
        for word in sys.argv[1:]:
            option = word.lstrip("-\u2013\u2014")  # also the long dashes of word processors
            if word[:1] in ("\u2013", "\u2014") and self.has_option(f"--{option}"):
                message = f"{message}; {word} begins with a long dash, type --{option}"
        raise UsageError(f"{message}. {self.prog} --help lists what it takes.")

    def has_option(self, word: str) -> bool:
        """Whether a word of a command line is an option of this parser, as --option=VALUE, too."""
        return word.partition("=")[0] in self._option_string_actions


class Several(argparse.Action):
    """An `action` for nargs="+": where the option is repeated, its values add up.

    The first value replaces the default; argparse's own "extend" would add to it.
    """

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        given = getattr(namespace, self.dest)
        before = [] if given is self.default else given
        setattr(namespace, self.dest, [*before, *values])


def new_parser(description: str, stray_words: str = "") -> Parser:
    """A parser with no option but --help, which prints `description` with its line breaks.

    stray_words: a hint, added to the error for a positional argument that the command does not
    take; "": none.
    """
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.stray_words = stray_words
    return parser


def given_path(text: str) -> Path:
    """A path, `~` expanded, which a shell does not do after `--option=`: a `type` for argparse.

    Raises ArgumentTypeError, whose message argparse reports, for an empty one, as of a shell's
    variable that is not set (it would be the current folder); UsageError as `user_path` does.
    """
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return user_path(text, "it; give the path")


def existing_folder(path: str) -> Path:
    """The absolute path of an existing folder: a `type` for argparse.

    Raises ArgumentTypeError, whose message argparse reports, for any other path.
    """
    folder = given_path(path)
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is not a folder")
    return folder.absolute()


def add_config_dir(parser: argparse.ArgumentParser) -> None:
    """Add --config-dir (-cd), the folder of the user's own configs, for `compose_config`.

    It must exist (`existing_folder`). Its value is an absolute path, None where it is not given.
    """
    help = (
        "a folder of your own choices and experiments: DIR/experiment/NAME.yaml is experiment=NAME"
    )
    parser.add_argument("--config-dir", "-cd", type=existing_folder, metavar="DIR", help=help)


def thread_count(text: str) -> int:
    """A number of threads from 1 to THREADS: a `type` for argparse.

    Raises ArgumentTypeError for anything else.
    """
    return positive_int(text, THREADS)


def add_number(parser: argparse.ArgumentParser, option: str, default: int, help: str) -> None:
    """Add an option that takes a whole number from 1 to 2^31 - 1.

    option: its name with the dashes, as "--rows". default: not checked. help: without the default,
    which is appended.
    """
    parser.add_argument(
        option,
        type=positive_int,
        default=default,
        metavar="N",
        help=f"{help}; default: %(default)s",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add --run, which is required; its value is the path that `find_run` returns.

    Parsing it may download a run from the Hub, prints the run that was chosen in a folder to
    stderr, and raises UsageError and RunError as find_run does. A path that is no folder is passed
    on: loading the run fails.
    """
    help = (
        "a run, or the newest in a folder; `latest`: in runs/; "
        "hf://USER/NAME: on the Hugging Face Hub"
    )
    parser.add_argument("--run", type=find_run, required=True, metavar="DIR", help=help)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device: auto (the default), cpu or cuda, as `choose_device` takes it."""
    help = "auto: a GPU if any; default: %(default)s"
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help=help)


def add_precision(parser: argparse.ArgumentParser, of: str = "weights") -> None:
    """Add --precision: float32 (the default) or bf16, the keys of `PRECISIONS`.

    of: what has this precision, for the help.
    """
    help = (
        f"of the {of}; bf16 is less exact, and faster on a processor that has it; "
        "default: %(default)s"
    )
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32", help=help)


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add --threads, the number for `set_threads`; None where it is not given."""
    parser.add_argument(
        "--threads", type=thread_count, metavar="N", help="CPU threads; default: all cores"
    )


def set_threads(number: int | None) -> None:
    """Have torch compute with this many CPU threads, in the whole process; None changes nothing.

    Imports torch unless `number` is None.
    """
    if number is not None:
        import torch

        torch.set_num_threads(number)


def add_column(parser: argparse.ArgumentParser) -> None:
    """Add --column; None where it is not given, which callers read as "text"."""
    help = "name of the column with the text, in files with columns; default: text"
    parser.add_argument("--column", help=help)


def add_text(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the text on which a run is evaluated, and how it is scored.

    They are split or file (the parser refuses both together), column (of a file that has columns),
    data_path (an existing folder with the splits, in the place of the run's own) and sentences,
    each None where it is not given. Without file and split it is the test split. file "-" is
    standard input. sentences: True scores each line alone, False all as running text; None means
    the run's data.sentences. `check_text_options` checks them, `read_stream` reads the text.
    """
    text = parser.add_mutually_exclusive_group()
    text.add_argument(
        "--split", choices=["valid", "test", "train"], help="of the run's data; default: test"
    )
    help = "text, JSON lines, Parquet, a pipe, or - for standard input; default: a split"
    text.add_argument("--file", metavar="TEXT", help=help)
    add_column(parser)
    help = "where the splits are; default: the run's data.path"
    parser.add_argument("--data-path", type=existing_folder, metavar="DIR", help=help)
    help = "score each line alone, or as running text; default: as the run's data.sentences says"
    parser.add_argument("--sentences", action=argparse.BooleanOptionalAction, help=help)


def check_text_options(arguments: argparse.Namespace) -> None:
    """Raise UsageError for options of `add_text` that exclude each other or have no effect.

    These are --data-path with --file, and --column without --file or with a file that by its name
    is text (`is_text`), as standard input is. Nothing is read.
    """
    if arguments.file is not None and arguments.data_path is not None:
        raise UsageError("--data-path is where the run's splits are; leave it or --file out.")
    if arguments.file is None and arguments.column is not None:
        raise UsageError(
            "--column is of --file; a split is read by the run's data.column. Leave it out."
        )
    if arguments.file is not None and arguments.column is not None:
        from gcnn.data.tables import is_text

        if is_text(path_of_text(arguments)):
            raise UsageError(
                f"--column would change nothing: text has no columns ({arguments.file}). "
                "Leave it out."
            )


def read_stream(
    arguments: argparse.Namespace, data: "DataConfig", tokenizer: "Tokenizer"
) -> "TokenStream":
    """The text that the options of `add_text` choose, encoded by the run's tokenizer.

    Call `check_text_options` first. A file is encoded in memory. A split is encoded as in training:
    it may be downloaded, its tokens are kept in the cache on disk, and "train" ends at
    data.train_tokens. data: from the run's config; not used for a file.
    Logs warnings as `encode_file` and `cached_stream` do, as for rows without a text. Raises
    UsageError for a text that is missing, damaged, not UTF-8, of a kind that is not read, without
    words or without the column, and as `corpus_of` does where --file is not given; OSError for a
    file that may not be read, or a cache that cannot be written.
    """
    from gcnn.data.stream import cached_stream, encode_file

    if arguments.file is not None:
        return encode_file(path_of_text(arguments), tokenizer, arguments.column or "text")
    return cached_stream(corpus_of(arguments, data), arguments.split or "test", tokenizer)


def warn_of_changed_text(run: Path, arguments: argparse.Namespace, stream: "TokenStream") -> None:
    """Print a warning to stderr if a split of a run is another text now than when it ended.

    results.json says which text it measured. Nothing is said of --file, of --data-path, of the
    training split, or where results.json is missing or too old to say.
    run: its folder. arguments: with the options of `add_text`. stream: what `read_stream` or
    `read_text` gave, encoded. Raises UsageError for a damaged results.json.
    """
    if arguments.file is not None or arguments.data_path is not None or arguments.split == "train":
        return
    results = read_json(run / RESULTS, Results)
    if results is None:
        return
    split = results.validation if arguments.split == "valid" else results.test
    if split.text_fingerprint not in (None, stream.text_fingerprint):
        print(
            f"warning: the text of the {arguments.split or 'test'} split has changed: "
            f"{run / RESULTS} measured another.",
            file=sys.stderr,
        )


def read_text(arguments: argparse.Namespace, data: "DataConfig") -> "list[pa.Array]":
    """The rows of the text that `read_stream` encodes, in batches of large_string, not stripped.

    A row without a text is null, and no warning is logged for it. All rows are in memory. A split
    may be downloaded; its tokens are neither read from the cache nor written there. The arguments
    are those of read_stream. Raises as it does, but returns a text without words, too.
    """
    from gcnn.data.tables import read_lines

    if arguments.file is not None:
        return list(read_lines(path_of_text(arguments), arguments.column or "text"))
    return list(corpus_of(arguments, data).rows(arguments.split or "test"))


def path_of_text(arguments: argparse.Namespace) -> Path:
    """The path of --file, which must be given; `-` is standard input, as /dev/stdin."""
    return Path("/dev/stdin" if arguments.file == "-" else arguments.file)


def corpus_of(arguments: argparse.Namespace, data: "DataConfig") -> "Corpus":
    """The corpus whose splits the options of `add_text` choose from.

    It is the run's own, `data`, or where --data-path is given the same kind of corpus in that
    folder (data.files is then not read). Its text is not read yet, but may be downloaded, as
    load_corpus says. Raises UsageError where there is no --data-path and `data` is local without a
    path or files; UsageError and OSError as load_corpus does.
    """
    from gcnn.data.corpus import load_corpus

    names_no_data = data.source == "local" and data.path is None and not any(data.files.values())
    if arguments.data_path is not None:
        data = dataclasses.replace(data, path=str(arguments.data_path), files={})
    elif names_no_data:  # as a run that was imported from fairseq
        raise UsageError(
            "the run names no data of its own. Give --file TEXT, or --data-path DIR, a folder with "
            "{train,valid,test}.txt."
        )
    return load_corpus(data, "--data-path")


def add_out(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add --out, the path of a JSON file to write; its value is a Path that `output_file` checked.

    default: the path where it is not given; None: its value is None, nothing is to be written.
    """
    help = f"file for the results, as JSON; default: {default or 'none, results are only printed'}"
    parser.add_argument("--out", type=output_file, default=default, metavar="FILE", help=help)


def output_file(path: str) -> Path:
    """The path of a file to write later: a `type` for argparse's --out, which creates nothing.

    A file may be there; its folder need not exist. Raises UsageError where the path is a folder, or
    a file stands where its folder should be.
    """
    file = given_path(path)
    check_output("--out", file)
    return file
