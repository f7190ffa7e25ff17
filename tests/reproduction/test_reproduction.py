"""Figures and verdicts from made-up runs, against numbers worked out by hand."""

import dataclasses
import json
import math
import re
import shlex
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest

from gcnn.base.errors import UsageError
from gcnn.reporting.latency import load_latency
from gcnn.reproduction.claims import CLAIMS
from gcnn.reproduction.comparisons import validation_means
from gcnn.reproduction.figures import describe_size, drawing, groups_table
from gcnn.reproduction.kept_runs import read_runs
from gcnn.reproduction.page import between_markers, generated_part, reproduction_blocks
from gcnn.reproduction.records import load_records, make_record, reproduce_command, write_record
from tests.conftest import ROOT
from tests.reproduction.made_up import add, add_gates, group
from tests.reproduction.made_up import record as made_up_record

DOCS = ROOT / "docs"


def test_groups_have_the_mean_and_range_of_their_seeds(tmp_path):
    add_gates(tmp_path, {"glu": [110.0, 100.5, 120.25], "tanh": [200.0]})
    record = make_record("fig3", "cpu", read_runs(tmp_path))
    glu, tanh = record.groups
    assert [(g.group, g.variant) for g in (glu, tanh)] == [("glu", "0.003"), ("tanh", "0.003")]
    assert glu.mean == pytest.approx(np.mean([110.0, 100.5, 120.25]), rel=1e-5)
    assert (glu.min, glu.max, len(tanh.test_perplexity)) == (100.5, 120.25, 1)
    assert glu.curve.steps == [100, 200, 300]
    assert drawing(record).caption.endswith("; mean of 1 to 3 seeds and range")
    burst = dataclasses.replace(
        tanh, curve=dataclasses.replace(tanh.curve, perplexity={"1": [400.0, 70_000.0, 300.0]})
    )
    picture = drawing(dataclasses.replace(record, groups=[glu, burst]))
    assert (
        "; higher than the picture: tanh, learning rate 0.003 (70,000); mean of" in picture.caption
    )
    assert "10,000" not in picture.svg
    assert describe_size(dataclasses.replace(record, groups=[glu])).endswith("; 3 seeds")
    arguments = "data.path=DIR tokenizer.vocabulary=FILE"  # no path of this machine
    assert record.command == f'make reproduce FIGURE=fig3 SCALE=cpu ARGS="{arguments}"'


def test_trials_of_a_search_are_told_by_what_they_drew(tmp_path):
    add(tmp_path, "trainer.carry_state=false", "optimizer.lr=0.02", test=120.0, valid=[130.0])
    add(tmp_path, "trainer.carry_state=false", "optimizer.lr=0.01", test=119.0, valid=[131.0])
    lstm = ["model=lstm_small", "model.dropout=0.3", "model.output_dropout=0.5"]
    add(tmp_path, *lstm, test=110.0, valid=[115.0])
    add(tmp_path, *lstm, "optimizer.lr=0.5")
    groups = make_record("search", "cpu", read_runs(tmp_path)).groups
    assert len(groups) == 4  # not seeds of one
    gcnn, lstm = groups[0].title, groups[2].title
    assert all(part in gcnn for part in ("GCNN; lookup 128; ", "learning rate 0.02;"))
    assert "carried" not in gcnn
    assert all(part in lstm for part in ("LSTM;", "dropout 0.3/0.5;", "state carried"))


def test_a_run_that_diverged_counts_as_infinitely_bad_and_one_that_failed_otherwise_as_nothing(
    tmp_path,
):
    add_gates(tmp_path, {"glu": [1, 2, 3], "relu": [4, 5, 6], "gtu": [7, 8, 9]})
    for seed in (1, 2, 3):
        add(
            tmp_path,
            "model.gate=tanh",
            seed=seed,
            error="step 7: loss nan, gradient norm nan; not updated.",
        )
    record = make_record("fig3", "cpu", read_runs(tmp_path))
    assert record.groups[-1].diverged == [1, 2, 3]
    assert "diverged: tanh, learning rate 0.003 (3)" in drawing(record).caption
    other = tmp_path.with_name("other")
    add(other, "model.gate=tanh", error="No space left on device.")
    group = make_record("fig3", "cpu", read_runs(other)).groups[0]
    assert (group.diverged, group.unfinished) == ([], [1])


def test_the_drawing_of_contexts():
    record = made_up_record(
        "fig4", *(group(words, [200.0, 201.0]) for words in ("1", "7", "19", "49"))
    )
    record.groups[0] = group("1", [300.0, 310.0])
    texts = [
        element.text
        for element in ElementTree.fromstring(drawing(record).svg).findall(".//{*}text")
    ]
    texts = [text for text in texts if not text.isdecimal()]  # without those at the ticks
    assert texts == ["words of context", "test perplexity (log scale)"]


def test_the_softmaxes_are_told_by_their_operations(tmp_path):
    add(tmp_path, "model.cutoffs=[]", test=99.0, flops=8e6)
    add(tmp_path, test=100.0, flops=4e6)
    record = make_record("fig2", "cpu", read_runs(tmp_path))
    assert [group.group for group in record.groups] == [
        "adaptive softmax, [4, 128] × 6", "full softmax, [4, 128] × 6",
    ]  # fmt: skip
    assert "softmax" in drawing(record).svg


def test_the_models_of_figure_s_are_told_by_shape_size_and_rate(tmp_path):
    for tokens, gcnn, lstm in ((2_000_000, 130.0, 100.0), (20_000_000, 90.0, 95.0)):
        add(tmp_path, f"data.train_tokens={tokens}", test=gcnn)
        add(tmp_path, f"data.train_tokens={tokens}", "model=cpu/lstm_376", test=lstm)
    deep = ["data.train_tokens=20000000", "model.blocks=[{convs:[[4,8]],repeat:9}]"]
    add(tmp_path, *deep, test=99.0, valid=[160.0])
    add(tmp_path, *deep, "optimizer.lr=0.1", test=98.0, valid=[150.0])
    for number, perplexity in enumerate((260.0, 200.0, 180.0, 190.0)):
        text = json.dumps(
            {"perplexity": perplexity, "tokens": 1000, "unknown": 35, "nll_nats": 1.0}
        )
        (tmp_path / str(number) / "wikitext103.json").write_text(text)
    record = make_record("figs", "wikipedia", read_runs(tmp_path))
    deep = "GCNN, 9 layers, first 20 M tokens"
    assert [(group.group, group.lr) for group in record.groups if group.group == deep] == [
        (deep, 0.003),
        (deep, 0.1),
    ]
    _, at_20_million = CLAIMS["figs"].compare(record)
    expected = "90.00 / 95.00 = 0.947, on WikiText-103's test set 180.00 / 190.00"
    assert at_20_million.evidence == expected
    assert groups_table(record).rows[0][-2:] == ["260.00", "3.5%"]
    texts = [
        element.text
        for element in ElementTree.fromstring(drawing(record).svg).findall(".//{*}text")
    ]
    assert {
        "million tokens of text (log scale)",
        "2",
        "20",
        "GCNN, 6 layers",
        "GCNN, 9 layers",
        "LSTM, 1 × 376, projection 128",
    } <= set(texts)


def test_what_is_written_is_read_again(tmp_path):
    add_gates(tmp_path / "fig3", {"glu": [1, 2, 3], "relu": [4, 5, 6]})
    record = make_record("fig3", "cpu", read_runs(tmp_path / "fig3"))
    write_record(record, tmp_path / "out" / "cpu", drawing(record).svg)
    assert load_records(tmp_path / "out") == {"cpu": {"fig3": record}}
    rows = (tmp_path / "out" / "cpu" / "fig3.csv").read_text().splitlines()
    assert len(rows) == 3
    assert make_record("fig3", "cpu", read_runs(tmp_path / "nothing")) is None


def test_a_record_under_another_name_is_refused(tmp_path):
    add_gates(tmp_path / "fig3", {"glu": [1]})
    record = make_record("fig3", "cpu", read_runs(tmp_path / "fig3"))
    write_record(record, tmp_path / "out" / "cpu", None)
    path = tmp_path / "out" / "cpu" / "fig3.json"
    for copy in ("cpu/fig4.json", "wikipedia/fig3.json"):
        other = tmp_path / "out" / copy
        other.parent.mkdir(exist_ok=True)
        other.write_text(path.read_text())
        with pytest.raises(UsageError, match=copy):
            load_records(tmp_path / "out")
        other.unlink()


def test_a_validation_that_was_not_finite_is_a_gap_in_the_drawing_and_worse_than_any(tmp_path):
    add(tmp_path / "fig3", "model.gate=glu", test=5.0)
    add(tmp_path / "fig3", "model.gate=gtu", test=6.0, valid=(300.0, None, 150.0))
    record = make_record("fig3", "cpu", read_runs(tmp_path / "fig3"))
    picture = drawing(record)
    assert re.search("not finite at a validation: [^,;]*(gtu|GTU)", picture.caption)
    [gtu] = [g for g in record.groups if None in g.curve.perplexity["1"]]
    assert [mean.log for _, mean in validation_means(gtu)][1] == math.inf


def test_seeds_without_a_validation_in_common_have_no_curve_and_are_named():
    apart = group("gtu", [6.0, 7.0])
    both = made_up_record("fig3", group("glu", [5.0], curve=(9.0, 7.0)), apart)
    caption = "without a finite validation that all seeds have: gtu, learning rate 0.03;"
    assert caption in drawing(both).caption
    assert drawing(made_up_record("fig3", apart)) is None


def test_the_command_of_a_figure_gives_its_overrides_as_they_were_typed(tmp_path):
    typed = ["data.path=DIR", "model.blocks=[{convs: [[2, 8]]}]", r"""data.name="it's $x`\a\"."""]
    command = reproduce_command("fig3", "cpu", shlex.join(["python", "train.py", *typed]))
    (tmp_path / "Makefile").write_text("reproduce:\n\t@printf '%s\\n' $(ARGS)\n")
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines() == typed


@pytest.mark.parametrize("text", ["{", "[1]", "null"])
def test_a_damaged_measurement_of_wikitext_103_is_a_usage_error(text, tmp_path):
    add(tmp_path, test=5.0)
    (tmp_path / "0" / "wikitext103.json").write_text(text)
    with pytest.raises(UsageError, match=r"wikitext103\.json is"):
        read_runs(tmp_path)


def test_a_command_with_an_open_quote_is_a_usage_error(tmp_path):
    add(tmp_path, test=5.0)
    path = tmp_path / "0" / "results.json"
    path.write_text(path.read_text().replace("python scripts", "python 'scripts"))
    with pytest.raises(UsageError, match=r"0/results\.json: the command .*No closing quotation"):
        read_runs(tmp_path)


def test_a_validation_before_any_update_is_the_end_of_its_curve():
    alone = group("glu", [5.0], curve=(9.0,))
    alone.curve.steps = [0]
    [(part, mean)] = validation_means(alone)
    assert (part, mean.log) == (1.0, pytest.approx(math.log(9.0)))


def test_the_results_in_the_docs_are_the_committed_ones():
    records = load_records(DOCS / "results" / "reproduction")
    latency = load_latency(DOCS / "results" / "latency_gcnn_8b.json")
    _, part, _ = between_markers((DOCS / "REPRODUCTION.md").read_text(), "docs/REPRODUCTION.md")
    assert part == generated_part(reproduction_blocks(records, latency))
    names = [
        *(f"Table {number}" for number in (2, 3, 4)),
        *(f"Figure {number}" for number in range(2, 7)),
    ]
    for figure in names:
        assert f"\n| {figure} |" in part
