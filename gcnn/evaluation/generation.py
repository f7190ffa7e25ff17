"""Text sampled from a model, token by token; as the state is carried, each takes one step."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from gcnn.base.errors import UsageError
from gcnn.base.values import check_count, check_memory, check_seed, check_text
from gcnn.data.tokenizers import Tokenizer
from gcnn.evaluation.perplexity import read_to_the_end
from gcnn.models.language_model import LanguageModel


@dataclass
class Sampling:
    """How to draw tokens: by `softmax(log_probs / temperature)` of the `top_k` likeliest types."""

    temperature: float = 1.0  # 0: the likeliest type
    top_k: int | None = None  # None: all types
    seed: int = 1

    def __post_init__(self):
        """Raise UsageError unless temperature is finite and >= 0, top_k a whole number from 1 to
        2^31 - 1 or None, and seed a whole number from 0 to 2^63 - 1.
        """
        if not isinstance(self.temperature, Real) or not 0 <= self.temperature < float("inf"):
            raise UsageError(
                f"temperature is {self.temperature}; give 0 (always the likeliest token) or more."
            )
        if self.top_k is not None:
            check_count("top-k", self.top_k)
        check_seed("seed", self.seed)

    def chooser(self) -> Callable[[Tensor], Tensor]:
        """A function that draws ids (batch,) from log-probabilities (batch, vocabulary), in nats.

        It has a random state of its own, which starts at the seed. The ids that it draws are on the
        CPU; with temperature 0 they stay on the device.
        """
        generator = torch.Generator().manual_seed(self.seed)

        def choose(log_probs: Tensor) -> Tensor:
            """Draw ids as `chooser` says; `log_probs` is not changed."""
            if self.temperature == 0:
                return log_probs.argmax(dim=-1)
            log_probs = log_probs.double().cpu()  # the same draws on every device
            if self.top_k is not None and self.top_k < log_probs.size(-1):
                best, types = log_probs.topk(self.top_k)
                log_probs = torch.full_like(log_probs, -torch.inf).scatter(1, types, best)
            largest = log_probs.amax(dim=-1, keepdim=True)  # gets weight 1: not all underflow
            weights = torch.exp((log_probs - largest) / self.temperature)
            return torch.multinomial(weights, 1, generator=generator).squeeze(1)

        return choose


def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    tokens: int,
    samples: int,
    sampling: Sampling,
) -> list[str]:
    """Continue a prompt `samples` times by `tokens` tokens, none of them <unk>; return the texts.

    Each begins with the prompt as it was given; a newline stands for <eos>. An empty prompt is the
    start of a text. The model must be in evaluation mode. Raises UsageError unless the prompt is a
    string of valid Unicode and `tokens` and `samples` are whole numbers from 1, and if a step needs
    more than the machine's memory.
    """
    check_count("tokens", tokens)
    check_count("samples", samples)
    needed = 8 * samples * tokenizer.vocabulary_size  # log-probabilities of one step, in float64
    check_memory(f"a step of {samples:,} samples", needed, "give fewer samples")
    start = encode_prompt(tokenizer, prompt)
    choose = sampling.chooser()

    def choose_known(log_probs: Tensor) -> Tensor:
        log_probs[:, tokenizer.unk_id] = -torch.inf
        return choose(log_probs)

    read = torch.tensor([tokenizer.eos_id, *start])
    generated = generate_tokens(model, read, samples, tokens, choose_known)
    return [prompt + text_after(tokenizer, prompt, start, row) for row in generated.tolist()]


def text_after(tokenizer: Tokenizer, prompt: str, start: list[int], ids: list[int]) -> str:
    """The text of ids that continue a prompt, as it follows on the prompt as it was given.

    start: the prompt's own ids. Both are decoded together, so that a blank comes between words; it
    is left out if the prompt ends in white space already.
    """
    decoded_prompt = tokenizer.decode(start)  # its blanks and unknown words may be others
    continuation = tokenizer.decode(start + ids)[len(decoded_prompt) :]
    if prompt[-1:].isspace():
        return continuation.removeprefix(" ")
    return continuation


def encode_prompt(tokenizer: Tokenizer, prompt: str, what: str = "the prompt") -> list[int]:
    """The ids of a text to be continued: <eos> between its lines, none before the first, and none
    after the last; empty for an empty text.

    A newline at the end begins a last line that is empty, so that the ids end with <eos>.
    what: names the text in the error. Raises UsageError unless it is a string of valid Unicode.
    """
    check_text(what, prompt)
    return tokenizer.encode_lines(prompt.split("\n"))[:-1].tolist()


@torch.inference_mode()
def generate_tokens(
    model: LanguageModel,
    start: Tensor,
    samples: int,
    count: int,
    choose: Callable[[Tensor], Tensor],
) -> Tensor:
    """Continue a text, which is read once: start (time,) -> the new ids, (samples, count).

    They are on the model's device. start: the text's ids, <eos> first, on any device.
    samples, count: at least 1.
    choose: takes the log-probabilities of the next token, (samples, vocabulary), which it may
    overwrite, and returns the ids to go on with, (samples,).
    The model must be in evaluation mode.
    """
    hidden, state = read_to_the_end(model, start[None])
    hidden = hidden.expand(samples, -1)
    state = [part.expand(samples, *part.shape[1:]) for part in state]
    generated = []
    while len(generated) < count:
        if generated:
            hidden, state = model(generated[-1][:, None], state)
            hidden = hidden[:, -1]
        generated.append(choose(model.log_prob(hidden)).to(hidden.device))
    return torch.stack(generated, dim=1)
