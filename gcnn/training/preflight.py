"""What is refused before a run starts: configs that do not fit the data, the processes or the memory."""

from typing import Any

from gcnn.base.errors import UsageError
from gcnn.models.size import check_size

COPIES = 3  # of the weights in training: the weights, their gradient, the optimizer's momentum


def check_processes(trainer: Any, processes: int) -> None:
    """Raise UsageError for a batch that the processes cannot share evenly."""
    if trainer.batch_size % processes:
        size = f"trainer.batch_size is {trainer.batch_size}, over all processes"
        raise UsageError(f"{size}; give a multiple of their number, {processes}, or start another number of them.")


def check_against_data(config: Any, vocabulary_size: int, train_tokens: int, processes: int = 1) -> None:
    """Raise UsageError where the config does not fit the corpus (cutoffs, blocks, batches) or the machine's memory."""
    trainer = config.trainer
    share = trainer.batch_size // processes
    positions = min(min(share, trainer.micro_batch_size or share) * trainer.block_size, train_tokens)
    check_size(config.model, vocabulary_size, COPIES, positions)
    if config.data.sentences:
        return
    batch_size, block_size = trainer.batch_size, trainer.block_size
    if block_size > train_tokens:
        text = f"the training split has {train_tokens} tokens"
        raise UsageError(f"trainer.block_size is {block_size}, but {text}; give shorter blocks or more text.")
    if batch_size > train_tokens // block_size:
        text = f"the training split fills only {train_tokens // block_size} sequences of {block_size} tokens"
        raise UsageError(f"trainer.batch_size is {batch_size}, but {text}; lower it or trainer.block_size.")
