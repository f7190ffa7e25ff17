"""Rules across the fields of a config that do not depend on the data.

`check_config` refuses values that contradict each other; `refuse_without_effect` refuses settings
that would have no effect beside the others.
"""

import os
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from gcnn.base.errors import UsageError
from gcnn.base.values import Range, check_ranges, check_value, default_of

# Keys that may be set without effect by a config file: the file of a model sets this one for its
# clusters, which a command line may remove.
SET_BY_CHOICES = ("model.softmax_dropout",)


class Condition(NamedTuple):
    """Whether a key has an effect beside the other values of a config."""

    key: str  # the full key, as "data.column"
    has_effect: bool
    reason: str  # why the key has no effect where it has none


def check_config(config: Any) -> None:
    """Raise UsageError for values out of their ranges or in contradiction to each other.

    Also if none of the trainer's four bounds is set. Keys without an effect are left to
    `refuse_without_effect`.
    config: a TrainConfig. No file is read; what depends on the data is checked before training.
    """
    check_ranges(config)
    trainer = config.trainer
    if {trainer.max_steps, trainer.max_epochs, trainer.max_minutes, trainer.max_flops} == {None}:
        raise UsageError(
            "The run has no end: set trainer.max_steps, max_epochs, max_minutes or max_flops."
        )
    if trainer.carry_state and config.data.sentences:
        raise UsageError(
            "trainer.carry_state is true, but sentences stand alone (data.sentences); "
            "set it to false."
        )
    lr = config.optimizer.lr
    at_most_lr = Range(lambda value: value <= lr, f"give at most optimizer.lr, {lr}")
    check_value("schedule.min_lr", getattr(config.schedule, "min_lr", 0), at_most_lr)
    check_model(config.model)


def check_model(model: Any) -> None:
    """Raise UsageError for a GCNN without blocks or with an invalid one, or a Transformer whose
    hidden_dim is no multiple of 2 * num_heads.

    model: one of the dataclasses of gcnn/config/models.py, whose values are in their ranges
    (`check_ranges`).
    """
    if model.kind == "transformer" and model.hidden_dim % (2 * model.num_heads):
        raise UsageError(
            f"model.hidden_dim is {model.hidden_dim}; rotary positions turn pairs of channels of "
            f"each head: give a multiple of twice model.num_heads, {2 * model.num_heads}."
        )
    blocks = getattr(model, "blocks", None)
    if blocks == []:
        raise UsageError(
            "model.blocks is empty; give at least one block, as {convs: [[4, 256]], repeat: 6}."
        )
    for block in blocks or []:
        check_block(block)


def check_block(block: Any) -> None:
    """Raise UsageError unless all convolutions of a block are valid and its repeat is 1 or more.

    block: a BlockConfig. It must have at least one convolution, and each must be [kernel_size,
    out_channels], both at least 1.
    """
    valid = block.repeat >= 1 and len(block.convs) > 0
    for conv in block.convs:
        if len(conv) != 2 or min(conv) < 1:
            valid = False
    if not valid:
        raise UsageError(
            f"model.blocks: {{convs: {block.convs}, repeat: {block.repeat}}} is not a block; "
            "give pairs [kernel_size, out_channels] of positive numbers and a positive repeat."
        )


def effect_conditions(config: Any) -> list[Condition]:
    """A Condition for each key that only has an effect beside some other values.

    config: a TrainConfig. A key that is listed twice has an effect if both say so. Keys that
    the chosen kinds lack are listed, too; their `has_effect` means nothing.
    """
    return [
        *data_conditions(config.data, config.tokenizer),
        *tokenizer_conditions(config.tokenizer),
        *model_conditions(config.model),
        *logger_conditions(config.logger),
    ]


def data_conditions(data: Any, tokenizer: Any) -> list[Condition]:
    """The part of `effect_conditions` for the keys of the group `data`."""
    vocabulary = getattr(tokenizer, "vocabulary", None)
    is_local = data.source == "local"
    is_wikitext = data.source == "wikitext"
    # data.path is also where tokenizer=word_listed finds its vocabulary.
    finds_splits = not any(data.files.values())
    finds_vocabulary = str(vocabulary).startswith(f"{data.path}{os.sep}")
    other_source = f"data={data.name} does not read it"
    return [
        Condition("data.files", is_local, other_source),
        Condition("data.path", finds_splits or finds_vocabulary, "data.files names the files"),
        Condition("data.hub_config", is_wikitext, other_source),
        Condition("data.column", is_local or is_wikitext, other_source),
    ]


def tokenizer_conditions(tokenizer: Any) -> list[Condition]:
    """The part of `effect_conditions` for the keys of the group `tokenizer`."""
    counts_words = getattr(tokenizer, "vocabulary", None) is None
    trains_pieces = getattr(tokenizer, "model", None) is None
    listed = "tokenizer.vocabulary lists the types"
    trained = "tokenizer.model is trained already"
    conditions = []
    for key in ("tokenizer.min_count", "tokenizer.max_size"):
        conditions.append(Condition(key, counts_words, listed))
    for key in ("tokenizer.model_type", "tokenizer.vocabulary_size"):
        conditions.append(Condition(key, trains_pieces, trained))
    return conditions


def model_conditions(model: Any) -> list[Condition]:
    """The part of `effect_conditions` for the keys of the group `model`."""
    is_untied = not model.tie_embeddings
    is_adaptive = bool(model.cutoffs)
    is_full = not is_adaptive
    is_gcnn = model.kind == "gcnn"  # other kinds project within their encoders
    own_layer = "model.tie_embeddings makes a layer of its own there"
    not_gcnn = "before an adaptive softmax a GCNN has none"
    no_clusters = "without clusters of vectors there is none"
    return [
        Condition("model.projection_dim", is_untied, own_layer),
        Condition("model.projection_dim", is_full or not is_gcnn, not_gcnn),
        Condition("model.softmax_dropout", is_adaptive and is_untied, no_clusters),
    ]


def logger_conditions(logger: Any) -> list[Condition]:
    """The part of `effect_conditions` for the keys of the group `logger`."""
    is_wandb = logger.kind == "wandb"
    return [
        Condition("logger.project", is_wandb, f"logger={logger.kind} has no projects"),
        Condition("logger.mode", is_wandb, f"logger={logger.kind} has no modes"),
    ]


def keys_without_effect(config: Any) -> dict[str, str]:
    """The keys whose values are not the schema's defaults but have no effect, each with the reason.

    config: a TrainConfig. Of the keys of `effect_conditions`, those that the chosen kinds lack are
    left out: composing refuses them by name.
    """
    found = {}
    for key, has_effect, reason in effect_conditions(config):
        group, _, name = key.partition(".")
        owner = getattr(config, group)
        field = owner.__dataclass_fields__.get(name)
        if has_effect or field is None:
            continue
        if getattr(owner, name) != default_of(field):
            found.setdefault(key, reason)
    return found


def refuse_without_effect(config: Any, given: Collection[str], all_keys: bool = True) -> None:
    """Raise UsageError for a key that has no effect and is not at its schema's default.

    given: the keys that the command line sets, as `keys_of` returns them.
    all_keys: also refuse those that config files set, except SET_BY_CHOICES. False is for a stored
    config, which may come from an older version that read them.
    """
    for key, reason in keys_without_effect(config).items():
        if key in given or (all_keys and key not in SET_BY_CHOICES):
            group, _, name = key.partition(".")
            default = default_of(getattr(config, group).__dataclass_fields__[name])
            default = "null" if default is None else default
            raise UsageError(
                f"{key} would change nothing: {reason}. Leave it out, or set it to {default}."
            )


def keys_of(overrides: Iterable[str]) -> set[str]:
    """The keys of command-line overrides, without Hydra's prefixes + and ~."""
    return {override.partition("=")[0].lstrip("+~") for override in overrides}
