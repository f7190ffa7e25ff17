"""Batches of a token stream: running text as contiguous blocks, or sentences each alone.

Both read the memory map batch by batch, and both make every token of the stream a target exactly once.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

IGNORE = -100  # the target of a padded position, as in torch's cross entropy
SCAN = 1 << 24  # tokens looked at together when line ends are found


@dataclass
class Batches:
    """A stream in batches of `batch_size` sequences of `block_size` tokens, shared out over processes."""

    tokens: np.ndarray  # flat; each line ends with eos_id
    eos_id: int
    batch_size: int  # over all processes
    block_size: int
    micro_batch_size: int | None = (
        None  # sequences that a process takes at once; None: its whole share
    )
    rank: int = 0
    world_size: int = 1


@dataclass
class RunningText(Batches):
    """Blocks of contiguous text: row b of a batch goes on in row b of the next one.

    An <eos> precedes the stream. Each of `batch_size` rows reads its own contiguous part; past the end of a
    part, targets are IGNORE and tokens <eos>. Of several processes, each has as many rows of every batch.
    """

    def __post_init__(self):
        self.row_length = -(-len(self.tokens) // self.batch_size)
        self.block_size = min(self.block_size, self.row_length)
        self.layout = {
            "sequences": self.batch_size,
            "block_size": self.block_size,
        }  # what a batch's number depends on
        rows = self.batch_size // self.world_size
        self.row_starts = (self.rank * rows + np.arange(rows))[:, None] * self.row_length
        self.shift = 0  # where in the stream, taken as a ring, the first row starts

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-self.row_length // self.block_size)

    def draw_order(self, seed: int, epoch: int) -> np.ndarray:
        """Cut an epoch's blocks anew, from a random token on; returns the batches in random order."""
        random = np.random.default_rng((seed, epoch))
        order = random.permutation(len(self))
        self.shift = int(random.integers(len(self.tokens)))
        return order

    def text_order(self, seed: int, epoch: int) -> range:
        """The batches in the text's order; from the second epoch on cut anew, from a random token on."""
        self.shift = 0
        if epoch > 0:
            self.shift = int(np.random.default_rng((seed, epoch)).integers(len(self.tokens)))
        return range(len(self))

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Tokens and targets of a batch as the last drawn order cuts them, each (batch, time), int64."""
        positions, inside = self.positions(index)
        positions = np.where(inside, (positions + self.shift) % len(self.tokens), 0)
        targets = np.where(inside, self.tokens[positions], IGNORE)
        tokens = np.where(inside & (positions > 0), self.tokens[positions - 1], self.eos_id)
        return torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(targets.astype(np.int64))

    def positions(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Where a batch's targets stand in the stream, from `shift` on, and which are targets: each (batch, time)."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        columns = np.arange(index * self.block_size, (index + 1) * self.block_size)
        positions = self.row_starts + columns
        return positions, (columns < self.row_length) & (positions < len(self.tokens))

    def micro_batches(self, index: int) -> list[tuple[Tensor, Tensor]]:
        """This process's part of a batch, in micro-batches."""
        return list(
            zip(
                *(part.split(self.micro_batch_size or len(part)) for part in self[index]),
                strict=True,
            )
        )

    def count_targets(self, index: int) -> int:
        """The targets of a batch, over all processes."""
        row_starts = np.arange(self.batch_size) * self.row_length
        lengths = np.minimum(self.row_length, len(self.tokens) - row_starts)
        return int(np.clip(lengths - index * self.block_size, 0, self.block_size).sum())

    def before_rows(self, context: int) -> Tensor:
        """The `context` tokens before each row's first one: (batch, context), int64; <eos> before the text."""
        positions = self.row_starts + np.arange(-context, 0)
        before = np.clip(
            positions - 1, 0, len(self.tokens) - 1
        )  # a short text may leave the last rows empty
        tokens = np.where(positions > 0, self.tokens[before], self.eos_id)
        return torch.from_numpy(tokens.astype(np.int64))


@dataclass
class Sentences(Batches):
    """Lines each alone, <eos> before and after, in batches of about equal length.

    A batch holds at most `batch_size * block_size` positions, padding included, and at least one sentence. Of several
    processes, each has every n-th of its sentences, and takes at most `micro_batch_size * block_size` positions, or one
    sentence, at once.
    """

    def __post_init__(self):
        self.capacity = self.batch_size * self.block_size
        self.layout = {"positions": self.capacity}
        self.ends = line_ends(self.tokens, self.eos_id)
        self.lengths = np.diff(self.ends, prepend=0)
        self.by_length = np.argsort(self.lengths, kind="stable")
        lengths = self.lengths[self.by_length]
        borders = [0]  # where in `by_length` each batch starts, and the end of the last one
        while (start := borders[-1]) < len(lengths):
            stop = min(start + max(1, self.capacity // lengths[start]), len(lengths))
            while stop > start + 1 and (stop - start) * lengths[stop - 1] > self.capacity:
                stop = start + max(1, self.capacity // lengths[stop - 1])
            borders.append(stop)
        self.borders = np.array(borders)

    def draw_order(self, seed: int, epoch: int) -> np.ndarray:
        """Group the lines of equal length anew for an epoch; returns the batches in random order."""
        random = np.random.default_rng((seed, epoch))
        order = random.permutation(len(self))
        lines = random.permutation(len(self.lengths))
        self.by_length = lines[np.argsort(self.lengths[lines], kind="stable")]
        return order

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.borders) - 1

    def rows(self, index: int) -> np.ndarray:
        """The line numbers of a batch, in the order of its rows."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.by_length[self.borders[index] : self.borders[index + 1]]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Tokens `<eos> w1 .. wn` and targets `w1 .. wn <eos>` of a batch, each (batch, time), int64."""
        return self.pad_lines(self.rows(index))

    def pad_lines(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """The tokens and targets of some lines, each (lines, time), int64."""
        ends = self.ends[rows, None]
        positions = ends - self.lengths[rows, None] + np.arange(self.lengths[rows].max())
        inside = positions < ends
        words = np.where(inside, self.tokens[np.where(inside, positions, 0)], self.eos_id).astype(
            np.int64
        )
        tokens = np.concatenate([np.full_like(words[:, :1], self.eos_id), words[:, :-1]], axis=1)
        return torch.from_numpy(tokens), torch.from_numpy(np.where(inside, words, IGNORE))

    def micro_batches(self, index: int) -> list[tuple[Tensor, Tensor]]:
        """This process's part of a batch, in micro-batches: as many on every process, for they keep step; one that has
        no line left gets one without targets."""
        rows = self.rows(index)
        positions = (self.micro_batch_size or self.batch_size) * self.block_size
        at_once = max(1, positions // self.lengths[rows[-1]])
        number = -(-len(rows) // (self.world_size * at_once))
        own_rows = rows[self.rank :: self.world_size]
        micro_batches = [own_rows[i * at_once : (i + 1) * at_once] for i in range(number)]
        padding = torch.full((1, 1), self.eos_id), torch.full((1, 1), IGNORE)
        return [self.pad_lines(lines) if len(lines) else padding for lines in micro_batches]

    def count_targets(self, index: int) -> int:
        """The targets of a batch, over all processes."""
        return int(self.lengths[self.rows(index)].sum())


def line_ends(tokens: np.ndarray, eos_id: int) -> np.ndarray:
    """The position after each line's <eos>, found piece by piece so that memory stays bounded."""
    pieces = (
        np.flatnonzero(tokens[at : at + SCAN] == eos_id) + at + 1
        for at in range(0, len(tokens), SCAN)
    )
    return np.concatenate([np.zeros(0, np.int64), *pieces])
