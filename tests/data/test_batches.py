"""Both kinds of batches: every token is a target once, and its input is the token before it."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcnn.data.batches import IGNORE, RunningText, Sentences

EOS = 3
texts = st.lists(st.lists(st.sampled_from([0, 1, 2, 4, 5]), max_size=12), min_size=1, max_size=30)
sizes = st.integers(1, 9)
lengths = sizes | st.sampled_from([1000, 2**31 - 1])


def stream_of(lines: list[list[int]]) -> np.ndarray:
    return np.array([token for line in lines for token in [*line, EOS]], np.int32)


@given(texts, sizes | st.integers(10, 500), lengths)
def test_running_text_is_the_stream_cut_into_rows(lines, batch_size, block_size):
    stream = stream_of(lines).tolist()
    batches = RunningText(np.array(stream, np.int32), EOS, batch_size, block_size)
    rows = [[] for _ in range(batch_size)]
    for i in range(len(batches)):
        tokens, targets = batches[i]
        assert tokens.shape == targets.shape
        assert tokens.shape[0] == batch_size
        assert tokens.shape[1] <= block_size
        for row, pairs in zip(
            rows, zip(tokens.tolist(), targets.tolist(), strict=True), strict=True
        ):
            row += zip(*pairs, strict=True)
    seen = [pair for row in rows for pair in row if pair[1] != IGNORE]
    # In order, once, each after the one before it.
    assert seen == list(zip([EOS, *stream], stream, strict=False))
    assert all(pair == (EOS, IGNORE) for row in rows for pair in row if pair[1] == IGNORE)
    for row in rows:  # padding only at the end of a row
        targets = [target for _, target in row]
        assert IGNORE not in targets[: len(targets) - targets.count(IGNORE)]


@given(texts, sizes, sizes, st.integers(1, 6))
def test_tokens_before_rows_are_those_of_the_text(lines, batch_size, block_size, context):
    stream = stream_of(lines)
    batches = RunningText(stream, EOS, batch_size, block_size)
    before = batches.before_rows(context)
    inputs = [EOS] * (context + 1) + stream.tolist()
    for start, row in zip(batches.row_starts.ravel(), before.tolist(), strict=True):
        if start <= len(stream):  # a short text may leave the last rows empty
            assert row == inputs[start : start + context]


@given(texts, lengths, lengths)
def test_sentences_are_the_lines_each_alone(lines, batch_size, block_size):
    batches = Sentences(stream_of(lines), EOS, batch_size, block_size)
    seen = []
    for i in range(len(batches)):
        tokens, targets = batches[i]
        assert len(tokens) == 1 or tokens.numel() <= batch_size * block_size
        for row, inputs, outputs in zip(
            batches.rows(i).tolist(), tokens.tolist(), targets.tolist(), strict=True
        ):
            line = lines[row]
            padding = tokens.shape[1] - len(lines[row]) - 1
            assert inputs == [EOS, *line] + [EOS] * padding
            assert outputs == [*line, EOS] + [IGNORE] * padding
            seen.append(row)
    assert sorted(seen) == list(range(len(lines)))


def test_sentences_of_equal_length_need_no_padding():
    lines = [[1] * (7 if i % 2 else 3) for i in range(40)]
    batches = Sentences(stream_of(lines), EOS, 4, 8)
    assert sum((batches[i][1] == IGNORE).sum() for i in range(len(batches))) == 0
    assert len(batches) == 20 // (32 // 4) + 1 + 20 // (32 // 8)


@given(texts, sizes, sizes, st.integers(0, 5))
def test_running_text_is_cut_anew_each_epoch(lines, batch_size, block_size, epoch):
    """From a random token on, around the text: each token once, after its predecessor."""
    stream = stream_of(lines).tolist()
    batches = RunningText(np.array(stream, np.int32), EOS, batch_size, block_size)
    batches.draw_order(7, epoch)
    rows = [[] for _ in range(batch_size)]
    for i in range(len(batches)):
        for row, *pair in zip(rows, *map(torch.Tensor.tolist, batches[i]), strict=True):
            row += zip(*pair, strict=True)
    seen = [pair for row in rows for pair in row if pair[1] != IGNORE]
    pairs = list(zip([EOS, *stream], stream, strict=False))
    assert seen == pairs[batches.shift :] + pairs[: batches.shift]


@given(texts, lengths, lengths, st.integers(0, 5))
def test_sentences_are_grouped_anew_each_epoch(lines, batch_size, block_size, epoch):
    """Each line once, in batches of the same lengths as in text order."""
    plain, drawn = (Sentences(stream_of(lines), EOS, batch_size, block_size) for _ in range(2))
    drawn.draw_order(7, epoch)
    rows = [drawn.rows(i).tolist() for i in range(len(drawn))]
    assert sorted(row for batch in rows for row in batch) == list(range(len(lines)))
    for i, batch in enumerate(rows):
        assert [len(lines[row]) for row in batch] == [len(lines[row]) for row in plain.rows(i)]


@pytest.mark.parametrize("kind", [RunningText, Sentences])
def test_epochs_differ_and_are_repeatable(kind):
    tokens = stream_of([[i % 3] * (2 + i % 4) for i in range(400)])

    def drawn(seed: int, epoch: int) -> tuple[list, list]:
        batches = kind(tokens, EOS, 2, 8)
        order = batches.draw_order(seed, epoch).tolist()
        groups = (
            [batches.rows(i).tolist() for i in range(len(batches))]
            if kind is Sentences
            else batches.shift
        )
        return order, groups

    assert sorted(drawn(7, 2)[0]) == list(range(len(kind(tokens, EOS, 2, 8))))
    assert drawn(7, 2) == drawn(7, 2)
    for other in (drawn(7, 3), drawn(8, 2)):
        assert all(mine != theirs for mine, theirs in zip(drawn(7, 2), other, strict=True))


@given(texts, sizes, sizes, sizes, st.integers(1, 3))
def test_processes_and_micro_batches_share_each_batch(lines, rows, block_size, micro, processes):
    """The same targets for any number of processes and any micro-batch size.

    No micro-batch is larger than asked for, and all processes have as many.
    """
    stream = stream_of(lines)
    for kind in (RunningText, Sentences):
        whole = kind(stream, EOS, rows * processes, block_size)
        ranks = [
            kind(stream, EOS, rows * processes, block_size, micro, rank, processes)
            for rank in range(processes)
        ]
        for batches in (whole, *ranks):
            batches.draw_order(7, 1)
        for i in range(len(whole)):
            shares = [batches.micro_batches(i) for batches in ranks]
            assert len({len(share) for share in shares}) == 1
            parts = [targets for share in shares for _, targets in share]
            seen = torch.cat([targets[targets != IGNORE] for targets in parts])
            expected = whole[i][1][whole[i][1] != IGNORE]
            assert sorted(seen.tolist()) == sorted(expected.tolist())
            assert len(expected) == ranks[-1].count_targets(i)
            assert all(
                len(targets) == 1 or targets.numel() <= micro * block_size for targets in parts
            )


@pytest.mark.parametrize("kind", [RunningText, Sentences])
def test_batches_end(kind):
    batches = kind(stream_of([[1, 2]] * 5), EOS, 2, 3)
    assert len(list(batches)) == len(batches)
    for index in (-1, len(batches)):
        with pytest.raises(IndexError):
            batches[index]


def test_a_long_stream_stays_on_disk(tmp_path):
    path = tmp_path / "tokens"
    with path.open("wb") as file:
        file.truncate(4 * 200_000_000)  # a sparse file of 200 M tokens
    tracemalloc.start()
    batches = RunningText(np.memmap(path, np.int32, "r"), EOS, 8, 256)
    batches[len(batches) // 2]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6
