"""The arguments that make passes to the scripts, in a checkout whose path has a blank.

The Python that make calls only prints its arguments.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def make(tmp_path):
    checkout = tmp_path / "check out"
    (checkout / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", checkout)
    for name in ("pyproject.toml", "constraints.txt", ".venv/installed"):  # the last is the newest
        (checkout / name).touch()
    python = checkout / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    for name in ("in put/a b.txt", "in put/c.txt", "d.txt"):
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).touch()

    def run(*arguments):
        done = subprocess.run(["make", *arguments], cwd=checkout, capture_output=True, text=True)
        return done.returncode, done.stdout.splitlines(), done.stderr

    return run


@pytest.mark.parametrize(("arguments", "named"), [
    (["train", "trainer.max_steps=3"], 'not trainer.max_steps; .*ARGS="trainer.max_steps=3"'),
    (["train", "RUN=x"], "takes ARGS EXPERIMENT NPROC PYTHON, not RUN"),
    (["sweep", "NPROC=2"], "make sweep takes ARGS EXPERIMENT PYTHON, not NPROC"),
    (["train", "EXPERIMNET=x"], "not EXPERIMNET"),
    (["train", "quickstart"], "no target quickstart"),
    (["evaluate"], "give RUN="), (["score"], "give RUN="), (["generate"], "give RUN="),
    (["compare"], "give RUNS="),
    (["score", "RUN=x", "INPUT=d.txt"], "give OUTPUT="),
])  # fmt: skip
def test_what_make_would_pass_over_is_refused_in_a_line(make, arguments, named):
    code, out, err = make(*arguments)
    assert (code, out, err.count("\n")) == (2, [], 1)
    assert re.search(named, err), err


@pytest.mark.parametrize(("arguments", "passed"), [
    (["evaluate", "RUN=runs/a b's"], ["scripts/evaluate.py", "--run", "runs/a b's"]),
    (["generate", "RUN=x", "PROMPT=My lord's \"x\""],
     ["scripts/generate.py", "--run", "x", '--prompt=My lord\'s "x"']),
    (["score", "RUN=x", "INPUT=in put/*.txt", "OUTPUT=o u"],
     ["scripts/score.py", "--run", "x", "--input", "in put/a b.txt", "in put/c.txt",
      "--output", "o u"]),
    (["score", "RUN=x", "INPUT=d.txt in*/c.txt", "OUTPUT=o"],
     ["scripts/score.py", "--run", "x", "--input", "d.txt", "in put/c.txt", "--output", "o"]),
    (["report", "RUNS=in put"], ["scripts/report.py", "in put"]),
    (["report", "RUNS='in put' d.txt"], ["scripts/report.py", "in put", "d.txt"]),
    (["report"], ["scripts/report.py", "runs"]),
    (["report", "COMPARISON=c d.json"], ["scripts/report.py", "runs", "--comparison", "c d.json"]),
    (["compare", "RUNS='in put' d.txt", "ARGS=--json"],
     ["scripts/compare.py", "in put", "d.txt", "--json"]),
    (["data", "EXPERIMENT=wikitext2/gcnn_small"],
     ["scripts/prepare_data.py", "experiment=wikitext2/gcnn_small"]),
    (["train", "EXPERIMENT=x", "ARGS=data.path='a b' seed=1"],
     ["scripts/train.py", "experiment=x", "data.path=a b", "seed=1"]),
    (["train", "NPROC=2"],
     ["-m", "gcnn.training.launch", "--standalone", "--nproc-per-node=2", "--",
      "scripts/train.py", "experiment=quickstart"]),
])  # fmt: skip
def test_words_reach_the_script_as_they_were_meant(make, arguments, passed):
    code, out, err = make(*arguments)
    assert (code, err) == (0, "")
    assert out[-len(passed) :] == passed
