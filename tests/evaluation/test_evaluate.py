import gzip
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from gcnn.base.errors import UsageError
from gcnn.config.stored import load_config, save_config
from gcnn.data.stream import encode_file
from gcnn.data.tokenizers import WordTokenizer, load_tokenizer
from gcnn.evaluation.perplexity import evaluate
from gcnn.evaluation.run import choose_device
from gcnn.models.language_model import build_model
from gcnn.models.weights import WEIGHTS, load_weights


def test_a_loaded_model_computes_what_was_trained_without_its_normalisation(run_dir, run):
    trained = build_model(load_config(run_dir).model, run.tokenizer.vocabulary_size).eval()
    load_weights(trained, run_dir / WEIGHTS)
    tokens = torch.randint(
        run.tokenizer.vocabulary_size, (3, 25), generator=torch.Generator().manual_seed(1)
    )
    hidden, loaded = trained(tokens)[0], run.model(tokens)[0]
    torch.testing.assert_close(loaded, hidden, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        run.model.log_prob(loaded), trained.log_prob(hidden), atol=1e-5, rtol=0
    )
    assert not run.model.training
    assert not any("parametrizations" in name for name, _ in run.model.named_modules())


@pytest.mark.parametrize("split", ["valid", "test", "train"])
def test_the_figures_of_a_split_are_those_of_its_text(split, run_dir, run, corpus, call):
    expected = evaluate(run.model, encode_file(corpus / f"{split}.txt", run.tokenizer))
    outcome = call(
        "evaluate",
        "--run",
        run_dir,
        "--split",
        split,
        "--json",
        "--block-size",
        50,
        "--batch-size",
        3,
    )
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads(outcome.out)
    for key in ("word_perplexity", "bits_per_byte"):  # None where words are unknown
        assert (found[key] is None) == (expected[key] is None) == (run.tokenizer.kind == "word")
    known = {key: value for key, value in expected.items() if value is not None}
    assert {key: found[key] for key in known} == pytest.approx(known, rel=1e-6)


@pytest.mark.parametrize("how", [[], ["--per-word"]])
def test_a_split_whose_text_has_changed_since_the_run_is_said(
    gcnn_dir, corpus, call, how, tmp_path
):
    """Not of another text that the user chooses, nor of the same text in another place."""
    copied = shutil.copytree(corpus, tmp_path / "text")
    config = load_config(gcnn_dir)
    config.data.path = str(copied)
    save_config(config, gcnn_dir / "config.yaml")
    measured = {}
    for name, split in (("validation", "valid"), ("test", "test")):
        stream = encode_file(copied / f"{split}.txt", load_tokenizer(gcnn_dir / "tokenizer"))
        measured[name] = {"text_fingerprint": stream.text_fingerprint}
    (gcnn_dir / "results.json").write_text(json.dumps(measured))
    command = ["evaluate", "--run", gcnn_dir, *how]
    assert call(*command, "--split", "valid").err == ""
    with (copied / "valid.txt").open("a") as file:
        file.write("w1\n")
    said = call(*command, "--split", "valid").err
    assert said.startswith("warning: the text of the valid split has changed: ")
    assert said.endswith("/run/results.json measured another.\n")
    assert call(*command, "--split", "test").err == ""
    assert call(*command, "--split", "valid", "--data-path", copied).err == ""


def test_any_file_or_folder_can_take_the_place_of_the_data(made_runs, corpus, tmp_path, call):
    run_dir = made_runs["gcnn", "word"]
    other = tmp_path / "other"
    other.mkdir()
    for split, source in {"train": "test", "valid": "train", "test": "valid"}.items():
        shutil.copy(corpus / f"{source}.txt", other / f"{split}.txt")
    valid = call("evaluate", "--run", run_dir, "--split", "valid", "--json").out
    assert call("evaluate", "--run", run_dir, "--data-path", other, "--json").out == valid
    assert call("evaluate", "--run", run_dir, "--file", corpus / "valid.txt", "--json").out == valid


def test_a_line_each_adds_up_to_the_whole(run_dir, corpus, call):
    text = (corpus / "test.txt").read_text().splitlines()
    for mode in ("--sentences", "--no-sentences"):
        whole = json.loads(call("evaluate", "--run", run_dir, mode, "--json").out)
        rows = [
            row.split("\t")
            for row in call("evaluate", "--run", run_dir, mode, "--per-line").out.splitlines()
        ]
        assert len(rows) == len(text)
        assert -sum(float(log_prob) for log_prob, _ in rows) == pytest.approx(
            whole["nll_nats"], rel=1e-6
        )
        assert sum(int(tokens) for _, tokens in rows) == whole["tokens"]
        assert [int(tokens) == 1 for _, tokens in rows] == [line == "" for line in text]


def test_a_line_a_token_comes_in_the_order_of_the_text(run_dir, run, corpus, call, reference):
    outcome = call("evaluate", "--run", run_dir, "--per-token", "--block-size", 7)
    rows = [row.split("\t") for row in outcome.out.splitlines()]
    tokens = encode_file(corpus / "test.txt", run.tokenizer).tokens.tolist()
    expected = reference(run, tokens).tolist()
    assert [-float(log_prob) for _, log_prob in rows] == pytest.approx(expected, abs=1e-5)
    words = " ".join(name for name, _ in rows).split("<eos>")
    assert len(words) == len((corpus / "test.txt").read_text().split("\n"))
    if run.tokenizer.kind == "word":
        assert [run.tokenizer.index[name] for name, _ in rows] == tokens


def test_the_readable_table_has_the_same_figures(gcnn_dir, call):
    found = json.loads(call("evaluate", "--run", gcnn_dir, "--json").out)
    table = call("evaluate", "--run", gcnn_dir).out
    assert f"{found['perplexity']:,.2f}" in table
    unknown = f"{found['out_of_vocabulary']} of {found['words']} words are unknown"
    assert found["out_of_vocabulary"] == found["unknown"] > 0
    assert table.splitlines()[3].split() == ["per", "word", "–"]
    assert table.splitlines()[-1].startswith(f"per word, bits per byte: {unknown}")
    assert f"{found['tokens']:,}" in table
    assert (
        f"without unknown tokens{found['known_perplexity']:16,.2f}".split()
        == table.splitlines()[2].split()
    )
    assert table.splitlines()[-4].split() == ["unknown", "tokens", str(found["unknown"])]
    assert "running text" in table
    assert "sentences" in call("evaluate", "--run", gcnn_dir, "--sentences").out


def remove_weights(run_dir):
    (run_dir / WEIGHTS).unlink()


def remove_tokenizer(run_dir):
    shutil.rmtree(run_dir / "tokenizer")


def replace_tokenizer(run_dir):
    WordTokenizer(["<eos>", "<unk>", "a"]).save(run_dir / "tokenizer")


def replace_config(run_dir):
    text = (run_dir / "config.yaml").read_text()
    (run_dir / "config.yaml").write_text(text.replace("embedding_dim: 8", "embedding_dim: 9"))


SPOILT = [
    (remove_weights, [], 2, "holds no model.safetensors"),
    (remove_tokenizer, [], 2, "no tokenizer in"),
    (replace_tokenizer, [], 2, "was trained with another tokenizer"),
    (replace_config, [], 2, "is of another model"),
    (lambda run_dir: (run_dir / WEIGHTS).write_bytes(b"none"), [], 1, "is damaged"),
    (None, ["--run", "nowhere"], 2, "nowhere is not a run directory"),
    (None, ["--file", "nowhere.txt"], 2, "no file nowhere.txt"),
    (None, ["--data-path", "nowhere"], 2, "nowhere is not a folder"),
    (None, ["--block-size", "0"], 2, "--block-size: 0 is not from 1"),
    (None, ["--batch-size", "-1"], 2, "--batch-size: -1 is not from 1"),
]


@pytest.mark.parametrize(("spoil", "options", "code", "message"), SPOILT)
def test_what_cannot_be_done_is_one_line_with_the_thing_and_the_remedy(
    spoil, options, code, message, gcnn_dir, call
):
    if spoil:
        spoil(gcnn_dir)
    outcome = call("evaluate", "--run", gcnn_dir, *options)
    assert (outcome.code, outcome.out) == (code, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_pipes_and_compressed_text_are_read(made_runs, corpus, tmp_path, call):
    run = made_runs["gcnn", "word"]
    text = (corpus / "valid.txt").read_bytes()
    plain = call("evaluate", "--run", run, "--file", corpus / "valid.txt", "--json").out
    (tmp_path / "valid.txt.gz").write_bytes(gzip.compress(text))
    assert call("evaluate", "--run", run, "--file", "valid.txt.gz", "--json").out == plain
    pq.write_table(pa.table({"lines": text.decode().split("\n")[:-1]}), tmp_path / "valid.parquet")
    assert (
        call("evaluate", "--run", run, "--file", "valid.parquet", "--column", "lines", "--json").out
        == plain
    )
    for stdin in ("/dev/stdin", "-"):
        assert call("evaluate", "--run", run, "--file", stdin, "--json", stdin=text).out == plain


@pytest.mark.parametrize("command", ["evaluate", "generate", "score"])
def test_commands_compute_with_the_threads_that_they_are_given(command, gcnn_dir, call):
    before = torch.get_num_threads()
    try:
        assert call(command, "--run", gcnn_dir, "--threads", before + 1).code == 0
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:0"):
        with pytest.raises(UsageError, match="choose cpu or auto"):
            choose_device(name)
    for name in ("gpu", "cuda:x", "cuda:01", "cuda:\u0661", "mps", None):
        with pytest.raises(UsageError, match="choose one of: auto, cpu, cuda"):
            choose_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UsageError, match="cuda:2"):
        choose_device("cuda:2")
