"""Nothing hostile, damaged or foreign is taken for a model, and nothing in it is run."""

import argparse
import os
import pickle
import runpy
import sys
from pathlib import Path

import pytest
import torch

from gcnn.base.errors import UsageError
from gcnn.interop.fairseq import import_fairseq, read_dictionary

LAYERS, STRING = [(6, 3, 1), (6, 3, 1), (17, 2, 1)], "[(6, 3)] * 2 + [(17, 2)]"


def without(name: str):
    return lambda weights: weights.pop(name)


def with_weight(name: str, *shape: int):
    return lambda weights: weights.update({name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (without("decoder.fc1.bias"), {}, "lacks decoder.fc1.bias"),
        (without("decoder.adaptive_softmax.version"), {}, "lacks decoder.adaptive_softmax.version"),
        (without("decoder.embed_tokens.weight"), {}, "decoder.embed_tokens.weight"),
        (
            with_weight("decoder.embed_positions.weight", 9, 5),
            {},
            "also has decoder.embed_positions.weight",
        ),
        (
            with_weight("decoder.attention.0.weight", 9, 5),
            {},
            "also has decoder.attention.0.weight",
        ),
        (with_weight("decoder.convolutions.1.weight_v", 3, 6), {}, "blocks.1.convs.0"),
        (with_weight("decoder.convolutions.1.weight_g", 3, 1, 12), {}, "blocks.1.convs.0"),
        (with_weight("decoder.fc1.weight_v", 6), {}, "input_projection"),
        (with_weight("decoder.adaptive_softmax.tail.0.0.weight", 5, 17), {}, "softmax.tails.0.0"),
        (None, {"decoder_layers": "[(6, 3)] * 2"}, "also has decoder.convolutions.2"),
        (None, {"decoder_layers": "[(6, 3)] * 4"}, "lacks decoder.convolutions.3"),
        (None, {"decoder_layers": "[(6, 3)] * 2 + [(17, 3)]"}, "blocks.2.convs.0"),
        (None, {"decoder_layers": "[(6, 3), (6, 3, 5), (17, 2)]"}, r"decoder_layers\[1\]"),
        (None, {"decoder_layers": 6}, "decoder_layers"),
        (None, {"adaptive_softmax_cutoff": "5,40"}, "adaptive_softmax_cutoff"),
        (None, {"adaptive_softmax_cutoff": "30"}, "adaptive_softmax_cutoff"),
        (None, {"adaptive_softmax_cutoff": None}, "adaptive_softmax_cutoff"),
        (None, {"adaptive_softmax_cutoff": "12,5"}, "increasing"),
        (None, {"decoder_attention": "True"}, "decoder_attention"),
        (None, {"decoder_attention": "[False] * 2 + [True]"}, "decoder_attention"),
        (None, {"add_bos_token": True}, "add_bos_token"),
        (None, {"add_bos_token": torch.tensor([1, 2])}, "checkpoint.pt: .*Tensor"),
        (None, {"dropout": "${oc.env:HOME}"}, r"dropout is '\$"),
        (None, {"dropout": 1.5}, "dropout"),
        (None, {"dropout": 10**400}, "checkpoint.pt: .*too large"),
        (None, {"optimizer": "nag", "lr": []}, "lr"),
    ],
)
def test_fairseq_foreign_models_are_refused(
    change, options, message, make_weights, save_checkpoint, dictionary, tmp_path
):
    weights = make_weights(LAYERS, [5, 12])
    if change:
        change(weights)
    checkpoint = save_checkpoint(
        weights, **{"decoder_layers": STRING, "adaptive_softmax_cutoff": "5,12"} | options
    )
    with pytest.raises(UsageError, match=message):
        import_fairseq(checkpoint, dictionary, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Malicious:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def run_script(monkeypatch, capsys, *arguments: Path) -> tuple[int, str]:
    """The exit code and what the command complains of."""
    script = Path(__file__).parents[2] / "scripts" / "import_fairseq.py"
    monkeypatch.setattr(sys, "argv", [script.name, *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(script), run_name="__main__")
    return stopped.value.code, capsys.readouterr().err


def test_fairseq_hostile_and_damaged_files_run_nothing(
    make_weights, save_checkpoint, dictionary, tmp_path, monkeypatch, capsys
):
    trap = tmp_path / "trap"
    weights = make_weights(LAYERS, None)
    good = save_checkpoint(weights, decoder_layers=STRING)
    hostile = {"model": {}, "args": argparse.Namespace(decoder_layers=Malicious(trap))}
    torch.save(hostile, tmp_path / "zip")
    torch.save(hostile, tmp_path / "legacy", _use_new_zipfile_serialization=False)
    (tmp_path / "pickle").write_bytes(pickle.dumps(hostile))
    (tmp_path / "truncated").write_bytes(good.read_bytes()[:2000])
    (tmp_path / "garbage").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "empty").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list")
    torch.save(
        {"model": {"x": torch.zeros(1).expand(10**9, 10**9)}, "args": argparse.Namespace()},
        tmp_path / "bomb",
    )
    bits = torch.zeros(1, dtype=torch.uint8).view(torch.bits8)
    torch.save({"model": {"x": bits}, "args": argparse.Namespace()}, tmp_path / "bits")
    history = {"model": {}, "args": argparse.Namespace(), "optimizer_history": torch.ones(2)}
    torch.save(history, tmp_path / "history")
    code = f"__import__('os').mkdir({str(trap)!r})"
    save_checkpoint(make_weights(LAYERS, None), decoder_layers=code).rename(tmp_path / "layers")
    save_checkpoint(
        make_weights(LAYERS, None), decoder_layers=STRING, decoder_attention=code
    ).rename(tmp_path / "attention")
    (tmp_path / "folder").mkdir()
    bad = [
        "zip",
        "legacy",
        "pickle",
        "truncated",
        "garbage",
        "empty",
        "list",
        "bomb",
        "bits",
        "history",
        "layers",
        "attention",
        "missing",
    ]
    for name in [*bad, "folder"]:
        exit_code, complaint = run_script(
            monkeypatch, capsys, tmp_path / name, dictionary, tmp_path / "out"
        )
        assert exit_code == 2, name
        assert complaint.startswith(f"error: {tmp_path / name}"), name
        assert complaint.count("\n") == 1, name
        assert not trap.exists(), name
        assert not (tmp_path / "out").exists(), name


def test_fairseq_command(make_weights, save_checkpoint, dictionary, tmp_path, monkeypatch, capsys):
    checkpoint = save_checkpoint(make_weights(LAYERS, None), decoder_layers=STRING)
    out = tmp_path / "out"
    out.mkdir()
    assert run_script(monkeypatch, capsys, checkpoint, dictionary, out) == (0, "")
    assert {path.name for path in out.iterdir()} == {
        "config.yaml",
        "tokenizer",
        "model.safetensors",
    }
    exit_code, complaint = run_script(monkeypatch, capsys, checkpoint, dictionary, out)
    assert (exit_code, complaint.count("\n")) == (2, 1)
    assert "exists" in complaint


def test_fairseq_dictionary(tmp_path):
    path = tmp_path / "dict.txt"
    path.write_text(
        "the 9\n戦 5\na 4\nthe 3 #fairseq:overwrite\nmadeupword0000 0\n", encoding="utf-8"
    )
    tokenizer = read_dictionary(path)
    assert tokenizer.vocabulary_size == 4 + 5
    assert tokenizer.encode("a the 戦 b <pad> <unk> madeupword0000") == [6, 7, 5, 3, 1, 3, 8]
    tokenizer.save(tmp_path / "tokenizer")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"the 9\na 4\nthe 3\n", "line 3: the"),
        (b"the 9\n<unk> 3 #fairseq:overwrite\n", "line 2: <unk>"),
        (b"the\n", "line 1"),
        (b"the 9\n\na 2\n", "line 2"),
        (b"the nine\n", "line 1"),
        (b"the 9\n 5\n", "line 2: expected `word count`"),
        (b"foo 1\nfoo 2 #fairseq:overwrite\nfoo #4 3\n", "line 3: expected `word count`"),
        (b"", "line 1"),
        (b"caf\xe9 9\n", "UTF-8"),
        (b"the 9\n", "embeds 30 types, but .* has 5"),
        (None, "cannot be read"),
    ],
)
def test_fairseq_wrong_dictionaries(content, message, make_weights, save_checkpoint, tmp_path):
    checkpoint = save_checkpoint(make_weights(LAYERS, None), decoder_layers=STRING)
    path = tmp_path / "other.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        import_fairseq(checkpoint, path, tmp_path / "out")
