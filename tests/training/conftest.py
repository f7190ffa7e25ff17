import copy
import dataclasses
import random
from pathlib import Path

import pytest
import torch

from gcnn.config.models import BlockConfig, GCNNConfig, LSTMConfig, TransformerConfig
from gcnn.config.schema import (
    AdamWConfig,
    ConstantScheduleConfig,
    DataConfig,
    TrainConfig,
    TrainerConfig,
    WordTokenizerConfig,
)
from gcnn.data.stream import prepare
from gcnn.models.language_model import build_model
from gcnn.training.trainer import Trainer

MODELS = {
    "gcnn": GCNNConfig(
        embedding_dim=8, blocks=[BlockConfig([[3, 16]], 2)], cutoffs=[20], dropout=0.1
    ),
    "lstm": LSTMConfig(embedding_dim=8, hidden_dim=32, cutoffs=[20], dropout=0.1),
    "transformer": TransformerConfig(
        embedding_dim=8,
        hidden_dim=16,
        num_layers=1,
        num_heads=2,
        feed_forward_dim=32,
        window=5,
        cutoffs=[20],
        dropout=0.1,
    ),
}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """A folder with train.txt, valid.txt and test.txt of 40 words, w0 to w39.

    It has something to learn: in nine of ten cases a word is followed by the next one. All tests
    share it. Sets the seed of `random`.
    """
    folder = tmp_path_factory.mktemp("corpus")
    random.seed(0)
    words = [f"w{i}" for i in range(40)]
    for split, lines in (("train", 300), ("valid", 40), ("test", 40)):
        text = []
        for _ in range(lines):
            at = random.randrange(40)
            line = []
            for _ in range(random.randint(1, 12)):
                line.append(words[at])
                at = (at + 1) % 40 if random.random() < 0.9 else random.randrange(40)
            text.append(" ".join(line))
        (folder / f"{split}.txt").write_text("\n".join(text) + "\n")
    return folder


@pytest.fixture
def config(corpus, tmp_path_factory) -> TrainConfig:
    """The config of a run of 20 steps of the GCNN on `corpus` that takes a second.

    Made anew for each test, which may set its model to another of MODELS.
    """
    return TrainConfig(
        data=DataConfig(
            name="tiny", source="local", path=str(corpus), cache_dir=str(corpus / "cache")
        ),
        tokenizer=WordTokenizerConfig(),
        model=copy.deepcopy(MODELS["gcnn"]),
        optimizer=AdamWConfig(lr=0.01),
        schedule=ConstantScheduleConfig(),
        trainer=TrainerConfig(
            batch_size=4,
            block_size=16,
            max_steps=20,
            validate_every=10,
            checkpoint_every=5,
            log_every=5,
            clip_norm=1.0,
        ),
    )


@pytest.fixture
def make_trainer(tmp_path):
    """A function that makes a Trainer with an untrained model, on the CPU."""

    def make(config: TrainConfig, name: str = "run", **changes) -> Trainer:
        """A trainer of this config, whose `trainer` keys `changes` replace.

        Its run directory is tmp_path / name, which may exist. Prepares the data and sets torch's
        random seed to the config's.
        """
        config = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, **changes))
        data = prepare(config.data, config.tokenizer)
        torch.manual_seed(config.seed)
        model = build_model(config.model, data.tokenizer.vocabulary_size)
        run_dir = tmp_path / name
        run_dir.mkdir(exist_ok=True)
        return Trainer(config, model, data, run_dir, torch.device("cpu"))

    return make
