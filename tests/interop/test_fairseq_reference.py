"""Against fairseq itself: what it computed for the checkpoints of $GCNN_SHARED/fairseq, scored and
trained.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gcnn.config.schema import NesterovConfig, TrainerConfig
from gcnn.config.stored import load_config
from gcnn.data.batches import RunningText
from gcnn.data.stream import PreparedData, TokenStream, encode_file
from gcnn.data.tokenizers import load_tokenizer
from gcnn.evaluation.perplexity import evaluate
from gcnn.evaluation.scoring import Scorer
from gcnn.interop.fairseq import import_fairseq
from gcnn.interop.fairseq_checkpoint import load_checkpoint
from gcnn.models.language_model import build_model
from gcnn.models.weights import WEIGHTS, load_weights
from gcnn.training.trainer import Trainer


@pytest.fixture(scope="module")
def folder(shared) -> Path:
    if not (shared / "fairseq").is_dir():
        pytest.skip("no folder fairseq in GCNN_SHARED")
    return shared / "fairseq"


@pytest.fixture(scope="module")
def reference(folder) -> dict:
    return json.loads((folder / "reference.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(folder, import_run, tmp_path_factory):
    return import_run(
        folder / "checkpoint.pt", folder / "dict.txt", tmp_path_factory.mktemp("fairseq") / "run"
    )


def test_fairseq_log_probs(run, reference):
    model, tokenizer = run.model, run.tokenizer
    for sequence in reference["sequences"]:
        words = tokenizer.encode(" ".join(sequence["words"]))
        tokens = torch.tensor([[tokenizer.eos_id, *words]])
        targets = torch.tensor([[*words, tokenizer.eos_id]])
        hidden, _ = model(tokens)
        found = [
            -model.nll(hidden, targets),
            model.log_prob(hidden).gather(2, targets[..., None]).squeeze(2),
        ]
        for log_probs in found:
            np.testing.assert_allclose(log_probs[0], sequence["log_probs"], rtol=0, atol=1e-4)


def test_fairseq_sentence_scores(run, reference):
    scores = Scorer(run.model, run.tokenizer).score(
        " ".join(sequence["words"]) for sequence in reference["sequences"]
    )
    for score, sequence in zip(scores, reference["sequences"], strict=True):
        assert score.tokens == len(sequence["log_probs"])
        assert score.log_prob == pytest.approx(sequence["total"], abs=1e-4 * score.tokens)


def test_fairseq_parameters(run, reference):
    with torch.device("meta"):  # a loaded model has its weight normalisation folded
        model = build_model(run.config.model, run.tokenizer.vocabulary_size)
    assert model.parameter_counts()["total"] == reference["n_parameters"]


def test_fairseq_running_text_perplexity(run, reference, folder, shared):
    expected = reference["running_text"]
    named = Path(
        load_checkpoint(folder / "checkpoint.pt").options.get("data") or ""
    ).name  # data-bin/wikitext-2
    paths = [shared / "data" / corpus / "wiki.valid.tokens" for corpus in (named, "wikitext-2")]
    path = next(filter(Path.is_file, paths), None)
    if path is None:
        pytest.skip("no WikiText-2 in GCNN_SHARED")
    found = evaluate(run.model, encode_file(path, run.tokenizer))
    assert found["tokens"] == expected["tokens"]
    assert found["perplexity"] == pytest.approx(expected["perplexity"], abs=0.02)


class Blocks(RunningText):
    """Rows of ids (batch, updates * block_size + 1) as batches of contiguous blocks."""

    def __init__(self, rows: torch.Tensor, block_size: int):
        self.rows = rows
        self.block_size = block_size
        self.micro_batch_size = len(rows)
        self.layout = {}

    def __len__(self) -> int:
        return (self.rows.size(1) - 1) // self.block_size

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        start = index * self.block_size
        stop = (index + 1) * self.block_size
        return self.rows[:, start:stop], self.rows[:, start + 1 : stop + 1]

    def draw_order(self, seed: int, epoch: int) -> range:
        return range(len(self))

    def count_targets(self, index: int) -> int:
        return self.rows.size(0) * self.block_size


def test_fairseq_training_trajectory(folder, tmp_path):
    trajectory = json.loads((folder / "training" / "trajectory.json").read_text(encoding="utf-8"))
    imported = tmp_path / "imported"
    import_fairseq(folder / "training" / "initial.pt", folder / "dict.txt", imported)
    config = load_config(imported)
    tokenizer = load_tokenizer(imported / "tokenizer")
    model = build_model(config.model, tokenizer.vocabulary_size)
    load_weights(model, imported / WEIGHTS)
    ids = [
        [tokenizer.index.get(word, tokenizer.unk_id) for word in row.split()]
        for row in trajectory["words"]
    ]
    blocks = Blocks(torch.tensor(ids), trajectory["block_size"])
    assert blocks.rows.size(0) == trajectory["batch_size"]
    assert len(blocks) == trajectory["updates"]

    settings = trajectory["optimizer"]
    assert settings["name"] == "nag"
    config = dataclasses.replace(
        config,
        optimizer=NesterovConfig(
            **{name: settings[name] for name in ("lr", "momentum", "weight_decay")}
        ),
        trainer=TrainerConfig(
            max_steps=trajectory["updates"], log_every=1, clip_norm=settings["clip_norm"]
        ),
    )
    head = np.array(ids[0][:100], np.int32)
    stream = TokenStream(head, tokenizer.eos_id, tokenizer.vocabulary_size, 100, 100, 1, "")
    data = PreparedData(
        tokenizer, dict.fromkeys(("train", "valid", "test"), stream), "trajectory", ""
    )
    (tmp_path / "run").mkdir()
    trainer = Trainer(config, model, data, tmp_path / "run", torch.device("cpu"))
    trainer.batches = blocks
    trainer.run()

    records = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    steps = [record for record in records if record["kind"] == "train"]
    losses, norms = ([step[key] for step in steps] for key in ("loss", "grad_norm"))
    expected = trajectory["steps"]
    np.testing.assert_allclose(
        losses, [step["nll_nats_per_token"] for step in expected], rtol=0, atol=1e-3
    )
    np.testing.assert_allclose(norms, [step["grad_norm"] for step in expected], rtol=0.01)
