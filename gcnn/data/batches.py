"""Batches of a token stream: running text in contiguous blocks, or sentences one by one.

Both read the memory-mapped tokens batch by batch, and in both every token of the stream is a target
exactly once per epoch. A loop over an epoch is:

    for index in batches.draw_order(seed, epoch):      # of RunningText also text_order
        for tokens, targets in batches.micro_batches(index):
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

IGNORE = -100  # the target of a padded position, as in torch's cross entropy
SCAN = 1 << 24  # tokens that `line_ends` examines at once


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; the tensor itself if it is there already.

    A copy from the CPU to a GPU goes through pinned memory. The CPU does not wait for it, but GPU
    work that is queued later does. Do not copy from a GPU to the CPU by this: the result may be
    read before it is complete.
    """
    if tensor.device.type == "cpu" and device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@dataclass
class Batches:
    """What RunningText and Sentences share; use one of these.

    A batch of RunningText has `batch_size` rows of `block_size` tokens; one of Sentences has lines
    with at most as many positions together. With several processes, each computes its own part of
    every batch.
    """

    tokens: np.ndarray  # int32, flat, not empty; each line ends with eos_id
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
    Past the end of a part, targets are IGNORE and tokens <eos>. batch_size must be a multiple of
    world_size; each process has as many rows as the others. A block_size above the length of a part
    is reduced to it. The stream is read from token `shift` on, and from its end goes on at its
    start; draw_order and text_order set `shift` for all later calls. At first it is 0.
    """

    def __post_init__(self):
        """Lay out the rows: sets row_length (tokens), row_starts (rows, 1), layout and shift.

        May reduce block_size. row_starts are those of this process's rows, counted from `shift`.
        layout: what must be the same where a run is resumed, by name.
        """
        self.row_length = -(-len(self.tokens) // self.batch_size)  # rounded up
        self.block_size = min(self.block_size, self.row_length)
        # A resumed run must have the same layout, for a batch's index to mean the same tokens.
        self.layout = {"sequences": self.batch_size, "block_size": self.block_size}
        rows = self.batch_size // self.world_size
        self.row_starts = (self.rank * rows + np.arange(rows))[:, None] * self.row_length
        self.shift = 0

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-self.row_length // self.block_size)  # rounded up

    def draw_order(self, seed: int, epoch: int) -> np.ndarray:
        """The batch indices of an epoch in random order, (batches,) int64, each once.

        Side effect: sets `shift` to a random token, so that the blocks of each epoch start at other
        places. Order and shift depend on seed and epoch alone, so all processes have the same.
        """
        random = np.random.default_rng((seed, epoch))
        order = random.permutation(len(self))
        self.shift = int(random.integers(len(self.tokens)))
        return order

    def text_order(self, seed: int, epoch: int) -> range:
        """The batch indices of an epoch in the text's order, for models that carry their state.

        Side effect: sets `shift`, to 0 for epoch 0 (the first) and for later epochs to a random
        token, which depends on seed and epoch alone.
        """
        self.shift = 0
        if epoch > 0:
            self.shift = int(np.random.default_rng((seed, epoch)).integers(len(self.tokens)))
        return range(len(self))

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """This process's tokens and targets of a batch, each (rows, block_size), int64.

        A target is the token after the one at its place in `tokens`. Reads from the current `shift`
        on. Raises IndexError unless 0 <= index < len(self).
        """
        from_shift, inside = self.target_positions(index)
        positions = (from_shift + self.shift) % len(self.tokens)  # of the targets, in the stream
        targets = self.tokens[positions].astype(np.int64)
        targets[~inside] = IGNORE
        tokens = self.tokens[positions - 1].astype(np.int64)
        # Before the stream, and past the end of a part
        tokens[(positions == 0) | ~inside] = self.eos_id
        return torch.from_numpy(tokens), torch.from_numpy(targets)

    def target_positions(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The positions of a batch's targets, and which of them are in their row's part.

        Both are (rows, block_size), for this process's rows. Positions, int64, are counted from
        `shift`: the target at p is tokens[(p + shift) % len(tokens)]. The second is bool; where it
        is False, past the end of a part, the target is IGNORE and the position is not to be used.
        Raises IndexError unless 0 <= index < len(self).
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        columns = np.arange(index * self.block_size, (index + 1) * self.block_size)
        positions = self.row_starts + columns
        inside = (columns < self.row_length) & (positions < len(self.tokens))
        return positions, inside

    def micro_batches(self, index: int) -> list[tuple[Tensor, Tensor]]:
        """This process's rows of a batch, as (tokens, targets) of each micro-batch.

        Each is (micro_batch_size or fewer rows, block_size), int64, on the CPU, with targets as of
        __getitem__; if micro_batch_size is None, there is one, with all rows. Every process has the
        same number of micro-batches. Raises IndexError unless 0 <= index < len(self).
        """
        tokens, targets = self[index]
        size = self.micro_batch_size or len(tokens)
        return list(zip(tokens.split(size), targets.split(size), strict=True))

    def count_targets(self, index: int) -> int:
        """The number of targets in a batch, over all processes; 0 for an index past the last.

        index: 0 or more.
        """
        row_starts = np.arange(self.batch_size) * self.row_length
        lengths = np.minimum(self.row_length, len(self.tokens) - row_starts)
        left = lengths - index * self.block_size  # of each row, from this batch on
        return int(np.clip(left, 0, self.block_size).sum())

    def before_rows(self, context: int) -> Tensor:
        """The `context` input tokens before the first one of each of this process's rows.

        (rows, context), int64; before the start of the text they are <eos>. A model that reads them
        has the state with which the row goes on. Rows past the end of a short text have no targets,
        and get arbitrary ids. `shift` must be 0: it is not taken into account.
        """
        positions = self.row_starts + np.arange(-context, 0)
        # The input at a position is the token before it. Clipped, since a short text may leave the
        # last rows empty, with starts past its end.
        before = np.clip(positions - 1, 0, len(self.tokens) - 1)
        tokens = np.where(positions > 0, self.tokens[before], self.eos_id)
        return torch.from_numpy(tokens.astype(np.int64))


@dataclass
class Sentences(Batches):
    """One line per row, with <eos> before and after; the lines of a batch have similar lengths.

    A batch has at most `batch_size * block_size` positions, padding included; a longer line is a
    batch alone. With n processes each has every n-th line of a batch.
    """

    def __post_init__(self):
        """Find the lines and sort them into batches; reads the whole stream once."""
        self.capacity = self.batch_size * self.block_size  # most positions of a batch
        # A resumed run must have the same layout, for a batch's index to mean the same lines.
        self.layout = {"positions": self.capacity}
        # By line number: the position after its <eos>, and its tokens with the <eos>
        self.ends = line_ends(self.tokens, self.eos_id)
        self.lengths = np.diff(self.ends, prepend=0)
        self.by_length = np.argsort(self.lengths, kind="stable")  # line numbers, shortest first
        self.borders = self.batch_borders(self.lengths[self.by_length])

    def batch_borders(self, lengths: np.ndarray) -> np.ndarray:
        """Where each batch starts in `by_length`, and where the last one ends: (batches + 1,).

        lengths: of the lines, sorted in increasing order. A batch has at most `capacity` positions
        when all its lines are padded to the longest, or is one line. Where lengths jump, it may
        have fewer lines than would fit.
        """
        borders = [0]
        while borders[-1] < len(lengths):
            start = borders[-1]
            # As many lines as would fit if all were as short as the first, then fewer until they
            # fit.
            count = max(1, self.capacity // lengths[start])
            count = min(count, len(lengths) - start)
            longest = lengths[start + count - 1]
            while count > 1 and count * longest > self.capacity:
                count = max(1, self.capacity // longest)
                longest = lengths[start + count - 1]
            borders.append(start + count)
        return np.array(borders)

    def draw_order(self, seed: int, epoch: int) -> np.ndarray:
        """The batch indices of an epoch in random order, (batches,) int64, each once.

        Side effect: shuffles lines of equal length in `by_length`, so that an index means other
        lines each epoch. Both orders depend on seed and epoch alone, so all processes have the
        same.
        """
        random = np.random.default_rng((seed, epoch))
        order = random.permutation(len(self))
        # A stable sort of shuffled lines: only those of equal length stay shuffled.
        lines = random.permutation(len(self.lengths))
        self.by_length = lines[np.argsort(self.lengths[lines], kind="stable")]
        return order

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.borders) - 1

    def rows(self, index: int) -> np.ndarray:
        """The line numbers of a batch, shortest line first, over all processes.

        Lines are numbered from 0 in the order of the stream. The numbers of an index change with
        draw_order. Raises IndexError unless 0 <= index < len(self).
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.by_length[self.borders[index] : self.borders[index + 1]]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Tokens and targets of a batch over all processes, as of pad_lines(self.rows(index)).

        Raises IndexError unless 0 <= index < len(self).
        """
        return self.pad_lines(self.rows(index))

    def pad_lines(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """The tokens and targets of some lines, each (lines, length of the longest), int64.

        rows: line numbers, at least one, in the order of the result. A line has tokens
        `<eos> w1 .. wn` and targets `w1 .. wn <eos>`. Shorter ones are padded at their end: tokens
        with <eos>, targets with IGNORE.
        """
        ends = self.ends[rows, None]
        positions = ends - self.lengths[rows, None] + np.arange(self.lengths[rows].max())
        inside = positions < ends
        words = self.tokens[np.where(inside, positions, 0)]  # 0: any valid one, for the padding
        words = np.where(inside, words, self.eos_id).astype(np.int64)
        tokens = np.concatenate([np.full_like(words[:, :1], self.eos_id), words[:, :-1]], axis=1)
        targets = np.where(inside, words, IGNORE)
        return torch.from_numpy(tokens), torch.from_numpy(targets)

    def micro_batches(self, index: int) -> list[tuple[Tensor, Tensor]]:
        """This process's lines of a batch, as (tokens, targets) of each micro-batch.

        Each is as of pad_lines, on the CPU. If micro_batch_size is None, there is one; otherwise
        each has at most micro_batch_size * block_size positions, or one line. Every process has the
        same number, since processes average gradients in step: where one has no line left, tokens
        and targets are (1, 1), an <eos> and IGNORE.
        Raises IndexError unless 0 <= index < len(self).
        """
        rows = self.rows(index)
        positions = (self.micro_batch_size or self.batch_size) * self.block_size
        longest = self.lengths[rows[-1]]
        at_once = max(1, positions // longest)  # lines in a micro-batch
        count = -(-len(rows) // (self.world_size * at_once))  # micro-batches; rounded up
        own_rows = rows[self.rank :: self.world_size]
        micro_batches = []
        for i in range(count):
            lines = own_rows[i * at_once : (i + 1) * at_once]
            if len(lines):
                micro_batches.append(self.pad_lines(lines))
            else:
                empty = torch.full((1, 1), self.eos_id), torch.full((1, 1), IGNORE)
                micro_batches.append(empty)
        return micro_batches

    def count_targets(self, index: int) -> int:
        """The number of targets in a batch, over all processes.

        Raises IndexError unless 0 <= index < len(self).
        """
        return int(self.lengths[self.rows(index)].sum())


def line_ends(tokens: np.ndarray, eos_id: int) -> np.ndarray:
    """The position after each <eos> of a flat stream, (lines,), int64, increasing.

    Tokens after the last <eos> are no line. The stream is scanned in pieces of SCAN tokens, to
    bound the memory.
    """
    pieces = [np.zeros(0, np.int64)]
    for start in range(0, len(tokens), SCAN):
        is_end = tokens[start : start + SCAN] == eos_id
        pieces.append(np.flatnonzero(is_end) + start + 1)
    return np.concatenate(pieces)
