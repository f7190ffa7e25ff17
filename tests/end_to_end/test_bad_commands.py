"""Bad input to every command but training's config: one line, the right exit code, nothing damaged."""

import hashlib
import io
import json
import re
import shutil
from pathlib import Path

import pytest

from gcnn.data.tokenizers import WordTokenizer
from gcnn.errors import run_command
from gcnn.evaluation import score_command
from tests.end_to_end.conftest import TINY

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """A run that other tests copy."""
    from gcnn.config import compose_config
    from gcnn.training.run import train

    folder = tmp_path_factory.mktemp("trained") / "run"
    train(compose_config(*TINY, f"data.path={corpus}", f"data.cache_dir={corpus / 'cache'}", f"run_dir={folder}"))
    return folder


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def snapshot(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", "train.log"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write(name: str, content: bytes):
    return lambda run: (run / name).write_bytes(content)


def cut(name: str, part: float = 0.5):
    def spoil(run):
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[: int(part * len(content))])

    return spoil


def flip(name: str):
    def spoil(run):
        content = bytearray((run / name).read_bytes())
        content[-9] ^= 4
        (run / name).write_bytes(content)

    return spoil


def replace(name: str, old: str, new: str):
    def spoil(run):
        text = (run / name).read_text()
        assert old in text
        (run / name).write_text(text.replace(old, new, 1))

    return spoil


def remove(name: str):
    return lambda run: shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()


def folder_instead(name: str):
    def spoil(run):
        (run / name).unlink()
        (run / name).mkdir()

    return spoil


def other_tokenizer(run):
    WordTokenizer(["<eos>", "<unk>", "a"]).save(run / "tokenizer")


# How a run is spoilt, the exit code, what the line names. Every command that reads runs must say so.
SPOILT = {
    "no config": (remove("config.yaml"), 2, "config.yaml"),
    "empty config": (write("config.yaml", b""), 2, "config.yaml"),
    "binary config": (write("config.yaml", b"\x00\xff\xfe"), 2, "config.yaml"),
    "config cut short": (cut("config.yaml"), 2, "config.yaml"),
    "config that is a list": (write("config.yaml", b"- 1\n- 2\n"), 2, "config.yaml"),
    "config that is a word": (write("config.yaml", b"gcnn\n"), 2, "config.yaml"),
    "config that is a folder": (folder_instead("config.yaml"), 2, "config.yaml"),
    "unknown key": (replace("config.yaml", "seed:", "sead:"), 2, "config.yaml.*sead"),
    "wrong type": (replace("config.yaml", "batch_size: 4", "batch_size: four"), 2, "config.yaml.*four"),
    "unknown model": (replace("config.yaml", "kind: gcnn", "kind: rnn"), 2, "config.yaml.*rnn"),
    "no weights": (remove(WEIGHTS), 2, WEIGHTS),
    "empty weights": (write(WEIGHTS, b""), 1, f"{WEIGHTS} is damaged"),
    "weights cut short": (cut(WEIGHTS), 1, f"{WEIGHTS} is damaged"),
    "weights with a flipped bit": (flip(WEIGHTS), 1, f"{WEIGHTS} is damaged"),
    "weights with a huge header": (write(WEIGHTS, b"\xff" * 64), 1, f"{WEIGHTS} is damaged"),
    "a pickle as weights": (write(WEIGHTS, b"\x80\x04\x95\x00"), 1, f"{WEIGHTS} is damaged"),
    "weights that are a folder": (folder_instead(WEIGHTS), 2, WEIGHTS),
    "another model's weights": (replace("config.yaml", "embedding_dim: 8", "embedding_dim: 9"), 2, "another model"),
    "an absurd model": (replace("config.yaml", "embedding_dim: 8", "embedding_dim: 999999999999"), 2, "embedding_dim"),
    "no tokenizer": (remove("tokenizer"), 2, "no tokenizer"),
    "no vocabulary": (remove("tokenizer/vocabulary.txt"), 2, "vocabulary.txt is missing"),
    "tokenizer cut short": (cut("tokenizer/tokenizer.json"), 2, "tokenizer .*damaged"),
    "binary vocabulary": (write("tokenizer/vocabulary.txt", b"\xff\n"), 2, "tokenizer .*damaged"),
    "another tokenizer": (other_tokenizer, 2, "another tokenizer"),
}


def check(done, code: int, named: str) -> None:
    lines = done.err.strip().splitlines()
    assert done.code == code, done.err
    assert re.search(named, lines[-1]), done.err
    assert "Traceback" not in done.err
    assert len([line for line in lines if "error" in line.lower()]) == 1, done.err


@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_run_is_named_by_every_command_that_reads_its_model(call, run, what):
    spoil, code, named = SPOILT[what]
    spoil(run)
    before = snapshot(run)
    for script, *arguments in (
        ("evaluate", "--run", run),
        ("generate", "--run", run, "--prompt", "w1"),
        ("score", "--run", run),
        ("benchmark", "--quick", "--runs", run, "--out", run.parent / "latency.json"),
    ):
        check(call(script, *arguments), code, named)
    assert snapshot(run) == before
    assert not (run.parent / "latency.json").exists()


# A command's arguments ({run}, {tmp} filled in), the exit code, what the line names
COMMANDS = [
    ("evaluate", [], 2, "--run"),
    ("evaluate", ["--run", "{tmp}/nowhere"], 2, "nowhere is not a run directory"),
    ("evaluate", ["--run", "{run}", "--split", "dev"], 2, "--split.*dev"),
    ("evaluate", ["--run", "{run}", "--file", "{tmp}/none.txt"], 2, "none.txt"),
    ("evaluate", ["--run", "{run}", "--file", "{tmp}"], 2, "no text file"),
    ("evaluate", ["--run", "{run}", "--file", "{tmp}/empty.txt"], 2, "empty.txt has no words"),
    ("evaluate", ["--run", "{run}", "--file", "{tmp}/latin.txt"], 2, "latin.txt is not UTF-8.*line 2"),
    ("evaluate", ["--run", "{run}", "--file", "{tmp}/utf16.txt"], 2, "utf16.txt is not UTF-8"),
    ("evaluate", ["--run", "{run}", "--data-path", "{tmp}/nowhere"], 2, "nowhere is not a folder"),
    ("evaluate", ["--run", "{run}", "--data-path", "{tmp}"], 2, r"no train\.txt in"),
    ("evaluate", ["--run", "{run}", "--batch-size", "many"], 2, "--batch-size.*many"),
    ("evaluate", ["--run", "{run}", "--block-size", "0"], 2, "--block-size is 0"),
    ("evaluate", ["--run", "{run}", "--per-line", "--json"], 2, "not allowed with"),
    ("score", [], 2, "--run"),
    ("score", ["--run", "{run}", "--format", "xml"], 2, "--format.*xml"),
    ("score", ["--run", "{run}", "--threads", "0"], 2, "--threads is 0"),
    ("score", ["--run", "{run}", "--precision", "fp8"], 2, "--precision.*fp8"),
    ("score", ["--run", "{run}", "--input", "{tmp}/empty.txt"], 2, "--input and --output"),
    ("score", ["--run", "{run}", "--input", "{tmp}/none.txt", "--output", "{tmp}/out"], 2, "none.txt"),
    ("generate", ["--run", "{run}", "--prompt", "w1", "--temperature", "-1"], 2, "temperature is -1"),
    ("generate", ["--run", "{run}", "--prompt", "w1", "--temperature", "hot"], 2, "--temperature.*hot"),
    ("generate", ["--run", "{run}", "--prompt", "w1", "--top-k", "0"], 2, "top-k is 0"),
    ("benchmark", ["--models", "gcnn_99"], 2, "gcnn_99"),
    ("benchmark", ["--runs", "{tmp}/nowhere"], 2, "nowhere"),
    ("benchmark", ["--repeats", "0"], 2, "--repeats"),
    ("benchmark", ["--threads", "-1"], 2, "--threads"),
    ("report", ["{tmp}/nowhere"], 2, "nowhere"),
    ("report", ["{run}", "--latency", "{tmp}/none.json"], 2, "none.json"),
    ("report", ["{run}", "--latency", "{tmp}/latin.txt"], 2, "latin.txt"),
    ("describe", ["gcnn_99"], 2, "gcnn_99"),
    ("describe", ["gcnn_small", "--vocabulary", "5"], 2, "5"),
    ("describe", ["--vocabulary", "-3"], 2, "--vocabulary is -3"),
    ("prepare_data", ["data=local"], 2, "data.path"),
    ("prepare_data", ["data=wikitext103", "data.path={tmp}"], 2, "wiki.train.tokens"),
    ("prepare_data", ["nonsense"], 2, "nonsense"),
    ("import_fairseq", ["{tmp}/none.pt", "{tmp}/dict.txt", "{tmp}/out"], 2, "none.pt"),
    ("import_fairseq", ["{tmp}/latin.txt", "{tmp}/latin.txt", "{tmp}/out"], 2, "latin.txt"),
    ("import_fairseq", ["{tmp}/none.pt"], 2, "required"),
    ("train", ["--config-path", "{tmp}/nowhere"], 2, "nowhere is not a run directory"),
    ("train", ["model.embedding_dim=999999999999", "data=local", "data.path={tmp}/text"], 2, "embedding_dim"),
    ("train", ["trainer.batch_size=1000000000000", "data=local", "data.path={tmp}/text"], 2, "batch_size"),
    ("train", ["seed=-1", "data=local", "data.path={tmp}/text"], 2, "seed is -1"),
    ("train", ["seed=99999999999999999999", "data=local", "data.path={tmp}/text"], 2, "seed"),
    ("train", ["run_dir=/proc/no/run", "data=local", "data.path={tmp}/text"], 1, "/proc/no"),
    ("benchmark_train", ["--workloads", "huge"], 2, "--workloads.*huge"),
    ("benchmark_train", ["--workloads", "small", "--steps", "0"], 2, "--steps"),
]


@pytest.mark.parametrize(("script", "arguments", "code", "named"), COMMANDS, ids=str)
def test_bad_arguments_are_named(call, run, tmp_path, corpus, script, arguments, code, named):
    (tmp_path / "empty.txt").write_bytes(b"\n \n")
    (tmp_path / "latin.txt").write_bytes(b"fine\ncaf\xe9\n")
    (tmp_path / "utf16.txt").write_text("a b c\n", encoding="utf-16")
    shutil.copytree(corpus, tmp_path / "text", ignore=shutil.ignore_patterns("cache"))
    if script == "train":
        tiny = [argument for argument in TINY if not argument.startswith("data")]
        arguments = [*(tiny if arguments[0] != "--config-path" else []), "run_dir={tmp}/new", *arguments]
    before = snapshot(run)
    filled = [text.replace("{run}", str(run)).replace("{tmp}", str(tmp_path)) for text in arguments]
    check(call(script, *filled), code, named)
    assert snapshot(run) == before
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("spoil", "code", "named"), [
    (cut("metrics.jsonl", 0.99), 0, None),  # a line that is still being written is left out
    (write("metrics.jsonl", b"{}\nnot json\n"), 2, "metrics.jsonl"),
    (write("results.json", b'{"test": '), 2, "results.json"),
    (write("results.json", b"[1]"), 2, "results.json"),
    (write("results.json", b"\xff"), 2, "results.json"),
    (replace("results.json", '"vocabulary_size": 42', '"vocabulary_size": "many"'), 2, "results.json.*vocabulary_size"),
    (replace("config.yaml", "seed:", "sead:"), 2, "config.yaml.*sead"),
])  # fmt: skip
def test_a_spoilt_run_is_named_by_the_report(call, run, spoil, code, named):
    spoil(run)
    before = snapshot(run)
    done = call("report", run)
    if code:
        check(done, code, named)
    assert done.code == code
    assert snapshot(run) == before


@pytest.mark.parametrize(("text", "options", "named"), [
    (b"w1 w2\nw3 \xff\nw4\n", [], "line 2 of the input is not UTF-8.*0xff"),
    ("w1\n".encode("utf-16"), [], "line 1 of the input is not UTF-8"),
    (b"1 ||| w1\nno separator\n", ["--nbest"], "line 2 of the input is not `id"),
    (b"w1 \xe2\x82", [], "line 1 of the input is not UTF-8"),  # cut within a character
])  # fmt: skip
def test_a_line_that_cannot_be_scored_is_named_after_those_before_it(run, monkeypatch, capfd, text, options, named):
    monkeypatch.setattr("sys.argv", ["gcnn-score", "--run", str(run), "--device", "cpu", *options])
    monkeypatch.setattr(score_command.os, "read", reader(text))
    monkeypatch.setattr(score_command.select, "select", lambda *_: ([0], [], []))
    with pytest.raises(SystemExit) as stop:
        run_command(score_command.score)
    out, err = capfd.readouterr()
    assert stop.value.code == 2
    assert re.search(named, err)
    assert err.count("\n") == 1
    expected = 0 if options else int(re.search(r"line (\d+)", named)[1]) - 1  # an n-best list may go on
    assert len(out.splitlines()) == expected
    if not options:
        assert all(json.loads(line)["tokens"] for line in out.splitlines())


def reader(text: bytes):
    stream = io.BytesIO(text)
    return lambda descriptor, size: stream.read(size)


@pytest.mark.parametrize(("spoil", "code", "named"), [
    (cut("state.pt"), 1, "state.pt is not what was written"),
    (flip("state.pt"), 1, "state.pt is not what was written"),
    (cut("manifest.json"), 1, "manifest.json is missing or damaged"),
    (remove("manifest.json"), 1, "manifest.json is missing or damaged"),
    (write("manifest.json", b"[]"), 1, "manifest.json is missing or damaged"),
    (write("manifest.json", b"[" * 100_000), 1, "manifest.json is missing or damaged"),
    (remove(WEIGHTS), 1, "model.safetensors is missing"),
])  # fmt: skip
def test_a_spoilt_checkpoint_is_named_where_it_is_asked_for(call, run, tiny, spoil, code, named):
    (*_, newest) = sorted((run / "checkpoints").iterdir())
    spoil(newest)
    before = snapshot(run)
    check(call("train", *tiny, f"resume={newest}", "trainer.max_steps=30"), code, named)
    assert snapshot(run) == before
