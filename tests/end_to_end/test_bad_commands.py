"""Bad arguments and files, for every command: one line that names the thing and the
remedy, and the exit code: 2 for what was asked wrongly, 1 for what failed. Nothing is written,
nothing changed.

Training has a table of its own in test_bad_input.py; what comes in by standard input is in
test_bad_streams.py, damaged run directories in test_bad_runs.py.
"""

import re

import pytest
import torch

from gcnn.base.errors import UsageError
from gcnn.commands.main import COMMANDS, run

HUGE = str(10**30)
RUN = ["--run", "{run}"]
FILES = ["--input", "{tmp}/text", "--output", "{tmp}/out"]
RUNS = ["--runs", "{run}", "--quick", "--out", "{tmp}/latency.json"]

EVALUATE = [
    ([], 2, "required: --run"),
    (["--run"], 2, "--run: expected one argument; a value that begins with - is typed as --option"),
    (["\u2014run", "{run}"], 2, "\u2014run begins with a long dash, type --run"),
    (["\u2013-run={run}"], 2, "begins with a long dash, type --run="),
    (["--run", ""], 2, "is not a run directory"),
    (["--run", "{tmp}/nowhere"], 2, "nowhere is not a run directory"),
    (["--run", "{tmp}/folder"], 2, "folder is not a run directory"),
    (["--run", "{tmp}/text"], 2, "text is not a run directory"),
    (["--run", "x" * 5000], 2, "x"),
    ([*RUN, "--nonsense"], 2, "--nonsense"),
    ([*RUN, "surplus"], 2, "surplus; a file is typed as --file FILE"),
    ([*RUN, "--split", "dev"], 2, "--split.*'dev'.*valid"),
    ([*RUN, "--split", "test", "--file", "{tmp}/text"], 2, "not allowed with"),
    (
        [*RUN, "--file", "{tmp}/text", "--data-path", "{tmp}"],
        2,
        "--data-path is where the run's splits are",
    ),
    ([*RUN, "--split", "test", "--column", "words"], 2, "--column is of --file"),
    ([*RUN, "--file", "{tmp}/text", "--column", "words"], 2, "--column would change nothing"),
    ([*RUN, "--file", "{tmp}/nowhere.txt"], 2, "no file .*nowhere.txt"),
    ([*RUN, "--file", "{tmp}/folder"], 2, "no file .*folder"),
    ([*RUN, "--file", "{tmp}/empty"], 2, "empty has no words"),
    ([*RUN, "--file", "{tmp}/blank"], 2, "blank has no words"),
    ([*RUN, "--file", "-", "--per-word"], 2, "/dev/stdin has no words"),
    ([*RUN, "--file", "{tmp}/latin-1"], 2, "latin-1 is not UTF-8.*line 2"),
    ([*RUN, "--file", "{tmp}/utf-16"], 2, "utf-16 is .*UTF-16"),
    ([*RUN, "--file", "{tmp}/utf-16-le"], 2, "utf-16-le is not UTF-8 text: .* zero bytes"),
    ([*RUN, "--file", "{tmp}/utf-32"], 2, "utf-32"),
    ([*RUN, "--file", "{tmp}/cut"], 2, "cut is not UTF-8.*line 1"),
    ([*RUN, "--file", "{tmp}/zip"], 2, "zip is an archive"),
    ([*RUN, "--file", "{tmp}/rar.txt"], 2, "rar.txt is not UTF-8"),
    ([*RUN, "--file", "/dev/null"], 2, "/dev/null"),
    ([*RUN, "--data-path", "{tmp}/nowhere"], 2, "nowhere is not a folder"),
    ([*RUN, "--data-path", "{tmp}/text"], 2, "text is not a folder"),
    ([*RUN, "--data-path", ""], 2, "--data-path: the path is empty"),
    ([*RUN, "--data-path", "{tmp}/folder"], 2, "no train.txt in .*folder"),
    ([*RUN, "--batch-size", "0"], 2, "--batch-size.*0 is not from 1"),
    ([*RUN, "--batch-size", "1.5"], 2, "--batch-size.*'1.5'"),
    ([*RUN, "--batch-size", "many"], 2, "--batch-size.*'many'"),
    ([*RUN, "--batch-size", HUGE], 2, "--batch-size.*is not from 1"),
    ([*RUN, "--block-size", "-3"], 2, "--block-size.*-3 is not from 1"),
    ([*RUN, "--block-size", HUGE], 2, "--block-size.*is not from 1"),
    ([*RUN, "--block-size", HUGE, "--sentences"], 2, "--block-size.*is not from 1"),
    ([*RUN, "--per-token", "--per-line"], 2, "not allowed with"),
    ([*RUN, "--device", "tpu"], 2, "--device.*'tpu'"),
    ([*RUN, "--device", "cuda"], 2, "no such device.*choose cpu"),
]
COMPARE = [
    ([], 2, "required: RUN_A, RUN_B"),
    (["{run}"], 2, "required: RUN_B"),
    (["{run}", "{run}"], 2, "have the same weights"),
    (["{run}", "{run}", "{run}"], 2, "a file is typed as --file FILE"),
    (["{run}", "{tmp}/nowhere"], 2, "nowhere is not a run directory"),
    (["{tmp}/folder", "{run}"], 2, "folder is not a run directory"),
    (["{tmp}/text", "{run}"], 2, "text is not a run directory"),
    (["{run}", "{run}", "--file", "-", "--data-path", "{tmp}"], 2, "--data-path is where the run"),
    (["{run}", "{run}", "--column", "words"], 2, "--column is of --file"),
    (["{run}", "{run}", "--file", "-", "--column", "words"], 2, "--column would change nothing"),
    (["{run}", "{run}", "--split", "dev"], 2, "--split.*'dev'.*valid"),
    (["{run}", "{run}", "--device", "cuda"], 2, "no such device"),
    (["{run}", "{run}", "--threads", "0"], 2, "--threads.*0 is not from 1"),
]
SCORE = [
    ([*RUN, "a.txt", "b.txt"], 2, "a.txt b.txt; files are typed as --input FILE"),
    ([], 2, "required: --run"),
    (["--run", "{tmp}/nowhere"], 2, "nowhere is not a run directory"),
    ([*RUN, "--format", "xml"], 2, "--format.*'xml'.*tsv"),
    ([*RUN, "--format", "tsv", "--nbest"], 2, "not allowed with"),
    ([*RUN, "--nbest", "htk"], 2, "--nbest.*'htk'.*srilm"),
    ([*RUN, *FILES, "--nbest"], 2, "--format and --nbest are of standard"),
    ([*RUN, *FILES, "--format", "tsv"], 2, "--input writes Parquet"),
    ([*RUN, "--column", "words"], 2, "--column is of the files of --input"),
    ([*RUN, "--lm-weight", "2"], 2, "--lm-weight goes with --nbest"),
    ([*RUN, "--nbest", "--lm-weight", "1e400"], 2, "--lm-weight is inf; give a finite number"),
    ([*RUN, "--nbest", "--lm-weight", "much"], 2, "--lm-weight.*'much'"),
    ([*RUN, "--threads", "0"], 2, "--threads.*0 is not from 1"),
    ([*RUN, "--threads", "-1"], 2, "--threads.*-1 is not from 1"),
    ([*RUN, "--threads", "two"], 2, "--threads.*'two'"),
    ([*RUN, "--threads", HUGE], 2, "--threads.*is not from 1"),
    ([*RUN, "--device", "cuda"], 2, "no such device"),
    ([*RUN, "--precision", "fp8"], 2, "--precision.*'fp8'"),
    ([*RUN, "--input", "{tmp}/text"], 2, "--input and --output belong together"),
    ([*RUN, "--input", "{tmp}/text", "--output", ""], 2, "--output: the path is empty"),
    ([*RUN, "--input", "{tmp}/nowhere", "--output", "{tmp}/folder"], 2, "nowhere"),
    ([*RUN, "--input", "{tmp}/folder", "--output", "{tmp}/folder"], 2, "folder is no regular file"),
    (
        [*RUN, "--input", "{tmp}/text", "--output", "{tmp}/text/new"],
        2,
        "--output: .*text is a file",
    ),
    (
        [*RUN, "--input", "{tmp}/text", "{tmp}/text", "--output", "{tmp}/new"],
        2,
        "two files would be written",
    ),
    (
        [*RUN, "--input", "{tmp}/latin-1", "--output", "{tmp}/folder"],
        2,
        "latin-1 is not UTF-8.*line 2",
    ),
    ([*RUN, "--input", "{tmp}/zip.parquet", "--output", "{tmp}/folder"], 2, "zip.parquet"),
    ([*RUN, "--input", "{tmp}/cut.jsonl", "--output", "{tmp}/folder"], 2, "cut.jsonl, line 2"),
    (
        [*RUN, "--input", "{tmp}/good.jsonl", "--column", "words", "--output", "{tmp}/new"],
        2,
        "words.*--column",
    ),
    ([*RUN, "--input", "{tmp}/text", "--output", "{tmp}/text"], 2, "--output: .*text is a file"),
    ([*RUN, "sentences.txt"], 2, "sentences.txt"),
]
GENERATE = [
    ([*RUN, "My lord,"], 2, "My lord,; a prompt is typed as --prompt TEXT"),
    ([], 2, "required: --run"),
    (["--run", "{tmp}/nowhere"], 2, "nowhere is not a run directory"),
    ([*RUN, "--tokens", "0"], 2, "tokens is 0"),
    ([*RUN, "--tokens", "-5"], 2, "tokens is -5"),
    ([*RUN, "--tokens", HUGE], 2, "tokens is 10"),
    ([*RUN, "--tokens", "ten"], 2, "--tokens.*'ten'"),
    ([*RUN, "--samples", "0"], 2, "samples is 0"),
    ([*RUN, "--samples", HUGE], 2, "samples is 10"),
    ([*RUN, "--temperature", "-0.5"], 2, "temperature is -0.5"),
    ([*RUN, "--temperature", "nan"], 2, "temperature is nan"),
    ([*RUN, "--temperature", "inf"], 2, "temperature is inf"),
    ([*RUN, "--temperature", "warm"], 2, "--temperature.*'warm'"),
    ([*RUN, "--top-k", "0"], 2, "top-k is 0"),
    ([*RUN, "--top-k", "-1"], 2, "top-k is -1"),
    ([*RUN, "--top-k", "2.5"], 2, "--top-k.*'2.5'"),
    ([*RUN, "--seed", "-1"], 2, "seed is -1"),
    ([*RUN, "--seed", str(2**63)], 2, "seed is 9"),
    ([*RUN, "--seed", "lucky"], 2, "--seed.*'lucky'"),
    ([*RUN, "--prompt"], 2, "--prompt: expected one argument"),
    ([*RUN, "--prompt", "w1 \udcff"], 2, "prompt is not UTF-8"),
]
BENCHMARK = [
    (["--models", "gcnn_99"], 2, "--models.*'gcnn_99'.*gcnn_8"),
    (["--models", "gcnn_8,,gcnn_99"], 2, "'gcnn_99'"),
    (["--models", ","], 2, "--models ',' names no model.*gcnn_8"),
    (["--models", ""], 2, "--models '' names no model.*gcnn_8"),
    ([*RUNS, "--models", ""], 2, "--models '' names no model.*gcnn_8"),
    (["--runs"], 2, "--runs: expected at least one argument"),
    (["--runs", "{tmp}/nowhere"], 2, "nowhere is not a run directory"),
    (["--runs", "{run}", "{tmp}/folder"], 2, "folder is not a run directory"),
    ([*RUNS, "--threads", "0"], 2, "--threads.*0 is not from 1"),
    ([*RUNS, "--threads", "many"], 2, "--threads.*'many'"),
    ([*RUNS, "--threads", HUGE], 2, "--threads"),
    ([*RUNS, "--repeats", "-2"], 2, "--repeats.*-2 is not from 1"),
    ([*RUNS, "--repeats", "1e3"], 2, "--repeats.*'1e3'"),
    ([*RUNS, "--precision", "fp8"], 2, "--precision.*'fp8'"),
    ([*RUNS, "--device", "cuda"], 2, "no such device"),
    (["--runs", "{run}", "--quick", "--out", "{tmp}/folder"], 2, "--out: .*folder is a folder"),
    (["--runs", "{run}", "--out", "{tmp}/text/latency.json"], 2, "--out: .*text is a file"),
]
REPORT = [
    ([], 2, "required: RUN"),
    (["{tmp}/nowhere"], 2, "nowhere: no run directory here"),
    (["{tmp}/folder"], 2, "folder: no run directory here"),
    (["{tmp}/text"], 2, "text: no run directory here"),
    (["{run}", "--latency", "{tmp}/nowhere.json"], 2, "nowhere.json: no such file"),
    (["{run}", "--latency", "{tmp}/folder"], 2, "folder cannot be read"),
    (["{run}", "--latency", "{tmp}/text"], 2, "text is not JSON"),
    (["{run}", "--latency", "{tmp}/zip"], 2, "zip is not a UTF-8"),
    (["{run}", "--latency", "{run}/results.json"], 2, "results.json has no models"),
    (["{run}", "--comparison", "{tmp}/nowhere.json"], 2, "nowhere.json: no such file"),
    (["{run}", "--comparison", "{tmp}/folder"], 2, "folder cannot be read"),
    (["{run}", "--comparison", "{tmp}/text"], 2, "text is not JSON"),
    (
        ["{run}", "--comparison", "{run}/results.json"],
        2,
        "results.json is no comparison of two runs",
    ),
    (["{run}", "--out", "{tmp}/text"], 2, "--out: .*text is a file"),
    (["{run}", "--out", "{tmp}/text/report"], 2, "--out: .*text is a file"),
    (["{run}", "--out", "/proc/none"], 1, "/proc/none"),
    (["{run}", "--out"], 2, "--out: expected one argument"),
]
BENCHMARK_TRAIN = [
    (["--workloads", "huge"], 2, "--workloads.*'huge'"),
    (["--workloads", "small", "--out", "{tmp}/text/speed.json"], 2, "--out: .*text is a file"),
    (["--workloads", "small", "--steps", "0"], 2, "--steps.*0 is not from 1"),
    (["--workloads", "small", "--rounds", "many"], 2, "--rounds.*'many'"),
    (["--workloads", "small", "--threads", HUGE], 2, "--threads.*is not from 1"),
    (["--workloads", "small", "nonsense=1"], 2, "nonsense"),
    (["--profile", "--out", "{tmp}/speed.json"], 2, "--profile only prints"),
]
BENCHMARK_DATA = [
    (["--dir", "{tmp}/new", "--tokens", "24"], 2, "--tokens is 24; give 25 or more"),
    (["--dir", "{tmp}/new", "--texts", "poems"], 2, "--texts.*'poems'"),
    (["--dir", "{tmp}/new", "--tokens", "100", "--shards", "99"], 2, "--shards is 99.*give 100"),
]
SHARDS = [*RUN, "--dir", "{tmp}/new"]
BENCHMARK_SCORING = [
    ([*SHARDS, "--text", "{tmp}/nowhere"], 2, "no file .*nowhere"),
    ([*SHARDS, "--text", "{tmp}/latin-1"], 2, "latin-1 is not UTF-8.*line 2"),
    ([*SHARDS, "--text", "{tmp}/blank"], 2, "blank has no words"),
    ([*SHARDS, "--text", "{tmp}/blank", "--price", "nan"], 2, "--price: 'nan' is not a positive"),
    ([*SHARDS, "--text", "{tmp}/blank", "--price=-1"], 2, "--price: '-1' is not a positive"),
]
BENCHMARK_SOFTMAX = [
    (["--memory", "nan", "--out", "{tmp}/new.json"], 2, "--memory: 'nan' is not a positive"),
    (["--memory", "1e-9", "--out", "{tmp}/new.svg"], 2, "--out: .*new.svg would be replaced"),
]
DESCRIBE = [
    (["gcnn_99"], 2, "gcnn_99"),
    (["../model/gcnn_8"], 2, "gcnn_8"),
    (["gcnn_8", "--vocabulary", "0"], 2, "--vocabulary.*0 is not from 1"),
    (["gcnn_8", "--vocabulary", "-7"], 2, "--vocabulary.*-7 is not from 1"),
    (["gcnn_8", "--vocabulary", "100"], 2, "cutoffs.*give --vocabulary more types than 50000"),
    (["gcnn_8", "--vocabulary", str(2**31 - 1)], 2, "2,147,483,647 types takes .* give fewer"),
    (["gcnn_8", "--vocabulary", "all"], 2, "--vocabulary.*'all'"),
    (["gcnn_8", "--vocabulary", HUGE], 2, "--vocabulary.*is not from 1"),
    (["gcnn_8", "--vocabulary", str(2**62)], 2, "--vocabulary.*is not from 1"),
    (["gcnn_8", "--plan", "--vocabulary", "900000"], 2, "leave --vocabulary out"),
    (["gcnn_8=x"], 2, "gcnn_8=x"),
    (["a,b"], 2, "a,b"),
    ([""], 2, "model"),
]
PREPARE = [
    (["data=nonsense"], 2, "data=nonsense.*choose one of"),
    (["data=local"], 2, "data.path"),
    (["data=local", "data.path={tmp}/nowhere"], 2, "nowhere is not a folder"),
    (["data=local", "data.path={tmp}/folder"], 2, "no train.txt in"),
    (["data=wikitext2", "data.path={tmp}/folder"], 2, "no wiki.train.tokens in"),
    (["data=billion_word", "data.path={tmp}/text"], 2, "text is not a folder"),
    (["data=local", "data.files={{train:[{tmp}/text]}}"], 2, "data.files.valid: no file matches"),
    (
        ["data=local", "data.files={{train:[{tmp}/text],valid:[{tmp}/text],test:[{tmp}/no*]}}"],
        2,
        "matches .*no",
    ),
    (
        [
            "data=local",
            "data.files={{train:[{tmp}/text],valid:[{tmp}/good.jsonl],test:[{tmp}/utf-16]}}",
        ],
        2,
        "utf-16 is",
    ),
    (
        [
            "data=local",
            "data.files={{train:[{tmp}/zip.parquet],valid:[{tmp}/text],test:[{tmp}/good.jsonl]}}",
        ],
        2,
        "zip.parquet",
    ),
    (
        ["data=local", "data.path={corpus}", "tokenizer=letters"],
        2,
        "tokenizer=letters.*choose one of",
    ),
    (["data=local", "data.path={corpus}", "tokenizer=word", "tokenizer.max_size=2"], 2, "max_size"),
    (
        ["data=local", "data.path={corpus}", "tokenizer.vocabulary_size=" + HUGE],
        2,
        "tokenizer.vocabulary_size is 10",
    ),
    (
        ["data=local", "data.path={corpus}", "tokenizer.vocabulary_size=10"],
        2,
        "tokenizer.vocabulary_size is 10.*at least",
    ),
    (["data=local", "data.path={corpus}", "data.cache_dir={tmp}/text"], 1, "tmp.*text"),
    (["data=local", "data.path={corpus}", "data.cache_dir=/proc/none"], 1, "/proc/none"),
    (["nonsense"], 2, "nonsense"),
    (["--help-me"], 2, "help-me"),
]
IMPORT = [
    ([], 2, "required: CHECKPOINT"),
    (["{tmp}/a.pt", "{tmp}/text"], 2, "required: OUT"),
    (["{tmp}/nowhere.pt", "{tmp}/text", "{tmp}/out"], 2, "nowhere.pt cannot be read"),
    (["{tmp}/folder", "{tmp}/text", "{tmp}/out"], 2, "folder cannot be read"),
    (["{tmp}/empty", "{tmp}/text", "{tmp}/out"], 2, "empty was not loaded"),
    (["{tmp}/cut.pt", "{tmp}/text", "{tmp}/out"], 2, "cut.pt was not loaded"),
    (["{tmp}/utf-16", "{tmp}/text", "{tmp}/out"], 2, "utf-16 was not loaded"),
    (
        ["{run}/model.safetensors", "{tmp}/text", "{tmp}/out"],
        2,
        "model.safetensors is no checkpoint of fairseq",
    ),
    (
        ["{run}/checkpoints/step_000000020/state.pt", "{tmp}/text", "{tmp}/out"],
        2,
        "state.pt is no checkpoint of fairseq",
    ),
    (["{tmp}/a.pt", "{tmp}/text", "{run}"], 2, "run exists already"),
    (["{tmp}/a.pt", "{tmp}/text", "{tmp}/text"], 2, "text exists already"),
]
TABLES = {
    "evaluate": EVALUATE,
    "compare": COMPARE,
    "score": SCORE,
    "generate": GENERATE,
    "benchmark": BENCHMARK,
    "benchmark_train": BENCHMARK_TRAIN,
    "benchmark_data": BENCHMARK_DATA,
    "benchmark_scoring": BENCHMARK_SCORING,
    "benchmark_softmax": BENCHMARK_SOFTMAX,
    "report": REPORT,
    "describe": DESCRIBE,
    "prepare_data": PREPARE,
    "import_fairseq": IMPORT,
}
FILES = {
    "text": b"w1 w2 w3\n",
    "empty": b"",
    "blank": b"\n \n\t\n",
    "latin-1": "w1\ncaf\u00e9\n".encode("latin-1"),
    "utf-16": "w1 w2\n".encode("utf-16"),
    "utf-16-le": ("w1 w2\n" * 100).encode("utf-16-le"),
    "utf-32": "w1 w2\n".encode("utf-32"),
    "cut": "caf\u00e9".encode()[:-1],
    "zip": b"PK\x03\x04\xff\xfe" * 20,
    "rar.txt": b"Rar!\xff",
    "cut.jsonl": b'{"text": "w1"}\n{"text": "w',
    "good.jsonl": b'{"text": "w1"}\n',
    "zip.parquet": b"PAR1\xff\xfe" * 20,
}


@pytest.fixture
def places(run_dir, tmp_path, corpus) -> dict[str, object]:
    """A run and bad files beside it, by what the tables call them."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    torch.save({"model": {}}, tmp_path / "a.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:-100])
    return {"run": run_dir, "tmp": tmp_path, "corpus": corpus}


ROWS = [(command, *row) for command, rows in TABLES.items() for row in rows]


@pytest.mark.parametrize(
    ("command", "arguments", "code", "named"),
    ROWS,
    ids=[f"{i}-{row[0]}" for i, row in enumerate(ROWS)],
)
def test_bad_arguments_are_one_line(
    call, places, snapshot, command, arguments, code, named, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = snapshot()
    done = call(command, *(argument.format(**places) for argument in arguments))
    *usage, line = done.err.splitlines()
    assert (done.code, done.out) == (code, ""), done.err
    # It has a remedy, or is the usage.
    assert re.match(r"error: .*[.;] \w.*\.$" if not usage else r"\S+: error: ", line), line
    assert not usage or usage[0].startswith("usage: ")
    assert "Traceback" not in done.err
    assert re.search(named, line), line
    assert snapshot() == before


def test_a_samples_file_that_cannot_be_written_is_named(call, run_dir, snapshot):
    (run_dir / "samples.json").mkdir()
    before = snapshot()
    done = call("generate", "--run", run_dir, "--tokens", "3", "--save")
    assert done.code == 1
    assert re.fullmatch("error: .*samples.json.*\n", done.err)
    assert snapshot() == before


@pytest.mark.parametrize("word", ["help", "--help", "-h"])
def test_the_commands_are_listed(word, capsys):
    run(word)
    assert re.findall(r"^  ([a-z-]+) +\w", capsys.readouterr().out, re.MULTILINE) == list(COMMANDS)


def test_a_command_that_is_none_is_named_with_the_nearest():
    with pytest.raises(
        UsageError, match=r"no command 'evalaute'; choose one of: train, .* The nearest is evaluate"
    ):
        run("evalaute")
