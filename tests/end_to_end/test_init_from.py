"""Fine-tuning: a run that begins with the weights and the tokenizer of another."""

import dataclasses
import json
import re
import shutil

import pytest
import safetensors.torch
import torch

from gcnn.config.stored import load_config


@pytest.fixture
def text(tmp_path):
    """A corpus with a word that the source never saw."""
    folder = tmp_path / "text"
    folder.mkdir()
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text("w3 w7 w14 w21 novel w35\n" * 30)
    return folder


def arguments(tiny, text, out, *more):
    changed = [a for a in tiny if not a.startswith(("data.path", "run_dir"))]
    return [*changed, f"data.path={text}", f"run_dir={out}", *more]


def lines(run, kind):
    found = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in found if line["kind"] == kind]


def test_it_begins_as_the_source_evaluates_and_records_where_from(
    call, tiny, trained, text, tmp_path
):
    out = tmp_path / "tuned"
    done = call("train", *arguments(tiny, text, out, f"init_from={trained}", "model.dropout=0.2"))
    assert done.code == 0, done.err
    judged = call(
        "evaluate",
        "--run",
        trained,
        "--data-path",
        text,
        "--split",
        "valid",
        "--json",
        "--device",
        "cpu",
    )
    source = json.loads(judged.out)
    first, *later = lines(out, "validation")
    assert first["step"] == 0
    assert first["perplexity"] == pytest.approx(source["perplexity"], rel=1e-5)
    assert source["unknown"] == 30  # its vocabulary stays
    results = json.loads((out / "results.json").read_text())
    assert results["validation"]["unknown"] == 30
    assert (
        results["validation"]["perplexity"]
        == min(line["perplexity"] for line in later)
        < first["perplexity"]
    )
    assert results["init_from"] == load_config(out).init_from == str(trained)
    for name in ("tokenizer.json", "vocabulary.txt"):
        assert (out / "tokenizer" / name).read_bytes() == (
            trained / "tokenizer" / name
        ).read_bytes()


def test_without_a_better_step_the_weights_stay_those_of_the_source(
    call, tiny, trained, text, tmp_path
):
    out = tmp_path / "tuned"
    done = call(
        "train",
        *arguments(
            tiny,
            text,
            out,
            f"init_from={trained}",
            "optimizer=nesterov",
            "optimizer.lr=1e30",
            "trainer.clip_norm=null",
            "trainer.max_steps=1",
        ),
    )
    assert done.code == 0, done.err
    first, second = (
        safetensors.torch.load_file(run / "model.safetensors") for run in (trained, out)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_going_on_does_not_need_the_source_again(call, tiny, run_dir, text, tmp_path):
    source = run_dir.rename(tmp_path / "source")
    out = tmp_path / "tuned"
    assert call("train", *arguments(tiny, text, out, f"init_from={source}")).code == 0
    shutil.rmtree(source)
    done = call("train", f"run_dir={out}", "resume=true", "trainer.max_steps=25")
    assert done.code == 0, done.err
    assert [line["step"] for line in lines(out, "validation")] == [0, 10, 20, 25]
    assert load_config(out).init_from == str(source)


def test_the_source_may_be_the_newest_run_but_not_in_a_sweep(
    call, tiny, run_dir, text, tmp_path, monkeypatch
):
    shutil.copytree(run_dir, tmp_path / "runs" / "older" / "source")
    monkeypatch.chdir(tmp_path)
    asked = arguments(tiny, text, tmp_path / "tuned", "init_from=latest", "trainer.max_steps=1")
    done = call("train", *asked)
    assert done.code == 0, done.err
    assert "run: runs/older/source\n" in done.err
    assert load_config(tmp_path / "tuned").init_from == str(tmp_path / "runs" / "older" / "source")

    sweep = [word for word in asked if not word.startswith(("run_dir", "init_from"))]
    for name in ("latest", "runs"):
        done = call("train", "--multirun", *sweep, f"init_from={name}", "seed=1,2")
        assert (done.code, done.out) == (2, "")
        assert f"init_from={name} is not one run, and in a sweep" in done.err


@pytest.mark.parametrize(("change", "named"), [
    ("model.gate=gtu", "model.gate of .* is glu, not gtu"),
    ("model=lstm_small", "model.kind of .* is gcnn, not lstm"),
    ("tokenizer=sentencepiece", "tokenizer.kind of .* is word, not sentencepiece"),
    ("tokenizer.min_count=2", "tokenizer.min_count of .* is 1, not 2"),
])  # fmt: skip
def test_another_architecture_or_tokenizer_is_refused(
    call, tiny, trained, text, tmp_path, change, named
):
    tiny = [a for a in tiny if change != "model=lstm_small" or not a.startswith("model.blocks")]
    done = call("train", *arguments(tiny, text, tmp_path / "tuned", f"init_from={trained}", change))
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert re.match(f"error: init_from: {named}. Leave the model and the tokenizer out", done.err)
    assert not (tmp_path / "tuned").exists()


def test_the_model_and_the_tokenizer_are_those_of_the_source(call, trained, text, tmp_path):
    """Neither is named here; the default experiment's are others."""
    out = tmp_path / "tuned"
    source = load_config(trained)
    asked = [
        "experiment=quickstart",
        f"init_from={trained}",
        "data=local",
        f"data.path={text}",
        "model.dropout=0.25",
        "trainer.max_steps=1",
        "trainer.block_size=4",
        "device=cpu",
        "threads=1",
        f"run_dir={out}",
    ]
    done = call("train", *asked)
    assert done.code == 0, done.err
    tuned = load_config(out)
    assert f"init_from: model as in {trained}\ninit_from: tokenizer as in {trained}\n" in done.err
    assert tuned.tokenizer == source.tokenizer
    assert tuned.model == dataclasses.replace(source.model, dropout=0.25)
    again = call("train", *asked[:-1], f"run_dir={tmp_path / 'other'}", "model=lstm_small")
    assert again.code == 2
    assert "Leave the model and the tokenizer out" in again.err
