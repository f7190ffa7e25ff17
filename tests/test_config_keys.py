"""Every key of every schema has an effect: another value changes what is built or computed.

For each key there is a config in which it does. Where a key would have no effect it is refused, see
test_unread_keys.py.
"""

import dataclasses
import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from gcnn.base.errors import RunError, UsageError
from gcnn.config.models import BlockConfig, GCNNConfig, LSTMConfig, TransformerConfig
from gcnn.config.schema import (
    SCHEMAS,
    AdamWConfig,
    ConstantScheduleConfig,
    CosineScheduleConfig,
    DataConfig,
    LoggerConfig,
    NesterovConfig,
    PlateauScheduleConfig,
    SentencePieceConfig,
    TrainConfig,
    TrainerConfig,
    WordTokenizerConfig,
)
from gcnn.data.batches import RunningText
from gcnn.data.sources import layouts_of
from gcnn.data.stream import prepare
from gcnn.models.language_model import build_model
from gcnn.models.weights import digest
from gcnn.training import metrics
from gcnn.training.metrics import Metrics
from gcnn.training.optimizers import build_optimizer
from gcnn.training.run import train
from gcnn.training.schedules import Schedule

WORDS = [f"w{i}" for i in range(30)]
LINES = [" ".join((WORDS * 2)[i * 7 % 30 :][: 3 + i % 8]) for i in range(120)]
DATA = DataConfig(name="own", source="local", path="text")
WORD = WordTokenizerConfig()
PIECES = SentencePieceConfig(vocabulary_size=275)
GCNN = GCNNConfig(embedding_dim=6, blocks=[BlockConfig([[3, 8]], 2)], cutoffs=[5])
LSTM = LSTMConfig(embedding_dim=6, hidden_dim=8, cutoffs=[5])
TRANSFORMER = TransformerConfig(
    embedding_dim=6,
    hidden_dim=8,
    num_layers=1,
    num_heads=2,
    feed_forward_dim=8,
    window=4,
    cutoffs=[5],
)
NESTEROV = NesterovConfig(lr=0.1, weight_decay=0.1)
ADAMW = AdamWConfig(lr=0.1)
SHORT = TrainerConfig(
    batch_size=2,
    block_size=8,
    max_steps=4,
    validate_every=2,
    checkpoint_every=2,
    log_every=2,
    keep_checkpoints=9,
)
RUN = TrainConfig(
    data=DATA, tokenizer=WORD, model=GCNN, optimizer=NesterovConfig(lr=0.1, momentum=0.9),
    schedule=ConstantScheduleConfig(), trainer=SHORT, threads=1, device="cpu",
)  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of texts in which each test stands: other/ and text/, and the same as JSON lines."""
    monkeypatch.chdir(tmp_path)
    for name, lines in (("text", LINES), ("other", [line.replace("w", "v") for line in LINES])):
        (tmp_path / name).mkdir()
        for split in ("train", "valid", "test"):
            (tmp_path / name / f"{split}.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "words.txt").write_text("w1\nw2\n")
    rows = "".join(json.dumps({"text": line, "title": "a b"}) + "\n" for line in LINES)
    (tmp_path / "rows.jsonl").write_text(rows)
    for variable in ("WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(variable, raising=False)


def what_is_read(data):
    """The name of the corpus, its splits, and where its cache lies."""
    data = dataclasses.replace(data, cache_dir=data.cache_dir or "cache")
    if data.source == "wikitext":
        return layouts_of(data)
    prepared = prepare(data, WORD)
    return prepared.name, prepared.fingerprint, str(prepared.tokenizer_dir)


def vocabulary(tokenizer):
    data = dataclasses.replace(DATA, cache_dir="cache")
    return prepare(data, tokenizer).tokenizer.fingerprint


def function(model):
    """The loss in training, with all dropout's draws the same, and the weights."""
    torch.manual_seed(1)
    built = build_model(model, 30).train()
    tokens = torch.arange(24).view(2, 12)
    torch.manual_seed(2)
    hidden, _ = built(tokens)
    return built.nll(hidden, tokens).sum().item(), digest(built.state_dict())


def updates(optimizer):
    """The weights after three steps."""
    torch.manual_seed(1)
    model = build_model(GCNN, 30)
    made = build_optimizer(optimizer, model)
    for scale in (1.0, -2.0, 3.0):
        for parameter in model.parameters():
            parameter.grad = scale * torch.ones_like(parameter)
        made.step()
    return digest(model.state_dict())


def rates(schedule):
    """The learning rates of ten steps, each of which is validated and no better than the first."""
    followed = Schedule(schedule, torch.optim.SGD([torch.zeros(1)], lr=1.0))
    found = []
    for step in range(10):
        found.append(followed.set(step, step / 10))
        followed.note_validation(1.0)
    return found


def steps(trainer):
    """What a run of these bounds writes."""
    return written(dataclasses.replace(RUN, trainer=trainer))


def steps_without_progress(trainer):
    return written(dataclasses.replace(RUN, trainer=trainer, optimizer=NesterovConfig(lr=1e-12)))


def steps_that_diverge(trainer):
    return written(dataclasses.replace(RUN, trainer=trainer, optimizer=NesterovConfig(lr=1e30)))


def parts_of_a_batch(trainer):
    sizes = trainer.batch_size, trainer.block_size, trainer.micro_batch_size
    return len(RunningText(np.arange(99, dtype=np.int32), 0, *sizes).micro_batches(0))


def written(config):
    """What a run writes, without times: metrics, checkpoints, weights, results; or its error."""
    torch.manual_seed(0)
    try:
        path, results = train(dataclasses.replace(config, run_dir=config.run_dir or "run"))
    except (UsageError, RunError, Compiled) as error:
        return repr(error)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "tokens_per_second")
    metrics = [{key: value for key, value in line.items() if key not in timed} for line in lines]
    checkpoints = sorted(folder.name for folder in (path / "checkpoints").iterdir())
    named = results["experiment"], results["init_from"], results["hardware"]["threads"], str(path)
    return metrics, checkpoints, (path / "model.safetensors").read_bytes(), named


def written_again(config):
    train(dataclasses.replace(config, run_dir="run", resume=False))
    return written(config)


class Compiled(Exception):
    """torch.compile was called."""


def logger_of(logger):
    """Which logger a run has, and what wandb.init is called with."""
    said = {}
    fake = types.ModuleType("wandb")
    fake.init, fake.Settings = lambda **given: said.update(given), dict
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "wandb", fake)
        patch.setattr(metrics, "TensorBoard", lambda *_: said.update(tensorboard=True))
        Metrics(dataclasses.replace(RUN, logger=logger), Path.cwd(), 0).close()
    return {key: said.get(key) for key in ("tensorboard", "project", "mode")}


def model_of_ones_own():
    data = dataclasses.replace(DATA, path="other", cache_dir="cache")
    return str(prepare(data, PIECES).tokenizer_dir / "sentencepiece.model")


def run_of_ones_own():
    return str(train(dataclasses.replace(RUN, run_dir="first", seed=9))[0])


def block(value):
    return function(dataclasses.replace(GCNN, blocks=[value, BlockConfig([[3, 8]])]))


ROWS = {split: ["rows.jsonl"] for split in ("train", "valid", "test")}
IN_COLUMNS = dataclasses.replace(DATA, path=None, files=ROWS)
WIKITEXT = dataclasses.replace(DATA, source="wikitext")
BY_MINUTES = dataclasses.replace(SHORT, checkpoint_every=None)
OFTEN = dataclasses.replace(SHORT, validate_every=1)
ENDLESS = dataclasses.replace(SHORT, max_steps=80, validate_every=99, checkpoint_every=None)
FALLING = PlateauScheduleConfig()
# For each schema: what is observed, a config in which the key is read, another value of the key.
EFFECTS = {
    DataConfig: {
        "name": (what_is_read, DATA, "another"),
        "source": (what_is_read, DATA, "wikitext"),
        "path": (what_is_read, DATA, "other"),
        "hub_config": (what_is_read, WIKITEXT, "wikitext-2-raw-v1"),
        "files": (what_is_read, DATA, {split: [f"other/{split}.txt"] for split in ROWS}),
        "column": (what_is_read, IN_COLUMNS, "title"),
        "train_tokens": (what_is_read, DATA, 20),
        "sentences": (lambda data: written(dataclasses.replace(RUN, data=data)), DATA, True),
        "cache_dir": (what_is_read, DATA, "elsewhere"),
    },
    WordTokenizerConfig: {
        "min_count": (vocabulary, WORD, 27),
        "max_size": (vocabulary, WORD, 9),
        "vocabulary": (vocabulary, WORD, "words.txt"),
    },
    SentencePieceConfig: {
        "model_type": (vocabulary, PIECES, "unigram"),
        "vocabulary_size": (vocabulary, PIECES, 280),
        "model": (vocabulary, PIECES, model_of_ones_own),
    },
    BlockConfig: {
        "convs": (block, BlockConfig([[3, 8]]), [[2, 8]]),
        "repeat": (block, BlockConfig([[3, 8]]), 2),
        "residual": (block, BlockConfig([[3, 8]]), False),
    },
    GCNNConfig: {
        "embedding_dim": (function, GCNN, 7),
        "blocks": (function, GCNN, [BlockConfig([[3, 8]], 3)]),
        "cutoffs": (function, GCNN, [6]),
        "gate": (function, GCNN, "gtu"),
        "tie_embeddings": (function, GCNN, True),
        "projection_dim": (function, dataclasses.replace(GCNN, cutoffs=[]), 5),
        "weight_norm": (function, GCNN, False),
        "dropout": (function, GCNN, 0.5),
        "embedding_dropout": (function, GCNN, 0.5),
        "output_dropout": (function, GCNN, 0.5),
        "softmax_dropout": (function, GCNN, 0.5),
    },
    LSTMConfig: {
        "embedding_dim": (function, LSTM, 7),
        "hidden_dim": (function, LSTM, 9),
        "num_layers": (function, LSTM, 2),
        "cutoffs": (function, LSTM, [6]),
        "tie_embeddings": (function, LSTM, True),
        "projection_dim": (function, LSTM, 5),
        "dropout": (function, LSTM, 0.5),
        "output_dropout": (function, LSTM, 0.5),
        "softmax_dropout": (function, LSTM, 0.5),
    },
    TransformerConfig: {
        "embedding_dim": (function, TRANSFORMER, 7),
        "hidden_dim": (function, TRANSFORMER, 12),
        "num_layers": (function, TRANSFORMER, 2),
        "num_heads": (function, TRANSFORMER, 1),
        "feed_forward_dim": (function, TRANSFORMER, 9),
        "window": (function, TRANSFORMER, 2),
        "cutoffs": (function, TRANSFORMER, [6]),
        "gate": (function, TRANSFORMER, "glu"),
        "tie_embeddings": (function, TRANSFORMER, True),
        "dropout": (function, TRANSFORMER, 0.5),
        "output_dropout": (function, TRANSFORMER, 0.5),
        "softmax_dropout": (function, TRANSFORMER, 0.5),
    },
    NesterovConfig: {
        "lr": (updates, NESTEROV, 0.2),
        "momentum": (updates, NESTEROV, 0.5),
        "weight_decay": (updates, NESTEROV, 0.3),
    },
    AdamWConfig: {
        "lr": (updates, ADAMW, 0.2),
        "betas": (updates, ADAMW, [0.5, 0.5]),
        "weight_decay": (updates, ADAMW, 0.5),
    },
    ConstantScheduleConfig: {"warmup_steps": (rates, ConstantScheduleConfig(), 5)},
    PlateauScheduleConfig: {
        "factor": (rates, FALLING, 0.1),
        "patience": (rates, FALLING, 2),
        "min_lr": (rates, FALLING, 0.4),
        "warmup_steps": (rates, FALLING, 5),
    },
    CosineScheduleConfig: {
        "warmup_steps": (rates, CosineScheduleConfig(), 5),
        "final_fraction": (rates, CosineScheduleConfig(), 0.5),
    },
    TrainerConfig: {
        "batch_size": (steps, SHORT, 4),
        "micro_batch_size": (parts_of_a_batch, SHORT, 1),
        "block_size": (steps, SHORT, 4),
        "max_steps": (steps, SHORT, 2),
        "max_epochs": (steps, ENDLESS, 1),
        "max_minutes": (steps, SHORT, 1e-9),
        "max_flops": (steps, SHORT, 1.0),
        "validate_every": (steps, SHORT, 1),
        "patience": (steps_without_progress, OFTEN, 1),
        "checkpoint_every": (steps, SHORT, 1),
        "checkpoint_minutes": (steps, BY_MINUTES, 1e-9),
        "keep_checkpoints": (steps, SHORT, 1),
        "log_every": (steps, SHORT, 1),
        "clip_norm": (steps, SHORT, None),
        "carry_state": (steps, SHORT, True),
        "precision": (steps, SHORT, "bf16"),
        "compile": (steps, SHORT, True),
        "skip_nonfinite": (steps_that_diverge, SHORT, 9),
    },
    LoggerConfig: {
        "kind": (logger_of, LoggerConfig(), "tensorboard"),
        "project": (logger_of, LoggerConfig("wandb"), "another"),
        "mode": (logger_of, LoggerConfig("wandb"), "online"),
    },
    TrainConfig: {
        "experiment": (written, RUN, "named"),
        "run_dir": (written, RUN, "elsewhere"),
        "seed": (written, RUN, 2),
        "device": (written, RUN, "cuda"),
        "threads": (written, RUN, 2),
        "init_from": (written, RUN, run_of_ones_own),
        "resume": (written_again, RUN, True),
    },
}


def test_no_key_of_a_schema_is_left_out():
    kinds = {schema for kinds in SCHEMAS.values() for schema in kinds.values()}
    assert set(EFFECTS) == kinds | {
        DataConfig,
        BlockConfig,
        TrainerConfig,
        LoggerConfig,
        TrainConfig,
    }
    groups = {"data", *SCHEMAS, "trainer", "logger"}
    for schema, effects in EFFECTS.items():
        chosen = groups if schema is TrainConfig else {"kind"} if schema in kinds else set()
        names = {field.name for field in dataclasses.fields(schema)}
        assert set(effects) == names - chosen, schema


@pytest.mark.parametrize(
    ("schema", "name"), [(schema, name) for schema, effects in EFFECTS.items() for name in effects]
)
def test_another_value_changes_something(schema, name, tmp_path, monkeypatch):
    def called(*_):
        raise Compiled

    monkeypatch.setattr(torch, "compile", called)
    observe, config, value = EFFECTS[schema][name]
    value = value() if callable(value) else value
    assert value != getattr(config, name)
    before = observe(config)
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    assert observe(config) == before  # or else nothing is shown by a difference
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    assert observe(dataclasses.replace(config, **{name: value})) != before
    torch.set_num_threads(1)
