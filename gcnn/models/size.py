"""The least memory that a model takes, computed from its config before it is built."""

from gcnn.base.errors import UsageError
from gcnn.base.values import check_memory
from gcnn.config.models import ModelConfig

LAYER = 1 << 14  # bytes of a layer's Python objects, besides its weights


def check_size(
    model: ModelConfig, vocabulary_size: int, copies: int = 1, positions: int = 0
) -> None:
    """Raise UsageError if cutoffs are not below the vocabulary size, or if the model or a batch
    needs more than the machine's main memory.

    The needs are lower bounds and are not added up. A GPU's memory is not looked at.
    copies: how many times the weights are held, in float32; 0: not at all.
    positions: tokens of a batch, for which the outputs of all layers are held in bf16.
    """
    if model.cutoffs and model.cutoffs[-1] >= vocabulary_size:
        raise UsageError(
            f"model.cutoffs is {model.cutoffs}, but the vocabulary has {vocabulary_size} types; "
            f"give cutoffs below {vocabulary_size}."
        )
    layers, weights, width = model.least_size()
    weights += vocabulary_size * model.embedding_dim
    what = f"a model of {layers:,} layers and {weights:,} weights"
    check_memory(what, layers * LAYER + 4 * weights * copies, "give smaller numbers under model")
    remedy = "lower trainer.micro_batch_size, trainer.batch_size or trainer.block_size"
    check_memory(f"a batch of {positions:,} tokens", 2 * positions * width, remedy)
