"""The least time and memory of an epoch of a Table 1 model on GPUs, from a datasheet.

Nothing here is measured: operations and bytes are counted and divided by the datasheet's rates. An
update's matrix products, the reading and writing of its activations, and the optimizer come one
after the other; gradients are summed over GPUs beside the backward pass. The starting of kernels
and the loading of data are left out.
"""

import functools
from dataclasses import dataclass

import torch

from gcnn.config.compose import compose_config
from gcnn.models.language_model import LanguageModel, build_model, zipf
from gcnn.models.layers import GatedConv
from gcnn.training.trainer import PASSES

WIKITEXT_103, BILLION_WORD = 103_227_021, 800_000_000  # training tokens
MODELS = {  # types in the vocabulary, training tokens
    "gcnn_8": (267_735, WIKITEXT_103),
    "gcnn_14": (267_735, WIKITEXT_103),
    "gcnn_9": (793_471, BILLION_WORD),
    "gcnn_8b": (793_471, BILLION_WORD),
    "gcnn_13": (793_471, BILLION_WORD),
    "gcnn_14b": (793_471, BILLION_WORD),
}
BF16, FLOAT32 = 2, 4  # bytes
# Bytes a parameter. The optimizer reads weight, gradient and velocity, writes weight and velocity.
OPTIMIZER_BYTES = 5 * FLOAT32
# A weight is normalised or cast, written and read in bf16, and its gradient is written.
WEIGHT_BYTES = 3 * FLOAT32 + 2 * BF16
STATE_BYTES = 3 * FLOAT32  # kept in memory: weight, gradient, velocity


@dataclass(frozen=True)
class GPU:
    """A GPU's datasheet: dense bf16 products, memory bandwidth, and the link to other GPUs."""

    name: str = "H100 SXM"
    flops: float = 989e12  # a second
    bandwidth: float = 3.35e12  # bytes a second
    link: float = 450e9  # bytes a second, each way


@dataclass(frozen=True)
class Epoch:
    """The least seconds of an epoch, part by part, and the bytes of one GPU's memory."""

    products: float
    activations: float
    optimizer: float
    exchange: float  # beside the backward pass
    memory: float

    @property
    def seconds(self) -> float:
        """Of the whole epoch; of the exchange, what outlasts the backward pass counts."""
        waiting = max(0.0, self.exchange - self.backward)
        return self.products + self.activations + self.optimizer + waiting

    @property
    def backward(self) -> float:
        """Seconds of the backward pass, two of an update's three passes."""
        return (self.products + self.activations) * 2 / 3

    @property
    def bound(self) -> str:
        """The name of the part that takes longest."""
        parts = {
            "products": self.products,
            "activations": self.activations,
            "optimizer": self.optimizer,
        }
        if self.exchange > self.backward:
            parts["exchange of gradients"] = self.exchange
        return max(parts, key=parts.get)


@functools.cache
def meta_model(name: str) -> LanguageModel:
    """A model of MODELS without memory for its weights, for counting."""
    with torch.device("meta"):
        return build_model(compose_config(f"model={name}").model, MODELS[name][0])


def plan(name: str, tokens: int, gpus: int, gpu: GPU) -> Epoch:
    """An epoch of a model of MODELS in updates of `tokens` on each of `gpus` GPUs.

    Products in bf16, weights and optimizer in float32, gradients summed by a ring's all-reduce
    (DDP).
    """
    model = meta_model(name)
    _, epoch_tokens = MODELS[name]
    parameters = model.parameter_counts()["total"]
    updates = epoch_tokens / (tokens * gpus)
    kept = kept_bytes(model)
    moved = 4 * kept * tokens  # activations and their gradients, each written and read
    sent = 2 * (gpus - 1) / gpus * FLOAT32 * parameters
    return Epoch(
        products=updates * PASSES * model.flops_per_token() * tokens / gpu.flops,
        activations=updates * moved / gpu.bandwidth,
        optimizer=updates * (OPTIMIZER_BYTES + WEIGHT_BYTES) * parameters / gpu.bandwidth,
        exchange=updates * sent / gpu.link,
        memory=STATE_BYTES * parameters + kept * tokens,
    )


def kept_bytes(model: LanguageModel) -> float:
    """Bytes of activations that the backward pass needs of one token.

    Of each convolution its input, dropout's mask and both paths; of the softmax the logits, of an
    adaptive one's clusters as many as a word of the usual frequency has on average.
    """
    body = 0
    for module in model.encoder.modules():
        if isinstance(module, GatedConv):
            conv = module.conv
            body += (BF16 + 1) * conv.in_channels + BF16 * conv.out_channels
    softmax = model.softmax
    frequencies = zipf(model.vocabulary_size)
    logits = softmax.shortlist + len(softmax.tails)
    for low, high in softmax.clusters():
        logits += float(frequencies[low:high].sum()) * (high - low)
    return body + FLOAT32 * 2 * logits
