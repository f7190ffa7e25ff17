"""Which runs the page shows, in which order, and what it says of them together."""

import json

import pytest

from gcnn.base.errors import UsageError
from tests.reporting.conftest import made_up_results
from tests.reporting.test_page import column, report


def test_runs_with_several_tokenizers_are_ranked_per_word_or_each_tokenizer_alone(
    make_run, tmp_path
):
    """The second run has the better perplexity per token, the first per word."""
    runs = []
    for name, perplexity, word_perplexity in (("fine", 20.0, 900.0), ("coarse", 90.0, 300.0)):
        results = made_up_results(name, "books", perplexity)
        results["data"] |= {"tokenizer_fingerprint": name, "fingerprint": name}
        new = {
            "text_fingerprint": "text",
            "unknown": 0,
            "out_of_vocabulary": 0,
            "word_perplexity": word_perplexity,
        }
        results["test"] |= new
        runs.append(make_run(name, name, "books", results=results, words=False))
    page, _ = report(runs, tmp_path / "out")
    assert column(page.tables[0], "Run") == ["coarse", "fine"]
    assert column(page.tables[0], "Test, per word") == ["300.00", "900.00"]
    assert (
        "coarse has the lowest test perplexity per word on books: 300.00; fine follows with 900.00."
        in page.text
    )
    assert (
        "Ranked per word: perplexities per token compare only with the same tokenizer." in page.text
    )
    results["test"] |= {
        "unknown": 1234,
        "out_of_vocabulary": 1234,
        "word_perplexity": None,
        "bits_per_byte": None,
    }
    (tmp_path / "coarse" / "results.json").write_text(json.dumps(results))
    page, _ = report(runs, tmp_path / "out")
    assert "has the lowest" not in page.text
    assert "coarse has a test perplexity of 90.00 on books" in page.text
    assert "per word only where no word is unknown (1,234 of 244,569 are for one)" in page.text
    assert "No perplexity per word (coarse): 1,234 of 244,569 words are unknown" in page.text
    assert dict(
        zip(*(column(page.tables[0], title) for title in ("Run", "Test, per word")), strict=True)
    ) == {
        "coarse": "–",
        "fine": "900.00",
    }


def test_a_run_whose_perplexity_per_word_is_not_finite_comes_last(make_run, tmp_path):
    """JSON has no infinity: results.json then has null, as it has for unknown words."""
    runs = []
    for name, word_perplexity in (("diverged", None), ("good", 300.0)):
        results = made_up_results(name, "books", 90.0)
        results["data"] |= {"tokenizer_fingerprint": name, "fingerprint": name}
        results["test"] |= {"text_fingerprint": "text", "unknown": 0, "out_of_vocabulary": 0}
        results["test"]["word_perplexity"] = word_perplexity
        runs.append(make_run(name, name, "books", results=results, words=False))
    page, _ = report(runs, tmp_path / "out")
    assert column(page.tables[0], "Run") == ["good", "diverged"]
    assert "good has the lowest test perplexity per word on books: 300.00" in page.text


def test_runs_that_differ_in_their_seed_alone_are_a_line_and_a_band(make_run, tmp_path):
    for seed, perplexity in ((1, 100.0), (2, 104.0), (3, 111.0)):
        metrics = [
            {
                "kind": "validation",
                "step": s,
                "tokens": s,
                "seconds": s,
                "perplexity": perplexity + 9 / s,
            }
            for s in (10, 20, 30 if seed < 3 else 31)
        ]
        make_run(f"runs/{seed}", "glu", perplexity=perplexity, metrics=metrics, seed=seed)
    make_run("runs/4", "relu", perplexity=120.0, metrics=metrics, seed=1)
    page, markdown = report([tmp_path / "runs"], tmp_path / "out")
    assert len(page.tables[0]) == 1 + 4
    assert (
        "glu, 3 seeds has the lowest mean test perplexity on wikitext2: 105.00; "
        "relu follows with 120.00" in page.text
    )
    assert page.tables[1][1:] == [
        ["glu, 3 seeds", "105.00 (100.00 to 111.00)", "109.20 (104.00 to 115.44)", "1, 2, 3"]
    ]
    svg = (tmp_path / "out/figures/perplexity-steps.svg").read_text()
    assert [label for label in ("glu, 3 seeds", "relu") if f">{label}<" in svg] == [
        "glu, 3 seeds",
        "relu",
    ]
    assert "glu 1<" not in svg
    assert svg.count('id="perplexity-steps-FillBetween') == 1
    assert "of several seeds the mean, and a band from the least to the greatest" in markdown


def test_an_unfinished_run_is_not_counted_beside_the_mean_of_its_seeds(make_run, tmp_path):
    runs = [make_run(str(seed), "glu", seed=seed, metrics=None) for seed in (1, 2)]
    runs.append(make_run("3", "glu", seed=3, metrics=None, results=None))
    page, _ = report(runs, tmp_path / "out")
    [row] = page.tables[1][1:]
    assert (row[0], row[3]) == ("glu, 2 seeds", "1, 2")


def test_a_run_that_cannot_be_read_is_left_out_and_named(make_run, tmp_path, capsys):
    good = make_run("good", "good")
    (make_run("bad", "bad") / "results.json").write_text("{")
    (make_run("worse", "worse") / "config.yaml").write_text("model: {kind: rnn}")
    page, _ = report(
        [tmp_path / "good", tmp_path / "bad", tmp_path / "worse", tmp_path / "none"],
        tmp_path / "out",
    )
    told = capsys.readouterr().err
    assert column(page.tables[0], "Run") == ["good"]
    for name in ("bad/results.json", "worse/config.yaml", "none"):
        assert f"Left out: {tmp_path / name}" in page.text
        assert f"left out: {tmp_path / name}" in told
    (good / "metrics.jsonl").write_text("[]\n")
    with pytest.raises(UsageError, match="good"):
        report([good], tmp_path / "out")


def test_a_page_that_is_replaced_is_named(make_run, tmp_path, capsys):
    report([make_run()], tmp_path / "out")
    assert "is replaced" not in capsys.readouterr().err
    report([tmp_path / "run"], tmp_path / "out")
    assert f"{tmp_path / 'out' / 'report.html'} of 20" in capsys.readouterr().err


def test_provenance_says_once_what_all_runs_share(make_run, tmp_path):
    for name in "ab":
        results = made_up_results(name, "x", 50.0)
        results["data"]["fingerprint"] = f"{name}123456789012345" * 4
        results["git_commit"] += "+changes"
        make_run(f"runs/{name}", name, "x", results=results)
    page, _ = report([tmp_path / "runs"], tmp_path / "out")
    table = page.tables[-1]
    assert column(table, "Data fingerprint") == ["a12345678901", "b12345678901"]
    assert column(table, "Commit") == ["4f2a9c81d0e7+changes"] * 2
    assert page.text.count("Some CPU") == page.text.count("torch 2.13.0") == 1
    results["hardware"]["cpu"] = "Other CPU"
    (tmp_path / "runs/b/results.json").write_text(json.dumps(results))
    page, _ = report([tmp_path / "runs"], tmp_path / "out")
    assert "Hardware and versions of a: Some CPU" in page.text
    assert "Hardware and versions of b: Other CPU" in page.text


@pytest.mark.parametrize(
    ("data", "path", "expected"),
    [
        ("local", "/home/me/novels", "novels"),
        ("wikitext2", "/data/wikitext-2", "wikitext2"),
        ("local", None, "local"),
    ],
)
def test_ones_own_text_is_called_by_its_folder(make_run, tmp_path, data, path, expected):
    page, _ = report([make_run(data=data, path=path, train_tokens=2_000_000)], tmp_path / "out")
    assert f"on {expected}, first 2 M tokens" in page.text
