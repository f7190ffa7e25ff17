import re

import pytest

from gcnn.reproduction.paper import (
    LSTM_SIZES,
    PERPLEXITY,
    TABLE_1,
    TABLE_4,
    model_name,
    published_perplexity,
)


@pytest.mark.parametrize("name", TABLE_1)
def test_the_names_of_table_1_count_their_layers(name):
    """The number in a name counts gated convolutions, or residual blocks of bottleneck models."""
    number, bottleneck = re.fullmatch(r"gcnn_(\d+)(b?)", name).groups()
    blocks = TABLE_1[name].blocks
    assert int(number) == len(blocks) if bottleneck else sum(map(len, blocks))


@pytest.mark.parametrize("name", TABLE_1)
def test_table_1_is_what_the_model_configs_say(name, paper_config):
    config = paper_config(name)
    assert model_name(config) == name
    assert tuple(config.cutoffs) == TABLE_1[name].cutoffs


@pytest.mark.parametrize("name", LSTM_SIZES)
def test_the_lstm_configs_are_the_papers(name, paper_config):
    assert model_name(paper_config(name)) == name


def test_another_architecture_or_gate_is_no_model_of_the_paper(paper_config):
    config = paper_config("gcnn_8")
    config.gate = "relu"
    assert model_name(config) is None
    assert model_name(paper_config("gcnn_small")) is None
    assert model_name(paper_config("lstm_small")) is None


def test_published_perplexity_belongs_to_model_and_data(paper_config):
    assert published_perplexity(paper_config("gcnn_14"), "wikitext103").perplexity == 37.2
    assert published_perplexity(paper_config("gcnn_14"), "billion_word") is None
    assert published_perplexity(paper_config("gcnn_small"), "wikitext103") is None
    for name, row in TABLE_1.items():
        assert name in PERPLEXITY[row.data] or name in TABLE_4


def test_the_headline_of_table_4():
    """20 times the responsiveness of the LSTM at the same throughput."""
    gcnn, lstm = TABLE_4["gcnn_8b"], TABLE_4["lstm_2048"]
    assert gcnn.responsiveness_gpu / lstm.responsiveness_gpu == pytest.approx(20, rel=0.01)
    assert gcnn.throughput_gpu == pytest.approx(lstm.throughput_gpu, rel=0.01)
