"""Runs as the model `gcnn` of lm-evaluation-harness (`pip install lm_eval==0.4.13`):

    python -m gcnn.evaluation.lm_eval run --model gcnn --model_args run=latest --tasks wikitext

Texts are read as everywhere here: a line ends with <eos>, and a text begins as for `gcnn score`.
"""

import logging

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

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

        The harness's batch sizes are ignored; results do not depend on them. Raises UsageError and
        RunError as `gcnn.load` does.
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
        tokenizer = self.scorer.tokenizer

        # (1) Which tokens are scored
        stripped = context.rstrip(" ")  # blanks belong to the word after them
        before = encode_prompt(tokenizer, stripped)
        whole = encode_prompt(tokenizer, context + text)
        shared = 0  # tokens that the text leaves as they are
        while shared < min(len(before), len(whole)) and before[shared] == whole[shared]:
            shared += 1
        # Whether the text goes on with the word that the context ends in
        same_word = context[-1:].strip() != "" and text[:1].strip() != ""
        if same_word and shared == len(before) and before[-1:] == [tokenizer.unk_id]:
            shared -= 1  # another unknown word, with the same id
        unknown = whole[shared:].count(tokenizer.unk_id)
        self.tokens += len(whole) - shared
        self.unknown += unknown

        # (2) Their log-probabilities, block by block
        total = 0.0
        greedy = unknown == 0  # whether all so far are the likeliest
        if shared == len(whole):  # the text is empty
            return total, greedy
        block_start = 0
        for hidden, _ in read_blocks(model, torch.tensor([[tokenizer.eos_id, *whole[:-1]]])):
            first = max(shared, block_start)  # the first position of the block that is scored
            end = block_start + hidden.size(1)
            wanted = torch.tensor(whole[first:end], dtype=torch.long)
            hidden = hidden[0, first - block_start :]  # (wanted, channels)
            block_start = end
            if len(wanted) == 0:
                continue
            total -= float(model.nll(hidden, wanted).double().sum())
            for rows, types in zip(hidden.split(ROWS), wanted.split(ROWS), strict=True):
                if greedy:
                    likeliest = model.log_prob(rows).argmax(dim=1).cpu()
                    greedy = bool((likeliest == types).all())
        return total, greedy

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
