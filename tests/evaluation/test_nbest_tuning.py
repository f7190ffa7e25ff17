"""Weights for n-best lists: those found are the best of a grid that is searched here anew, by slow
means.
"""

import random
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from gcnn.commands.score import rerank_windows, score_hypotheses
from gcnn.commands.tune_nbest import read_references
from gcnn.evaluation.nbest import Ranker, line_parser
from gcnn.evaluation.nbest_tuning import make_lists, tune

pytest.importorskip("jiwer", reason="jiwer is not installed (the extra nbest)")


def distance(a: list[str], b: list[str]) -> int:
    """The edit distance of two sentences in words, by its definition."""
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, start=1):
        above, row = row, [i]
        for j, other in enumerate(b, start=1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (word != other)))
    return row[-1]


@pytest.fixture
def references(lines) -> dict[str, str]:
    return {f"u{i}": line for i, line in enumerate(line for line in lines if line)}


@pytest.fixture
def nbest(references, one_scorer) -> list[str]:
    """Lists of eight with scores that are best put right by half the model and a nat and a half a
    word, noise apart.
    """
    draw = random.Random(5)
    lines = []
    vocabulary = [word for line in references.values() for word in line.split()]
    for name, reference in references.items():
        sentences = []
        for _ in range(draw.choice([1, 8])):
            words = reference.split()
            for _ in range(draw.randrange(4)):
                at = draw.randrange(len(words) + 1)
                words[at : at + draw.randrange(2)] = draw.choices(vocabulary, k=draw.randrange(2))
            sentences.append(" ".join(words))
        scores = one_scorer.score(sentences)
        for sentence, score in zip(sentences, scores, strict=True):
            errors = distance(reference.split(), sentence.split())
            length = 1.5 * len(sentence.split())
            own = -errors - 0.5 * (score.log_prob + length) + draw.gauss(0, 1.5)
            lines.append(f"{name} ||| {sentence} ||| {own}")
    return lines


def errors_of_first(scorer, nbest, references, ranker) -> int:
    """The word errors of the hypotheses that come first as `gcnn score --nbest` ranks them."""
    raw = iter([[line.encode() for line in nbest]])
    total = 0
    for text in rerank_windows(scorer, raw, "moses", ranker):
        name, sentence, *_ = text.splitlines()[0].split(" ||| ")
        total += distance(references[name].split(), sentence.split())
    return total


def lists_of(scorer, nbest, references):
    raw = iter([[line.encode() for line in nbest]])
    return make_lists(score_hypotheses(scorer, raw, line_parser("moses", True)), references)


def test_no_point_of_a_grid_has_fewer_errors_than_the_weights_found(one_scorer, nbest, references):
    lists = lists_of(one_scorer, nbest, references)
    found = tune(lists)
    least = lists.errors_at(*found)
    assert lists.oracle() <= least < lists.errors_at(0.0, 0.0)
    for weights in [found, (0.0, 0.0), (0.5, 1.5), (0.3, -1.0)]:
        ranker = Ranker(weights[0], None, weights[1])
        assert errors_of_first(one_scorer, nbest, references, ranker) == lists.errors_at(*weights)
    grid = product(np.linspace(0, 4, 41), np.linspace(-6, 6, 25))
    counts = [lists.errors_at(*weights) for weights in grid]
    assert least <= min(counts)
    assert len(set(counts)) > 20


def test_the_oracle_takes_the_best_of_each_list(one_scorer, nbest, references):
    lists = lists_of(one_scorer, nbest, references)
    best: dict[str, int] = {}
    for line in nbest:
        name, sentence, _ = line.split(" ||| ")
        errors = distance(references[name].split(), sentence.split())
        best[name] = min(errors, best.get(name, errors))
    assert lists.oracle() == sum(best.values()) > 0
    assert lists.reference_words == sum(len(line.split()) for line in references.values())


@pytest.mark.parametrize("form", ["{} ||| {}", "{} {}", "{}\t{}"])
def test_the_line_that_the_command_prints_ranks_so(
    made_runs, one_scorer, nbest, references, call, tmp_path, form
):
    lines = [form.format(name, words) for name, words in references.items()]
    (tmp_path / "references").write_text("\n".join(lines))
    stdin = "\n".join(nbest).encode()
    command = ["--run", made_runs["gcnn", "word"], "--device", "cpu"]
    done = call("tune_nbest", *command, "--references", "references", stdin=stdin)
    assert (done.code, done.err) == (0, "")
    table = {line[:20].strip(): line.split() for line in done.out.splitlines()}
    lists = lists_of(one_scorer, nbest, references)
    assert int(table["oracle"][-3]) == lists.oracle()
    assert int(table["their own scores"][-3]) == lists.errors_at(0.0, 0.0)
    tuned = int(table["with the model"][-3])
    assert f"{100 * tuned / lists.reference_words:.2f} %" in done.out
    *_, last = done.out.splitlines()
    options = last.removeprefix("gcnn score ").removesuffix(" < lists").split()
    ranked = call("score", *options, "--device", "cpu", stdin=stdin)
    assert ranked.code == 0
    firsts: dict[str, str] = {}
    for line in ranked.out.splitlines():
        name, sentence, *_ = line.split(" ||| ")
        firsts.setdefault(name, sentence)
    assert tuned == sum(
        distance(references[name].split(), words.split()) for name, words in firsts.items()
    )


@pytest.mark.parametrize(("references", "lists", "named"), [
    ("u1 ||| a b\n", b"u2 ||| a ||| -1\n", "the references have no line for the list 'u2'"),
    ("u1 a\nu1 b\n", b"u1 ||| a ||| -1\n", "names 'u1' twice"),
    ("u1 |||\n", b"u1 ||| a ||| -1\n", "has no words"),
    ("u1 a\n", b"", "there are no n-best lists"),
    ("u1 a\n", b"u1 ||| a\n", "has no score"),
    ("u1 a\nu2 a\n", b"u1 ||| a ||| -1\nu2 ||| a ||| -1\nu1 ||| b ||| -2\n", "'u1' comes in 2"),
])  # fmt: skip
def test_what_cannot_be_tuned_is_one_line(made_runs, call, tmp_path, references, lists, named):
    (tmp_path / "references").write_text(references)
    command = ["--run", made_runs["gcnn", "word"], "--references", "references"]
    done = call("tune_nbest", *command, stdin=lists)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert named in done.err


def test_references_without_a_list_are_said(one_scorer, nbest, references, caplog):
    lists_of(one_scorer, nbest, references)
    assert not caplog.records
    more = lists_of(one_scorer, nbest, references | {"a0": "a b", "a1": "c"})
    assert "2 of the references have no list, a0 first" in caplog.text
    assert more.reference_words == lists_of(one_scorer, nbest, references).reference_words


def test_the_lists_that_the_docs_make_can_be_tuned_on(one_scorer, lines, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("\n".join(lines))
    docs = (Path(__file__).parents[2] / "docs" / "SCORING.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", docs, re.DOTALL | re.MULTILINE)
    (program,) = [block for block in blocks if "dev.nbest" in block]
    exec(program, {})
    made = Path("dev.nbest").read_text().splitlines()
    lists = lists_of(one_scorer, made, read_references(Path("dev.txt")))
    assert len(made) == 10 * len(lists.own) > 100
    assert lists.oracle() < lists.errors_at(0.0, 0.0)
    assert lists.errors_at(*tune(lists)) <= lists.errors_at(0.0, 0.0)


def test_a_row_of_references_without_a_text_is_skipped(tmp_path):
    path = tmp_path / "references.jsonl"
    path.write_text('{"text": "a1 ||| it is"}\n{"text": null}\n')
    assert read_references(path) == {"a1": "it is"}
