"""Runs as the model `gcnn` of lm-evaluation-harness (`pip install lm_eval==0.4.13`, the extra `lm-eval`):

    python -m gcnn.evaluation.lm_eval run --model gcnn --model_args run=latest --tasks wikitext

Texts are read as everywhere here: a line ends with <eos>, and what is before the text is one <eos>.
"""

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from gcnn.evaluation.generation import encode_prompt
from gcnn.evaluation.perplexity import POSITIONS
from gcnn.evaluation.scoring import load

ROWS = 64  # positions whose distributions are in memory together; the first likelier type ends the search
LENGTH = 256  # tokens generated where a task does not say


@register_model("gcnn")
class HarnessModel(LM):
    """A run, by any name that `gcnn.load` takes. Sizes of batches change nothing and are passed over."""

    def __init__(self, run: str, device: str | None = None, precision: str = "float32", **sizes: object):
        super().__init__()
        self.scorer = load(run, device or "auto", precision)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """The log-probability in nats of each continuation, and whether every token of it is the likeliest."""
        return [self.continuation(*request.args) for request in requests]

    @torch.inference_mode()
    def continuation(self, context: str, text: str) -> tuple[float, bool]:
        model, tokenizer = self.scorer.model, self.scorer.tokenizer
        stripped = context.rstrip(" ")  # blanks belong to the word after them
        before, whole = (encode_prompt(tokenizer, part) for part in (stripped, context + text))
        count = len(whole) - len(before)
        if count <= 0:  # the text has no token of its own: it is empty, or ends the context's last word
            return 0.0, True
        device = next(model.parameters()).device
        wanted = torch.tensor(whole[-count:], device=device)  # (count,)
        state, parts = None, []
        for block in torch.tensor([[tokenizer.eos_id, *whole[:-1]]], device=device).split(POSITIONS, dim=1):
            hidden, state = model(block, state)
            parts.append(hidden)
        hidden = torch.cat(parts, dim=1)[:, -count:]  # (1, count, channels)
        some = zip(hidden[0].split(ROWS), wanted.split(ROWS), strict=True)
        greedy = all(bool((model.log_prob(rows).argmax(dim=1) == types).all()) for rows, types in some)
        return -float(model.nll(hidden, wanted[None]).double().sum()), greedy

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """The log-probability in nats of each text as running text, without the end of its last line."""
        return [self.continuation("", *request.args)[0] for request in requests]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Each prompt's continuation, up to the first of the texts that end it."""
        continuations = []
        for request in requests:
            prompt, options = request.args
            temperature = options.get("temperature", 1.0) if options.get("do_sample") else 0.0
            [text] = self.scorer.generate(prompt, options.get("max_gen_toks", LENGTH), temperature=temperature)
            text, ends = text[len(prompt) :], options.get("until") or []
            for end in [ends] if isinstance(ends, str) else ends:
                text = text.split(end)[0] if end else text
            continuations.append(text)
        return continuations


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
