"""The least memory that a model takes, computed from its config before it is built."""

from gcnn.base.errors import UsageError
from gcnn.base.values import check_memory
from gcnn.config.models import ModelConfig

LAYER = 1 << 14  # bytes of a layer's Python objects, besides its weights


def check_size(
    model: ModelConfig, vocabulary_size: int, copies: int = 1, positions: int = 0
) -> None:
    """Raise UsageError for cutoffs not below the vocabulary size and for a model that exceeds the
    machine's main memory, whatever the device.

    Counted are `copies` of the weights in float32 (0: none is held) and, for a batch of `positions`
    tokens, the outputs of all layers in bf16. What is counted is the least that is needed.
    """
    if model.cutoffs and model.cutoffs[-1] >= vocabulary_size:
        vocabulary = (
            f"the vocabulary has {vocabulary_size} types; give cutoffs below {vocabulary_size}"
        )
        raise UsageError(f"model.cutoffs is {model.cutoffs}, but {vocabulary}.")
    layers, weights, width = model.least_size()
    weights += vocabulary_size * model.embedding_dim
    what = f"a model of {layers:,} layers and {weights:,} weights"
    check_memory(what, layers * LAYER + 4 * weights * copies, "give smaller numbers under model")
    remedy = "lower trainer.micro_batch_size, trainer.batch_size or trainer.block_size"
    check_memory(f"a batch of {positions:,} tokens", 2 * positions * width, remedy)
