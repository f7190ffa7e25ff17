"""The published numbers of Dauphin et al. 2017 (arXiv 1612.08083), under the names of
configs/model/.
"""

from dataclasses import dataclass

from gcnn.config.models import ModelConfig
from gcnn.reporting.results import Publication


@dataclass(frozen=True)
class Architecture:
    """A row of Table 1."""

    title: str
    data: str  # a key of VOCABULARIES
    embedding_dim: int
    cutoffs: tuple[int, ...]  # of the adaptive softmax
    # The residual blocks, repeated ones as often as they are; of each, its convolutions (kernel
    # size, channels).
    blocks: tuple[tuple[tuple[int, int], ...], ...]


@dataclass(frozen=True)
class Published:
    """A test perplexity of Tables 2 and 3, and the hardware it was trained on."""

    title: str
    perplexity: float
    hardware: str


@dataclass(frozen=True)
class Speed:
    """A row of Table 4, in tokens per second."""

    throughput_cpu: float
    throughput_gpu: float
    responsiveness_gpu: float


TABLE_1 = {
    "gcnn_13": Architecture("GCNN-13", "billion_word", 128, (10_000, 40_000, 200_000), (
        *(((4, 1268),),) * 13,
    )),
    "gcnn_14b": Architecture("GCNN-14B", "billion_word", 128, (4_000, 40_000, 200_000), (
        ((5, 512),),
        *(((1, 128), (5, 128), (1, 512)),) * 3,
        *(((1, 512), (5, 512), (1, 1024)),) * 3,
        *(((1, 1024), (5, 1024), (1, 2048)),) * 6,
        ((1, 1024), (5, 1024), (1, 4096)),
    )),
    "gcnn_9": Architecture("GCNN-9", "billion_word", 128, (10_000, 40_000, 200_000), (
        ((4, 807),),
        *(((4, 807), (4, 807)),) * 4,
    )),
    "gcnn_8b": Architecture("GCNN-8B", "billion_word", 128, (10_000, 40_000, 200_000), (
        ((1, 512),),
        *(((1, 128), (5, 128), (1, 512)),) * 3,
        *(((1, 256), (5, 256), (1, 512)),) * 3,
        ((1, 1024), (1, 1024), (1, 2048)),
    )),
    "gcnn_8": Architecture("GCNN-8", "wikitext103", 280, (2_000, 10_000, 50_000), (
        *(((4, 900),),) * 8,
    )),
    "gcnn_14": Architecture("GCNN-14", "wikitext103", 280, (10_000, 20_000, 200_000), (
        *(((6, 850),),) * 3,
        ((1, 850),),
        *(((5, 850),),) * 4,
        ((1, 850),),
        *(((4, 850),),) * 3,
        ((4, 1024),),
        ((4, 2048),),
    )),
}  # fmt: skip

TABLE_2 = {  # Google Billion Word, test perplexity of the paper's own models
    "lstm_2048": Published("LSTM-2048", 43.9, "1 GPU"),
    "lstm_2048x2": Published("2-layer LSTM-2048", 39.8, "1 GPU"),
    "gcnn_13": Published("GCNN-13", 38.1, "1 GPU"),
    "gcnn_14b": Published("GCNN-14B", 31.9, "8 GPUs"),
}

TABLE_3 = {  # WikiText-103, test perplexity
    "lstm_1024": Published("LSTM-1024", 48.7, "1 GPU"),
    "gcnn_8": Published("GCNN-8", 44.9, "1 GPU"),
    "gcnn_14": Published("GCNN-14", 37.2, "4 GPUs"),
}

TABLE_4 = {  # models of about 43.9 perplexity on Billion Word
    "lstm_2048": Speed(169, 45_622, 2_282),
    "gcnn_9": Speed(121, 29_116, 29_116),
    "gcnn_8b": Speed(179, 45_878, 45_878),
}

MODEL_TITLES = {
    name: row.title for table in (TABLE_1, TABLE_2, TABLE_3) for name, row in table.items()
}
VOCABULARIES = {"billion_word": 793_471, "wikitext103": 267_735}  # types
PERPLEXITY = {"billion_word": TABLE_2, "wikitext103": TABLE_3}  # by data, then by model
LSTM_DATA = {"lstm_1024": "wikitext103", "lstm_2048": "billion_word", "lstm_2048x2": "billion_word"}
LSTM_SIZES = {  # hidden size, layers
    "lstm_1024": (1024, 1),
    "lstm_2048": (2048, 1),
    "lstm_2048x2": (2048, 2),
}


def model_name(model: ModelConfig) -> str | None:
    """The name in configs/model of the paper's model that a config describes; None for another.

    A GCNN must have GLU gates and the embedding size and blocks of Table 1; an LSTM one of
    LSTM_SIZES and no projection. Other keys, such as cutoffs and dropout, are not compared.
    """
    if model.kind == "lstm":
        if model.projection_dim is not None:
            return None
        size = (model.hidden_dim, model.num_layers)
        for name, published in LSTM_SIZES.items():
            if published == size:
                return name
        return None
    if model.kind != "gcnn" or model.gate != "glu":
        return None
    blocks = []
    for block in model.blocks:
        convs = tuple(tuple(conv) for conv in block.convs)
        blocks += [convs] * block.repeat
    for name, row in TABLE_1.items():
        if row.embedding_dim == model.embedding_dim and row.blocks == tuple(blocks):
            return name
    return None


def model_title(model: ModelConfig) -> str | None:
    """The title of the paper's model that a config describes, as "GCNN-13" or "LSTM-2048x2".

    None if it describes another (see `model_name`).
    """
    name = model_name(model)
    if name is None:
        return None
    return TABLE_1[name].title if name in TABLE_1 else f"LSTM-{name.removeprefix('lstm_')}"


def published_perplexity(model: ModelConfig, data_name: str) -> Published | None:
    """What the paper reports for a model on a data set; None if it reports nothing.

    data_name: `data.name` of a config. Only comparable with a run whose tokens are words.
    """
    return PERPLEXITY.get(data_name, {}).get(model_name(model))


def vocabulary_of(name: str) -> int | None:
    """The size of the vocabulary with which the paper trains a model.

    name: that of the model in configs/model. None if it is not one of the paper's.
    """
    data = TABLE_1[name].data if name in TABLE_1 else LSTM_DATA.get(name)
    return VOCABULARIES.get(data)


PAPER = Publication(model_title, published_perplexity, TABLE_4)
