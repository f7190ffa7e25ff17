"""Made-up run directories and a made-up latency benchmark, as the real commands write them."""

import json
import math
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from gcnn.config.models import BlockConfig, GCNNConfig, LSTMConfig
from gcnn.config.schema import (
    AdamWConfig,
    CosineScheduleConfig,
    DataConfig,
    SentencePieceConfig,
    TrainConfig,
    TrainerConfig,
    WordTokenizerConfig,
)
from gcnn.config.stored import save_config

MODELS = Path(__file__).parents[2] / "configs" / "model"
SMALL = GCNNConfig(
    embedding_dim=128, blocks=[BlockConfig(convs=[[4, 256]], repeat=6)], cutoffs=[2000, 10000]
)


def made_up_split(perplexity, tokens):
    """A split of results.json, in which the perplexities per token, word and byte agree."""
    nll = tokens * math.log(perplexity)
    words = tokens - 1000
    return {
        "nll_nats": nll,
        "tokens": tokens,
        "perplexity": perplexity,
        "words": words,
        "word_perplexity": math.exp(nll / words),
        "bytes": 5 * words,
        "bits_per_byte": nll / math.log(2) / (5 * words),
        "unigram_perplexity": 640.25,
    }


def made_up_results(experiment, data, perplexity):
    """The content of results.json of a finished run. perplexity: per token, of the test split.

    That of validation is 4 % higher.
    """
    return {
        "experiment": experiment,
        "git_commit": "4f2a9c81d0e7b3a5c6f1e2d3b4a5968778695a4b",
        "hardware": {
            "cpu": "Some CPU",
            "cores": 2,
            "threads": 2,
            "gpu": None,
            "memory_bytes": 8 * 2**30,
        },
        "versions": {"python": "3.11.7", "torch": "2.13.0", "gcnn": "0.1.0"},
        "seed": 1,
        "command": f"scripts/train.py experiment={experiment}",
        "parameters": {
            "total": 7_654_321,
            "embedding": 4_259_584,
            "body": 2_365_440,
            "softmax": 1_029_297,
        },
        "receptive_field": 19,
        "flops_per_token": 15_300_000,
        "data": {"name": data, "fingerprint": "9e107d9d372bb6826bd8", "vocabulary_size": 33_278},
        "train": {
            "steps": 900,
            "tokens": 1_843_200,
            "seconds": 4210.5,
            "tokens_per_second": 437.76,
        },
        "validation": made_up_split(perplexity * 1.04, 217_646),
        "test": made_up_split(perplexity, 245_569),
    }


def made_up_metrics(steps=900):
    """The lines of metrics.jsonl, as dictionaries: training each 50 steps, validation each 100."""
    lines = []
    for step in range(50, steps + 1, 50):
        base = {"step": step, "epoch": 1, "tokens": 2048 * step, "seconds": step / 4}
        lines.append({"kind": "train", **base, "loss": 5 + 50 / step, "tokens_per_second": 437.0})
        if step % 100 == 0:
            lines.append({"kind": "validation", **base, "perplexity": 100 + 50_000 / step})
    return lines


@pytest.fixture
def make_run(tmp_path):
    """A function that writes a run directory of a run that was never trained."""

    def make(
        name="run",
        experiment="wikitext2/gcnn_small",
        data="wikitext2",
        perplexity=121.43,
        **options,
    ):
        """Write the run directory tmp_path / name, which must not exist, and return its path.

        data: the data's name. perplexity: per token, of the test split.
        options: `words` (False: SentencePiece), `path` and `train_tokens` of the data, `seed` and
        `model` go into the config. `results`, `metrics` (lines) and `samples` are the content of
        these files; None leaves the first two out.
        """
        folder = tmp_path / name
        folder.mkdir(parents=True)
        words = options.get("words", True)
        config = TrainConfig(
            experiment=experiment,
            data=DataConfig(
                name=data,
                source="local",
                path=options.get("path"),
                cache_dir="cache",
                train_tokens=options.get("train_tokens"),
            ),
            tokenizer=WordTokenizerConfig() if words else SentencePieceConfig(),
            seed=options.get("seed", 1),
            model=options.get("model", SMALL),
            optimizer=AdamWConfig(),
            schedule=CosineScheduleConfig(),
            trainer=TrainerConfig(max_steps=900),
        )
        save_config(config, folder / "config.yaml")
        results = options.get("results", made_up_results(experiment, data, perplexity))
        metrics = options.get("metrics", made_up_metrics())
        if results is not None:
            (folder / "results.json").write_text(json.dumps(results))
        if metrics is not None:
            (folder / "metrics.jsonl").write_text(
                "".join(json.dumps(line) + "\n" for line in metrics)
            )
        if "samples" in options:
            (folder / "samples.json").write_text(json.dumps(options["samples"]))
        return folder

    return make


@pytest.fixture
def results():
    """The content of a results.json, made anew for each test."""
    return made_up_results("quickstart", "shakespeare", 91.7)


@pytest.fixture
def paper_config():
    """A function from the name of a model in configs/model/ to its config: a GCNN or an LSTM."""

    def config_of(name):
        config = OmegaConf.to_container(OmegaConf.load(MODELS / f"{name}.yaml"))
        config.pop("defaults")
        if "blocks" not in config:
            return LSTMConfig(**config)
        return GCNNConfig(
            **config | {"blocks": [BlockConfig(**block) for block in config["blocks"]]}
        )

    return config_of


@pytest.fixture
def latency():
    """The JSON of a latency benchmark of two of the paper's models, made anew for each test."""

    def model(milliseconds, parameters):
        """The entry of a model; milliseconds: the median of a sentence of 20 words."""
        timing = {
            str(n): {
                "median_ms": milliseconds * n / 20,
                "p95_ms": milliseconds * n / 18,
                "bound_ms": n / 10,
            }
            for n in (5, 10, 20, 50, 100)
        }
        return {
            "description": "random weights",
            "parameters": parameters,
            "load_seconds": 0.75,
            "sentences": timing,
            "sentences_without_softmax": timing,
            "throughput": {"sequences": 750, "length": 20, "tokens_per_second": 3456.0},
            "responsiveness": {"tokens": 15_000, "tokens_per_second": 2345.0},
        }

    ratios = {str(n): {"measured": 9.25, "bound": 14.5} for n in (5, 10, 20, 50, 100)}
    return {
        "hardware": {"cpu": "Some CPU", "cores": 2, "threads": 2},
        "device": "cpu",
        "threads": 2,
        "command": "scripts/benchmark.py",
        "models": {"gcnn_8b": model(4.5, 25_000_000), "lstm_2048": model(41.625, 120_000_000)},
        "pairs": [
            {
                "gcnn": "gcnn_8b",
                "lstm": "lstm_2048",
                "ratios": ratios,
                "responsiveness": {"measured": 8.75, "bound": 11.5},
                "throughput": {"measured": 1.25, "bound": 1.5},
            }
        ],
    }
