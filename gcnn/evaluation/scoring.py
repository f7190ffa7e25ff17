"""A trained model in Python: scores of sentences and tokens, perplexity, next words, samples."""

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
from gcnn.data.tables import check_text_column
from gcnn.data.tokenizers import Tokenizer
from gcnn.evaluation.generation import Sampling, encode_prompt, generate
from gcnn.evaluation.perplexity import (
    POSITIONS,
    Context,
    evaluate,
    exp,
    nlls_in_order,
    read_context,
    read_to_the_end,
    sentence_nlls,
)
from gcnn.evaluation.run import load_model
from gcnn.evaluation.words import WordScores, add_up_words
from gcnn.models.inference import (
    PRECISIONS,
    compute_alone_after_fork,
    limit_kernel_cache,
    prepare_for_inference,
)
from gcnn.models.language_model import LanguageModel
from gcnn.runs.directory import find_run
from gcnn.runs.hub import as_hub_name

WINDOW = 1 << 20  # characters of sentences that are sorted by length, and scored, together


class Score(NamedTuple):
    """The score of a sentence's words and its <eos>, at the start of a text."""

    log_prob: float  # nats, total
    tokens: int  # words or pieces, and <eos>
    unknown: int  # of the tokens, those that are <unk>
    perplexity: float  # per token


SCORES = pa.schema(  # a Score as columns of a table
    {
        "log_prob": pa.float64(),
        "tokens": pa.int64(),
        "unknown": pa.int64(),
        "perplexity": pa.float64(),
    }
)


class TokenScores(NamedTuple):
    """A text token by token, the <eos> of each line included."""

    types: list[str]  # words or pieces
    log_probs: np.ndarray  # (tokens,), nats


def load(run: str | Path, device: str = "auto", precision: str = "float32") -> "Scorer":
    """The model of a run directory, of the newest run in a folder, or of `latest` in runs/; or of
    the Hub.

    A run on the Hub is named `user/name`, where there is no such folder, or `hf://user/name`.
    Raises as from_run and find_run do.
    """
    name = as_hub_name(run) if isinstance(run, str) else str(run)
    return Scorer.from_run(find_run(name), device, precision)


class Scorer:
    """A trained model: `gcnn.load("runs/...").score(["a sentence", "another"])`.

    A text is a string with one or more lines. In its methods, `sentences` true scores each line
    alone, false all as running text, where a token's context goes back over the ends of lines;
    None: as the run was trained. The model is in evaluation mode.
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
        """The model of a run directory, with weights in `precision`: float32 or bf16.

        Sets environment variables of oneDNN and a handler for forks (see models/inference.py).
        Raises UsageError for another precision, and UsageError and RunError as load_model does.
        """
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

    def score(self, sentences: Iterable[str], context: str = "") -> list[Score]:
        """The scores of sentences, in their order; they do not depend on each other.

        `context` is the text before each of them, read once. Its last line goes on: a sentence
        follows its last word. Where the sentence is a line of its own, the context ends with "\\n".
        An empty context is the start of a text. Raises UsageError as `stream` does.
        """
        return list(self.stream(sentences, context))

    def stream(self, sentences: Iterable[str], context: str = "") -> Iterator[Score]:
        """As `score`, one by one, for any number of sentences: memory holds WINDOW characters.

        Raises UsageError for what holds no sentences, and for a sentence or context that is no
        text.
        """
        check_list(sentences)
        before = self._read_context(context)
        for window in windows(sentences):
            yield from self._score_window(window, before)

    def score_table(self, table: pa.Table, column: str = "text", prefix: str = "") -> pa.Table:
        """A table with the columns of SCORES added, their names after `prefix`; null in a row
        without a text.

        Raises UsageError where `column` is absent or no text, and where a name is taken.
        """
        if not isinstance(table, pa.Table):
            raise UsageError(
                f"{type(table).__name__} was given instead of a table; give a pyarrow.Table."
            )
        check_text_column(table.schema, column, "the table", "column")
        check_new_columns(table.column_names, prefix, "the table", "prefix")
        texts = table[column].to_pylist()
        of_texts = self.stream(text for text in texts if text is not None)
        rows = [{} if text is None else next(of_texts)._asdict() for text in texts]
        scores = pa.Table.from_pylist(rows, SCORES)
        for field in SCORES:
            table = table.append_column(prefix + field.name, scores[field.name])
        return table

    def token_scores(self, text: str, sentences: bool | None = None) -> TokenScores:
        """A text's tokens and their log-probabilities: (tokens,), nats.

        Raises UsageError for a text without words.
        """
        stream = self._encode(text)
        types = self.tokenizer.types
        nlls = nlls_in_order(self.model, stream, self.sentences if sentences is None else sentences)
        return TokenScores([types[i] for i in stream.tokens], -nlls)

    def word_scores(self, text: str, sentences: bool | None = None) -> WordScores:
        """A text's white-space words and their log-probabilities, those of a word's pieces added
        up: (words,), nats.

        Raises UsageError for a text without words.
        """
        stream = self._encode(text)
        nlls = nlls_in_order(self.model, stream, self.sentences if sentences is None else sentences)
        return add_up_words(self.tokenizer, lines_of(text), stream.tokens, -nlls)

    def evaluate(self, text: str, sentences: bool | None = None) -> dict[str, float]:
        """The measures of a text that `gcnn evaluate --json` prints (see perplexity.normalised).

        Raises UsageError for a text without words.
        """
        return evaluate(
            self.model, self._encode(text), self.sentences if sentences is None else sentences
        )

    def perplexity(self, text: str, sentences: bool | None = None) -> float:
        """The exact perplexity of a text, per token. Raises UsageError for a text without words."""
        return self.evaluate(text, sentences)["perplexity"]

    @torch.inference_mode()
    def next_log_probs(self, text: str = "") -> np.ndarray:
        """The log-probability of each type to be the next token after a text: (vocabulary,), nats.

        The text's last line goes on; an empty text is the start of one. `tokenizer.types` has the
        types in the same order. Raises UsageError for what is no text.
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
        """Continue a prompt `samples` times by `tokens` tokens, none of them <unk>.

        Returns whole texts. A token is drawn from `softmax(log_probs / temperature)` of the `top_k`
        likeliest types (None: of all); temperature 0 takes the likeliest. Raises UsageError for a
        value out of its range.
        """
        return generate(
            self.model, self.tokenizer, prompt, tokens, samples, Sampling(temperature, top_k, seed)
        )

    def _encode(self, text: str) -> TokenStream:
        check_text("the text", text)
        return encode_text([lines_of(text)], self.tokenizer, "the text")

    @torch.inference_mode()
    def _read_context(self, context: str) -> Context | None:
        tokens = encode_prompt(self.tokenizer, context, "the context")
        return read_context(self.model, tokens, self.tokenizer.eos_id)

    @torch.inference_mode()
    def _score_window(self, sentences: list[str], context: Context | None) -> list[Score]:
        tokens = self.tokenizer.encode_lines(sentences)
        batches = Sentences(tokens, self.tokenizer.eos_id, batch_size=1, block_size=POSITIONS)
        nlls = np.empty(len(tokens))
        for positions, values in sentence_nlls(self.model, batches, context=context):
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


def lines_of(text: str) -> pa.Array:
    """The lines that a file of this text would have."""
    return pa.array(text.removesuffix("\n").split("\n"), TEXT)


def check_new_columns(names: list[str], prefix: str, what: object, option: str) -> None:
    """Raise UsageError, naming `what` and the `option` that helps, where scores would have the name
    of a column.
    """
    for field in SCORES:
        if prefix + field.name in names:
            raise UsageError(
                f"{what} has a column {prefix + field.name} already. "
                f"Give the scores another name with {option}, or rename it first."
            )


def check_list(sentences: Any) -> None:
    """Raise UsageError for what is no iterable of sentences: a single string, a table, a number.

    (Iterating over a table would give the names of its columns.)
    """
    instead = "was given instead of a list of sentences"
    if isinstance(sentences, str | bytes):
        raise UsageError(f"a sentence {instead}; write score([sentence]).")
    has_columns = hasattr(sentences, "columns") or hasattr(sentences, "column_names")
    if isinstance(sentences, Mapping) or has_columns:
        raise UsageError(f'a table {instead}; give its column, as in table["text"].')
    if not isinstance(sentences, Iterable):
        raise UsageError(f"{type(sentences).__name__} {instead}; give strings.")


def windows(sentences: Iterable[str]) -> Iterator[list[str]]:
    """Group sentences, in their order, into lists of at most WINDOW characters or one sentence.

    Each sentence counts as one character more, for <eos>. Raises UsageError for one that is no
    text.
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
