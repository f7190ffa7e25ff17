"""Sentences to log-probabilities: each scored alone, in batches of about equal length."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from gcnn.data.batches import Sentences
from gcnn.data.tokenizers import Tokenizer
from gcnn.errors import UsageError
from gcnn.evaluation.perplexity import POSITIONS, exp, row_nlls
from gcnn.evaluation.run import load_model
from gcnn.models.inference import PRECISIONS, prepare_for_inference
from gcnn.models.language_model import LanguageModel

WINDOW = 1 << 20  # characters whose sentences are in memory, and sorted by length, together


class Score(NamedTuple):
    """A sentence's words and <eos>, scored after <eos>."""

    log_prob: float  # nats, total
    tokens: int  # words or pieces, and <eos>
    unknown: int  # of the tokens, those that are <unk>
    perplexity: float  # per token


class Scorer:
    """Scores sentences with a trained model: `Scorer.from_run("runs/...").score(["a sentence", "another"])`."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, source: dict[str, str] | None = None):
        self.model = model
        self.tokenizer = tokenizer
        self.source = source or {}  # what its scores are told apart by: model, tokenizer, precision; and the run

    @classmethod
    def from_run(cls, path: str | Path, device: str = "auto", precision: str = "float32") -> "Scorer":
        """A scorer with the model of a run directory, its weights in float32 or bf16.

        Raises UsageError and RunError as load_model does.
        """
        run = load_model(path, device)
        prepare_for_inference(run.model.to(PRECISIONS[precision]))
        source = {"model": run.weights_sha256, "tokenizer": run.tokenizer.fingerprint, "precision": precision}
        return cls(run.model, run.tokenizer, source | {"run": str(path)})

    def score(self, sentences: Iterable[str]) -> list[Score]:
        """The scores of sentences, in their order; they do not depend on each other."""
        return list(self.stream(sentences))

    def stream(self, sentences: Iterable[str]) -> Iterator[Score]:
        """As score, for any number of sentences: memory holds a window of them."""
        if isinstance(sentences, str):
            raise UsageError("a sentence was given instead of a list of sentences; write score([sentence]).")
        for window in windows(sentences):
            yield from self._score_window(window)

    @torch.inference_mode()
    def _score_window(self, sentences: list[str]) -> list[Score]:
        tokens = self.tokenizer.encode_lines(sentences)
        batches = Sentences(tokens, self.tokenizer.eos_id, batch_size=1, block_size=POSITIONS)
        nlls = np.empty(len(sentences))
        for i in range(len(batches)):
            nlls[batches.rows(i)] = row_nlls(self.model, *batches[i])
        counts = np.diff(batches.ends, prepend=0)
        unknown = np.add.reduceat(tokens == self.tokenizer.unk_id, batches.ends - counts, dtype=np.int64)
        columns = (part.tolist() for part in (nlls, counts, unknown))
        return [Score(-nll, count, unk, exp(nll / count)) for nll, count, unk in zip(*columns, strict=True)]


def windows(sentences: Iterable[str]) -> Iterator[list[str]]:
    """Sentences grouped, WINDOW characters or one sentence at most; each counts as one more, for its <eos>."""
    window, size = [], 0
    for sentence in sentences:
        size += len(sentence) + 1
        if window and size > WINDOW:
            yield window
            window, size = [], len(sentence) + 1
        window.append(sentence)
    if window:
        yield window
