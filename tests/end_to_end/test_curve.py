"""Training gives the losses that it gave before it was made faster."""

import json

import pytest

# Nats a token of 20 updates, recorded at commit bb57422 (float32, one thread, AMD EPYC) by the
# command below.
RECORDED = [
    4.334309, 4.366885, 4.113415, 4.294998, 4.023977, 4.071009, 3.949542, 3.908, 3.947448, 4.005551,
    3.855717, 3.91881, 3.925069, 3.88878, 3.844646, 3.740997, 3.962026, 3.762496, 3.99947, 4.049917,
]  # fmt: skip


def write_text(path, lines, seed):
    """Words by a linear congruential generator, which is the same everywhere."""
    with path.open("w") as file:
        for _ in range(lines):
            words = []
            for _ in range(12):
                seed = (1103515245 * seed + 12345) % 2**31
                words.append(f"w{int(60 * (seed / 2**31) ** 2)}")
            print(*words, file=file)


def test_losses_are_the_recorded_ones(call, tmp_path):
    data = tmp_path / "data"
    run = tmp_path / "run"
    data.mkdir()
    for seed, (split, lines) in enumerate((("train", 200), ("valid", 20), ("test", 20)), start=1):
        write_text(data / f"{split}.txt", lines, seed)
    done = call(
        "train",
        "data=local",
        f"data.path={data}",
        f"data.cache_dir={tmp_path / 'cache'}",
        "tokenizer=word",
        "model=gcnn_small",
        "model.blocks=[{convs:[[3,16]]},{convs:[[1,8],[3,8],[1,24]]}]",
        "model.embedding_dim=12",
        "model.cutoffs=[10,30]",
        "model.dropout=0",
        "optimizer=nesterov",
        "optimizer.lr=0.5",
        "trainer.batch_size=4",
        "trainer.block_size=32",
        "trainer.max_steps=20",
        "trainer.max_epochs=null",
        "trainer.log_every=1",
        "trainer.carry_state=true",
        "device=cpu",
        "seed=3",
        f"run_dir={run}",
    )
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines if line["kind"] == "train"] == pytest.approx(
        RECORDED, abs=2e-5
    )
