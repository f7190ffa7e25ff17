"""Every config in configs/ composes into a run that passes its checks."""

import re
from dataclasses import fields, replace
from functools import cache
from itertools import combinations, cycle, product, zip_longest
from pathlib import Path

import pytest
import torch
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository

from gcnn.base.errors import UsageError
from gcnn.config.compose import (
    compose_by_hydra,
    compose_config,
    compose_or_reuse,
    register_schemas,
    typed,
)
from gcnn.config.groups import CONFIGS
from gcnn.config.schema import SCHEMAS
from gcnn.config.stored import load_config, save_config
from gcnn.data.tokenizer_training import PIECES
from gcnn.models.language_model import build_model
from gcnn.models.size import check_size
from tests import composing

CHOICES = {
    group.name: sorted(
        str(path.relative_to(group).with_suffix("")) for path in group.rglob("*.yaml")
    )
    for group in CONFIGS.iterdir()
    if group.is_dir()
}
EXPERIMENTS = CHOICES.pop("experiment")
CHOICES.pop("reproduce")  # no group of Hydra's: tests/reproduction composes each part of a figure
MOST = max(map(len, CHOICES.values()))


def chosen(number):
    """A choice of each group, so that MOST numbers have all."""
    return {group: choices[number % len(choices)] for group, choices in CHOICES.items()}


@cache  # composing takes a while
def composed(number):
    """On the default experiment, which may set what fits every kind."""
    return compose_config(
        "experiment=quickstart", *(f"{group}={name}" for group, name in chosen(number).items())
    )


@pytest.mark.parametrize("number", range(MOST))
def test_every_choice_says_what_its_file_says(number):
    for group, name in chosen(number).items():
        check_choice(composed(number), group, name)


def check_choice(config, group, name):
    path = CONFIGS / group / f"{name}.yaml"
    written, experiment = (
        yaml.safe_load(p.read_text()) for p in (path, CONFIGS / "experiment" / "quickstart.yaml")
    )
    written.pop("defaults")
    if group == "optimizer":  # brings its clipping along
        assert config.trainer.clip_norm == written.get("trainer", {}).get(
            "clip_norm", config.trainer.clip_norm
        )
        written = written["optimizer"]
    found = vars(getattr(config, group))
    for key, value in (written | experiment.get(group, {})).items():
        if isinstance(value, str) and value.startswith("${."):
            value = found[value[3:-1]]
        elif isinstance(value, str) and "${data.path}" in value:
            value = str(Path(value.replace("${data.path}", str(config.data.path))).absolute())
        plain = [vars(item) for item in found[key]] if key == "blocks" else found[key]
        if key == "blocks":
            value = [{"repeat": 1, "residual": True, **block} for block in value]
        assert plain == (pytest.approx(float(value)) if isinstance(plain, float) else value), (
            group,
            name,
            key,
        )


def kinds(group):
    """The choices of a group, those of another kind side by side, so that few in a row have every
    kind.
    """
    names = {}
    for number, name in enumerate(CHOICES[group]):
        kind = getattr(getattr(composed(number), group), "kind", name)
        names.setdefault(kind, []).append(name)
    return [name for row in zip_longest(*names.values()) for name in row if name]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_with_every_choice(experiment):
    """With a choice of each group, another one for each experiment; and what the experiment itself
    sets of a group is a key of all its kinds, so that no other choice can differ.
    """
    number = EXPERIMENTS.index(experiment)
    choices = [
        f"{group}={names[number % len(names)]}" for group in CHOICES if (names := kinds(group))
    ]
    compose_config(f"experiment={experiment}", *choices)
    written = yaml.safe_load((CONFIGS / "experiment" / f"{experiment}.yaml").read_text())
    for group, schemas in SCHEMAS.items():
        for schema in schemas.values():
            assert set(written.get(group, {})) <= {field.name for field in fields(schema)}


def test_any_two_kinds_compose_on_the_default_experiment():
    """And every choice of data and logger."""
    groups = [*SCHEMAS, "data", "logger"]
    first_of_each_kind = [kinds(group)[: len(SCHEMAS[group])] for group in SCHEMAS]
    pairs = set()
    # A Latin square whose side is a prime: of any two columns, each pair of numbers is in a row.
    most = max(map(len, first_of_each_kind))
    side = next(prime for prime in (3, 5, 7, 11) if prime >= most)
    square = [(a, b, (a + b) % side, (a + 2 * b) % side) for a, b in product(range(side), repeat=2)]
    for row, data, logger in zip(square, cycle(CHOICES["data"]), cycle(CHOICES["logger"])):
        chosen = [names[i % len(names)] for names, i in zip(first_of_each_kind, row, strict=True)]
        names = zip(groups, (*chosen, data, logger), strict=True)
        compose_config("experiment=quickstart", *(f"{group}={name}" for group, name in names))
        pairs |= set(combinations(chosen, 2))
    assert pairs == {pair for two in combinations(first_of_each_kind, 2) for pair in product(*two)}
    assert len(square) >= len(CHOICES["data"])


@pytest.mark.parametrize(
    "experiment", ["quickstart", "cpu/base", "wikitext2/gcnn_small", "wikitext103/gcnn_8"]
)
def test_nesterov_is_the_papers_recipe_on_any_experiment(experiment):
    """As AdamW is its own: neither has the other's learning rate, weight decay or clipping."""
    config = compose_config(f"experiment={experiment}", "optimizer=nesterov")
    optimizer = config.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay, config.trainer.clip_norm) == (
        1.0,
        0.99,
        0,
        0.1,
    )


def test_stored_config_comes_back(tmp_path):
    """Of every kind."""
    for number in range(MOST):
        save_config(composed(number), tmp_path / "config.yaml")
        assert load_config(tmp_path) == composed(number)


def test_paper_experiments_have_the_papers_settings():
    config = compose_config("experiment=wikitext103/gcnn_14")
    assert (config.optimizer.lr, config.optimizer.momentum, config.trainer.clip_norm) == (
        1.0,
        0.99,
        0.1,
    )
    assert (config.schedule.kind, config.schedule.factor) == ("plateau", 0.5)
    assert (
        config.trainer.block_size,
        config.trainer.max_epochs,
        config.optimizer.weight_decay,
    ) == (1024, 35, 5e-6)


@pytest.mark.parametrize("name", [
    "wikitext103/gcnn_14", "wikitext103/gcnn_8", "wikitext103/lstm_1024", "paper/wikitext103",
    "paper/billion_word",
])  # fmt: skip
def test_experiments_at_the_papers_size_compute_in_bf16(name):
    assert compose_config(f"experiment={name}").trainer.precision == "bf16"


def test_folder_without_config_is_no_run(tmp_path):
    with pytest.raises(UsageError, match="not a run directory"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("gcnn", "lstm", "vocabulary_size"),
    [
        ("wikitext2/gcnn_small", "wikitext2/lstm_small", 33_278),
        ("quickstart", "quickstart_lstm", 8000),
    ],
)
def test_models_that_are_compared_have_as_many_parameters(gcnn, lstm, vocabulary_size):
    with torch.device("meta"):
        models = [
            build_model(compose_config(f"experiment={name}").model, vocabulary_size)
            for name in (gcnn, lstm)
        ]
    first, second = (model.parameter_counts()["total"] for model in models)
    assert first == pytest.approx(second, rel=0.05)


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml")))
def test_memory_is_counted_from_below_and_not_by_far(name):
    config = composed(CHOICES["model"].index(name)).model
    with torch.device("meta"):
        model = build_model(config, 250_000)
    encoder = sum(parameter.numel() for parameter in model.encoder.parameters())
    layers, weights, width = config.least_size()
    weights += 250_000 * config.embedding_dim
    assert encoder / 2 < weights < encoder
    assert layers == (len(model.encoder.convs) if config.kind == "gcnn" else config.num_layers)
    assert width >= max(part[0].numel() for part in model.empty_state(1)) / 8


def test_a_model_or_batch_past_the_memory_is_refused(monkeypatch):
    model = compose_config("model=gcnn_8").model
    with torch.device("meta"):
        weights = build_model(model, 250_000).parameter_counts()["total"]
    gib = int(4 * weights * 3 / 2**30)
    monkeypatch.setattr(
        "gcnn.base.values.os.sysconf", {"SC_PAGE_SIZE": 2**30, "SC_PHYS_PAGES": gib}.get
    )
    check_size(model, 250_000, copies=1, positions=10_000)
    with pytest.raises(
        UsageError, match=r"weights takes .* GiB of memory.*smaller numbers under model"
    ):
        check_size(model, 250_000, copies=9)
    with pytest.raises(
        UsageError, match=r"batch of 10,000,000 tokens takes .* lower trainer.micro_batch_size"
    ):
        check_size(model, 250_000, copies=1, positions=10_000_000)


def test_a_config_stored_with_accumulated_batches_has_the_same_update(tmp_path):
    """Before trainer.batch_size counted an update's sequences, `accumulate` batches made one."""
    save_config(compose_config("experiment=wikitext103/gcnn_14"), tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    old = text.replace(
        "  batch_size: 4\n  micro_batch_size: null\n", "  batch_size: 1\n  accumulate: 4\n"
    )
    assert old != text
    (tmp_path / "config.yaml").write_text(old)
    assert load_config(tmp_path).trainer == replace(
        compose_config("experiment=wikitext103/gcnn_14").trainer, micro_batch_size=1
    )


def test_the_defaults_fit_one_another():
    """`gcnn train` alone."""
    config = compose_config()
    assert config.model.cutoffs[-1] < (config.tokenizer.vocabulary_size or PIECES)


@pytest.mark.parametrize(
    "overrides",
    [
        ["experiment=quickstart", "model.dropout=0.3", "model=gcnn_small"],
        ["data=local", "data.files={train: [a], valid: [b], test: [c]}"],
        ["model.cutoffs=[20]", "optimizer=adamw", "optimizer.betas=[0.8,0.9]"],
    ],
)
def test_choices_that_are_composed_once_are_what_hydra_composes(overrides):
    register_schemas()
    expected = typed(compose_by_hydra(*overrides))
    for _ in range(2):  # the second time from the cache
        assert typed(compose_or_reuse(overrides)) == expected
    assert typed(compose_or_reuse(overrides[:1])) == typed(compose_by_hydra(*overrides[:1]))


def test_these_tests_compose_as_hydra_does_without_their_memory(monkeypatch):
    overrides = ["experiment=quickstart_lstm", "optimizer=nesterov", "seed=3"]
    remembered = [compose_by_hydra(*overrides) for _ in range(2)]
    remembered[0].model.dropout = 0.9  # changes what is its own
    monkeypatch.setattr(ConfigRepository, "load_config", composing.read)
    monkeypatch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", composing.merge)
    assert compose_by_hydra(*overrides) == remembered[1] != remembered[0]


def test_what_an_older_version_did_not_read_is_left_out_of_its_config(tmp_path, caplog):
    config = compose_config("experiment=quickstart_lstm")
    assert config.model.projection_dim is not None
    save_config(config, tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    old = re.sub(r"  softmax_dropout: .*\n", "", text).replace(
        "trainer:\n", "trainer:\n  shard: true\n"
    )
    assert old != text
    (tmp_path / "config.yaml").write_text(old)
    stored = load_config(tmp_path)
    assert stored.model.projection_dim is None
    assert stored.model.softmax_dropout == config.model.dropout  # it was applied there, too
    assert stored.trainer == config.trainer
    assert "model.projection_dim is left out" in caplog.text
