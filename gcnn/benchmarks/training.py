"""How fast training is: tokens and operations a second, beside the machine's matrix product.

The real update and the product take turns within one run, so that their ratio holds on a machine
whose speed varies.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import torch

from gcnn.base.provenance import peak_memory_bytes
from gcnn.benchmarks.bounds import Machine, Sizes, now
from gcnn.benchmarks.latency import Zipf
from gcnn.config.compose import compose_config
from gcnn.config.schema import TrainConfig
from gcnn.data.stream import PreparedData, TokenStream
from gcnn.data.tokenizers import WordTokenizer
from gcnn.evaluation.perplexity import evaluate, type_counts
from gcnn.evaluation.run import choose_device
from gcnn.models.language_model import build_model
from gcnn.training.run import reuse_large_blocks
from gcnn.training.trainer import PASSES, Trainer

VOCABULARY_SIZE = 33_280
SMALL = ("model.cutoffs=[2000,10000]", "trainer.batch_size=8", "trainer.block_size=256")
LONG = ("trainer.batch_size=1", "trainer.block_size=1024", "trainer.precision=float32")
WORKLOADS = {
    "small": ("model=gcnn_small", *SMALL),
    "lstm_small": ("model=lstm_small", *SMALL),
    "gcnn_14": ("experiment=wikitext103/gcnn_14", "model.cutoffs=[10000,20000]", *LONG),
    "gcnn_8": ("experiment=wikitext103/gcnn_8", "model.cutoffs=[2000,10000]", *LONG),
    "gcnn_13": ("model=gcnn_13", "model.cutoffs=[10000,20000]", *LONG),
    "lstm_1024": (
        "experiment=wikitext103/lstm_1024",
        "model.cutoffs=[2000,10000]",
        "trainer.precision=float32",
    ),
}
USUAL = ["small", "lstm_small", "gcnn_14"]  # the others take long on a CPU


@dataclass
class Speed:
    """The measurements of one workload, one entry a round."""

    name: str
    tokens_per_step: int
    flops_per_token: float  # forward pass
    peak_memory_bytes: int = 0  # of the process so far
    steps: list[float] = field(default_factory=list)  # seconds an update
    products: list[float] = field(default_factory=list)  # FLOP/s of the machine's matrix product
    evaluations: list[float] = field(default_factory=list)  # seconds a token, by `evaluate`
    forwards: list[float] = field(default_factory=list)  # seconds a token, forward pass and loss

    def report(self) -> dict[str, float]:
        """The workload's entry in the benchmark's JSON: medians over at least one round.

        Keys: tokens_per_second and flops_per_second (of whole updates),
        matrix_product_flops_per_second, evaluation_tokens_per_second (of `evaluate`),
        share_of_matrix_product (the update's FLOP/s by the product's), evaluation_share_of_forward
        (the seconds of the bare forward pass by those of `evaluate`) and peak_memory_bytes. Both
        shares are medians of each round's own ratio.
        """
        flops = PASSES * self.flops_per_token * self.tokens_per_step  # of an update
        shares = []
        for step, product in zip(self.steps, self.products, strict=True):
            shares.append(flops / step / product)
        forward_shares = []
        for forward, evaluation in zip(self.forwards, self.evaluations, strict=True):
            forward_shares.append(forward / evaluation)
        return {
            "tokens_per_second": self.tokens_per_step / median(self.steps),
            "flops_per_second": flops / median(self.steps),
            "matrix_product_flops_per_second": median(self.products),
            "share_of_matrix_product": median(shares),
            "evaluation_tokens_per_second": 1 / median(self.evaluations),
            "evaluation_share_of_forward": median(forward_shares),
            "peak_memory_bytes": self.peak_memory_bytes,
        }


def make_trainer(name: str, *overrides: str) -> Trainer:
    """A trainer of a workload on synthetic text, its model in training mode.

    name: a key of WORKLOADS. overrides: key=value; the device is `auto` without one.
    It has no run directory: of its methods only `step` may be called. Changes the process: sets
    torch's random seed, switches off TF32, and has memory reused as in a training run. Raises
    UsageError if an override is invalid or there is no such device.
    """
    reuse_large_blocks()
    config = compose_config(*WORKLOADS[name], "device=auto", *overrides)
    torch.manual_seed(config.seed)
    device = choose_device(config.device)
    model = build_model(config.model, VOCABULARY_SIZE).to(device)
    trainer = Trainer(config, model, synthetic_data(config), Path(), device)
    model.train()
    return trainer


def synthetic_data(config: TrainConfig) -> PreparedData:
    """Random text by Zipf's law as a prepared corpus: enough for 200 updates of the config.

    It has VOCABULARY_SIZE types, and depends on the config's seed and sizes alone. Id 0 is <eos>,
    but there are no lines: `words` and `bytes` are the number of tokens, `lines` is 1. The split
    `valid` is the first 8,000 tokens of `train`, or all of it if it is shorter. There is no test
    split.
    """
    length = 200 * config.trainer.batch_size * config.trainer.block_size
    tokens = Zipf(VOCABULARY_SIZE, config.seed).words(length).numpy().astype(np.int32)
    tokenizer = WordTokenizer(["<eos>", "<unk>", *map(str, range(2, VOCABULARY_SIZE))])
    streams = {}
    for split, part in (("train", tokens), ("valid", tokens[: 8 * 1000])):
        streams[split] = TokenStream(part, 0, VOCABULARY_SIZE, len(part), len(part), 1, split)
    return PreparedData(tokenizer, streams, "synthetic", "synthetic")


def measure(
    trainer: Trainer,
    name: str,
    rounds: int,
    steps: int,
    warm_up: int = 2,
    sizes: Sizes | None = None,
) -> Speed:
    """Time the matrix product, `steps` updates and an evaluation in turn, `rounds` times.

    trainer: of `make_trainer`; its model is trained further, first by `warm_up` updates that are
    not timed. rounds, steps: at least one. name: of the workload, for the result. sizes: of the
    product; None: the device's. Raises RunError if an update is not finite, unless the override
    trainer.skip_nonfinite allows it. The peak memory in the result is `peak_memory_bytes` at the
    end.
    """
    settings = trainer.config.trainer
    counts = torch.from_numpy(type_counts(trainer.data.streams["train"]))
    flops = trainer.model.flops_per_token(counts)
    speed = Speed(name, settings.batch_size * settings.block_size, flops)
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    for _ in range(warm_up):
        trainer.step()
    for _ in range(rounds):
        speed.products.append(Machine(trainer.device, dtype, sizes=sizes).flops_per_second())
        start = now(trainer.device)
        for _ in range(steps):
            trainer.step()
        speed.steps.append((now(trainer.device) - start) / steps)
        seconds, forward = evaluation_seconds(trainer)
        speed.evaluations.append(seconds)
        speed.forwards.append(forward)
    speed.peak_memory_bytes = peak_memory_bytes(trainer.device)
    return speed


def evaluation_seconds(trainer: Trainer) -> tuple[float, float]:
    """Seconds a token of `evaluate`, and of the bare forward pass and loss in one block.

    Both read the trainer's whole validation text; its length must be a multiple of 8, the rows of
    the block. Leaves the model in training mode.
    """
    stream = trainer.data.streams["valid"]
    model = trainer.model
    start = now(trainer.device)
    evaluate(model, stream, sentences=False)
    seconds = now(trainer.device) - start
    targets = torch.from_numpy(stream.tokens.astype(np.int64)).view(8, -1)
    tokens = targets.to(trainer.device)
    model.eval()
    with torch.no_grad():
        start = time.perf_counter()
        model.nll(model(tokens)[0], targets).sum().item()
        forward = time.perf_counter() - start
    model.train()
    return seconds / len(stream), forward / tokens.numel()
