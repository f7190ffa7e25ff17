"""Two processes, each with a copy of the model, train as one process does, and stop together."""

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import gcnn
from gcnn.base.errors import RunError
from gcnn.config.compose import compose_config
from gcnn.config.schema import TrainConfig
from gcnn.data.stream import prepare
from gcnn.models.language_model import build_model
from gcnn.training import distributed
from gcnn.training.run import train, train_in_group
from gcnn.training.trainer import Trainer
from tests.processes import environments_of_ranks

ARGUMENTS = (
    "data=local", "tokenizer=word", "device=cpu", "threads=1", "schedule=plateau", "seed=3",
    "optimizer=adamw",
    "model.embedding_dim=8", "model.cutoffs=[10,40]", "model.dropout=0", "trainer.block_size=8",
    "trainer.batch_size=4", "trainer.validate_every=2", "trainer.checkpoint_every=100",
    "trainer.log_every=1",
    "trainer.carry_state=true", "trainer.max_steps=10", "trainer.keep_checkpoints=1",
)  # fmt: skip
GCNN = ("model.blocks=[{convs:[[3,16]],repeat:2}]",)
CASES = {  # the rarest cluster has 2 types of 42: many a batch does without it
    "adamw": (*GCNN, "trainer.micro_batch_size=1"),
    "nesterov": (
        *GCNN,
        "optimizer=nesterov",
        "optimizer.weight_decay=0.01",
        "trainer.clip_norm=0.05",
    ),
    "tied": (*GCNN, "model.tie_embeddings=true", "trainer.micro_batch_size=1"),
    "full": (*GCNN, "model.cutoffs=[]", "model.projection_dim=4"),
    "lstm": (
        "model=lstm_small",
        "model.hidden_dim=16",
        "model.num_layers=2",
        "model.output_dropout=0",
    ),
    "transformer": (
        "model=transformer_small",
        "model.hidden_dim=12",
        "model.num_layers=1",
        "model.num_heads=3",
        "model.feed_forward_dim=20",
        "model.window=5",
    ),
    "sentences": (*GCNN, "data.sentences=true", "trainer.carry_state=false"),
}
CHAINED = ("adamw", "nesterov", "lstm")
# No clusters: what is dropped out depends on their words.
DROPOUT = (
    *GCNN,
    "model.dropout=0.3",
    "model.cutoffs=[]",
)


def composed(corpus: Path) -> dict[str, TrainConfig]:
    """The config of each case; composing takes a while."""
    paths = f"data.path={corpus}", f"data.cache_dir={corpus / 'cache'}"
    configs = {}
    for case, arguments in {**CASES, "plain": GCNN, "dropout": DROPOUT}.items():
        # The last of each key counts.
        given = dict(argument.split("=", 1) for argument in (*ARGUMENTS, *paths, *arguments))
        configs[case] = compose_config(*(f"{key}={value}" for key, value in given.items()))
    return configs


def settings(
    config: TrainConfig, run_dir: Path, resume: bool = False, **trainer: Any
) -> TrainConfig:
    trainer = dataclasses.replace(config.trainer, **trainer)
    return dataclasses.replace(config, run_dir=str(run_dir), resume=resume, trainer=trainer)


def with_dropout(config: TrainConfig, folder: Path) -> None:
    """A run with dropout, at once and in two parts."""
    for name, steps in (("whole", 4), ("parts", 2), ("parts", 4)):
        train_in_group(settings(config, folder / name, True, max_steps=steps), (), False)


def timed(config: TrainConfig, run_dir: Path) -> int:
    """The steps of this rank in a run with a time limit; rank 1's clock is ten times as fast."""
    clock = time.perf_counter
    speed = 1 + 9 * distributed.rank()
    limits = {"max_steps": None, "max_minutes": 0.003, "checkpoint_minutes": 0.0001}
    trainer = make_trainer(settings(config, run_dir, **limits))
    time.perf_counter = lambda: speed * clock()
    try:
        trainer.run()
    finally:
        time.perf_counter = clock
    return trainer.progress.step


def make_trainer(config: TrainConfig) -> Trainer:
    data = prepare(config.data, config.tokenizer)
    torch.manual_seed(1)
    model = build_model(config.model, data.tokenizer.vocabulary_size)
    Path(config.run_dir).mkdir(parents=True, exist_ok=True)
    distributed.wait_for_all()
    return Trainer(config, model, data, Path(config.run_dir), torch.device("cpu"))


def not_finite(config: TrainConfig, run_dir: Path) -> dict:
    """What this rank holds and raises after losses that are not finite on rank 1 alone."""
    trainer = make_trainer(settings(config, run_dir, skip_nonfinite=1))
    trainer.step()
    found = [weights(trainer)]
    if distributed.rank() == 1:
        forward = trainer.updater.loss.forward

        def broken(*inputs):
            nats, state = forward(*inputs)
            return nats * torch.inf, state

        trainer.updater.loss.forward = broken
    trainer.step()
    found.append(weights(trainer))
    with pytest.raises(RunError) as error:
        trainer.step()
    found.append(weights(trainer))
    return {"weights": found, "error": str(error.value), "skipped": trainer.progress.skipped}


def weights(trainer: Trainer) -> list[float]:
    return torch.cat(
        [parameter.detach().flatten() for parameter in trainer.model.parameters()]
    ).tolist()


def two(
    rank: int, environments: list[dict[str, object]], configs: dict[str, TrainConfig], folder: Path
) -> None:
    """All that one of the two processes does; what it found is in rank_<rank>.json."""
    os.environ.update({key: str(value) for key, value in environments[rank].items()})
    torch.set_num_threads(1)
    with distributed.process_group("cpu"):
        for case in CASES:
            train_in_group(settings(configs[case], folder / case), (), False)
        for case in CHAINED:
            train_in_group(
                settings(configs[case], folder / "chain" / case, True, max_steps=6), (), False
            )
        with_dropout(configs["dropout"], folder)
        found = {
            "timed": timed(configs["plain"], folder / "timed"),
            "not finite": not_finite(configs["plain"], folder / "not_finite"),
        }
    (folder / f"rank_{rank}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def runs(corpus, tmp_path_factory) -> tuple[Path, Path]:
    """The folders of the runs of one process and of two."""
    one, both = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    configs = composed(corpus)
    for case in CASES:
        train(settings(configs[case], one / case))
    for case in CHAINED:
        train(settings(configs[case], both / "chain" / case, True, max_steps=2))
    arguments = environments_of_ranks(2), configs, both
    processes = torch.multiprocessing.start_processes(
        two, arguments, nprocs=2, join=False, start_method="forkserver"
    )
    deadline = time.monotonic() + 180
    while not processes.join(timeout=1):
        if time.monotonic() > deadline:
            for process in processes.processes:
                process.kill()
            pytest.fail("the two processes wait for each other")
    for case in CHAINED:
        train(settings(configs[case], both / "chain" / case, True))
    return one, both


def curve(run: Path) -> dict[str, list[float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    keys = {"train": ("step", "tokens", "loss", "lr", "grad_norm"), "validation": ("step", "loss")}
    return {
        f"{kind} {key}": [line[key] for line in lines if line["kind"] == kind]
        for kind in keys
        for key in keys[kind]
    }


def check_same_curve(one: Path, two: Path) -> None:
    first = curve(one)
    second = curve(two)
    assert first["train step"] == second["train step"] == list(range(1, 11))
    for name, expected in first.items():
        np.testing.assert_allclose(second[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_copies_have_the_curve_of_one_process(runs, case):
    one, two = (folder / case for folder in runs)
    check_same_curve(one, two)
    first, second = (safetensors.torch.load_file(run / "model.safetensors") for run in (one, two))
    assert list(first) == list(second)
    for name, tensor in first.items():
        np.testing.assert_allclose(second[name], tensor, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("case", CHAINED)
def test_copies_and_one_process_go_on_from_each_other(runs, case):
    one, two = runs
    check_same_curve(one / case, two / "chain" / case)
    states = [
        folder / "checkpoints" / "step_000000010" / "state.pt"
        for folder in (one / case, two / case)
    ]
    first, second = (torch.load(path, weights_only=True)["optimizer"]["state"] for path in states)
    assert first.keys() == second.keys()
    for i, values in first.items():
        for name, value in values.items():
            np.testing.assert_allclose(
                second[i][name], value, atol=1e-4, err_msg=f"{name} of parameter {i}"
            )


def test_a_run_of_two_processes_scores_as_that_of_one(runs):
    one, two = (folder / "adamw" for folder in runs)
    results = [json.loads((run / "results.json").read_text()) for run in (one, two)]
    assert results[1]["parameters"] == results[0]["parameters"]
    assert results[1]["test"]["nll_nats"] == pytest.approx(results[0]["test"]["nll_nats"], rel=1e-4)
    scores = [
        gcnn.Scorer.from_run(run, "cpu").score(["w1 w2 w3", "w7 nowhere"]) for run in (one, two)
    ]
    for first, second in zip(*scores, strict=True):
        assert second.log_prob == pytest.approx(first.log_prob, abs=1e-3)


def test_two_processes_resume_bit_for_bit(runs):
    folders = [runs[1] / name for name in ("whole", "parts")]
    first, second = map(curve, folders)
    assert first == second
    assert first["train step"][-1] == 4
    state = torch.load(folders[1] / "checkpoints" / "step_000000004" / "state.pt")
    assert not torch.equal(*state["random"])  # each rank has dropout of its own


def test_time_limit_ends_all_at_the_same_step(runs):
    first, second = (
        json.loads((runs[1] / f"rank_{rank}.json").read_text())["timed"] for rank in (0, 1)
    )
    assert first == second > 0


def test_loss_that_is_not_finite_on_one_rank_stops_all(runs):
    found = [
        json.loads((runs[1] / f"rank_{rank}.json").read_text())["not finite"] for rank in (0, 1)
    ]
    for rank in found:
        assert rank["skipped"] == 1
        assert rank["weights"][0] == rank["weights"][1] == rank["weights"][2]
        assert "step 3" in rank["error"]
    assert found[0]["weights"] == found[1]["weights"]
