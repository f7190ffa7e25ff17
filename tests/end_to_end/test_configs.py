"""Every config in configs/ composes into a run that passes its checks."""

import dataclasses

import pytest
import torch
import yaml

from gcnn.checks import check_size, least_size
from gcnn.config import CONFIGS, compose_config, load_config, save_config
from gcnn.errors import UsageError
from gcnn.models.language_model import build_model

CHOICES = sorted(
    f"{group.name}={path.relative_to(group).with_suffix('')}"
    for group in CONFIGS.iterdir()
    if group.is_dir()
    for path in group.rglob("*.yaml")
)


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes(choice):
    group, _, name = choice.partition("=")
    config = compose_config(choice)
    if group != "experiment":
        written = yaml.safe_load((CONFIGS / group / f"{name}.yaml").read_text())
        written.pop("defaults")
        found = vars(getattr(config, group))
        for key, value in written.items():
            plain = [vars(item) for item in found[key]] if key == "blocks" else found[key]
            if key == "blocks":
                value = [{"repeat": 1, "residual": True, **block} for block in value]
            assert plain == (pytest.approx(float(value)) if isinstance(plain, float) else value)


def test_stored_config_comes_back(tmp_path):
    for choice in CHOICES:
        config = compose_config(choice)
        save_config(config, tmp_path / "config.yaml")
        assert load_config(tmp_path) == config


def test_paper_experiments_have_the_papers_settings():
    config = compose_config("experiment=wikitext103/gcnn_14")
    assert (config.optimizer.lr, config.optimizer.momentum, config.trainer.clip_norm) == (1.0, 0.99, 0.1)
    assert (config.schedule.kind, config.schedule.factor) == ("plateau", 0.5)
    assert (config.trainer.block_size, config.trainer.max_epochs, config.optimizer.weight_decay) == (1024, 35, 5e-6)


def test_folder_without_config_is_no_run(tmp_path):
    with pytest.raises(UsageError, match="not a run directory"):
        load_config(tmp_path)


@pytest.mark.parametrize(("gcnn", "lstm", "vocabulary_size"), [
    ("wikitext2/gcnn_small", "wikitext2/lstm_small", 33_278), ("quickstart", "quickstart_lstm", 8000),
])  # fmt: skip
def test_models_that_are_compared_have_as_many_parameters(gcnn, lstm, vocabulary_size):
    with torch.device("meta"):
        models = [build_model(compose_config(f"experiment={name}").model, vocabulary_size) for name in (gcnn, lstm)]
    first, second = (model.parameter_counts()["total"] for model in models)
    assert first == pytest.approx(second, rel=0.05)


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml")))
def test_memory_is_counted_from_below_and_not_by_far(name):
    config = compose_config(f"model={name}").model
    with torch.device("meta"):
        model = build_model(config, 250_000)
    encoder = sum(parameter.numel() for parameter in model.encoder.parameters())
    layers, weights, width = least_size(config, 250_000)
    assert encoder / 2 < weights < encoder
    assert layers == (config.num_layers if config.kind == "lstm" else len(model.encoder.convs))
    assert width >= max(part[0].numel() for part in model.empty_state(1)) / 8


def test_a_model_or_batch_past_the_memory_is_refused(monkeypatch):
    model = compose_config("model=gcnn_8").model
    with torch.device("meta"):
        weights = build_model(model, 250_000).parameter_counts()["total"]
    gib = int(4 * weights * 3 / 2**30)
    monkeypatch.setattr("gcnn.checks.os.sysconf", {"SC_PAGE_SIZE": 2**30, "SC_PHYS_PAGES": gib}.get)
    check_size(model, 250_000, copies=1, positions=10_000)
    with pytest.raises(UsageError, match=r"weights takes .* GiB of memory.*smaller numbers under model"):
        check_size(model, 250_000, copies=9)
    with pytest.raises(UsageError, match=r"batch of 10,000,000 tokens takes .* lower trainer.micro_batch_size"):
        check_size(model, 250_000, copies=1, positions=10_000_000)


@pytest.mark.parametrize("scale", ["paper", "cpu"])
@pytest.mark.parametrize(("figure", "two_paths", "one_path"), [("fig3", "gtu", "tanh"), ("fig5", "bilinear", "linear")])
def test_gates_that_are_compared_have_as_many_parameters(scale, figure, two_paths, one_path):
    choices = [(figure, "glu"), (figure, two_paths), (f"{figure}_one_path", one_path)]
    with torch.device("meta"):
        bodies = [
            build_model(
                compose_config(f"experiment={scale}/{name}", f"model.gate={gate}").model, 800_000
            ).parameter_counts()["body"]
            for name, gate in choices
        ]
    assert max(bodies) < 1.02 * min(bodies)


def test_a_config_stored_with_accumulated_batches_has_the_same_update(tmp_path):
    """Until trainer.batch_size counted an update's sequences, `accumulate` batches of it made one."""
    save_config(compose_config("experiment=wikitext103/gcnn_14"), tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    old = text.replace("  batch_size: 4\n  micro_batch_size: null\n", "  batch_size: 1\n  accumulate: 4\n")
    assert old != text
    (tmp_path / "config.yaml").write_text(old)
    assert load_config(tmp_path).trainer == dataclasses.replace(
        compose_config("experiment=wikitext103/gcnn_14").trainer, micro_batch_size=1
    )
