"""The table of a sweep, of made-up members."""

import json
import re

import pytest

from gcnn.base.errors import RunError, UsageError
from gcnn.reporting.sweep import (
    by_number,
    check_members,
    finished_results,
    search_warning,
    write_sweep,
)
from tests.reporting.conftest import made_up_results


@pytest.fixture
def make_member(tmp_path):
    """Writes a member with these overrides, done with this perplexity on validation, and returns
    its folder.
    """

    def make(perplexity, *overrides, tokenizer="one", unknown=0, parameters=1_000_000):
        number = len(list(tmp_path.glob("sweep/*/member.json")))
        folder = tmp_path / "sweep" / str(number)
        folder.mkdir(parents=True)
        (folder / "member.json").write_text(json.dumps({"overrides": list(overrides)}))
        if perplexity is not None:
            results = made_up_results("x", "local", perplexity / 1.04)
            results["data"] |= {"tokenizer_fingerprint": tokenizer, "fingerprint": tokenizer}
            results["parameters"]["total"] = parameters
            for split in ("validation", "test"):
                results[split] |= {
                    "text_fingerprint": split,
                    "unknown": unknown,
                    "out_of_vocabulary": unknown,
                }
                if unknown:
                    results[split] |= {"word_perplexity": None, "bits_per_byte": None}
            (folder / "results.json").write_text(json.dumps(results))
        return folder

    return make


def table_of(capsys, folder):
    """The rows of sweep.json, and the tables that are printed, as lists of cells."""
    capsys.readouterr()
    rows = write_sweep(folder)
    assert json.loads((folder / "sweep.json").read_text()) == rows
    text = capsys.readouterr().out
    page = (folder / "sweep.md").read_text()
    assert all(word in page for word in text.split("\nsweep: ")[0].split() if word.isalnum())
    return rows, text


def test_members_with_one_tokenizer_are_ranked_by_the_perplexity_per_token(
    make_member, tmp_path, capsys
):
    for perplexity, rate in ((120.0, 0.1), (None, 0.2), (80.0, 0.3)):
        make_member(perplexity, "seed=1", f"optimizer.lr={rate}", unknown=7)
    rows, text = table_of(capsys, tmp_path / "sweep")
    assert [(row["member"], row["rank"]) for row in rows] == [(2, 1), (0, 2), (1, None)]
    assert "anked" not in text
    assert "range" not in text


def test_members_with_several_tokenizers_are_ranked_per_word(make_member, tmp_path, capsys):
    """Here the second has the better perplexity per token, of shorter pieces."""
    first = make_member(100.0, "tokenizer.vocabulary_size=800", tokenizer="many")
    second = make_member(50.0, "tokenizer.vocabulary_size=100", tokenizer="few")
    results = json.loads((second / "results.json").read_text())
    results["validation"]["word_perplexity"] = 1e6
    (second / "results.json").write_text(json.dumps(results))
    rows, text = table_of(capsys, tmp_path / "sweep")
    assert [(row["member"], row["rank"]) for row in rows] == [(0, 1), (1, 2)]
    assert "validation, per word" in text
    assert "50.00" not in text
    assert "Ranked per word: perplexities per token compare only with the same tokenizer." in text
    assert search_warning(first) == search_warning(second) == ""


def test_members_that_do_not_compare_are_not_ranked(make_member, tmp_path, capsys):
    folders = [
        make_member(
            perplexity, f"tokenizer.min_count={count}", tokenizer=str(count), unknown=unknown
        )
        for perplexity, count, unknown in ((200.0, 1, 0), (40.0, 30, 50_000), (90.0, 5, 9_000))
    ]
    rows, text = table_of(capsys, tmp_path / "sweep")
    assert [(row["member"], row["rank"]) for row in rows] == [(0, None), (1, None), (2, None)]
    assert [row["validation_word_perplexity"] is None for row in rows] == [False, True, True]
    assert [row["validation_unknown_words"] for row in rows] == [0, 50_000, 9_000]
    assert "validation, per token" in text
    assert "Not ranked: " in text
    assert "(50,000 of 216,646 are for one)" in text
    assert search_warning(folders[0]) == ""  # the others are older than it: they have been told


def test_a_search_says_which_member_is_the_first_that_does_not_compare(make_member):
    first = make_member(200.0, "tokenizer.min_count=1", tokenizer="1")
    assert search_warning(first) == ""
    second = make_member(40.0, "tokenizer.min_count=9", tokenizer="9", unknown=50_000)
    warning = search_warning(second)
    assert warning.startswith(
        "member 1: perplexities per token compare only with the same tokenizer"
    )
    assert "50,000 of 216,646 words are unknown" in warning
    assert (
        search_warning(make_member(30.0, "tokenizer.min_count=99", tokenizer="99", unknown=60_000))
        == ""
    )


def test_members_that_differ_in_their_seed_alone_have_a_line_of_mean_and_range(
    make_member, tmp_path, capsys
):
    for gate, perplexities in (
        ("glu", (100.0, 104.0, 111.0)),
        ("relu", (90.0, 99.0)),
        ("tanh", (70.0,)),
    ):
        for seed, perplexity in enumerate(perplexities):
            make_member(perplexity, f"model.gate={gate}", f"seed={seed}", "trainer.max_steps=3")
    make_member(None, "model.gate=tanh", "seed=1", "trainer.max_steps=3")
    # A search may draw the same twice: a run that is repeated says nothing about seeds.
    for _ in range(2):
        make_member(60.0, "model.gate=gtu", "seed=1", "trainer.max_steps=3")
    rows, text = table_of(capsys, tmp_path / "sweep")
    assert len(rows) == 9
    lines = text.split("\n\n")[1].splitlines()
    assert lines[0].split("  ")[0] == "members"
    assert [line.split()[:3] for line in lines[1:3]] == [["3,", "4", "relu"], ["0,", "1,", "2"]]
    assert "94.50 (90.00 to 99.00)" in lines[1]
    assert "105.00 (100.00 to 111.00)" in lines[2]
    assert not {"tanh", "gtu"} & set(text.split("\n\n")[1].split())


@pytest.mark.parametrize(("perplexities", "told"), [
    ({"1e-3": 90, "1e-2": 80, "1e-1": 85}, None),
    ({"1e-3": 90, "1e-2": 80, "1e-1": "diverged"}, None),
    ({"1e-3": 90, "1e-2": 80, "1e-1": None}, "member 1 (optimizer.lr=0.01)"),
    ({"1e-2": 80, "1e-1": 85, "1e-3": 90, "3e-3": 70}, None),
    ({"1e-3": 80, "1e-2": 90}, "member 0 (optimizer.lr=0.001)"),
    ({"1e-3": 80}, None),
])  # fmt: skip
def test_a_best_learning_rate_at_the_edge_of_its_grid_is_told(
    make_member, tmp_path, capsys, perplexities, told
):
    for rate, perplexity in perplexities.items():
        diverged = perplexity == "diverged"
        overrides = ["model.gate=glu", f"optimizer.lr={rate}"]
        folder = make_member(None if diverged else perplexity, *overrides)
        if diverged:
            member = {"overrides": overrides, "error": "loss nan", "diverged": True}
            (folder / "member.json").write_text(json.dumps(member))
    make_member(95, "model.gate=relu", "optimizer.lr=1e-2")  # another model: its rate is no edge
    _, text = table_of(capsys, tmp_path / "sweep")
    found = re.findall(r"The best learning rate is the lowest or highest tried: (.*)\. One", text)
    assert found == ([told] if told else [])


@pytest.mark.parametrize(
    ("sizes", "told"), [((1_000_000, 1_040_000), False), ((1_600_000, 3_200_000), True)]
)
def test_members_of_several_sizes_are_told(make_member, tmp_path, capsys, sizes, told):
    for gate, size in zip(("relu", "glu"), sizes, strict=True):
        make_member(100.0, f"model.gate={gate}", parameters=size)
    _, text = table_of(capsys, tmp_path / "sweep")
    assert ("differ in size" in text) == told
    assert ("from 1.6 M parameters (member 0) to 3.2 M (member 1)" in text) == told
    assert ("model.blocks" in text) == told


def test_members_are_called_as_their_folders_are(make_member, tmp_path, capsys):
    for perplexity, rate, seed in ((110, "0.1", "1"), (100, "0.3", "1"), (102, "0.3", "2")):
        folder = make_member(perplexity, f"optimizer.lr={rate}", f"seed={seed}")
        folder.rename(folder.with_name(f"lr_{rate}_seed_{seed}"))
    make_member(None, "optimizer.lr=0.5", "seed=1")
    rows, text = table_of(capsys, tmp_path / "sweep")
    assert [row["member"] for row in rows] == [
        "lr_0.3_seed_1", "lr_0.3_seed_2", "lr_0.1_seed_1", 3,
    ]  # fmt: skip
    assert "lr_0.3_seed_1, lr_0.3_seed_2" in text  # whose mean stands there
    with pytest.raises(RunError, match="1 of 4 members failed: 3"):
        check_members(rows)


@pytest.mark.parametrize(
    ("before", "changed"),
    [
        (["lr=1", "seed=1"], None),
        (["lr=1", "seed=1", "seed=1"], None),
        ([None, "seed=1", "lr=1"], None),
        ([None, "seed=1", "lr=2"], r"\(lr=1, lr=2\)"),
    ],
)
def test_a_member_is_done_only_with_the_overrides_that_it_was_begun_with(
    make_member, before, changed
):
    folder = make_member(100.0, *before)
    if changed is None:
        assert finished_results(folder, ["lr=1", "seed=1"]).test.perplexity == 100 / 1.04
        return
    with pytest.raises(UsageError, match=f"other overrides {changed}"):
        finished_results(folder, ["lr=1", "seed=1"])


@pytest.mark.parametrize("members", [[10, 2, 1, 0], ["lr_0.03", "lr_0.1"]])
def test_members_come_in_the_order_of_their_numbers(members):
    assert sorted(members, key=by_number) == members[::-1]
