"""Batches of a token stream: running text as contiguous blocks, or sentences each alone.

Both read the memory map batch by batch, and both make every token of the stream a target exactly once.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

IGNORE = -100  # the target of a padded position, as in torch's cross entropy
SCAN = 1 << 24  # tokens looked at together when line ends are found


class RunningText:
    """Blocks of contiguous text: row b of a batch goes on in row b of the next one.

    An <eos> precedes the stream. Each of `batch_size` rows reads its own contiguous part; past the end of a
    part, targets are IGNORE and tokens <eos>. Of several processes, each has its own rows.
    """

    per_round = 1  # batches that the processes take from the order together

    def __init__(
        self, tokens: np.ndarray, eos_id: int, batch_size: int, block_size: int, rank: int = 0, world_size: int = 1
    ):
        self.tokens = tokens
        self.eos_id = eos_id
        all_rows = batch_size * world_size
        self.row_length = -(-len(tokens) // all_rows)
        self.block_size = min(block_size, self.row_length)
        self.layout = {"sequences": all_rows, "block_size": self.block_size}  # what a batch's number depends on
        self.row_starts = (rank * batch_size + np.arange(batch_size))[:, None] * self.row_length

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-self.row_length // self.block_size)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Tokens and targets of a batch, each (batch, time), int64."""
        positions, inside = self.positions(index)
        positions = np.where(inside, positions, 0)
        targets = np.where(inside, self.tokens[positions], IGNORE)
        tokens = np.where(inside & (positions > 0), self.tokens[positions - 1], self.eos_id)
        return torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(targets.astype(np.int64))

    def positions(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Where a batch's targets stand in the stream, and which of them are targets: each (batch, time)."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        columns = np.arange(index * self.block_size, (index + 1) * self.block_size)
        positions = self.row_starts + columns
        return positions, (columns < self.row_length) & (positions < len(self.tokens))

    def share(self, chosen: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """This process's part of some batches."""
        return [self[int(i)] for i in chosen]

    def count(self, chosen: Sequence[int]) -> int:
        """The targets of some batches, over all processes."""
        row_starts = np.arange(self.layout["sequences"]) * self.row_length
        lengths = np.minimum(self.row_length, len(self.tokens) - row_starts)
        starts = np.asarray(chosen)[:, None] * self.block_size
        return int(np.clip(lengths - starts, 0, self.block_size).sum())

    def before_rows(self, context: int) -> Tensor:
        """The `context` tokens before each row's first one: (batch, context), int64; <eos> before the text."""
        positions = self.row_starts + np.arange(-context, 0)
        before = np.clip(positions - 1, 0, len(self.tokens) - 1)  # a short text may leave the last rows empty
        tokens = np.where(positions > 0, self.tokens[before], self.eos_id)
        return torch.from_numpy(tokens.astype(np.int64))


class Sentences:
    """Lines each alone, <eos> before and after, in batches of about equal length.

    A batch holds at most `batch_size * block_size` positions, padding included, and at least one sentence. Several
    processes take turns: each has batches of its own.
    """

    def __init__(
        self, tokens: np.ndarray, eos_id: int, batch_size: int, block_size: int, rank: int = 0, world_size: int = 1
    ):
        self.tokens = tokens
        self.eos_id = eos_id
        self.rank, self.per_round = rank, world_size
        self.layout = {"positions": batch_size * block_size}
        self.ends = line_ends(tokens, eos_id)
        self.by_length = np.argsort(np.diff(self.ends, prepend=0), kind="stable")
        self.borders = self._borders(batch_size * block_size)

    def _borders(self, capacity: int) -> np.ndarray:
        """Where in `by_length` each batch starts, and the end of the last one."""
        lengths = np.diff(self.ends, prepend=0)[self.by_length]
        borders = [0]
        while (start := borders[-1]) < len(lengths):
            stop = min(start + max(1, capacity // lengths[start]), len(lengths))
            while stop > start + 1 and (stop - start) * lengths[stop - 1] > capacity:
                stop = start + max(1, capacity // lengths[stop - 1])
            borders.append(stop)
        return np.array(borders)

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
        rows = self.rows(index)
        ends = self.ends[rows, None]
        starts = np.where(rows > 0, self.ends[rows - 1], 0)[:, None]
        positions = starts + np.arange((ends - starts).max())
        inside = positions < ends
        words = np.where(inside, self.tokens[np.where(inside, positions, 0)], self.eos_id).astype(np.int64)
        tokens = np.concatenate([np.full_like(words[:, :1], self.eos_id), words[:, :-1]], axis=1)
        return torch.from_numpy(tokens), torch.from_numpy(np.where(inside, words, IGNORE))

    def share(self, chosen: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Every `per_round`-th of some batches; where they run out, one without targets, for processes keep step."""
        mine = [self[int(i)] for i in chosen[self.rank :: self.per_round]]
        padding = torch.full((1, 1), self.eos_id), torch.full((1, 1), IGNORE)
        return mine + [padding] * (-(-len(chosen) // self.per_round) - len(mine))

    def count(self, chosen: Sequence[int]) -> int:
        """The targets of some batches, over all processes."""
        rows = np.concatenate([self.rows(int(i)) for i in chosen])
        return int((self.ends[rows] - np.where(rows > 0, self.ends[rows - 1], 0)).sum())


@lru_cache(maxsize=1)  # each step of an epoch asks for it
def shuffled(batches: int, epoch: int, seed: int) -> Sequence[int]:
    """The batches of an epoch in random order, the same for the same epoch and seed."""
    return np.random.default_rng((seed, epoch)).permutation(batches)


def line_ends(tokens: np.ndarray, eos_id: int) -> np.ndarray:
    """The position after each line's <eos>, found piece by piece so that memory stays bounded."""
    pieces = (np.flatnonzero(tokens[at : at + SCAN] == eos_id) + at + 1 for at in range(0, len(tokens), SCAN))
    return np.concatenate([np.zeros(0, np.int64), *pieces])
