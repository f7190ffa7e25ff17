import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from gcnn.config import BlockConfig, GCNNConfig, LSTMConfig
from gcnn.reporting.paper import PERPLEXITY, TABLE_1, TABLE_4, model_name, published_perplexity

CONFIGS = Path(__file__).parents[2] / "configs" / "model"


def config_of(name):
    config = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{name}.yaml"))
    config.pop("defaults")
    return GCNNConfig(**config | {"blocks": [BlockConfig(**block) for block in config["blocks"]]})


@pytest.mark.parametrize("name", TABLE_1)
def test_the_names_of_table_1_count_their_layers(name):
    """The number in a name counts gated convolutions, or residual blocks in the bottleneck models."""
    number, bottleneck = re.fullmatch(r"gcnn_(\d+)(b?)", name).groups()
    blocks = TABLE_1[name].blocks
    assert int(number) == len(blocks) if bottleneck else sum(map(len, blocks))


@pytest.mark.parametrize("name", TABLE_1)
def test_table_1_is_what_the_model_configs_say(name):
    config = config_of(name)
    assert model_name(config) == name
    assert tuple(config.cutoffs) == TABLE_1[name].cutoffs


def test_another_architecture_or_gate_is_no_model_of_the_paper():
    config = config_of("gcnn_8")
    config.gate = "relu"
    assert model_name(config) is None
    assert model_name(config_of("gcnn_small")) is None


@pytest.mark.parametrize(
    ("hidden", "layers", "name"),
    [(1024, 1, "lstm_1024"), (2048, 1, "lstm_2048"), (2048, 2, "lstm_2048x2"), (240, 1, None)],
)
def test_lstm_names(hidden, layers, name):
    assert model_name(LSTMConfig(embedding_dim=256, hidden_dim=hidden, num_layers=layers, cutoffs=[])) == name


def test_published_perplexity_belongs_to_model_and_data():
    assert published_perplexity(config_of("gcnn_14"), "wikitext103").perplexity == 37.2
    assert published_perplexity(config_of("gcnn_14"), "billion_word") is None
    assert published_perplexity(config_of("gcnn_small"), "wikitext103") is None
    for name, row in TABLE_1.items():
        assert name in PERPLEXITY[row.data] or name in TABLE_4


def test_the_headline_of_table_4():
    """20 times the responsiveness of the LSTM at the same throughput."""
    gcnn, lstm = TABLE_4["gcnn_8b"], TABLE_4["lstm_2048"]
    assert gcnn.responsiveness_gpu / lstm.responsiveness_gpu == pytest.approx(20, rel=0.01)
    assert gcnn.throughput_gpu == pytest.approx(lstm.throughput_gpu, rel=0.01)
