"""A stranger's run directory is data, whatever it says: nothing in it runs, leads out of it, or
tells our secrets.
"""

import pytest

from gcnn.base.errors import UsageError
from gcnn.config.stored import load_config

HOSTILE = {
    "interpolation": ("experiment: custom", "experiment: ${oc.env:SECRET}"),
    "escaped interpolation": ("experiment: custom", r'experiment: "\x24{oc.env:SECRET}"'),
    "code by Hydra": (
        "experiment: custom",
        "hydra: {callbacks: {x: {_target_: os.mkdir, path: WITNESS}}}",
    ),
    "defaults list": ("experiment: custom", "defaults: [/model: gcnn_14]"),
    "YAML tag": ("experiment: custom", "experiment: !!python/object/apply:os.mkdir [WITNESS]"),
    "YAML aliases": ("experiment: custom", "experiment: &a custom\nrun_dir: *a"),
}


@pytest.fixture(params=HOSTILE)
def hostile(request, run_dir, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    old, new = HOSTILE[request.param]
    text = (run_dir / "config.yaml").read_text()
    assert old in text
    (run_dir / "config.yaml").write_text(
        text.replace(old, new.replace("WITNESS", str(run_dir / "witness")))
    )
    return run_dir


def test_hostile_configs_run_and_tell_nothing(hostile, call):
    for script, *arguments in (
        ("evaluate", "--run", hostile),
        ("score", "--run", hostile),
        ("generate", "--run", hostile, "--prompt", "a"),
        ("report", hostile),
        ("train", "--config-path", hostile, "--config-name", "config", f"run_dir={hostile}/again"),
    ):
        done = call(script, *arguments)
        assert done.code == 2, (script, done.err)
        assert "config.yaml" in done.err
        assert "Traceback" not in done.err
        assert "hunter2" not in done.out + done.err
        assert not (hostile / "witness").exists()


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer/vocabulary.txt", "config.yaml", ".lock", "train.log"]
)
def test_links_that_lead_out_are_neither_read_nor_written(run_dir, call, tiny, tmp_path, name):
    precious = tmp_path / "precious"
    (run_dir / name).replace(precious)
    (run_dir / name).symlink_to(precious)
    before = precious.read_bytes()
    for script, *arguments in (
        ("evaluate", "--run", run_dir),
        ("report", run_dir),
        ("train", *tiny, "resume=true", "trainer.max_steps=30"),
    ):
        done = call(script, *arguments)
        assert done.code == 2, done.err
        assert f"{name} is a link that leads out of the run" in done.err
    assert precious.read_bytes() == before


def test_a_link_that_stays_inside_is_followed(run_dir):
    (run_dir / "tokenizer").rename(run_dir / "words")
    (run_dir / "tokenizer").symlink_to("words")
    (run_dir / "config.yaml").rename(run_dir / "real.yaml")
    (run_dir / "config.yaml").symlink_to("real.yaml")
    assert load_config(run_dir).tokenizer.kind == "word"


def test_a_config_that_grows_without_bound_is_refused_at_once(tmp_path):
    levels = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 12))
    (tmp_path / "config.yaml").write_text(f"l0: &l0 [1]\n{levels}")
    with pytest.raises(UsageError, match="alias"):
        load_config(tmp_path)
