"""fairseq's strings of layers: parsed and never evaluated, and made into residual blocks."""

import ast
import reprlib
from dataclasses import replace
from itertools import groupby
from typing import Any

from gcnn.base.errors import UsageError
from gcnn.config.models import BlockConfig

MAX_CHARACTERS = 10_000
MAX_LAYERS = 1000
MAX_SIZE = 100_000  # channels, or the width of a kernel

Layer = tuple[int, int, int]  # out_channels, kernel_size, residual


def parse(option: str, text: Any) -> Any:
    """The value of an option that fairseq writes as a Python expression; `option` is its name.

    The grammar: whole numbers, True, False, lists, tuples, `sequence + sequence`, `sequence *
    number`. Raises UsageError for anything else, also for what is no string, for more than
    MAX_CHARACTERS, and for a sequence of more than MAX_LAYERS parts.
    """
    shown = reprlib.repr(text)
    if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
        raise UsageError(
            f"{option} is {shown}; expected a string of at most {MAX_CHARACTERS} characters."
        )
    try:
        return value_of(ast.parse(text.strip(), mode="eval").body)
    except OverflowError:
        raise UsageError(f"{option} is {shown}, a list of more than {MAX_LAYERS} parts.") from None
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise UsageError(
            f"{option} is {shown}; only numbers, lists, tuples, their sums and `list * number` are "
            "understood."
        ) from None


def value_of(node: ast.expr) -> Any:
    """The value of a node of the syntax tree.

    Raises ValueError or TypeError for a node outside the grammar of `parse`, OverflowError for a
    sequence of more than MAX_LAYERS parts.
    """
    match node:
        case ast.Constant(value=int() as number):
            return number
        case ast.List(elts=parts):
            return [value_of(part) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(value_of(part) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            left, right = value_of(left), value_of(right)
            if len(left) + len(right) > MAX_LAYERS:
                raise OverflowError
            return left + right
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            sequence, times = value_of(left), value_of(right)
            if isinstance(sequence, int):
                sequence, times = times, sequence
            if len(sequence) * times > MAX_LAYERS:
                raise OverflowError
            return sequence * times
    raise ValueError(node)


def parse_layers(text: Any) -> list[Layer]:
    """fairseq's `decoder_layers` as triples; a pair has the residual 1.

    Raises UsageError for what is no list of layers of at least one channel and width.
    """
    specs = parse("decoder_layers", text)
    if not isinstance(specs, list | tuple) or not specs:
        raise UsageError(f"decoder_layers is {reprlib.repr(text)}; expected a list of layers.")
    layers = []
    for i, spec in enumerate(specs):
        if not is_layer(spec):
            raise UsageError(
                f"decoder_layers[{i}] is {reprlib.repr(spec)[:60]}; expected (out_channels, "
                "kernel_size) or (out_channels, kernel_size, residual) of numbers from 1 to "
                f"{MAX_SIZE}."
            )
        layers.append((*spec, 1) if len(spec) == 2 else spec)
    return layers


def is_layer(spec: Any) -> bool:
    """Whether this is a pair or triple of whole numbers, the first two from 1 to MAX_SIZE."""
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        return False
    if any(type(part) is not int for part in spec):
        return False
    return all(0 < size <= MAX_SIZE for size in spec[:2])


def blocks_of(layers: list[Layer]) -> list[BlockConfig]:
    """The residual blocks that layers make up, in the order of the layers; equal neighbours are one
    block that repeats.

    A residual r adds the input of the layer r - 1 before to this one's output: it closes a block of
    r convolutions, the others of which have the residual 0. A layer of residual 0 outside such a
    block is a block without residual. Raises UsageError where residuals overlap, or start before
    the first layer.
    """
    blocks = []
    stop = len(layers)
    while stop > 0:  # backwards, because a block is known by its last layer
        residual = layers[stop - 1][2]
        start = stop - max(1, residual)
        inner = layers[max(0, start) : stop - 1]
        if start < 0 or any(layer[2] != 0 for layer in inner):
            raise UsageError(
                f"decoder_layers[{stop - 1}] is {layers[stop - 1]}: its residual does not close a "
                "block. A residual r > 0 must span the r - 1 layers before it, and theirs must be "
                "0."
            )
        convs = [[kernel_size, out_channels] for out_channels, kernel_size, _ in layers[start:stop]]
        blocks.append(BlockConfig(convs=convs, residual=residual > 0))
        stop = start
    repeated = []
    for block, equal in groupby(reversed(blocks)):
        repeated.append(replace(block, repeat=len(list(equal))))
    return repeated
