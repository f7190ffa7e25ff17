"""Weights on disk: what comes back is what was written, or nothing does."""

import os
import random

import pytest
import safetensors.torch
import torch
from torch import nn

from gcnn.base.errors import RunError, UsageError
from gcnn.models.weights import (
    assign_weights,
    digest,
    load_weights,
    read_metadata,
    read_weights,
    save_weights,
)

TOKENIZER = "0123abcd"


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    weights = {
        "a": torch.randn(40, 3),
        "b": torch.randn(7).bfloat16(),
        "c": torch.tensor(3.5),
        "d": torch.zeros(0, 2),
    }
    save_weights(weights, tmp_path / "model.safetensors", TOKENIZER)
    return weights, tmp_path / "model.safetensors"


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def test_tensors_come_back(saved):
    weights, path = saved
    found = read_weights(path, TOKENIZER)
    assert same(found, weights)
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        n: t.dtype for n, t in weights.items()
    }


def test_equal_weights_are_equal_files(saved, tmp_path):
    """A map of several entries is written in an order that differs from one write to the next."""
    weights, path = saved
    for number in range(8):
        other = tmp_path / f"{number}.safetensors"
        save_weights(dict(reversed(weights.items())), other, TOKENIZER)
        assert other.read_bytes() == path.read_bytes()


def test_a_file_with_an_entry_for_each_fact_stays_readable(saved, tmp_path):
    weights, facts = saved[0], {"sha256": digest(saved[0]), "tokenizer": TOKENIZER}
    safetensors.torch.save_file(weights, tmp_path / "old.safetensors", facts)
    assert same(read_weights(tmp_path / "old.safetensors", TOKENIZER), weights)
    assert read_metadata(tmp_path / "old.safetensors") == facts == read_metadata(saved[1])


@pytest.mark.parametrize("entry", ["", "[]", "[" * 100_000, "7"])
def test_metadata_that_is_none_of_ours_is_damage(saved, tmp_path, entry):
    safetensors.torch.save_file(saved[0], tmp_path / "other.safetensors", {"gcnn": entry})
    with pytest.raises(RunError, match="damaged"):
        read_weights(tmp_path / "other.safetensors")


def test_a_flipped_bit_is_never_read_as_a_weight(saved):
    """In header or tensors: the file is refused, or what is read is what was written."""
    weights, path = saved
    content = path.read_bytes()
    draw = random.Random(1)
    refused = 0
    places = [draw.randrange(8 * len(content)) for _ in range(300)]
    for place in places:
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found = read_weights(path)
        except RunError:
            refused += 1
        else:
            assert same(found, weights)
    tensors = sum(tensor.nbytes for tensor in weights.values())
    assert refused >= sum(place // 8 >= len(content) - tensors for place in places) > 50


@pytest.mark.parametrize("part", [0, 4, 20, 0.5, -1])
def test_a_truncated_file_is_refused(saved, part):
    path = saved[1]
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content)) if isinstance(part, float) else part])
    with pytest.raises(RunError, match="damaged"):
        read_weights(path)


def test_weights_of_another_tokenizer_are_refused(saved):
    with pytest.raises(UsageError, match="another tokenizer"):
        read_weights(saved[1], "another")


def test_weights_of_another_model_are_refused(saved):
    with pytest.raises(
        UsageError, match=r"is of another model: a is \(40, 3\) there and absent in the config"
    ):
        assign_weights(nn.Linear(3, 2), *saved)


def test_absent_weights_are_named(tmp_path):
    with pytest.raises(UsageError, match="holds no model"):
        load_weights(nn.Linear(3, 2), tmp_path / "model.safetensors")


@pytest.mark.parametrize("umask", [0o077, 0o002])
def test_weights_have_the_mode_of_the_umask(tmp_path, umask):
    previous = os.umask(umask)
    try:
        save_weights({"a": torch.ones(3)}, tmp_path / "model.safetensors", "tokenizer")
        (tmp_path / "other").touch()
    finally:
        os.umask(previous)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
