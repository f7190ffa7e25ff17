"""The benchmarks of preparing and of scoring text: what they read of `gcnn data` and `gcnn score`.

Also the JSON of all benchmarks.
"""

import json
import re
from types import SimpleNamespace

import pytest

from gcnn.benchmarks.output import write_benchmark
from gcnn.commands import benchmark_data, benchmark_scoring, data
from gcnn.commands.benchmark_data import TEXTS, files_of, measure


def test_all_splits_that_gcnn_data_prints_are_counted(monkeypatch, tmp_path, capsys):
    """What the real command prints of a small corpus; the words of its files are counted here."""
    printed = {}

    def run_here(call: list[str]) -> tuple[str, SimpleNamespace]:
        monkeypatch.setattr("sys.argv", ["gcnn data", *call[3:]])
        data.main()
        printed["text"] = capsys.readouterr().out
        return printed["text"], SimpleNamespace(ru_utime=1.0, ru_stime=0.5, ru_maxrss=3)

    monkeypatch.setattr(benchmark_data, "run_child", run_here)
    texts = {"train": "a b a\nb a\n" * 500, "valid": "a b\n", "test": "b\n\na\n"}
    for split, text in texts.items():
        (tmp_path / f"{split}.txt").write_text(text)
    entry = measure(tmp_path, "local")
    whole = "".join(texts.values())
    assert entry["lines"] == whole.count("\n")
    assert entry["tokens"] == len(whole.split()) + whole.count("\n")
    assert entry["bytes"] == len(whole)
    assert entry["cpu_seconds"] == 1.5
    assert entry["peak_memory_bytes"] == 3 * 1024
    assert re.match("local: 4 types", entry["printed"])
    assert printed["text"].startswith(entry["printed"])


@pytest.mark.parametrize("text", TEXTS)
def test_texts_have_the_sizes_that_were_asked_for(text):
    files = files_of(text, tokens=1_000_000, shards=3)
    training = [size for path, size in files.items() if "train" in path]
    assert len(files) == len(training) + 2
    if text == "billion_word":
        assert training == [(500_000, 20_000)] * 3
    else:
        lines = {"running": 40_000, "ten_times_the_lines": 400_000}[text]
        assert training == [(1_000_000, lines)]


def test_a_process_that_found_nothing_to_score_has_no_speed(monkeypatch, tmp_path):
    lines = [{"tokens": 600, "tokens_per_second": 30.0}, {"tokens": 0, "tokens_per_second": 0.0}]
    printed = "".join(json.dumps(line) + "\n" for line in lines)
    monkeypatch.setattr(
        benchmark_scoring, "run_child", lambda call: (printed, SimpleNamespace(ru_maxrss=3))
    )
    entry = benchmark_scoring.measure(tmp_path, [], tmp_path, "float32", processes=2)
    assert (entry["tokens"], entry["tokens_per_second_and_core"]) == (600, 30.0)


def test_results_are_written_with_how_they_were_made(tmp_path):
    path = tmp_path / "new" / "out.json"
    write_benchmark(path, {"command": "gcnn benchmark", "threads": 1}, {"threads": 2, "speed": 3})
    expected = {"command": "gcnn benchmark", "threads": 2, "speed": 3}
    assert json.loads(path.read_text()) == expected
    write_benchmark(None, {}, {})
    assert list(tmp_path.rglob("*.json")) == [path]
