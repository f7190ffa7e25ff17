"""Layer strings become blocks, and nothing in them is evaluated."""

import pytest

from gcnn.base.errors import UsageError
from gcnn.interop.fairseq_layers import blocks_of, parse_layers


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("[(850, 6)] * 3 + [(850, 1)]", [([[6, 850]], 3, True), ([[1, 850]], 1, True)]),
        ("2 * [(4, 1, 0), (4, 5, 0), (8, 1, 3)]", [([[1, 4], [5, 4], [1, 8]], 2, True)]),
        ("((4, 1, 0),) * 2 + ((4, 5),)", [([[1, 4]], 2, False), ([[5, 4]], 1, True)]),
        ("[(4, 1, 0), (4, 2, 2)]", [([[1, 4], [2, 4]], 1, True)]),
    ],
)
def test_fairseq_layer_strings(text, blocks):
    found = blocks_of(parse_layers(text))
    assert [(block.convs, block.repeat, block.residual) for block in found] == blocks


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "[(512, 5)] * (10 ** 9)",
        "[(512, 5)] * 1000000000",
        "[(512, 5)] * 1000 * 1000 * 1000",
        "[[[(512, 5)] * 1000] * 1000] * 1000",
        "[(512, 5)] * -1",
        "[(x, 5) for x in (1, 2)]",
        "[(512, 5)] - [(512, 5)]",
        "[*[(512, 5)]]",
        "[(512, 5)][0]",
        "[(512, 5)] + ((512, 5),)",
        "[(512, 5.0)]",
        "[(512, True)]",
        "[('512', 5)]",
        "[(512,)]",
        "[(512, 5, 1, 1)]",
        "[(0, 5)]",
        "[(512, -5)]",
        "[(512, 5, -1)]",
        "[(1000000, 5)]",
        "[512, 5]",
        "[(9" + "9" * 5000 + ", 5)]",
        "(" * 5000,
        "-" * 9000 + "1",
        "[]" + "+[]" * 3000,
        "[(512, 5)] * 2;",
        "[(512, 5)]\0",
        "[]",
        "7",
        "",
        None,
        [(512, 5)],
    ],
    ids=lambda text: repr(text)[:30],
)
def test_fairseq_hostile_layer_strings(text):
    with pytest.raises(UsageError, match="decoder_layers") as refused:
        parse_layers(text)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "text", ["[(4, 1, 2)]", "[(4, 1), (4, 1, 2)]", "[(4, 1, 0), (4, 1, 2), (4, 1, 3)]"]
)
def test_fairseq_residuals_that_are_no_blocks(text):
    with pytest.raises(UsageError, match=r"decoder_layers\[\d\]"):
        blocks_of(parse_layers(text))
