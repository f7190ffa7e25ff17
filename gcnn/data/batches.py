"""Batches of a token stream: running text in contiguous blocks, or sentences one by one.

Both read the memory-mapped tokens batch by batch, and in both every token of the stream is a target
exactly once per epoch. A loop over an epoch is:

    for index in batches.draw_order(seed, epoch):      # or text_order
        for tokens, targets in batches.micro_batches(index):
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

IGNORE = -100  # the target of a padded position, as in torch's cross entropy
SCAN = 1 << 24  # tokens that `line_ends` examines at once


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device. From the CPU to a GPU nothing waits: the copy is out of pinned
    memory.
    """
    if tensor.device.type == "cpu" and device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@dataclass
class Batches:
    """A stream in batches of `batch_size` sequences of `block_size` tokens.

    With several processes, each computes its own part of every batch.
    """

    tokens: np.ndarray  # int32, flat; each line ends with eos_id
    eos_id: int
    batch_size: int  # sequences, over all processes
    block_size: int  # tokens
    micro_batch_size: int | None = None  # sequences computed at once; None: the process's share
    rank: int = 0  # of this process
    world_size: int = 1  # processes


@dataclass
class RunningText(Batches):
    """Blocks of running text: row b of batch i continues in row b of batch i + 1.

    The stream is cut into `batch_size` contiguous parts, one per row. An <eos> precedes the stream.
    Past the end of a part, targets are IGNORE and tokens <eos>. batch_size is a multiple of
    world_size; each process has as many rows as the others. The stream is read as a ring from
    token `shift` on, which draw_order and text_order set for all later calls; at first it is 0.
    """

    def __post_init__(self):
        self.row_length = -(-len(self.tokens) // self.batch_size)
        self.block_size = min(self.block_size, self.row_length)
        # A resumed run must have the same layout, for a batch's index to mean the same tokens.
        self.layout = {"sequences": self.batch_size, "block_size": self.block_size}
        rows = self.batch_size // self.world_size
        self.row_starts = (self.rank * rows + np.arange(rows))[:, None] * self.row_length
        self.shift = 0

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-self.row_length // self.block_size)

    def draw_order(self, seed: int, epoch: int) -> np.ndarray:
        """The batch indices of an epoch in random order, (batches,).

        Side effect: sets `shift` to a random token, so that the blocks of each epoch start at other
        places. Both depend on seed and epoch alone and are the same on all processes.
        """
        random = np.random.default_rng((seed, epoch))
        order = random.permutation(len(self))
        self.shift = int(random.integers(len(self.tokens)))
        return order

    def text_order(self, seed: int, epoch: int) -> range:
        """The batch indices of an epoch in the text's order, for models that carry their state.

        Side effect: sets `shift`, to 0 for epoch 0 and to a random token for later ones.
        """
        self.shift = 0
        if epoch > 0:
            self.shift = int(np.random.default_rng((seed, epoch)).integers(len(self.tokens)))
        return range(len(self))

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """This process's tokens and targets of a batch, each (rows, time), int64.

        Reads from the current `shift` on. Raises IndexError for an index without a batch.
        """
        positions, inside = self.positions(index)
        positions = np.where(inside, (positions + self.shift) % len(self.tokens), 0)
        targets = np.where(inside, self.tokens[positions], IGNORE)
        tokens = np.where(inside & (positions > 0), self.tokens[positions - 1], self.eos_id)
        return torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(targets.astype(np.int64))

    def positions(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions of a batch's targets in the stream, counted from `shift`, each (rows, time).

        The second array says which of them are targets; the others are past the end of a part.
        Raises IndexError for an index without a batch.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        columns = np.arange(index * self.block_size, (index + 1) * self.block_size)
        positions = self.row_starts + columns
        return positions, (columns < self.row_length) & (positions < len(self.tokens))

    def micro_batches(self, index: int) -> list[tuple[Tensor, Tensor]]:
        """This process's part of a batch: (tokens, targets) of each micro-batch.

        The same number of them on every process; each is (micro_batch_size or fewer, time), int64.
        Raises IndexError for an index without a batch.
        """
        tokens, targets = self[index]
        size = self.micro_batch_size or len(tokens)
        return list(zip(tokens.split(size), targets.split(size), strict=True))

    def count_targets(self, index: int) -> int:
        """The number of targets in a batch, over all processes."""
        row_starts = np.arange(self.batch_size) * self.row_length
        lengths = np.minimum(self.row_length, len(self.tokens) - row_starts)
        return int(np.clip(lengths - index * self.block_size, 0, self.block_size).sum())

    def before_rows(self, context: int) -> Tensor:
        """The `context` input tokens before each row's first one: (rows, context), int64.

        Before the start of the text these are <eos>. Assumes a `shift` of 0.
        """
        positions = self.row_starts + np.arange(-context, 0)
        # A short text may leave the last rows empty, whose starts are past its end.
        before = np.clip(positions - 1, 0, len(self.tokens) - 1)
        tokens = np.where(positions > 0, self.tokens[before], self.eos_id)
        return torch.from_numpy(tokens.astype(np.int64))


@dataclass
class Sentences(Batches):
    """One line per row, with <eos> before and after; the lines of a batch have similar lengths.

    A batch has at most `batch_size * block_size` positions, padding included, or else one sentence.
    With n processes each has every n-th sentence of a batch, and computes at most
    `micro_batch_size * block_size` positions, or one sentence, at once.
    """

    def __post_init__(self):
        self.capacity = self.batch_size * self.block_size
        self.layout = {"positions": self.capacity}
        self.ends = line_ends(self.tokens, self.eos_id)
        self.lengths = np.diff(self.ends, prepend=0)
        self.by_length = np.argsort(self.lengths, kind="stable")  # line numbers
        self.borders = self.batch_borders(self.lengths[self.by_length])

    def batch_borders(self, lengths: np.ndarray) -> np.ndarray:
        """Where each batch starts among the lines sorted by length, and where the last one ends.

        lengths: of the lines, in increasing order. A batch takes as many lines as fit, counted by
        its longest one, to which the others are padded.
        """
        borders = [0]
        while borders[-1] < len(lengths):
            start = borders[-1]
            # As many as would fit if all were as short as the first, then fewer until they fit.
            stop = min(start + max(1, self.capacity // lengths[start]), len(lengths))
            while stop > start + 1 and (stop - start) * lengths[stop - 1] > self.capacity:
                stop = start + max(1, self.capacity // lengths[stop - 1])
            borders.append(stop)
        return np.array(borders)

    def draw_order(self, seed: int, epoch: int) -> np.ndarray:
        """The batch indices of an epoch in random order, (batches,).

        Side effect: shuffles lines of equal length, so that batches have other lines each epoch.
        Both depend on seed and epoch alone and are the same on all processes.
        """
        random = np.random.default_rng((seed, epoch))
        order = random.permutation(len(self))
        lines = random.permutation(len(self.lengths))
        self.by_length = lines[np.argsort(self.lengths[lines], kind="stable")]
        return order

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.borders) - 1

    def rows(self, index: int) -> np.ndarray:
        """The line numbers of a batch in the order of its rows, over all processes.

        Raises IndexError for an index without a batch.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.by_length[self.borders[index] : self.borders[index + 1]]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Tokens and targets of a batch over all processes, each (lines, time), int64.

        A row has tokens `<eos> w1 .. wn` and targets `w1 .. wn <eos>`, padded as in pad_lines.
        """
        return self.pad_lines(self.rows(index))

    def pad_lines(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """The tokens and targets of the lines with these numbers, each (lines, time), int64.

        Shorter lines are padded at their end: tokens with <eos>, targets with IGNORE.
        """
        ends = self.ends[rows, None]
        positions = ends - self.lengths[rows, None] + np.arange(self.lengths[rows].max())
        inside = positions < ends
        words = self.tokens[np.where(inside, positions, 0)]
        words = np.where(inside, words, self.eos_id).astype(np.int64)
        tokens = np.concatenate([np.full_like(words[:, :1], self.eos_id), words[:, :-1]], axis=1)
        targets = np.where(inside, words, IGNORE)
        return torch.from_numpy(tokens), torch.from_numpy(targets)

    def micro_batches(self, index: int) -> list[tuple[Tensor, Tensor]]:
        """This process's part of a batch: (tokens, targets) of each micro-batch, as of pad_lines.

        The same number of them on every process, since processes exchange gradients in step; one
        that has no line left gets a single position without a target. Raises IndexError for an
        index without a batch.
        """
        rows = self.rows(index)
        positions = (self.micro_batch_size or self.batch_size) * self.block_size
        longest = self.lengths[rows[-1]]
        at_once = max(1, positions // longest)
        number = -(-len(rows) // (self.world_size * at_once))
        own_rows = rows[self.rank :: self.world_size]
        micro_batches = []
        for i in range(number):
            lines = own_rows[i * at_once : (i + 1) * at_once]
            if len(lines):
                micro_batches.append(self.pad_lines(lines))
            else:
                empty = torch.full((1, 1), self.eos_id), torch.full((1, 1), IGNORE)
                micro_batches.append(empty)
        return micro_batches

    def count_targets(self, index: int) -> int:
        """The number of targets in a batch, over all processes. Raises as `rows` does."""
        return int(self.lengths[self.rows(index)].sum())


def line_ends(tokens: np.ndarray, eos_id: int) -> np.ndarray:
    """The position after each line's <eos>, (lines,), int64.

    tokens: a flat stream. Scanned piece by piece, so that memory stays bounded.
    """
    pieces = [np.zeros(0, np.int64)]
    for start in range(0, len(tokens), SCAN):
        is_end = tokens[start : start + SCAN] == eos_id
        pieces.append(np.flatnonzero(is_end) + start + 1)
    return np.concatenate(pieces)
