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
    """A run as a model of the harness, by any name that `gcnn.load` takes.

    `device` None: a GPU if there is one. The harness's batch sizes are ignored; results do not
    depend on them. Raises UsageError and RunError as `gcnn.load` does.
    """

    def __init__(
        self,
        run: str,
        device: str | None = None,
        precision: str = "float32",
        batch_size: object = None,
        max_batch_size: object = None,
    ):
        super().__init__()
        self.scorer = load(run, device or "auto", precision)
        self.tokens = self.unknown = 0  # of the continuations of the requests at hand

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Each continuation's log-probability in nats, and whether all tokens are the likeliest.

        A request's arguments are a context and its continuation. Logs a warning about unknown
        tokens.
        """
        answers = [self.continuation(*request.args) for request in requests]
        self.warn_of_unknown_tokens()
        return answers

    @torch.inference_mode()
    def continuation(self, context: str, text: str) -> tuple[float, bool]:
        """As `loglikelihood`, of one continuation.

        Scored are the tokens from the first on in which context + text differs from the context.
        Where the text goes on with the context's last word, the tokens of that word are among them.
        An unknown token is never the likeliest, for the model cannot write the word. Adds to the
        counts of `warn_of_unknown_tokens`.
        """
        model, tokenizer = self.scorer.model, self.scorer.tokenizer
        stripped = context.rstrip(" ")  # blanks belong to the word after them
        before, whole = (encode_prompt(tokenizer, part) for part in (stripped, context + text))
        shared = 0  # tokens that the text leaves as they are
        while shared < min(len(before), len(whole)) and before[shared] == whole[shared]:
            shared += 1
        same_word = stripped == context and text[:1].strip() != ""  # goes on where the context ends
        if same_word and before[:shared][-1:] == [tokenizer.unk_id] and shared == len(before):
            shared -= 1  # another unknown word, with the same id
        unknown = whole[shared:].count(tokenizer.unk_id)
        self.tokens += len(whole) - shared
        self.unknown += unknown
        total = 0.0
        greedy = unknown == 0
        at = 0  # position of the block's first token
        if shared == len(whole):  # the text is empty
            return total, greedy
        for hidden, _ in read_blocks(model, torch.tensor([[tokenizer.eos_id, *whole[:-1]]])):
            first = max(shared, at)  # of the block, the positions that are scored
            end = at + hidden.size(1)
            wanted = torch.tensor(whole[first:end], dtype=torch.long)
            hidden = hidden[0, first - at :]  # (wanted, channels)
            at = end
            if len(wanted) == 0:
                continue
            total -= float(model.nll(hidden, wanted).double().sum())
            for rows, types in zip(hidden.split(ROWS), wanted.split(ROWS), strict=True):
                if greedy:
                    likeliest = model.log_prob(rows).argmax(dim=1).cpu()
                    greedy = bool((likeliest == types).all())
        return total, greedy

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Each text's log-probability in nats, as running text without the last line's <eos>."""
        answers = [self.continuation("", *request.args)[0] for request in requests]
        self.warn_of_unknown_tokens()
        return answers

    def warn_of_unknown_tokens(self) -> None:
        """Log how many tokens of the last requests were unknown, if any, and reset the counts."""
        if self.unknown:
            log.warning(
                "%d of %d tokens are unknown to the model: <unk> stands for any such word, "
                "so that word_perplexity and bits_per_byte come out too good.",
                self.unknown,
                self.tokens,
            )
        self.tokens = self.unknown = 0

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Each prompt's continuation, up to the first of the texts in the option `until`.

        Greedy unless `do_sample` is set; LENGTH tokens unless `max_gen_toks` says how many.
        """
        continuations = []
        for request in requests:
            prompt, options = request.args
            temperature = options.get("temperature", 1.0) if options.get("do_sample") else 0.0
            [text] = self.scorer.generate(
                prompt, options.get("max_gen_toks", LENGTH), temperature=temperature
            )
            text, ends = text[len(prompt) :], options.get("until") or []
            for end in [ends] if isinstance(ends, str) else ends:
                text = text.split(end)[0] if end else text
            continuations.append(text)
        return continuations


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
