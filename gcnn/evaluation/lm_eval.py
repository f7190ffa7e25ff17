"""Runs as the model `gcnn` of lm-evaluation-harness (`pip install lm_eval==0.4.13`):

    python -m gcnn.evaluation.lm_eval run --model gcnn --model_args run=latest --tasks wikitext

Texts are read as everywhere here: a line ends with <eos>, and a text begins as for `gcnn score`.
"""

import logging
import sys
from collections.abc import Iterator

import torch
from torch import Tensor

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ModuleNotFoundError as error:
    message = f"{error}. Run: pip install 'gcnn[lm-eval]'"
    if __name__ == "__main__":
        sys.exit(f"error: {message}")
    raise ModuleNotFoundError(message) from None

from gcnn.evaluation.generation import encode_prompt
from gcnn.evaluation.perplexity import read_blocks
from gcnn.evaluation.scoring import load

log = logging.getLogger(__name__)
ROWS = 64  # positions whose distributions over all types are in memory together
LENGTH = 256  # tokens generated where a task does not say


@register_model("gcnn")
class HarnessModel(LM):
    """A run as a model of the harness."""

    def __init__(
        self,
        run: str,
        device: str | None = None,
        precision: str = "float32",
        batch_size: object = None,
        max_batch_size: object = None,
    ):
        """run, precision: as in `gcnn.load`. device: the same; None: a GPU if there is one.

        The harness's batch sizes are ignored; results do not depend on them. Raises UsageError,
        RunError and OSError as `gcnn.load` does.
        """
        super().__init__()
        self.scorer = load(run, device or "auto", precision)
        self.tokens = self.unknown = 0  # of the continuations of the requests at hand

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """For each request, its continuation's log-probability in nats, and whether each of its
        tokens is the likeliest there.

        A request's arguments are a context and its continuation; see `continuation`. Logs a warning
        if tokens are unknown. Raises UsageError for a text that is no valid Unicode.
        """
        answers = [self.continuation(*request.args) for request in requests]
        self.warn_of_unknown_tokens()
        return answers

    @torch.inference_mode()
    def continuation(self, context: str, text: str) -> tuple[float, bool]:
        """As `loglikelihood`, for one context and its continuation `text`.

        The tokens of context + text are scored, without the first ones that the context alone has
        too. A token of the context's last word is scored if the text continues the word and so
        changes the token, and also if the word is <unk> with and without the text. A text that is
        empty or adds only blanks has (0.0, True). If a scored token is unknown, the second value is
        False, because the model cannot write the word.
        Side effect: adds to the counts for `warn_of_unknown_tokens`.
        """
        model = self.scorer.model
        tokens, first = self.tokens_to_score(context, text)
        unknown = tokens[first:].count(self.scorer.tokenizer.unk_id)
        self.tokens += len(tokens) - first
        self.unknown += unknown
        total = 0.0
        greedy = unknown == 0  # whether all so far are the likeliest
        for hidden, wanted in self.hidden_before(tokens, first):
            total -= float(model.nll(hidden, wanted).double().sum())
            greedy = greedy and self.are_likeliest(hidden, wanted)
        return total, greedy

    def tokens_to_score(self, context: str, text: str) -> tuple[list[int], int]:
        """The ids of context + text, and the place of the first one that `continuation` scores.

        Places count from 0; if none is scored, it is the one after the last id.
        """
        tokenizer = self.scorer.tokenizer
        before = encode_prompt(tokenizer, context.rstrip(" "))  # a blank is of the word after it
        whole = encode_prompt(tokenizer, context + text)
        shared = 0  # tokens that the text leaves as they are
        while shared < min(len(before), len(whole)) and before[shared] == whole[shared]:
            shared += 1
        # An unknown word that the text goes on with is another one, with the same id
        is_continued = context[-1:].strip() != "" and text[:1].strip() != ""
        if is_continued and shared == len(before) and before[-1:] == [tokenizer.unk_id]:
            return whole, shared - 1
        return whole, shared

    def hidden_before(self, tokens: list[int], first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Read a text; yield, block by block, the hidden states that predict its tokens from place
        `first` on, (n, channels), and the ids of these, (n,), on the CPU.

        No n is 0, and nothing is read if there are no such tokens. The caller switches gradients
        off.
        """
        if first == len(tokens):
            return
        read = torch.tensor([[self.scorer.tokenizer.eos_id, *tokens[:-1]]])
        start = 0  # the place of the block's first token
        for hidden, _ in read_blocks(self.scorer.model, read):
            end = start + hidden.size(1)
            if end > first:
                skipped = max(0, first - start)
                yield hidden[0, skipped:], torch.tensor(tokens[start + skipped : end])
            start = end

    def are_likeliest(self, hidden: Tensor, wanted: Tensor) -> bool:
        """Whether each of some ids (n,) is the likeliest type after its hidden state (n, channels).

        wanted: on the CPU. The caller switches gradients off.
        """
        for rows, ids in zip(hidden.split(ROWS), wanted.split(ROWS), strict=True):
            likeliest = self.scorer.model.log_prob(rows).argmax(dim=1).cpu()
            if not torch.equal(likeliest, ids):
                return False
        return True

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """For each request, its text's log-probability in nats, as running text without the last
        line's <eos>.

        A request's argument is the text. After a newline at its end, the last line is the empty one
        there, and the <eos> before it counts. An empty text has 0. Logs a warning if tokens are
        unknown. Raises UsageError for a text that is no valid Unicode.
        """
        answers = [self.continuation("", *request.args)[0] for request in requests]
        self.warn_of_unknown_tokens()
        return answers

    def warn_of_unknown_tokens(self) -> None:
        """Log a warning with the number of unknown tokens since the last call, if there are any.

        Resets the counts.
        """
        if self.unknown:
            log.warning(
                "%d of %d tokens are unknown to the model: <unk> stands for any such word, "
                "so that word_perplexity and bits_per_byte come out too good.",
                self.unknown,
                self.tokens,
            )
        self.tokens = self.unknown = 0

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """For each request, the continuation of its prompt, cut off before the first occurrence of
        each text in its option `until`, in turn.

        A request's arguments are a prompt and options. `until` is a text or a list of them; empty
        ones are ignored, and without it nothing is cut off. Takes the likeliest token unless
        `do_sample` is set, which samples at `temperature` (1 if absent) with seed 1. `max_gen_toks`
        tokens are generated, LENGTH if absent. Other options are ignored. Raises UsageError as
        Scorer.generate does.
        """
        continuations = []
        for request in requests:
            prompt, options = request.args
            temperature = 0.0
            if options.get("do_sample"):
                temperature = options.get("temperature", 1.0)
            count = options.get("max_gen_toks", LENGTH)
            [text] = self.scorer.generate(prompt, count, temperature=temperature)
            continuation = text[len(prompt) :]
            ends = options.get("until") or []
            if isinstance(ends, str):
                ends = [ends]
            for end in ends:
                if end:
                    continuation = continuation.split(end)[0]
            continuations.append(continuation)
        return continuations


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
