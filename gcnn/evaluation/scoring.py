"""A trained model in Python: scores of sentences and tokens, perplexity, next words, samples."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from gcnn.base.errors import UsageError
from gcnn.base.numbers import exp
from gcnn.base.values import check_text
from gcnn.data.batches import Sentences
from gcnn.data.lines import TEXT
from gcnn.data.stream import TokenStream, encode_text
from gcnn.data.tables import check_text_column, text_column
from gcnn.data.tokenizers import Tokenizer
from gcnn.evaluation.generation import Sampling, encode_prompt, generate
from gcnn.evaluation.perplexity import (
    Context,
    evaluate,
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

WINDOW = 1 << 20  # characters of sentences that are sorted by length together
# Positions of sentences that are scored together; products in bf16 need more of them to be fast
BATCH = {torch.float32: 2048, torch.bfloat16: 8192}


class Score(NamedTuple):
    """The score of a sentence's words and its <eos>, at the start of a text or after a context."""

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
    """The trained model of a run, ready to score texts.

    run: a run directory; a folder with runs up to four levels below it, for the newest finished
    one; `latest`, for the newest finished one below ./runs; or `hf://user/name`, a run on the Hub,
    which is downloaded. So is the string `user/name` if nothing here is named `user` and it is not
    `runs`. A run that was searched for is named on stderr.
    device, precision, side effects: see `Scorer.from_run`.
    Raises UsageError, RunError and OSError as from_run and find_run do.
    """
    name = as_hub_name(run) if isinstance(run, str) else str(run)
    return Scorer.from_run(find_run(name), device, precision)


class Scorer:
    """A trained model: `gcnn.load("runs/...").score(["a sentence", "another"])`.

    A text is a string with one or more lines. In its methods, `sentences=True` scores each line
    alone; False scores all as running text, where a token's context goes back over the ends of
    lines; None does as the run was trained. A newline at the end of a text adds no empty line; only
    in a context, a prompt or the text of `next_log_probs` it begins the next line.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        source: dict[str, str] | None = None,
        sentences: bool = False,
    ):
        """model: in evaluation mode, without gradients.

        source: what scores depend on (`model`, `tokenizer` and other keys, see from_run), for the
        metadata of files of scores; None: none, and the files of different models are then not told
        apart. sentences: whether the model was trained on each line alone, which the methods'
        `sentences=None` stands for.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.source = source or {}
        self.sentences = sentences

    @classmethod
    def from_run(
        cls, path: str | Path, device: str = "auto", precision: str = "float32"
    ) -> "Scorer":
        """The best model of a run directory, made ready for inference.

        device: auto, cpu, cuda or cuda:N. precision: of the weights, float32 or bf16.
        The scorer's `source` has `model` (the weights' sha256), `tokenizer` (its fingerprint),
        `precision`, `run` (the path) and, if the model has an id before a text, `before_text` (that
        type).
        Side effects on the process: TF32 is off, environment variables of oneDNN are set, forked
        processes compute with one thread (see models/inference.py), and torch's random state is
        drawn from.
        Raises UsageError for another precision, and UsageError, RunError and OSError as load_model
        does.
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
        """The scores of sentences, in their order; but for rounding, none depends on the others.

        Each is one line: a newline in it is no end of a line. An empty one has the score of <eos>.
        context: the text that each sentence continues, read once; empty: none, so that each is the
        start of a text. A sentence goes on in the context's last line. For a line of its own, end
        the context with "\\n".
        Raises UsageError as `stream` does.
        """
        return list(self.stream(sentences, context))

    def stream(self, sentences: Iterable[str], context: str = "") -> Iterator[Score]:
        """As `score`, but yields the scores one by one, for any number of sentences.

        Sentences are taken WINDOW characters at a time, which bounds the memory.
        When scores are taken, raises UsageError for `sentences` that are a single string, a table,
        a mapping or no iterable, and for a sentence or context that is no string or not valid
        Unicode. Then the last sentences before that one, up to WINDOW characters, get no scores.
        """
        check_list(sentences)
        before = self._read_context(context)
        for window in windows(sentences):
            yield from self._score_window(window, before)

    def score_table(self, table: pa.Table, column: str = "text", prefix: str = "") -> pa.Table:
        """A new table: this one and then the columns log_prob, tokens, unknown and perplexity (see
        Score), with `prefix` before these names.

        column: the one with the texts, each scored as a sentence (see `score`); a row whose text is
        null has null scores. Raises UsageError for anything but a pyarrow.Table, if `column` is
        absent, twice there, not text or not UTF-8, and if a new name is taken.
        """
        if not isinstance(table, pa.Table):
            raise UsageError(
                f"{type(table).__name__} was given instead of a table; give a pyarrow.Table."
            )
        check_text_column(table.schema, column, "the table", "column")
        check_new_columns(table.column_names, prefix, "the table", "prefix")
        texts = text_column(table, column, "the table").to_pylist()
        scores_of_texts = self.stream(text for text in texts if text is not None)
        rows = []
        for text in texts:
            row = {}  # null in every column
            if text is not None:
                row = next(scores_of_texts)._asdict()
            rows.append(row)
        scores = pa.Table.from_pylist(rows, SCORES)
        for field in SCORES:
            table = table.append_column(prefix + field.name, scores[field.name])
        return table

    def token_scores(self, text: str, sentences: bool | None = None) -> TokenScores:
        """A text's tokens, with the <eos> of each line, and their log-probabilities in nats.

        sentences: as the class says. Raises UsageError for a text without words, and for anything
        but a string of valid Unicode.
        """
        stream = self._encode(text)
        types = self.tokenizer.types
        nlls = nlls_in_order(self.model, stream, self.sentences if sentences is None else sentences)
        return TokenScores([types[i] for i in stream.tokens], -nlls)

    def word_scores(self, text: str, sentences: bool | None = None) -> WordScores:
        """A text's white-space words, with the end of each line, and their log-probabilities in
        nats: those of a word's tokens, added up. Also how many tokens and <unk> each has.

        sentences: as the class says. Raises UsageError for a text without words, and for anything
        but a string of valid Unicode.
        """
        stream = self._encode(text)
        nlls = nlls_in_order(self.model, stream, self.sentences if sentences is None else sentences)
        return add_up_words(self.tokenizer, lines_of(text), stream.tokens, -nlls)

    def evaluate(self, text: str, sentences: bool | None = None) -> dict[str, float | None]:
        """The measures of a text that `gcnn evaluate --json` prints, such as `perplexity`.

        The keys are those of `gcnn.evaluation.perplexity.normalised`. sentences: as the class says.
        Shows a progress bar on a terminal after two seconds. Raises UsageError for a text without
        words, and for anything but a string of valid Unicode.
        """
        return evaluate(
            self.model, self._encode(text), self.sentences if sentences is None else sentences
        )

    def perplexity(self, text: str, sentences: bool | None = None) -> float:
        """The exact perplexity of a text, per token; arguments and errors as in `evaluate`."""
        return self.evaluate(text, sentences)["perplexity"]

    @torch.inference_mode()
    def next_log_probs(self, text: str = "") -> np.ndarray:
        """The log-probability of each type to be the next token after a text: (vocabulary,), nats,
        float64, in the order of `tokenizer.types`.

        text: its last line goes on, unless it ends with "\\n"; empty: the start of a text. Earlier
        lines are context, however the run was trained. Raises UsageError for anything but a string
        of valid Unicode.
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

        Returns the texts, each with the prompt; a newline stands for <eos>. A token is drawn from
        `softmax(log_probs / temperature)` of the `top_k` likeliest types (None: of all);
        temperature 0 takes the likeliest. Raises UsageError for a value out of its range (counts
        start at 1, temperature and seed at 0), and as generation.generate does.
        """
        return generate(
            self.model, self.tokenizer, prompt, tokens, samples, Sampling(temperature, top_k, seed)
        )

    def _encode(self, text: str) -> TokenStream:
        """The tokens of a text. Raises UsageError if it has no words or is no valid Unicode."""
        check_text("the text", text)
        return encode_text([lines_of(text)], self.tokenizer, "the text")

    @torch.inference_mode()
    def _read_context(self, context: str) -> Context | None:
        """The context of `score`, read; None if it is empty.

        Raises UsageError for anything but a string of valid Unicode.
        """
        tokens = encode_prompt(self.tokenizer, context, "the context")
        return read_context(self.model, tokens, self.tokenizer.eos_id)

    @torch.inference_mode()
    def _score_window(self, sentences: list[str], context: Context | None) -> list[Score]:
        """The scores of sentences in their order, all encoded and sorted by length together.

        sentences: at least one. context: what each of them continues; None: each is the start of a
        text.
        """
        tokens = self.tokenizer.encode_lines(sentences)
        dtype = next(self.model.parameters()).dtype
        capacity = BATCH.get(dtype, BATCH[torch.float32])
        batches = Sentences(tokens, self.tokenizer.eos_id, batch_size=1, block_size=capacity)
        nlls = np.empty(len(tokens))
        for positions, values in sentence_nlls(self.model, batches, context=context):
            nlls[positions] = values
        starts = batches.ends - batches.lengths
        unknown = np.add.reduceat(tokens == self.tokenizer.unk_id, starts, dtype=np.int64)
        totals = np.add.reduceat(nlls, starts)
        # Python's own numbers, of each sentence
        columns = totals.tolist(), batches.lengths.tolist(), unknown.tolist()
        scores = []
        for nats, count, unknown_count in zip(*columns, strict=True):
            scores.append(Score(-nats, count, unknown_count, exp(nats / count)))
        return scores


def lines_of(text: str) -> pa.Array:
    """The lines of a text, split at "\\n" only; one at its end adds no empty line."""
    return pa.array(text.removesuffix("\n").split("\n"), TEXT)


def check_new_columns(names: list[str], prefix: str, what: object, option: str) -> None:
    """Raise UsageError if a column of scores, prefix + field of SCORES, is among `names`.

    what, option: the table and the option that sets the prefix, for the message.
    """
    for field in SCORES:
        if prefix + field.name in names:
            raise UsageError(
                f"{what} has a column {prefix + field.name} already. "
                f"Give the scores another name with {option}, or rename it first."
            )


def check_list(sentences: Any) -> None:
    """Raise UsageError for a single string, a table or mapping, and for anything not iterable.

    Iterating over a table would give the names of its columns. The items are not checked.
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
    """Group sentences, in their order, into lists of at most WINDOW characters, <eos> counted as
    one; a longer sentence is a list of its own.

    Raises UsageError for a sentence that is no string or not valid Unicode, when it is reached; the
    sentences since the last list are then not yielded.
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
