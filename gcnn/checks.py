"""What a config must satisfy beyond its types: choices, ranges, and the fit of its groups to the data."""

import argparse
import copy
import dataclasses
import math
import os
import reprlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gcnn.errors import UsageError

LAYER = 1 << 14  # bytes of a layer's objects, besides its weights
LARGEST = 2**31 - 1  # of sizes and counts: ids are int32
THREADS = 1024  # torch starts as many as it is told
POINTERS = {  # how the small files begin that stand for large ones, and what fetches those
    b"version https://git-lfs.github.com/spec/": "git lfs pull",
    b"/annex/objects/": "git annex get",
}
SET_BY_CHOICES = ("model.softmax_dropout",)  # of model=, whose clusters a command line may take away
COPIES = 3  # of the weights in training: the weights, their gradient, the optimizer's momentum


def positive(text: str, most: int = LARGEST) -> int:
    """A command's argument that must be a whole number above 0, for argparse."""
    number = int(text)
    if not 1 <= number <= most:
        raise argparse.ArgumentTypeError(f"{number} is not from 1 to {most:,}")
    return number


class Range(NamedTuple):
    """The values that a field may have."""

    allows: Callable[[Any], bool]
    remedy: str  # what to give instead of another


def between(least: int, most: int) -> Range:
    return Range(lambda value: least <= value <= most, f"give a number from {least} to {most:,}")


COUNT, UNSIGNED = between(1, LARGEST), between(0, LARGEST)
POSITIVE = Range(lambda value: 0 < value < math.inf, "give a number above 0")
FRACTION = Range(lambda value: 0 <= value < 1, "give a number from 0 to below 1")
BETAS = Range(lambda pair: len(pair) == 2 and all(map(FRACTION.allows, pair)), "give two numbers from 0 to below 1")
CUTOFFS = Range(lambda value: [0, *value] == sorted({0, *value}), "give positive numbers in increasing order")
SEED = Range(lambda value: 0 <= value < 2**63, "give a number from 0 to 2^63 - 1")
PATH = Range(lambda path: path != "", "give a path or leave it out")  # a shell's $VARIABLE may be empty
RESUME = Range(
    lambda value: isinstance(value, bool) or (isinstance(value, str) and value != ""),
    "give false, true or the path of a checkpoint",
)


def key(default: Any, meaning: str, allowed: Range | None = None) -> Any:
    """A field of a config's dataclass, with its meaning for --help; None is always allowed where it is a default."""
    metadata = {"meaning": meaning, "range": allowed}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def one_of(*names: str) -> Range:
    return Range(names.__contains__, f"choose one of: {', '.join(names)}")


def choice(default: str, *names: str) -> Any:
    """A field that has one of some names."""
    return key(default, " | ".join(names), one_of(*names))


def check_value(name: str, value: Any, allowed: Range) -> None:
    """Raise UsageError for a value that is out of its range."""
    if not allowed.allows(value):
        raise UsageError(f"{name} is {value!r}; {allowed.remedy}.")


def check_ranges(config: Any, group: str = "") -> None:
    """Raise UsageError for a value of a config's dataclass, or of those within it, that is out of its field's range."""
    for field in dataclasses.fields(config):
        name, value, allowed = group + field.name, getattr(config, field.name), field.metadata.get("range")
        if dataclasses.is_dataclass(value):
            check_ranges(value, f"{name}.")
        elif allowed and value is not None:
            check_value(name, value, allowed)


def check(config: Any) -> None:
    """Raise UsageError for values out of their ranges or at odds with each other, whatever the data."""
    check_ranges(config)
    trainer = config.trainer
    if {trainer.max_steps, trainer.max_epochs, trainer.max_minutes, trainer.max_flops} == {None}:
        raise UsageError("The run has no end: set trainer.max_steps, max_epochs, max_minutes or max_flops.")
    if trainer.carry_state and config.data.sentences:
        raise UsageError("trainer.carry_state is true, but sentences stand alone (data.sentences); set it to false.")
    lr = config.optimizer.lr
    at_most_lr = Range(lambda value: value <= lr, f"give at most optimizer.lr, {lr}")
    check_value("schedule.min_lr", getattr(config.schedule, "min_lr", 0), at_most_lr)
    check_model(config.model)


def check_model(model: Any) -> None:
    """Raise UsageError for keys of a model that do not go together, and for blocks that are none."""
    if model.kind == "transformer" and model.hidden_dim % (2 * model.num_heads):
        raise UsageError(
            f"model.hidden_dim is {model.hidden_dim}; rotary positions turn pairs of channels of each head: give a "
            f"multiple of twice model.num_heads, {2 * model.num_heads}."
        )
    blocks = getattr(model, "blocks", None)
    if blocks == []:
        raise UsageError("model.blocks is empty; give at least one block, as {convs: [[4, 256]], repeat: 6}.")
    for block in blocks or []:
        if block.repeat < 1 or not block.convs or any(len(c) != 2 or min(c) < 1 for c in block.convs):
            raise UsageError(
                f"model.blocks: {{convs: {block.convs}, repeat: {block.repeat}}} is no block; "
                "give pairs [kernel_size, out_channels] of positive numbers and a positive repeat."
            )


def unread_keys(config: Any) -> dict[str, str]:
    """The keys whose values are not their defaults, and change nothing beside the config's other values;
    with the reason. (A kind's own keys are refused by name where another kind is chosen.)"""
    data, words, model, logger = config.data, config.tokenizer, config.model, config.logger
    source = f"data={data.name} does not read it"
    listed, trained = "tokenizer.vocabulary lists the types", "tokenizer.model is trained already"
    names_files = any(data.files.values())
    vocabulary, pieces = getattr(words, "vocabulary", None), getattr(words, "model", None)
    beside_corpus = str(vocabulary).startswith(f"{data.path}{os.sep}")  # as tokenizer=word_listed has it
    full = not model.cutoffs
    needs = [  # key, whether it is read, why not
        ("data.files", data.source == "local", source),
        ("data.path", not names_files or beside_corpus, "data.files names the files"),
        ("data.hub_config", data.source == "wikitext", source),
        ("data.column", data.source in ("local", "wikitext"), source),
        ("tokenizer.min_count", vocabulary is None, listed),
        ("tokenizer.max_size", vocabulary is None, listed),
        ("tokenizer.model_type", pieces is None, trained),
        ("tokenizer.vocabulary_size", pieces is None, trained),
        ("model.projection_dim", not model.tie_embeddings, "model.tie_embeddings makes a layer of its own there"),
        ("model.projection_dim", full or model.kind == "lstm", "before an adaptive softmax only an LSTM has it"),
        ("model.softmax_dropout", not (full or model.tie_embeddings), "without clusters of vectors there is none"),
        ("logger.project", logger.kind == "wandb", f"logger={logger.kind} has no projects"),
        ("logger.mode", logger.kind == "wandb", f"logger={logger.kind} has no modes"),
    ]
    unread = {}
    for key, read, reason in needs:
        group, _, name = key.partition(".")
        fields = getattr(config, group).__dataclass_fields__
        if not read and name in fields and getattr(getattr(config, group), name) != default_of(fields[name]):
            unread.setdefault(key, reason)
    return unread


def default_of(field: dataclasses.Field) -> Any:
    made = field.default_factory is not dataclasses.MISSING
    return field.default_factory() if made else field.default


def check_read(config: Any, given: Collection[str], all_keys: bool = True) -> None:
    """Raise UsageError for a key that is set and changes nothing: one of those that a command line has
    `given`, or any."""
    for key, reason in unread_keys(config).items():
        if key in given or (all_keys and key not in SET_BY_CHOICES):
            group, _, name = key.partition(".")
            default = default_of(getattr(config, group).__dataclass_fields__[name])
            default = "null" if default is None else default
            raise UsageError(f"{key} would change nothing: {reason}. Leave it out, or set it to {default}.")


def keys_of(overrides: Iterable[str]) -> set[str]:
    """The keys that command-line overrides set."""
    return {override.partition("=")[0].lstrip("+~") for override in overrides}


def check_plain(text: str) -> None:
    """Raise UsageError for YAML that no stored config has: an interpolation would tell our environment to whoever reads
    a report, aliases can grow without bound, and deep nesting takes time with its square."""
    depth = 0
    for event in yaml.parse(text):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if "${" in text or isinstance(event, yaml.AliasEvent) or depth > 10:
            raise UsageError("it has an interpolation, an alias or deep nesting, which a stored config never has.")


def check_count(name: str, value: int, most: int = LARGEST) -> None:
    """Raise UsageError for a size or number of things that is not positive, or past what any machine can do."""
    check_whole(name, value)
    check_value(name, value, between(1, most))


def check_seed(name: str, value: int) -> None:
    check_whole(name, value)
    check_value(name, value, SEED)


def check_whole(name: str, value: Any) -> None:
    if not isinstance(value, Integral):
        raise UsageError(f"{name} is {reprlib.repr(value)}; give a whole number.")


def check_text(what: str, text: Any) -> None:
    """Raise UsageError for what is no string, and for a string that UTF-8 cannot write: one with half
    of a surrogate pair, as a broken emoji leaves it."""
    if not isinstance(text, str):
        raise UsageError(f"{what} is no string but of type {type(text).__name__}. Give a string.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        where = f"at character {error.start + 1}"
        raise UsageError(f"{what} is not UTF-8 ({where}). Convert it, as with iconv.") from None


def check_memory(what: str, needed: int, remedy: str) -> None:
    """Raise UsageError for more bytes than the machine has: the kernel may grant them and kill the process later."""
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > present:
        needed, present = needed // 2**30, present // 2**30
        raise UsageError(f"{what} takes {needed:,} GiB of memory or more; the machine has {present:,}; {remedy}.")


def check_output(option: str, path: Path, folder: bool = False) -> None:
    """Raise UsageError for an output that cannot be written where it is asked for, before the work for it begins."""
    if path.is_dir() and not folder:
        raise UsageError(f"{option}: {path} is a folder; give the path of a file.")
    for part in [path, *path.parents] if folder else path.parents:
        if part.is_file():
            raise UsageError(f"{option}: {part} is a file; give a folder.")


def check_run_name(option: str, run_dir: Path) -> None:
    """Raise UsageError for a run's folder whose path is not UTF-8: safetensors writes weights to no such path."""
    try:
        str(run_dir.absolute()).encode()
    except UnicodeEncodeError:
        name = str(run_dir).encode(errors="backslashreplace").decode()
        raise UsageError(f"{option}: the name of {name} is not UTF-8. Rename that folder or give another.") from None


def check_no_pointer(beginning: bytes, what: object) -> None:
    """Raise UsageError for a file that Git LFS or git-annex keeps elsewhere, by its first bytes: a clone made without
    them, or a download of the raw file, has a few lines in its place."""
    for start, command in POINTERS.items():
        if beginning.startswith(start):
            raise UsageError(
                f"{what} is not the file itself but a pointer to it. Fetch it with {command}, or download it anew."
            )


def check_no_pointer_at(path: Path) -> None:
    """Raise UsageError, as check_no_pointer does, for the file at a path; a file that is not there is no pointer."""
    if path.is_file():
        with path.open("rb") as file:
            check_no_pointer(file.read(64), path)


def check_no_utf16(text: bytes, what: object) -> None:
    """Raise UsageError for UTF-16 that lacks its mark; a few lines may be anything.

    Of letters below U+0100 every second byte is zero. Of other alphabets only blanks and ends of line have zero bytes,
    and Cyrillic, Arabic or Thai are ASCII, byte by byte: but zero bytes are all over the text, and its bytes at even
    places are not those at odd ones, as in UTF-8.
    """
    text = text[: 1 << 16]
    quarter = 1 + len(text) // 4
    all_over = len(text) > 200 and all(0 in text[start : start + quarter] for start in range(0, len(text), quarter))
    full_of_zeros = 4 * text.count(0) > len(text) > 1000
    if full_of_zeros or (all_over and parity_distance(text) > 0.5):
        raise UsageError(f"{what} is no UTF-8 text: it has zero bytes as UTF-16 has. Convert it, as with iconv.")


def parity_distance(text: bytes) -> float:
    """How the bytes at even places differ from those at odd ones: 0, they are alike, to 1, they have none in common."""
    even, odd = Counter(text[::2]), Counter(text[1::2])
    common = sum(min(count / len(text[::2]), odd[byte] / len(text[1::2])) for byte, count in even.items())
    return 1 - common


def check_size(model: Any, vocabulary_size: int, copies: int = 1, positions: int = 0) -> None:
    """Raise UsageError for cutoffs past the vocabulary, and for a model that the machine cannot hold: its weights
    `copies` times, and what its layers compute at `positions` tokens, in bf16."""
    if model.cutoffs and model.cutoffs[-1] >= vocabulary_size:
        vocabulary = f"the vocabulary has {vocabulary_size} types; give cutoffs below {vocabulary_size}"
        raise UsageError(f"model.cutoffs is {model.cutoffs}, but {vocabulary}.")
    layers, weights, width = least_size(model, vocabulary_size)
    what = f"a model of {layers:,} layers and {weights:,} weights"
    check_memory(what, layers * LAYER + 4 * weights * copies, "give smaller numbers under model")
    remedy = "lower trainer.micro_batch_size, trainer.batch_size or trainer.block_size"
    check_memory(f"a batch of {positions:,} tokens", 2 * positions * width, remedy)


def least_size(model: Any, vocabulary_size: int) -> tuple[int, int, int]:
    """The encoder's layers, weights and channels, counted from below: biases, gates and the softmax come on top."""
    embedding = vocabulary_size * model.embedding_dim
    if model.kind == "lstm":
        inputs = model.embedding_dim + (2 * model.num_layers - 1) * model.hidden_dim
        return model.num_layers, embedding + 4 * inputs * model.hidden_dim, model.num_layers * model.hidden_dim
    if model.kind == "transformer":
        weights = 4 * model.hidden_dim**2 + 2 * model.hidden_dim * model.feed_forward_dim
        width = 4 * model.hidden_dim + model.feed_forward_dim
        return model.num_layers, embedding + model.num_layers * weights, model.num_layers * width
    channels = model.blocks[0].convs[0][1]
    layers, weights, width = 0, embedding + model.embedding_dim * channels, channels
    for block in model.blocks:
        widths = [channels for _, channels in block.convs]
        for repeats, inputs in ((1, [channels, *widths]), (block.repeat - 1, [widths[-1], *widths])):
            layers += repeats * len(widths)
            weights += repeats * sum(k * i * o for (k, o), i in zip(block.convs, inputs, strict=False))
            width += repeats * sum(widths)
        channels = widths[-1]
    return layers, weights, width


def check_processes(trainer: Any, processes: int) -> None:
    """Raise UsageError for a batch that the processes cannot share evenly."""
    if trainer.batch_size % processes:
        size = f"trainer.batch_size is {trainer.batch_size}, over all processes"
        raise UsageError(f"{size}; give a multiple of their number, {processes}, or start another number of them.")


def check_against_data(config: Any, vocabulary_size: int, train_tokens: int, processes: int = 1) -> None:
    """Raise UsageError where the config does not fit the corpus (cutoffs, blocks, batches) or the machine's memory."""
    trainer = config.trainer
    share = trainer.batch_size // processes
    positions = min(min(share, trainer.micro_batch_size or share) * trainer.block_size, train_tokens)
    check_size(config.model, vocabulary_size, COPIES, positions)
    if config.data.sentences:
        return
    batch_size, block_size = trainer.batch_size, trainer.block_size
    if block_size > train_tokens:
        text = f"the training split has {train_tokens} tokens"
        raise UsageError(f"trainer.block_size is {block_size}, but {text}; give shorter blocks or more text.")
    if batch_size > train_tokens // block_size:
        text = f"the training split fills only {train_tokens // block_size} sequences of {block_size} tokens"
        raise UsageError(f"trainer.batch_size is {batch_size}, but {text}; lower it or trainer.block_size.")
