"""A figure's runs, trained by the real command."""

import json
import re

from gcnn.reproduction import plans


def test_the_runs_of_a_figure_are_trained_once(call, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "PLANS", tmp_path / "plans")
    plans.load_plan.cache_clear()
    plan = tmp_path / "plans" / "small" / "fig3.yaml"
    plan.parent.mkdir(parents=True)
    plan.write_text(
        "rates: [1e-3, 2e-2]\nseeds: [1, 2]\ngroups: {glu: {settings: [model.gate=glu]}}"
    )
    settings = [setting for setting in tiny if not setting.startswith("run_dir=")]
    folders = ["--runs", tmp_path / "runs", "--out", tmp_path / "out"]
    command = ["reproduce", "--scale", "small", *folders, *settings]

    done = call(*command)
    assert done.code in (0, None), done.err
    groups = json.loads((tmp_path / "out" / "small" / "fig3.json").read_text())["groups"]
    trained = {group["lr"]: list(group["test_perplexity"]) for group in groups}
    assert trained == {0.001: ["1"], 0.02: ["1", "2"]}
    members = re.findall("member ([^ ]+): ", done.err)
    assert members == ["lr_0.001_seed_1", "lr_0.02_seed_1", "lr_0.02_seed_2"]
    again = call(*command)
    assert again.code in (0, None)
    assert "member " not in again.err
