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
    flops_per_second: float = 989e12
    bandwidth: float = 3.35e12  # bytes a second
    link: float = 450e9  # bytes a second, each way


@dataclass(frozen=True)
class Epoch:
    """The least seconds of an epoch, part by part, and the memory that it takes."""

    products: float  # seconds of matrix products
    activations: float  # seconds of reading and writing activations
    optimizer: float  # seconds of reading and writing weights and the optimizer's state
    exchange: float  # seconds of summing gradients over GPUs, beside the backward pass
    memory: float  # bytes of one GPU

    @property
    def seconds(self) -> float:
        """Seconds of the whole epoch; of the exchange, only what outlasts the backward pass."""
        waiting = max(0.0, self.exchange - self.backward)
        return self.products + self.activations + self.optimizer + waiting

    @property
    def backward(self) -> float:
        """Seconds of all backward passes; each is two of an update's three passes."""
        return (self.products + self.activations) * 2 / 3

    @property
    def bound(self) -> str:
        """The name of the part that takes longest, for readers.

        The exchange counts only if it outlasts the backward pass, and then with all its seconds.
        """
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
    """A model of MODELS on the meta device, for counting: its weights take no memory.

    All callers share it, so do not change it.
    """
    with torch.device("meta"):
        return build_model(compose_config(f"model={name}").model, MODELS[name][0])


def plan(name: str, tokens: int, gpus: int, gpu: GPU) -> Epoch:
    """The least time and memory of an epoch of a model, by counting.

    name: a key of MODELS, which has the size of the epoch. tokens: of an update, on each of the
    GPUs. gpus: how many there are. gpu: the datasheet of each.
    Products are in bf16, weights and optimizer in float32; gradients are summed by a ring
    all-reduce (DDP).
    """
    model = meta_model(name)
    _, epoch_tokens = MODELS[name]
    parameters = model.parameter_counts()["total"]
    updates = epoch_tokens / (tokens * gpus)
    kept = kept_bytes(model)
    moved = 4 * kept * tokens  # activations and their gradients, each written and read
    sent = 2 * (gpus - 1) / gpus * FLOAT32 * parameters
    return Epoch(
        products=updates * PASSES * model.flops_per_token() * tokens / gpu.flops_per_second,
        activations=updates * moved / gpu.bandwidth,
        optimizer=updates * (OPTIMIZER_BYTES + WEIGHT_BYTES) * parameters / gpu.bandwidth,
        exchange=updates * sent / gpu.link,
        memory=STATE_BYTES * parameters + kept * tokens,
    )


def kept_bytes(model: LanguageModel) -> float:
    """Bytes of activations a token that are kept for the backward pass of a GCNN.

    Of each convolution: its input and output (values and gates) in bf16, and the input's dropout
    mask, a byte each. Of the adaptive softmax: two float32 numbers for each logit. A cluster's
    logits count by the share of words that are in it by Zipf's law (`zipf`).
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
