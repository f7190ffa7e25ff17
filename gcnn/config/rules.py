"""Rules between the keys of a config, whatever the data: what must go together, and what is never read."""

import os
from collections.abc import Collection, Iterable
from typing import Any

from gcnn.base.errors import UsageError
from gcnn.base.values import Range, check_ranges, check_value, default_of

SET_BY_CHOICES = (
    "model.softmax_dropout",
)  # of model=, whose clusters a command line may take away


def check(config: Any) -> None:
    """Raise UsageError for values out of their ranges or at odds with each other, whatever the data."""
    check_ranges(config)
    trainer = config.trainer
    if {trainer.max_steps, trainer.max_epochs, trainer.max_minutes, trainer.max_flops} == {None}:
        raise UsageError(
            "The run has no end: set trainer.max_steps, max_epochs, max_minutes or max_flops."
        )
    if trainer.carry_state and config.data.sentences:
        raise UsageError(
            "trainer.carry_state is true, but sentences stand alone (data.sentences); set it to false."
        )
    lr = config.optimizer.lr
    at_most_lr = Range(lambda value: value <= lr, f"give at most optimizer.lr, {lr}")
    check_value("schedule.min_lr", getattr(config.schedule, "min_lr", 0), at_most_lr)
    check_model(config.model)


def check_model(model: Any) -> None:
    """Raise UsageError for keys of a model that do not go together, and for blocks that are none."""
    if model.kind == "transformer" and model.hidden_dim % (2 * model.num_heads):
        raise UsageError(
            f"model.hidden_dim is {model.hidden_dim}; rotary positions turn pairs of channels of each head: give a "
            f"multiple of twice model.num_heads, {2 * model.num_heads}."
        )
    blocks = getattr(model, "blocks", None)
    if blocks == []:
        raise UsageError(
            "model.blocks is empty; give at least one block, as {convs: [[4, 256]], repeat: 6}."
        )
    for block in blocks or []:
        if (
            block.repeat < 1
            or not block.convs
            or any(len(c) != 2 or min(c) < 1 for c in block.convs)
        ):
            raise UsageError(
                f"model.blocks: {{convs: {block.convs}, repeat: {block.repeat}}} is no block; "
                "give pairs [kernel_size, out_channels] of positive numbers and a positive repeat."
            )


def unread_keys(config: Any) -> dict[str, str]:
    """The keys whose values are not their defaults, and change nothing beside the config's other values;
    with the reason. (A kind's own keys are refused by name where another kind is chosen.)"""
    data, words, model, logger = config.data, config.tokenizer, config.model, config.logger
    source = f"data={data.name} does not read it"
    listed, trained = "tokenizer.vocabulary lists the types", "tokenizer.model is trained already"
    names_files = any(data.files.values())
    vocabulary, pieces = getattr(words, "vocabulary", None), getattr(words, "model", None)
    beside_corpus = str(vocabulary).startswith(
        f"{data.path}{os.sep}"
    )  # as tokenizer=word_listed has it
    full = not model.cutoffs
    needs = [  # key, whether it is read, why not
        ("data.files", data.source == "local", source),
        ("data.path", not names_files or beside_corpus, "data.files names the files"),
        ("data.hub_config", data.source == "wikitext", source),
        ("data.column", data.source in ("local", "wikitext"), source),
        ("tokenizer.min_count", vocabulary is None, listed),
        ("tokenizer.max_size", vocabulary is None, listed),
        ("tokenizer.model_type", pieces is None, trained),
        ("tokenizer.vocabulary_size", pieces is None, trained),
        (
            "model.projection_dim",
            not model.tie_embeddings,
            "model.tie_embeddings makes a layer of its own there",
        ),
        (
            "model.projection_dim",
            full or model.kind == "lstm",
            "before an adaptive softmax only an LSTM has it",
        ),
        (
            "model.softmax_dropout",
            not (full or model.tie_embeddings),
            "without clusters of vectors there is none",
        ),
        ("logger.project", logger.kind == "wandb", f"logger={logger.kind} has no projects"),
        ("logger.mode", logger.kind == "wandb", f"logger={logger.kind} has no modes"),
    ]
    unread = {}
    for key, read, reason in needs:
        group, _, name = key.partition(".")
        fields = getattr(config, group).__dataclass_fields__
        if (
            not read
            and name in fields
            and getattr(getattr(config, group), name) != default_of(fields[name])
        ):
            unread.setdefault(key, reason)
    return unread


def check_read(config: Any, given: Collection[str], all_keys: bool = True) -> None:
    """Raise UsageError for a key that is set and changes nothing: one of those that a command line has
    `given`, or any."""
    for key, reason in unread_keys(config).items():
        if key in given or (all_keys and key not in SET_BY_CHOICES):
            group, _, name = key.partition(".")
            default = default_of(getattr(config, group).__dataclass_fields__[name])
            default = "null" if default is None else default
            raise UsageError(
                f"{key} would change nothing: {reason}. Leave it out, or set it to {default}."
            )


def keys_of(overrides: Iterable[str]) -> set[str]:
    """The keys that command-line overrides set."""
    return {override.partition("=")[0].lstrip("+~") for override in overrides}
