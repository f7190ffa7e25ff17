"""Both kinds of batches against the plain definition: every token a target once, after the token before it."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcnn.data.batches import IGNORE, RunningText, Sentences, shuffled

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
        for row, pairs in zip(rows, zip(tokens.tolist(), targets.tolist(), strict=True), strict=True):
            row += zip(*pairs, strict=True)
    seen = [pair for row in rows for pair in row if pair[1] != IGNORE]
    assert seen == list(zip([EOS, *stream], stream, strict=False))  # in order, once, each after the one before it
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
        for row, inputs, outputs in zip(batches.rows(i).tolist(), tokens.tolist(), targets.tolist(), strict=True):
            line, padding = lines[row], tokens.shape[1] - len(lines[row]) - 1
            assert inputs == [EOS, *line] + [EOS] * padding
            assert outputs == [*line, EOS] + [IGNORE] * padding
            seen.append(row)
    assert sorted(seen) == list(range(len(lines)))


def test_sentences_of_equal_length_need_no_padding():
    lines = [[1] * (7 if i % 2 else 3) for i in range(40)]
    batches = Sentences(stream_of(lines), EOS, 4, 8)
    assert sum((batches[i][1] == IGNORE).sum() for i in range(len(batches))) == 0
    assert len(batches) == 20 // (32 // 4) + 1 + 20 // (32 // 8)


def test_shuffled_order_is_random_and_repeatable():
    order = list(shuffled(50, epoch=2, seed=7))
    assert sorted(order) == list(range(50))
    assert order != list(shuffled(50, epoch=3, seed=7))
    assert order != list(shuffled(50, epoch=2, seed=8))
    assert order == list(shuffled(50, epoch=2, seed=7))  # drawn anew: only the newest order is kept


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
