"""Every config in configs/ composes into a run that passes its checks."""

import pytest
import torch
import yaml

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
