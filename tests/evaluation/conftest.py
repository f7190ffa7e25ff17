import random
import shutil
from pathlib import Path

import pytest
import torch

from gcnn.config.models import BlockConfig, GCNNConfig, LSTMConfig, TransformerConfig
from gcnn.config.schema import (
    AdamWConfig,
    ConstantScheduleConfig,
    DataConfig,
    SentencePieceConfig,
    TrainConfig,
    TrainerConfig,
    WordTokenizerConfig,
)
from gcnn.config.stored import save_config
from gcnn.data.tokenizer_training import train_tokenizer
from gcnn.evaluation.run import load_model
from gcnn.evaluation.scoring import Scorer
from gcnn.models.language_model import build_model
from gcnn.models.weights import WEIGHTS, save_weights

MODELS = {
    "gcnn": GCNNConfig(
        embedding_dim=8,
        blocks=[BlockConfig([[3, 12]], repeat=2), BlockConfig([[1, 6], [4, 6], [1, 16]])],
        cutoffs=[10, 30],
        dropout=0.3,  # evaluation must not feel it
    ),
    "lstm": LSTMConfig(embedding_dim=8, hidden_dim=12, num_layers=2, cutoffs=[10, 30], dropout=0.3),
    "transformer": TransformerConfig(
        embedding_dim=8,
        hidden_dim=12,
        num_layers=2,
        num_heads=3,
        feed_forward_dim=20,
        window=5,
        cutoffs=[10, 30],
        dropout=0.3,
    ),
}
TOKENIZERS = {
    "word": WordTokenizerConfig(min_count=2),
    "sentencepiece": SentencePieceConfig(vocabulary_size=400),
}
RUNS = [
    ("gcnn", "word"),
    ("gcnn", "sentencepiece"),
    ("lstm", "word"),
    ("lstm", "sentencepiece"),
    ("transformer", "word"),
]
WORDS = ["".join(random.Random(i).choices("abdeéilmnorstuv", k=2 + i % 6)) for i in range(80)]


def made_up_lines(seed: int, count: int) -> list[str]:
    """`count` lines of 0 to 24 words of WORDS, some of which are much more frequent than others.

    Every seventh line ends with a word more that is in no other line. The same for the same seed.
    """
    draw = random.Random(seed)
    lines = []
    for i in range(count):
        words = [WORDS[int(80 * draw.random() ** 2)] for _ in range(draw.choice([0, 1, 5, 12, 24]))]
        lines.append(" ".join([*words, f"once{seed}x{i}"] if i % 7 == 3 else words))
    return lines


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """A folder with train.txt, valid.txt and test.txt of `made_up_lines`. All tests share it."""
    folder = tmp_path_factory.mktemp("corpus")
    for seed, (split, count) in enumerate({"train": 300, "valid": 40, "test": 60}.items()):
        (folder / f"{split}.txt").write_text(
            "".join(f"{line}\n" for line in made_up_lines(seed, count))
        )
    return folder


@pytest.fixture(scope="session")
def made_runs(corpus, tmp_path_factory) -> dict[tuple[str, str], Path]:
    """Run directories of untrained models, by (model, tokenizer) as in RUNS.

    Their weights are random, and so large that the context matters. They have a config, a tokenizer
    and weights, but no results. All tests share them, so none may write into them.
    """
    runs = {}
    for kind, tokenizer_kind in RUNS:
        folder = tmp_path_factory.mktemp("runs") / f"{kind}_{tokenizer_kind}"
        folder.mkdir()
        config = TrainConfig(
            data=DataConfig(
                name="tiny", source="local", path=str(corpus), cache_dir=str(corpus / "cache")
            ),
            tokenizer=TOKENIZERS[tokenizer_kind],
            model=MODELS[kind],
            optimizer=AdamWConfig(),
            schedule=ConstantScheduleConfig(),
            trainer=TrainerConfig(max_steps=1),
        )
        tokenizer = train_tokenizer(
            config.tokenizer, [(corpus / "train.txt").read_text().splitlines()]
        )
        torch.manual_seed(len(runs))
        model = build_model(config.model, tokenizer.vocabulary_size)
        with torch.no_grad():
            model.encoder.embedding.weight.mul_(10)
            model.softmax.head.weight.mul_(3)
        save_config(config, folder / "config.yaml")
        tokenizer.save(folder / "tokenizer")
        save_weights(model.state_dict(), folder / WEIGHTS, tokenizer.fingerprint)
        runs[kind, tokenizer_kind] = folder
    return runs


@pytest.fixture(params=RUNS, ids="-".join)
def run_dir(request, made_runs) -> Path:
    """A run directory of `made_runs`: the test is repeated with each of them."""
    return made_runs[request.param]


@pytest.fixture
def run(run_dir):
    return load_model(run_dir, "cpu")


@pytest.fixture
def gcnn_dir(made_runs, tmp_path) -> Path:
    """A copy of the GCNN with words at tmp_path / "run", which the test may change."""
    return Path(shutil.copytree(made_runs["gcnn", "word"], tmp_path / "run"))


@pytest.fixture
def lines(corpus):
    return (corpus / "test.txt").read_text().split("\n")[:-1]


@pytest.fixture
def one_scorer(made_runs):
    return Scorer.from_run(made_runs["gcnn", "word"], "cpu")


@pytest.fixture(scope="session")
def reference():
    """A function that scores a text in a way of its own, for comparison: `nlls(run, tokens)`."""

    def nlls(run, tokens: list[int]) -> torch.Tensor:
        """Nats of each token after <eos>, by one forward pass and the whole softmax: (tokens,).

        run: a LoadedRun. The result is in float64.
        """
        inputs = torch.tensor([[run.tokenizer.eos_id, *tokens[:-1]]])
        hidden, _ = run.model(inputs)
        log_probs = run.model.log_prob(hidden)[0].double()
        return -log_probs[torch.arange(len(tokens)), torch.tensor(tokens)]

    return nlls
