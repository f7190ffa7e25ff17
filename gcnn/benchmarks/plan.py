"""What an epoch of a Table 1 model takes on GPUs, at the least: counted operations and bytes over datasheet rates.

Nothing here is measured. An update's products, what its activations move, and what the optimizer moves take turns;
the sum of gradients over GPUs runs beside the backward pass. Left out: the start of kernels, and the data.
"""

import functools
from dataclasses import dataclass

import torch

from gcnn.config.compose import compose_config
from gcnn.models.language_model import LanguageModel, build_model, zipf
from gcnn.models.layers import GatedConv
from gcnn.training.trainer import PASSES

WIKITEXT_103, BILLION_WORD = 103_227_021, 800_000_000  # training tokens
MODELS = {
    "gcnn_8": (267_735, WIKITEXT_103), "gcnn_14": (267_735, WIKITEXT_103), "gcnn_9": (793_471, BILLION_WORD),
    "gcnn_8b": (793_471, BILLION_WORD), "gcnn_13": (793_471, BILLION_WORD), "gcnn_14b": (793_471, BILLION_WORD),
}  # fmt: skip
BF16, FLOAT32 = 2, 4  # bytes
OPTIMIZER_BYTES = (
    5 * FLOAT32
)  # a parameter: read weight, gradient and velocity, write weight and velocity
WEIGHT_BYTES = (
    3 * FLOAT32 + 2 * BF16
)  # a parameter: normalised or cast, written and read in bf16, its gradient written
STATE_BYTES = 3 * FLOAT32  # a parameter, kept: weight, gradient, velocity


@dataclass(frozen=True)
class GPU:
    """A datasheet: dense bf16 products, memory, and what one GPU sends to the others."""

    name: str = "H100 SXM"
    flops: float = 989e12  # a second
    bandwidth: float = 3.35e12  # bytes a second
    link: float = 450e9  # bytes a second, each way


@dataclass(frozen=True)
class Epoch:
    """The least seconds of an epoch, part by part, and bytes of a GPU's memory."""

    products: float
    activations: float
    optimizer: float
    exchange: float  # beside the backward pass
    memory: float

    @property
    def seconds(self) -> float:
        backward = (self.products + self.activations) * 2 / 3
        return (
            self.products + self.activations + self.optimizer + max(0.0, self.exchange - backward)
        )

    @property
    def bound(self) -> str:
        parts = {
            "products": self.products,
            "activations": self.activations,
            "optimizer": self.optimizer,
        }
        if self.exchange > (self.products + self.activations) * 2 / 3:
            parts["exchange of gradients"] = self.exchange
        return max(parts, key=parts.get)


@functools.cache
def meta_model(name: str) -> LanguageModel:
    with torch.device("meta"):
        return build_model(compose_config(f"model={name}").model, MODELS[name][0])


def plan(name: str, tokens: int, gpus: int, gpu: GPU) -> Epoch:
    """An epoch of a model in updates of `tokens` on each of several GPUs, bf16 with float32 weights, DDP."""
    model, epoch_tokens = meta_model(name), MODELS[name][1]
    parameters = model.parameter_counts()["total"]
    updates = epoch_tokens / (tokens * gpus)
    kept = kept_bytes(model)
    sent = 2 * (gpus - 1) / gpus * FLOAT32 * parameters  # a ring's all-reduce
    return Epoch(
        products=updates * PASSES * model.flops_per_token() * tokens / gpu.flops,
        activations=updates
        * 4
        * kept
        * tokens
        / gpu.bandwidth,  # they and their gradients, written and read
        optimizer=updates * (OPTIMIZER_BYTES + WEIGHT_BYTES) * parameters / gpu.bandwidth,
        exchange=updates * sent / gpu.link,
        memory=STATE_BYTES * parameters + kept * tokens,
    )


def kept_bytes(model: LanguageModel) -> float:
    """What the backward pass needs of a token: each convolution's input, dropout's mask, both paths; the logits."""
    convs = [m.conv for m in model.encoder.modules() if isinstance(m, GatedConv)]
    body = sum((BF16 + 1) * conv.in_channels + BF16 * conv.out_channels for conv in convs)
    softmax, frequencies = model.softmax, zipf(model.vocabulary_size)
    in_tails = sum(
        float(frequencies[low:high].sum()) * (high - low) for low, high in softmax.clusters()
    )  # expected
    return body + FLOAT32 * 2 * (softmax.shortlist + len(softmax.tails) + in_tails)
