"""Damaged run directories: every command that reads one says so in one line, and leaves all as it
was.
"""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import pytest

from gcnn.data.tokenizers import WordTokenizer

LOADERS = {
    "evaluate": ["--run", "{run}"],
    "score": ["--run", "{run}"],
    "generate": ["--run", "{run}"],
    "benchmark": ["--runs", "{run}", "--quick", "--out", "{tmp}/latency.json"],
}
READERS = LOADERS | {"report": ["{run}", "--out", "{tmp}/report"]}
LATENCY = ["{run}", "--latency", "{tmp}/latency.json", "--out", "{tmp}/report"]
LAST = "checkpoints/step_000000020"
Damage = Callable[[Path], object]


def write(name: str, content: bytes | str) -> Damage:
    content = content.encode() if isinstance(content, str) else content
    return lambda run: (run / name).write_bytes(content)


def edit(name: str, old: str, new: str) -> Damage:
    return lambda run: (run / name).write_text((run / name).read_text().replace(old, new, 1))


def cut(name: str, part: float = 0.5) -> Damage:
    def damage(run: Path) -> None:
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[: int(part * len(content))])

    return damage


def flip(name: str) -> Damage:
    def damage(run: Path) -> None:
        content = bytearray((run / name).read_bytes())
        content[-9] ^= 4
        (run / name).write_bytes(content)

    return damage


def remove(name: str) -> Damage:
    return lambda run: shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()


def folder(name: str) -> Damage:
    def damage(run: Path) -> None:
        remove(name)(run)
        (run / name).mkdir()

    return damage


def both(*damages: Damage) -> Damage:
    return lambda run: [damage(run) for damage in damages]


def header(content: bytes, length: int | None = None) -> bytes:
    return (len(content) if length is None else length).to_bytes(8, "little") + content


def tensor(dtype: str, shape: list[int], offsets: list[int]) -> bytes:
    return header(
        json.dumps(
            {"softmax.head.weight": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}
        ).encode()
    )


CONFIG = [
    (remove("config.yaml"), 2, "run is not a run directory.*config.yaml"),
    (folder("config.yaml"), 2, "config.yaml"),
    (write("config.yaml", b""), 2, "config.yaml"),
    (write("config.yaml", b"\x00\x01\xff\xfe" * 100), 2, "config.yaml"),
    (write("config.yaml", "model: caf\u00e9".encode("latin-1")), 2, "config.yaml"),
    (write("config.yaml", "- a\n- b\n"), 2, "config.yaml: it is a list"),
    (write("config.yaml", "just words"), 2, "config.yaml"),
    (write("config.yaml", "a: [1, 2\nb: }"), 2, "config.yaml"),
    (write("config.yaml", "a: &a [*a, *a]\n"), 2, "config.yaml"),
    (write("config.yaml", "[" * 100_000), 2, "config.yaml"),
    (write("config.yaml", "model: ${model}\n"), 2, "config.yaml"),
    (write("config.yaml", "model: {kind: gcnn, kind: lstm}\n"), 2, "config.yaml"),
    (cut("config.yaml"), 2, "config.yaml"),
    (edit("config.yaml", "seed: 1", "seed: 1\nnonsense: 2"), 2, "config.yaml.*nonsense"),
    (
        edit("config.yaml", "embedding_dim: 8", "embedding_dims: 8"),
        2,
        "config.yaml.*embedding_dims' not in .*model.embedding_dims",
    ),
    (
        edit("config.yaml", "embedding_dim: 8", "embedding_dim: wide"),
        2,
        "config.yaml.*wide.*model.embedding_dim",
    ),
    (
        edit("config.yaml", "kind: gcnn", "kind: [gcnn]"),
        2,
        r"config.yaml.*model.kind is \['gcnn'\]; choose one of",
    ),
    (
        edit("config.yaml", "embedding_dim: 8", "embedding_dim: -8"),
        2,
        "config.yaml.*embedding_dim is -8",
    ),
    (edit("config.yaml", "kind: gcnn", "kind: ngram"), 2, "config.yaml.*model.kind is 'ngram'"),
    (
        edit("config.yaml", "seed: 1", "seed: ${oc.env:HOME}"),
        2,
        "config.yaml: it has an interpolation",
    ),
]
MODEL = [
    (
        edit("config.yaml", "embedding_dim: 8", "embedding_dim: 9"),
        2,
        "model.safetensors is of another model",
    ),
    (edit("config.yaml", "embedding_dim: 8", "embedding_dim: 2000000000"), 2, "GiB of memory"),
    (edit("config.yaml", "repeat: 2", "repeat: 1000000000"), 2, "memory"),
    (
        edit("config.yaml", "  - 20", "  - 2000"),
        2,
        r"model.cutoffs is \[2000\], but the vocabulary has 42 types",
    ),
    (remove("tokenizer"), 2, "no tokenizer in .*run/tokenizer"),
    (folder("tokenizer"), 2, "no tokenizer in .*run/tokenizer"),
    (both(remove("tokenizer"), write("tokenizer", "a file")), 2, "run/tokenizer"),
    (remove("tokenizer/vocabulary.txt"), 2, "vocabulary.txt is missing"),
    (folder("tokenizer/vocabulary.txt"), 2, "tokenizer"),
    (cut("tokenizer/vocabulary.txt"), 2, "tokenizer"),
    (write("tokenizer/vocabulary.txt", b"\xff\xfe"), 2, "tokenizer.*damaged"),
    (cut("tokenizer/tokenizer.json"), 2, "tokenizer.*damaged"),
    (write("tokenizer/tokenizer.json", "[" * 100_000), 2, "tokenizer.*damaged"),
    (write("tokenizer/tokenizer.json", "[1, 2]"), 2, "tokenizer.*damaged"),
    (write("tokenizer/tokenizer.json", '{"kind": ["word"]}'), 2, "tokenizer.*damaged"),
    (
        write("tokenizer/tokenizer.json", '{"kind": "sentencepiece", "model_ids": [0]}'),
        2,
        "sentencepiece.model is missing",
    ),
    (
        lambda run: WordTokenizer(["<eos>", "<unk>", "a"]).save(run / "tokenizer"),
        2,
        "was trained with another tokenizer",
    ),
    (remove("model.safetensors"), 2, "holds no model.safetensors"),
    (folder("model.safetensors"), 2, "model.safetensors"),
    (write("model.safetensors", b""), 1, "model.safetensors is damaged"),
    (write("model.safetensors", b"\x00" * 7), 1, "model.safetensors is damaged"),
    (cut("model.safetensors"), 1, "model.safetensors is damaged"),
    (cut("model.safetensors", 0.01), 1, "model.safetensors is damaged"),
    (write("model.safetensors", header(b"{}", 2**63)), 1, "model.safetensors is damaged"),
    (write("model.safetensors", header(b"{}", 2**31)), 1, "model.safetensors is damaged"),
    (write("model.safetensors", header(b"[" * 100_000)), 1, "model.safetensors is damaged"),
    (write("model.safetensors", header(b"{}")), 1, "model.safetensors is damaged"),
    (
        write("model.safetensors", tensor("F32", [10**12, 10**12], [0, 4])),
        1,
        "model.safetensors is damaged",
    ),
    (
        write("model.safetensors", tensor("X9", [1], [0, 4]) + b"1234"),
        1,
        "model.safetensors is damaged",
    ),
    (
        write("model.safetensors", tensor("I64", [1], [0, 8]) + b"12345678"),
        1,
        "model.safetensors is damaged",
    ),
    (flip("model.safetensors"), 1, "model.safetensors is damaged.*not those that were written"),
    (write("model.safetensors", b"PK\x03\x04" * 50), 1, "model.safetensors is damaged"),
]
REPORTED = [
    (cut("results.json"), 2, "results.json is not JSON"),
    (write("results.json", b""), 2, "results.json is not JSON"),
    (write("results.json", b"\xff\xfe{}"), 2, "results.json is not a UTF-8 text file"),
    (write("results.json", "[" * 100_000), 2, "results.json"),
    (
        write("results.json", '{"test": {"perplexity": "low"}}'),
        2,
        "results.json: test: perplexity is not a number",
    ),
    (write("results.json", '{"test": {"perplexity": ' + "9" * 5000 + "}}"), 2, "results.json"),
    (folder("results.json"), 2, "results.json"),
    (folder("metrics.jsonl"), 2, "metrics.jsonl"),
    (write("metrics.jsonl", b"\x00\xff\n"), 2, "metrics.jsonl is not a UTF-8"),
    (write("metrics.jsonl", '{"kind": "train", "st\n{}\n'), 2, "metrics.jsonl: line 1 is not JSON"),
    (
        write("metrics.jsonl", '{"kind": ["train"]}\n'),
        2,
        "metrics.jsonl: line 1: kind is not a text",
    ),
    (write("metrics.jsonl", "3\n"), 2, "metrics.jsonl: line 1 is not an object"),
    (
        write("metrics.jsonl", '{"kind": "train", "step": null}\n'),
        2,
        "metrics.jsonl: line 1: step is not a number",
    ),
    (
        write("metrics.jsonl", '{"kind": "train", "step": ' + "9" * 5000 + "}\n"),
        2,
        "metrics.jsonl: line 1",
    ),
    (write("samples.json", '{"prompt": "a"}'), 2, "samples.json is not a list"),
    (remove("config.yaml"), 2, "run: no run directory here"),
]
BENCHMARKED = [
    (write("../latency.json", "{"), 2, "latency.json is not JSON"),
    (write("../latency.json", '{"models": [1]}'), 2, "latency.json: models is not an object"),
    (
        write("../latency.json", '{"models": {"a": {"sentences": {"few": {}}}}}'),
        2,
        "latency.json.*not a number of words",
    ),
    (lambda run: (run.parent / "latency.json").mkdir(), 2, "latency.json"),
    (lambda run: None, 2, "latency.json: no such file"),
]
RESUMED = [
    (cut(f"{LAST}/state.pt"), 1, "step_000000020: state.pt is not what was written"),
    (
        cut(f"{LAST}/model.safetensors"),
        1,
        "step_000000020: model.safetensors is not what was written",
    ),
    (write(f"{LAST}/model.safetensors", b""), 1, "model.safetensors is not what was written"),
    (remove(f"{LAST}/state.pt"), 1, "state.pt is missing"),
    (remove(f"{LAST}/manifest.json"), 1, "manifest.json is missing or damaged"),
    (folder(f"{LAST}/manifest.json"), 1, "manifest.json is missing or damaged"),
    (cut(f"{LAST}/manifest.json"), 1, "manifest.json is missing or damaged"),
    (write(f"{LAST}/manifest.json", b"\xff\xfe"), 1, "manifest.json is missing or damaged"),
    (write(f"{LAST}/manifest.json", "[1]"), 1, "manifest.json is missing or damaged"),
    (
        write(f"{LAST}/manifest.json", '{"files": {}, "identity": 3}'),
        1,
        "manifest.json is missing or damaged",
    ),
    (write(f"{LAST}/manifest.json", "[" * 100_000), 1, "manifest.json is missing or damaged"),
    (
        edit(f"{LAST}/manifest.json", '"bytes": ', '"bytes": 1'),
        1,
        "manifest.json is missing or damaged",
    ),
    (flip(f"{LAST}/state.pt"), 1, "state.pt is not what was written"),
    (remove(LAST), 2, "step_000000020 is no checkpoint"),
    (both(remove(LAST), write(LAST, b"a file")), 2, "step_000000020 is no checkpoint"),
    (both(remove(LAST), lambda run: (run / LAST).mkdir()), 1, "manifest.json is missing"),
]


def in_turn(rows: list, commands: dict[str, list[str]]) -> Iterator[tuple]:
    """Each row with one of the commands: they read a run with the same functions."""
    return ((name, commands[name], *row) for name, row in zip(cycle(commands), rows, strict=False))


ROWS = [
    *(("evaluate", LOADERS["evaluate"], *row) for row in [*CONFIG, *MODEL][::5]),
    *in_turn(CONFIG[1:], READERS),
    *in_turn(MODEL, LOADERS),
    *(("report", READERS["report"], *row) for row in REPORTED),
    *(("report", LATENCY, *row) for row in BENCHMARKED),
    *(("train", [f"resume={{run}}/{LAST}", "trainer.max_steps=30"], *row) for row in RESUMED),
]


@pytest.mark.parametrize(
    ("command", "arguments", "damage", "code", "named"),
    ROWS,
    ids=[f"{i}-{row[0]}" for i, row in enumerate(ROWS)],
)
def test_a_damaged_run_is_one_line_that_names_the_file(
    call, tiny, run_dir, tmp_path, snapshot, command, arguments, damage, code, named
):
    damage(run_dir)
    before = snapshot()
    settings = tiny if command == "train" else []
    done = call(
        command,
        *settings,
        *(text.format(run=run_dir, tmp=tmp_path) for text in arguments),
        stdin=b"w1 w2\n",
    )
    *log, line = done.err.splitlines()
    assert (done.code, done.out) == (code, ""), done.err
    assert all(text.startswith("loading ") for text in log), log  # the benchmark's
    assert re.match(r"error: .*[.;:] \w.*\.$", line), line
    assert re.search(named, line), line
    assert snapshot() == before


def test_a_run_without_an_intact_checkpoint_is_not_resumed(call, tiny, run_dir, snapshot):
    for checkpoint in (run_dir / "checkpoints").iterdir():
        cut("state.pt")(checkpoint)
    before = snapshot()
    done = call("train", *tiny, "resume=true", "trainer.max_steps=30")
    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(
        "error: .*checkpoints: no checkpoint is intact. Start again.*", done.err.splitlines()[-1]
    )
    assert "Traceback" not in done.err
    assert snapshot() == before


def test_a_run_without_a_validation_can_be_evaluated_by_its_checkpoint(call, run_dir):
    """The command in the message, typed as it is printed; and the run goes on after it."""
    for name in ("model.safetensors", "results.json"):
        (run_dir / name).unlink()
    for command in ("evaluate", "generate"):
        done = call(command, "--run", run_dir)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert f"(gcnn train run_dir={run_dir} resume=true)" in done.err
    copy = shlex.split(re.search(r"\((cp .*)\)", done.err)[1])
    subprocess.run(copy, check=True)
    assert call("evaluate", "--run", run_dir).code == 0
    assert call("train", f"run_dir={run_dir}", "resume=true", "trainer.max_steps=25").code == 0


def test_an_imported_run_is_evaluated_by_a_file_or_a_folder(call, run_dir, corpus):
    """It names no data of its own, as fairseq's checkpoints do not."""
    edit("config.yaml", str(corpus), "null")(run_dir)
    done = call("evaluate", "--run", run_dir)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert "Give --file TEXT, or --data-path DIR" in done.err
    expected = call("evaluate", "--run", run_dir, "--data-path", corpus, "--json")
    assert expected.code == 0, expected.err
    assert (
        call("evaluate", "--run", run_dir, "--file", corpus / "test.txt", "--json").out
        == expected.out
    )


def test_the_latest_run_is_asked_for_where_there_is_none(call, tmp_path):
    done = call("evaluate", "--run", "latest")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"there is no folder runs in {tmp_path}" in done.err
