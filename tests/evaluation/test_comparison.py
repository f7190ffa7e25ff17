import json
import math
import random
import re
import shutil
from dataclasses import fields

import numpy as np
import pyarrow as pa
import pytest

from gcnn.base.errors import RunError
from gcnn.base.provenance import made_with
from gcnn.config.schema import SentencePieceConfig, WordTokenizerConfig
from gcnn.config.stored import load_config, save_config
from gcnn.data.lines import TEXT
from gcnn.data.stream import TokenStream, encode_file, encode_text
from gcnn.data.tokenizer_training import train_tokenizer
from gcnn.data.tokenizers import WordTokenizer
from gcnn.evaluation import comparison as module
from gcnn.evaluation.comparison import RECALL, bootstrap, compare, recall_parts, unit_starts
from gcnn.reporting.comparison import ComparedRun, Comparison, Part
from tests.evaluation.conftest import made_up_lines

HEADINGS = [
    "",
    " = First = ",
    "",
    " a b c d ",
    "",
    " = = Section = = ",
    "",
    " a = b ",
    " = no heading , for no empty line is around it = ",
    " a b ",
    "",
    " = Second = ",
    "",
    " a b c ",
]


def encoded(lines, tokenizer):
    return encode_text([pa.array(lines, TEXT)], tokenizer, "text")


def stream_of(tokens, vocabulary_size=20_000):
    """A stream of ids; 0 is <eos>."""
    tokens = np.array(tokens, np.int32)
    lines = int((tokens == 0).sum())
    return TokenStream(tokens, 0, vocabulary_size, len(tokens), len(tokens), lines, "fingerprint")


def made_up_nlls(count, seed=1):
    return np.random.default_rng(seed).gamma(2.0, 2.0, size=(2, count))


def compared(call, a, b, *options):
    done = call("compare", a, b, "--json", *options)
    assert done.code == 0, done.err
    return json.loads(done.out)


@pytest.mark.parametrize(
    "config", [WordTokenizerConfig(), SentencePieceConfig(vocabulary_size=300)]
)
def test_a_heading_between_empty_lines_begins_an_article(config):
    tokenizer = train_tokenizer(config, [HEADINGS * 20])

    def lines_of_units(lines, sentences=False):
        stream = encoded(lines, tokenizer)
        unit, starts = unit_starts(stream, tokenizer, sentences)
        line_of_token = np.cumsum(np.append(0, stream.tokens[:-1] == stream.eos_id))
        return unit, line_of_token[starts].tolist()

    second = HEADINGS.index(" = Second = ")
    assert lines_of_units(HEADINGS) == ("article", [0, second])
    # The rest of an article comes first.
    assert lines_of_units(["a", *HEADINGS]) == (
        "article",
        [0, 2, second + 1],
    )
    assert lines_of_units(HEADINGS[1:]) == ("article", [0, second - 1])
    assert lines_of_units(HEADINGS, sentences=True) == ("line", list(range(len(HEADINGS))))
    assert lines_of_units(["a b", "", "= a =", "b"]) == ("line", [0, 1, 2, 3])


def test_a_tokenizer_without_the_mark_of_a_heading_knows_lines_only():
    tokenizer = WordTokenizer(["<unk>", "<eos>", "a", "b", "c", "d"])
    stream = encoded(["", "x First x", "", "a", "", "= Second =", ""], tokenizer)
    unit, starts = unit_starts(stream, tokenizer, False)
    assert (unit, len(starts)) == ("line", 7)


def test_the_test_set_of_wikitext_2_has_60_articles(shared):
    path = shared / "data" / "wikitext-2" / "wiki.test.tokens"
    lines = path.read_text().split("\n")[:-1]
    tokenizer = train_tokenizer(WordTokenizerConfig(), [lines])
    unit, starts = unit_starts(encode_file(path, tokenizer), tokenizer, False)
    assert (unit, len(starts)) == ("article", 60)


def test_recall_as_worked_out_by_hand():
    rare_bigram, frequent_bigram, new_bigram, new = range(len(RECALL))
    text = [  # each token of two articles, ids from 1,000 on being rare, and what it is
        (5, new), (2000, new), (5, new_bigram), (2000, rare_bigram), (7, new), (2000, new_bigram),
        (0, new), (5, frequent_bigram), (7, new_bigram), (5, new_bigram), (7, frequent_bigram),
        (999, new), (7, new_bigram), (999, frequent_bigram), (1000, new), (999, new_bigram),
        (1000, rare_bigram), (0, new_bigram),
        (5, new), (2000, new), (0, new),
    ]  # fmt: skip
    stream = stream_of([token for token, _ in text])
    units = np.repeat([0, 1], [18, 3])
    assert recall_parts(stream, units).tolist() == [part for _, part in text]


def test_the_bands_of_ranks_and_positions():
    tokens = [9, 10, 99, 100, 999, 1000, 9999, 10_000, 0, 3, 0]  # ids count from 0, ranks from 1
    stream = stream_of(tokens)
    starts = np.array([0, 9])
    parts = compare(stream, starts, *made_up_nlls(len(tokens)))["parts"]
    bands = {part["part"]: part["tokens"] for part in parts["frequency"]}
    assert bands == {
        "1 to 10": 4,
        "11 to 100": 2,
        "101 to 1,000": 2,
        "1,001 to 10,000": 2,
        "10,001 or more": 1,
    }
    assert {part["part"]: part["tokens"] for part in parts["position"]} == {"1 to 10": 11}
    long = stream_of([1] * 101 + [0])
    parts = compare(long, np.array([0]), *made_up_nlls(102))["parts"]
    bands = {part["part"]: part["tokens"] for part in parts["position"]}
    assert bands == {"1 to 10": 10, "11 to 100": 90, "101 to 1,000": 2}


def test_the_parts_add_up_to_the_whole():
    draw = np.random.default_rng(2)
    tokens = np.append((draw.pareto(0.5, 4999) % 15_000).astype(int), 0)
    starts = np.array([0, 700, 720, 3000])
    nlls = made_up_nlls(5000)
    found = compare(stream_of(tokens), starts, *nlls)
    assert found["difference"] == pytest.approx((nlls[1].sum() - nlls[0].sum()) / 5000, rel=1e-12)
    assert set(found["parts"]) == {"frequency", "recall", "position"}
    for parts in found["parts"].values():
        assert len(parts) > 2
        assert sum(part["tokens"] for part in parts) == 5000
        assert sum(part["contribution"] for part in parts) == pytest.approx(
            found["difference"], rel=1e-9
        )
        for model in (0, 1):
            total = sum(part["tokens"] * part["nats_per_token"][model] for part in parts)
            assert total / 5000 == pytest.approx(found["nats_per_token"][model], rel=1e-9)
        for part in parts:
            a, b = part["nats_per_token"]
            assert part["contribution"] == pytest.approx(part["tokens"] * (b - a) / 5000, rel=1e-9)


def test_the_interval_of_many_units_is_that_of_the_normal_distribution():
    draw = np.random.default_rng(3)
    tokens = draw.integers(50, 150, 1000)
    sums = np.stack([0.1 * tokens + draw.normal(0, 3, 1000), draw.exponential(2, 1000)], axis=1)
    for column, (low, high) in zip(sums.T, bootstrap(sums, tokens), strict=True):
        mean = column.sum() / tokens.sum()
        # The standard error of a ratio of two sums.
        error = math.sqrt(((column - mean * tokens) ** 2).sum()) / tokens.sum()
        assert (low, high) == pytest.approx(
            (mean - 1.96 * error, mean + 1.96 * error), abs=0.1 * error
        )


def test_memory_is_bounded_without_changing_the_interval(monkeypatch):
    sums = made_up_nlls(14).T
    tokens = np.arange(1, 15)
    whole = bootstrap(sums, tokens)
    monkeypatch.setattr(module, "DRAWS_AT_ONCE", 1000)
    assert bootstrap(sums, tokens) == whole


def test_alike_models_do_not_differ_and_one_unit_has_no_interval():
    stream = stream_of([1, 2, 0, 3, 0])
    nlls = made_up_nlls(5)
    alike = compare(stream, np.array([0, 3]), nlls[0], nlls[0])
    assert (alike["ratio"], alike["ratio_interval"], alike["difference"]) == (1, [1, 1], 0)
    alone = compare(stream, np.array([0]), *nlls)
    assert (alone["difference_interval"], alone["ratio_interval"]) == (None, None)
    assert alone["parts"]["recall"][0]["interval"] is None


def test_losses_that_are_not_finite_are_an_error_and_vast_ones_no_infinity():
    stream = stream_of([1, 2, 0])
    nlls = made_up_nlls(3)
    with pytest.raises(RunError, match="the second run gives a token a loss that is not finite"):
        compare(stream, np.array([0]), nlls[0], nlls[1] + [0, np.nan, 0])
    vast = compare(stream, np.array([0]), nlls[0], nlls[1] + 800)
    assert vast["perplexity"][1] is vast["ratio"] is None
    json.dumps(vast, allow_nan=False)


@pytest.mark.parametrize("mode", ["--sentences", "--no-sentences"])
def test_a_bootstrap_by_hand_gives_the_interval_of_the_command(mode, made_runs, call):
    runs = made_runs["gcnn", "word"], made_runs["lstm", "word"]
    found = compared(call, *runs, mode)
    per_line = [call("evaluate", "--run", run, "--per-line", mode).out.splitlines() for run in runs]
    lines = []
    for row_a, row_b in zip(*per_line, strict=True):
        log_prob_a, tokens = row_a.split("\t")
        log_prob_b, _ = row_b.split("\t")
        lines.append((-float(log_prob_a), -float(log_prob_b), int(tokens)))
    assert (found["unit"], found["units"]) == ("line", len(lines))

    def ratio(some):
        nats_a, nats_b, tokens = map(sum, zip(*some, strict=True))
        return math.exp(nats_b / tokens) / math.exp(nats_a / tokens)

    draw = random.Random(4)
    ratios = sorted(ratio(draw.choices(lines, k=len(lines))) for _ in range(4000))
    low, high = ratios[100], ratios[-101]
    assert found["ratio"] == pytest.approx(ratio(lines), rel=1e-5)
    assert found["ratio_interval"] == pytest.approx([low, high], abs=0.05 * (high - low))
    assert low < found["ratio"] < high


@pytest.mark.parametrize("kind", ["word", "sentencepiece"])
def test_both_models_are_evaluated_as_by_gcnn_evaluate(kind, made_runs, corpus, call):
    runs = made_runs["gcnn", kind], made_runs["lstm", kind]
    for options in ([], ["--file", corpus / "valid.txt", "--sentences"]):
        found = compared(call, *runs, *options)
        for i, run in enumerate(runs):
            expected = json.loads(call("evaluate", "--run", run, "--json", *options).out)
            assert found["perplexity"][i] == pytest.approx(expected["perplexity"], rel=1e-6)
            assert found["tokens"] == expected["tokens"]
        assert found["ratio"] == pytest.approx(
            found["perplexity"][1] / found["perplexity"][0], rel=1e-9
        )
    reversed_runs = compared(call, *runs[::-1], *options)
    assert reversed_runs["difference"] == pytest.approx(-found["difference"], rel=1e-9)


def test_a_pipe_is_read_once_for_both(made_runs, corpus, call):
    runs = made_runs["gcnn", "word"], made_runs["lstm", "word"]
    done = call(
        "compare", *runs, "--json", "--file", "-", stdin=(corpus / "valid.txt").read_bytes()
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["text"] == "standard input"
    assert json.loads(done.out)["ratio"] == compared(call, *runs, "--split", "valid")["ratio"]


def test_a_split_whose_text_has_changed_since_a_run_is_said(gcnn_dir, made_runs, call):
    measured = {"test": {"text_fingerprint": "another"}}
    (gcnn_dir / "results.json").write_text(json.dumps(measured))
    done = call("compare", gcnn_dir, made_runs["lstm", "word"])
    assert done.code == 0
    said = f"warning: the text of the test split has changed: {gcnn_dir}/results.json measured"
    assert re.fullmatch(f"{said} another\\.\n", done.err)


def test_the_json_has_what_its_reader_takes(made_runs, call):
    found = compared(call, made_runs["gcnn", "word"], made_runs["lstm", "word"])
    names = {field.name for field in fields(Comparison)}
    assert set(found) == names | set(made_with())
    assert all(set(run) == {field.name for field in fields(ComparedRun)} for run in found["runs"])
    for parts in found["parts"].values():
        assert all(set(part) == {field.name for field in fields(Part)} for part in parts)


def test_the_tables_say_what_the_json_says(made_runs, call, tmp_path):
    a, b = made_runs["gcnn", "word"], made_runs["lstm", "word"]
    found = compared(call, a, b)
    table = call("compare", a, b).out
    low, high = found["ratio_interval"]
    assert low > 1 or high < 1
    better = "A" if found["ratio"] > 1 else "B"
    ratio = (
        f"B's perplexity is {found['ratio']:.3f} times A's, 95 % interval {low:.3f} to {high:.3f}"
    )
    text = " ".join(table.split())
    assert f"{ratio}: {better} is better on this text." in text
    assert (
        f"test split of tiny, scored as running text: {found['tokens']} tokens "
        f"in {found['units']} lines" in text
    )
    tables = table.split("\n\n")[-3:]
    for parts, block in zip(found["parts"].values(), tables, strict=True):
        rows = {line.split("  ")[0]: line for line in block.splitlines()}
        assert rows["all"].endswith("100.0 %")
        for part in parts:
            share = 100 * part["contribution"] / found["difference"]
            assert f"{part['contribution']:+.4f}" in rows[part["part"]]
            assert rows[part["part"]].endswith(f"{share:.1f} %")
    (tmp_path / "same.txt").write_text("".join(f"{line}\n" for line in made_up_lines(5, 2)[:1]))
    assert (
        "The text is one line, which gives no interval."
        in call("compare", a, b, "--file", "same.txt").out
    )


def test_runs_that_do_not_compare_are_refused_in_a_line(made_runs, corpus, tmp_path, call):
    a, b = made_runs["gcnn", "word"], made_runs["lstm", "word"]
    pieces = made_runs["lstm", "sentencepiece"]
    copy = shutil.copytree(a, tmp_path / "copy")
    sentences, elsewhere = (
        shutil.copytree(b, tmp_path / name) for name in ("sentences", "elsewhere")
    )
    config = load_config(b)
    config.data.sentences, config.trainer.carry_state = True, False
    save_config(config, sentences / "config.yaml")
    other = shutil.copytree(corpus, tmp_path / "other", ignore=shutil.ignore_patterns("cache"))
    shutil.copy(corpus / "valid.txt", other / "test.txt")
    config = load_config(b)
    config.data.path = str(other)
    save_config(config, elsewhere / "config.yaml")
    for second, options, message in (
        (a, [], "have the same weights. Give two different models"),
        (copy, [], "have the same weights. Give two different models"),
        (pieces, [], "have different tokenizers"),
        (sentences, [], "Add --sentences or --no-sentences"),
        (elsewhere, [], "are different texts. Give one text by --file or --data-path"),
        (elsewhere, ["--split", "valid", "--file", "x"], "not allowed with"),
        (b, ["--file", "nowhere.txt"], "no file nowhere.txt"),
        (b, ["--file", "/dev/null"], "has no words"),
    ):
        done = call("compare", a, second, *options)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
        assert message in done.err
    assert compared(call, a, sentences, "--sentences")["scored"] == "each line alone"
    assert compared(call, a, elsewhere, "--split", "valid")["tokens"] > 0
    assert compared(call, a, elsewhere, "--data-path", corpus)["tokens"] > 0
