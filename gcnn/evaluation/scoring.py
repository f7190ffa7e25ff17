"""A trained model in Python: scores of sentences and of tokens, perplexity, what comes next, samples."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from gcnn.base.errors import UsageError
from gcnn.base.values import check_text
from gcnn.data.batches import Sentences
from gcnn.data.lines import TEXT
from gcnn.data.stream import TokenStream, encode_text
from gcnn.data.tokenizers import Tokenizer
from gcnn.evaluation.generation import Sampling, encode_prompt, generate
from gcnn.evaluation.perplexity import (
    POSITIONS,
    evaluate,
    exp,
    nlls_in_order,
    read_to_the_end,
    sentence_nlls,
)
from gcnn.evaluation.run import load_model
from gcnn.models.inference import (
    PRECISIONS,
    compute_alone_after_fork,
    limit_kernel_cache,
    prepare_for_inference,
)
from gcnn.models.language_model import LanguageModel
from gcnn.runs.directory import find_run

WINDOW = 1 << 20  # characters whose sentences are in memory, and sorted by length, together


class Score(NamedTuple):
    """A sentence's words and <eos>, scored after <eos>."""

    log_prob: float  # nats, total
    tokens: int  # words or pieces, and <eos>
    unknown: int  # of the tokens, those that are <unk>
    perplexity: float  # per token


class TokenScores(NamedTuple):
    """A text token by token, the ends of its lines among them."""

    types: list[str]  # words or pieces
    log_probs: np.ndarray  # (tokens,), nats


def load(run: str | Path, device: str = "auto", precision: str = "float32") -> "Scorer":
    """The model of a run directory, of the newest run in a folder, or of `latest` in runs/. Raises as from_run does."""
    return Scorer.from_run(find_run(str(run)), device, precision)


class Scorer:
    """A trained model: `gcnn.load("runs/...").score(["a sentence", "another"])`.

    Texts are strings with the lines that a file would have. `sentences` says whether each line is scored alone, or all
    as running text, where a token's context reaches back over the ends of lines; None: as the run was trained.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        source: dict[str, str] | None = None,
        sentences: bool = False,
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.source = source or {}  # what its scores are told apart by, and the run
        self.sentences = sentences  # whether the run was trained on lines each alone

    @classmethod
    def from_run(
        cls, path: str | Path, device: str = "auto", precision: str = "float32"
    ) -> "Scorer":
        """The model of a run directory, in float32 or bf16. Raises UsageError and RunError as load_model does."""
        if precision not in PRECISIONS:
            raise UsageError(f"precision is {precision!r}; choose one of: {', '.join(PRECISIONS)}.")
        limit_kernel_cache()
        compute_alone_after_fork()
        run = load_model(path, device)
        prepare_for_inference(run.model.to(PRECISIONS[precision]))
        source = {
            "model": run.weights_sha256,
            "tokenizer": run.tokenizer.fingerprint,
            "precision": precision,
        }
        if run.model.before_text is not None:
            source["before_text"] = run.tokenizer.eos
        return cls(run.model, run.tokenizer, source | {"run": str(path)}, run.config.data.sentences)

    def score(self, sentences: Iterable[str]) -> list[Score]:
        """The scores of sentences, in their order; they do not depend on each other."""
        return list(self.stream(sentences))

    def stream(self, sentences: Iterable[str]) -> Iterator[Score]:
        """As score, for any number of sentences: memory holds a window of them."""
        check_list(sentences)
        for window in windows(sentences):
            yield from self._score_window(window)

    def token_scores(self, text: str, sentences: bool | None = None) -> TokenScores:
        """A text's tokens and their log-probabilities: (tokens,), nats. Raises UsageError for a text without words."""
        stream, types = self._encode(text), self.tokenizer.types
        nlls = nlls_in_order(self.model, stream, self.sentences if sentences is None else sentences)
        return TokenScores([types[i] for i in stream.tokens], -nlls)

    def evaluate(self, text: str, sentences: bool | None = None) -> dict[str, float]:
        """What `gcnn evaluate --json` prints: exact perplexity, nats and more. Raises UsageError without words."""
        return evaluate(
            self.model, self._encode(text), self.sentences if sentences is None else sentences
        )

    def perplexity(self, text: str, sentences: bool | None = None) -> float:
        """The exact perplexity of a text, per token. Raises UsageError for a text without words."""
        return self.evaluate(text, sentences)["perplexity"]

    @torch.inference_mode()
    def next_log_probs(self, text: str = "") -> np.ndarray:
        """The log-probability of every type to be the token after a text, whose last line goes on: (vocabulary,), nats.

        `tokenizer.types` says what the types are. An empty text is the start of one.
        """
        tokens = torch.tensor([[self.tokenizer.eos_id, *encode_prompt(self.tokenizer, text)]])
        hidden, _ = read_to_the_end(self.model, tokens)
        return self.model.log_prob(hidden)[0].double().cpu().numpy()

    def generate(
        self,
        prompt: str = "",
        tokens: int = 100,
        samples: int = 1,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int = 1,
    ) -> list[str]:
        """The prompt, continued `samples` times by `tokens` tokens, none of them <unk>.

        A token is drawn from `softmax(log_probs / temperature)` of the `top_k` likeliest types (None: of all);
        temperature 0 takes the likeliest. Raises UsageError for a value out of its range.
        """
        return generate(
            self.model, self.tokenizer, prompt, tokens, samples, Sampling(temperature, top_k, seed)
        )

    def _encode(self, text: str) -> TokenStream:
        check_text("the text", text)
        lines = pa.array(text.removesuffix("\n").split("\n"), TEXT)
        return encode_text([lines], self.tokenizer, "the text")

    @torch.inference_mode()
    def _score_window(self, sentences: list[str]) -> list[Score]:
        tokens = self.tokenizer.encode_lines(sentences)
        batches = Sentences(tokens, self.tokenizer.eos_id, batch_size=1, block_size=POSITIONS)
        nlls = np.empty(len(tokens))
        for positions, values in sentence_nlls(self.model, batches):
            nlls[positions] = values
        starts = batches.ends - batches.lengths
        unknown = np.add.reduceat(tokens == self.tokenizer.unk_id, starts, dtype=np.int64)
        columns = (
            column.tolist() for column in (np.add.reduceat(nlls, starts), batches.lengths, unknown)
        )
        return [
            Score(-nll, count, unk, exp(nll / count))
            for nll, count, unk in zip(*columns, strict=True)
        ]


def check_list(sentences: Any) -> None:
    """Raise UsageError for what holds no sentences, and for a table, which gives its columns' names."""
    instead = "was given instead of a list of sentences"
    if isinstance(sentences, str | bytes):
        raise UsageError(f"a sentence {instead}; write score([sentence]).")
    has_columns = hasattr(sentences, "columns") or hasattr(sentences, "column_names")
    if isinstance(sentences, Mapping) or has_columns:
        raise UsageError(f'a table {instead}; give its column, as in table["text"].')
    if not isinstance(sentences, Iterable):
        raise UsageError(f"{type(sentences).__name__} {instead}; give strings.")


def windows(sentences: Iterable[str]) -> Iterator[list[str]]:
    """Sentences grouped, WINDOW characters or one sentence at most; each counts as one more, for <eos>.

    Raises UsageError for a sentence that is no text.
    """
    window, size = [], 0
    for number, sentence in enumerate(sentences, start=1):
        check_text(f"sentence {number}", sentence)
        size += len(sentence) + 1
        if window and size > WINDOW:
            yield window
            window, size = [], len(sentence) + 1
        window.append(sentence)
    if window:
        yield window
