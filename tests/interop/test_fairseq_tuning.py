"""An imported model goes on learning, on a text of one's own."""

import json

import pytest


def test_an_imported_model_is_fine_tuned_by_its_own_config(
    call, make_weights, save_checkpoint, dictionary, tmp_path
):
    options = {
        "decoder_layers": "[(16, 3)] * 2",
        "decoder_embed_dim": 5,
        "adaptive_softmax_cutoff": "10,20",
    }
    checkpoint = save_checkpoint(make_weights([(16, 3, 1), (16, 3, 1)], [10, 20]), **options)
    source = tmp_path / "imported"
    out = tmp_path / "tuned"
    assert call("import_fairseq", checkpoint, dictionary, source).code == 0
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("w1 w2 w3 novel w4\n" * 50)
    done = call(
        "train",
        "--config-path",
        source,
        "--config-name",
        "config",
        f"init_from={source}",
        f"run_dir={out}",
        f"data.path={tmp_path}",
        f"data.cache_dir={tmp_path / 'cache'}",
        "trainer.block_size=8",
        "trainer.max_steps=20",
        "trainer.validate_every=10",
        "optimizer.lr=0.1",
        "device=cpu",
        "threads=1",
    )
    assert done.code == 0, done.err
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    first, *later = [line["perplexity"] for line in lines if line["kind"] == "validation"]
    judged = call(
        "evaluate", "--run", source, "--file", tmp_path / "valid.txt", "--json", "--device", "cpu"
    )
    assert first == pytest.approx(json.loads(judged.out)["perplexity"], rel=1e-5)
    assert min(later) < first
    assert json.loads((out / "results.json").read_text())["test"]["unknown"] == 50
