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
    """The value of an option that fairseq writes as a Python expression, without evaluating code.

    The grammar: whole numbers without a sign, True, False, lists, tuples, `list + list`,
    `tuple + tuple`, and a list or tuple `* number` or `number *` one.
    option: its name, for messages. text: its value.
    Raises UsageError for anything else, for a value that is no string, for more than MAX_CHARACTERS
    characters, and for a sum or product of more than MAX_LAYERS parts.
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
    """The value of a node of the syntax tree, by the grammar of `parse`.

    Raises ValueError or TypeError for a node outside of it, OverflowError for a sum or product of
    more than MAX_LAYERS parts.
    """
    match node:
        case ast.Constant(value=int() as number):
            return number
        case ast.List(elts=parts):
            return [value_of(part) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(value_of(part) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            left = value_of(left)
            right = value_of(right)
            if len(left) + len(right) > MAX_LAYERS:
                raise OverflowError
            return left + right
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            sequence = value_of(left)
            times = value_of(right)
            if isinstance(sequence, int):
                sequence, times = times, sequence
            if len(sequence) * times > MAX_LAYERS:
                raise OverflowError
            return sequence * times
    raise ValueError(node)


def parse_layers(text: Any) -> list[Layer]:
    """fairseq's string `decoder_layers` as triples (out_channels, kernel_size, residual).

    A pair gets the residual 1. Raises UsageError if it is malformed or empty, and for channels or a
    kernel size out of 1 to MAX_SIZE; residuals are checked by `blocks_of`.
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
    """Whether this is a tuple of two or three ints, the first two from 1 to MAX_SIZE.

    The third may be any int. A list is no layer, and a bool is no int here.
    """
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        return False
    if any(type(part) is not int for part in spec):
        return False
    return all(0 < size <= MAX_SIZE for size in spec[:2])


def blocks_of(layers: list[Layer]) -> list[BlockConfig]:
    """The residual blocks that layers make up, in order; equal neighbours are one with `repeat`.

    A layer with a residual r > 0 is the last of a block of r layers: the block's input is added to
    its output, and its other layers must have the residual 0. A layer with the residual 0 outside
    of these is a block of its own without a residual connection. Without layers: no blocks.
    Raises UsageError if blocks overlap, or start before the first layer.
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
