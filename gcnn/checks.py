"""What a config must satisfy beyond its types: choices, ranges, and the fit of its groups to the data."""

import argparse
from typing import Any

from gcnn.errors import UsageError

CHOICES = {
    "data.source": ("shakespeare", "wikitext", "local", "billion_word"),
    "tokenizer.model_type": ("bpe", "unigram"),
    "model.gate": ("glu", "gtu", "bilinear", "linear", "relu", "tanh"),
    "trainer.precision": ("float32", "bf16"),
    "device": ("auto", "cpu", "cuda"),
    "logger.kind": ("none", "wandb"),
    "logger.mode": ("offline", "online"),
}
POSITIVE = (
    "threads",
    "tokenizer.min_count",
    "tokenizer.max_size",
    "tokenizer.vocabulary_size",
    "model.embedding_dim",
    "model.hidden_dim",
    "model.num_layers",
    "optimizer.lr",
    "trainer.batch_size",
    "trainer.block_size",
    "trainer.max_steps",
    "trainer.max_epochs",
    "trainer.max_minutes",
    "trainer.validate_every",
    "trainer.checkpoint_every",
    "trainer.checkpoint_minutes",
    "trainer.keep_checkpoints",
    "trainer.log_every",
    "trainer.clip_norm",
    "trainer.accumulate",
)
FRACTIONS = (
    "model.dropout",
    "model.output_dropout",
    "optimizer.momentum",
    "schedule.factor",
    "schedule.final_fraction",
)
NOT_NEGATIVE = (
    "optimizer.weight_decay",
    "schedule.warmup_steps",
    "schedule.patience",
    "trainer.skip_nonfinite",
)


def positive(text: str) -> int:
    """A command's argument that must be a whole number above 0, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def value_of(config: Any, key: str) -> Any:
    value = config
    for part in key.split("."):
        value = getattr(value, part, None)
    return value


def check(config: Any) -> None:
    """Raise UsageError for a value out of its range; what depends on the data is checked once that is known."""
    for key, choices in CHOICES.items():
        value = value_of(config, key)
        if value is not None and value not in choices:
            raise UsageError(f"{key} is {value!r}; choose one of: {', '.join(choices)}.")
    for key in POSITIVE:
        value = value_of(config, key)
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"{key} is {value}; give a number above 0.")
    for key in NOT_NEGATIVE:
        value = value_of(config, key)
        if value is not None and not 0 <= value < float("inf"):
            raise UsageError(f"{key} is {value}; give 0 or more.")
    for key in FRACTIONS:
        value = value_of(config, key)
        if value is not None and not 0 <= value < 1:
            raise UsageError(f"{key} is {value}; give a number from 0 to below 1.")
    if not 0 <= config.seed < 1 << 63:
        raise UsageError(f"seed is {config.seed}; give a number from 0 to below 2^63.")
    trainer = config.trainer
    if trainer.max_steps is None and trainer.max_epochs is None and trainer.max_minutes is None:
        raise UsageError("The run has no end: set trainer.max_steps, trainer.max_epochs or trainer.max_minutes.")
    if trainer.carry_state and config.data.sentences:
        raise UsageError("trainer.carry_state is true, but sentences stand alone (data.sentences); set it to false.")
    check_model(config.model)


def check_model(model: Any) -> None:
    if any(b <= a for a, b in zip([0, *model.cutoffs], model.cutoffs, strict=False)):
        raise UsageError(f"model.cutoffs is {model.cutoffs}; give positive numbers in increasing order.")
    for block in getattr(model, "blocks", []):
        if block.repeat < 1 or not block.convs or any(len(c) != 2 or min(c) < 1 for c in block.convs):
            raise UsageError(
                f"model.blocks: {{convs: {block.convs}, repeat: {block.repeat}}} is no block; "
                "give pairs [kernel_size, out_channels] of positive numbers and a positive repeat."
            )
    if getattr(model, "blocks", None) == []:
        raise UsageError("model.blocks is empty; give at least one block, as {convs: [[4, 256]], repeat: 6}.")


def check_against_data(config: Any, vocabulary_size: int, train_tokens: int, processes: int = 1) -> None:
    """Raise UsageError where the config does not fit the corpus: cutoffs past the vocabulary, blocks or batches
    that the training split cannot fill."""
    trainer, cutoffs = config.trainer, config.model.cutoffs
    if cutoffs and cutoffs[-1] >= vocabulary_size:
        raise UsageError(
            f"model.cutoffs is {cutoffs}, but the vocabulary has {vocabulary_size} types; "
            f"give cutoffs below {vocabulary_size}."
        )
    if config.data.sentences:
        return
    if trainer.block_size > train_tokens:
        raise UsageError(
            f"trainer.block_size is {trainer.block_size}, but the training split has {train_tokens} tokens; "
            "give shorter blocks or more text."
        )
    if trainer.batch_size * processes > train_tokens // trainer.block_size:
        each = f" for each of {processes} processes" if processes > 1 else ""
        raise UsageError(
            f"trainer.batch_size is {trainer.batch_size}{each}, but the training split fills only "
            f"{train_tokens // trainer.block_size} sequences of {trainer.block_size} tokens; "
            "lower trainer.batch_size or trainer.block_size."
        )
