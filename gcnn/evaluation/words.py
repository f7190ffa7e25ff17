"""Log-probabilities of white-space words, whatever the tokenizer."""

from typing import NamedTuple

import numpy as np

from gcnn.data.lines import Lines
from gcnn.data.tokenizers import Tokenizer


class WordScores(NamedTuple):
    """A text word by word, the ends of its lines among them."""

    words: list[str]  # as the text has them; the end of a line is written as the tokenizer's eos
    log_probs: np.ndarray  # (words,), nats: those of a word's tokens, added up
    tokens: np.ndarray  # (words,), how many tokens a word has
    unknown: np.ndarray  # (words,), of these, those that are <unk>


def add_up_words(
    tokenizer: Tokenizer, lines: Lines, tokens: np.ndarray, log_probs: np.ndarray
) -> WordScores:
    """The words of lines and each line's end, with the sums of their tokens' log-probabilities.

    lines: without nulls. tokens: the ids that the tokenizer gives for these lines, (tokens,), with
    each line's <eos>. log_probs: of these tokens, (tokens,), nats. A word without a token has a sum
    of 0.
    """
    words, counts = tokenizer.split_words(lines)
    word_of_token = np.repeat(np.arange(len(words)), counts)
    sums = np.bincount(word_of_token, log_probs, len(words))
    unknown = np.bincount(word_of_token, tokens == tokenizer.unk_id, len(words)).astype(np.int64)
    return WordScores(words, sums, counts, unknown)
