"""N-best lists of other tools: read as those write them, ranked by sums computed here anew."""

import math

import pytest

from gcnn.base.errors import UsageError
from gcnn.commands.score import rerank_windows
from gcnn.evaluation.nbest import Ranker, line_parser
from gcnn.evaluation.scoring import Scorer

WORDS = ["la", "se no", "", "ta ri mo", "vu ba se de"]


@pytest.fixture
def scorer(made_runs):
    return Scorer.from_run(made_runs["gcnn", "word"], "cpu")


def printed(scorer, lines, kind="any", weight=None, penalty=None) -> list[list[str]]:
    """The lines of each list as they are printed, fields split."""
    raw = iter([[line.encode() for line in lines]])
    return [
        [line.split(" ||| ") for line in text.splitlines()]
        for text in rerank_windows(scorer, raw, kind, Ranker(weight, penalty))
    ]


def log_prob(scorer, sentence):
    return scorer.score([sentence])[0].log_prob


def test_nbest_lists_are_sorted_by_score_each_for_itself(scorer, corpus):
    full = [line for line in (corpus / "test.txt").read_text().split("\n") if line][:9]
    entries = [
        f"{'abc'[i // 3]} ||| {line} ||| feature= {i} ||| -1.5" for i, line in enumerate(full)
    ]
    entries += ["a ||| ", "a ||| ", f"a|||{full[0]}\r"]  # an id that comes again is another list
    raw = [entry.encode() for entry in entries]
    text = "".join(rerank_windows(scorer, iter([raw[:4], raw[4:]]), "any", Ranker())).splitlines()
    expected = []
    for start, stop in ((0, 3), (3, 6), (6, 9), (9, 12)):
        found = scorer.score([entry.split("|||")[1] for entry in entries[start:stop]])
        group = zip(
            (entry.rstrip() for entry in entries[start:stop]),
            (score.log_prob for score in found),
            strict=True,
        )
        expected += sorted(group, key=lambda pair: -pair[1])
    assert [line.rpartition(" ||| ")[0] for line in text] == [entry for entry, _ in expected]
    values = [float(line.rpartition("|||")[2]) for line in text]
    assert values == pytest.approx([score for _, score in expected], abs=1e-5)


def test_a_line_that_is_no_nbest_entry_is_named(scorer):
    groups = rerank_windows(
        scorer, iter([[b"1 ||| a", b"1 ||| b", b"2 ||| c", b"no entry"]]), "any", Ranker()
    )
    assert next(groups).count("\n") == 2
    with pytest.raises(UsageError, match="line 4 of the input is not `id"):
        next(groups)


@pytest.mark.parametrize(("keys", "sizes"), [
    (["a-1", "a-2", "b-1", "b-2", "b-3"], [2, 3]),  # numbered
    (["a-1", "a-10", "a-2", "b-1", "b-2"], [3, 2]),  # numbered and sorted
    (["a-1", "a-1", "a-2", "a-2", "a-2"], [2, 3]),  # a number that comes twice is part of the name
    (["a", "a", "b", "b", "b"], [2, 3]),
    (["rec-001", "rec-001", "rec-002", "rec-003", "rec-003"], [2, 1, 2]),
])  # fmt: skip
def test_lists_of_kaldi(scorer, keys, sizes):
    lines = [f"{key} {words}" for key, words in zip(keys, WORDS, strict=True)]
    found = printed(scorer, lines, "kaldi")
    assert [len(group) for group in found] == sizes
    rest = list(zip(keys, WORDS, strict=True))
    for group in found:
        part, rest = rest[: len(group)], rest[len(group) :]
        best_first = sorted(part, key=lambda pair: -log_prob(scorer, pair[1]))
        assert [line for line, _ in group] == [
            f"{key} {words}".rstrip() for key, words in best_first
        ]
        assert float(group[0][1]) == pytest.approx(log_prob(scorer, best_first[0][1]), abs=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
def test_a_weighted_sum_ranks_and_is_printed(scorer, weight):
    own = {words: -10.0 - 3 * i for i, words in enumerate(WORDS)}
    nats = {words: own[words] * math.log(10) for words in WORDS}  # SRILM's base
    moses = [f"7 ||| {words} ||| am= 1 lm: 2 ||| {own[words]}" for words in WORDS]
    aligned = [f"{line} ||| 0-0 1-1" for line in moses]
    short = [f"7 ||| {words} ||| {own[words]}" for words in WORDS]
    srilm = [f"{own[words]} -3.5 {len(words.split())} {words}" for words in WORDS]
    for lines, scores in ((moses, own), (aligned, own), (short, own), (srilm, nats)):
        (found,) = printed(scorer, lines, weight=weight)
        totals = {
            line.rstrip(): scores[w] + weight * log_prob(scorer, w)
            for line, w in zip(lines, WORDS, strict=True)
        }
        assert [" ||| ".join(fields[:-2]) for fields in found] == sorted(
            totals, key=lambda line: -totals[line]
        )
        assert [float(fields[-1]) for fields in found] == pytest.approx(
            sorted(totals.values(), reverse=True), abs=1e-4
        )


def test_srilm_without_a_weight_is_ranked_by_the_model(scorer):
    (found,) = printed(
        scorer, [f"-1.5e+2 {-i} {len(words.split())} {words}" for i, words in enumerate(WORDS)]
    )
    assert [float(fields[1]) for fields in found] == pytest.approx(
        sorted((log_prob(scorer, words) for words in WORDS), reverse=True), abs=1e-5
    )


@pytest.mark.parametrize(("line", "kind", "scored", "message"), [
    ("1 || w1", "any", False, "is not `id .*--nbest"),
    ("just a line of text", "any", False, "is not `id .*utt-1 words"),
    ("(-123) NBestList1.0 words", "any", False, "is not"),
    ("", "kaldi", False, "is not `utt-1 words`"),
    ("-1.5 -2 the cat", "srilm", False, "is not `acoustic language n words`"),
    ("-1.5", "srilm", False, "is not `acoustic language n words`"),
    ("utt-1 the cat", "kaldi", True, "has no score of its own"),
    ("1 ||| the cat", "moses", True, "has no score of its own"),
    ("1 ||| the cat ||| am=-12.5 lm=-3", "any", True, "has no score of its own .*am=-12.5"),
    ("1 ||| the cat ||| x ||| nan", "any", True, "has no score of its own"),
    ("1e308 -2 2 the cat", "srilm", True, "has no score of its own"),
])  # fmt: skip
def test_a_line_of_another_kind_is_refused(line, kind, scored, message):
    with pytest.raises(UsageError, match=message):
        line_parser(kind, scored)(line)


@pytest.mark.parametrize(
    "line", ["1 ||| the cat", "utt-1 the cat", "-1.5 -2 2 the cat"], ids=["moses", "kaldi", "srilm"]
)
def test_the_end_of_a_line_is_no_part_of_its_sentence(line):
    read = line_parser("any", False)
    assert read(line + "\n") == read(line)


def test_what_is_not_said_is_told(capsys):
    read = line_parser("any", False)
    assert read(" utt-1 the cat").sentence == "the cat"  # blanks before a line do not count
    assert capsys.readouterr().err == "n-best lists as --nbest kaldi reads them.\n"
    assert read("1 ||| a").sentence == "||| a"  # the kind of the first line is that of all


@pytest.fixture
def known(scorer) -> list[str]:
    """Words that the model knows."""
    return [word for word in scorer.tokenizer.types if word not in ("<eos>", "<unk>")]


@pytest.mark.parametrize("weight", [None, 0.5])
def test_a_penalty_is_taken_off_for_each_unknown_word(scorer, known, weight):
    a, b, c = known[:3]
    unknown = {f"{a} {b} {c}": 0, f"{a} xyzzy {c}": 1, "xyzzy qux plugh": 3, f"{c} {b}": 0}
    own = {words: -1.5 * i for i, words in enumerate(unknown)}
    for penalty in (0.0, 2.5, 1000.0):
        lines = [f"1 ||| {words} ||| {own[words]}" for words in unknown]
        (found,) = printed(scorer, lines, "moses", weight, penalty)
        totals = {
            words: log_prob(scorer, words) - penalty * count for words, count in unknown.items()
        }
        if weight is not None:
            totals = {words: own[words] + weight * totals[words] for words in unknown}
        assert [fields[1] for fields in found] == sorted(totals, key=lambda words: -totals[words])
        for _, words, score, model, count, total in found:
            assert float(score) == own[words]
            assert float(model) == pytest.approx(log_prob(scorer, words), abs=1e-5)
            assert int(count) == unknown[words]
            assert float(total) == pytest.approx(totals[words], abs=1e-4)
    assert found[-1][1] == "xyzzy qux plugh"


def test_equal_hypotheses_keep_their_order_whatever_the_rounding(scorer, known, monkeypatch):
    """A score differs by rounding from batch to batch; all words that are unknown are one."""
    rounding = iter([0.0, 2e-6, 1e-6, 3e-6, -1e-6, 5e-6])
    stream = scorer.stream

    def rounded(sentences):
        for score in stream(sentences):
            yield score._replace(log_prob=score.log_prob + next(rounding))

    monkeypatch.setattr(scorer, "stream", rounded)
    a, b, *_ = known
    hypotheses = [f"{a} {b}", f"{a}  {b}", f"{a} xyzzy", f"{a} qux", f"{a} {b} ", f"{a} plugh"]
    (found,) = printed(scorer, [f"1 ||| {words} ||| f={i}" for i, words in enumerate(hypotheses)])
    order = [int(fields[2].removeprefix("f=")) for fields in found]
    assert [i for i in order if i in (0, 1, 4)] == [0, 1, 4]
    assert [i for i in order if i in (2, 3, 5)] == [2, 3, 5]
    assert len({fields[-1] for fields in found}) == 2


def test_unknown_words_in_nbest_lists_are_told(made_runs, known, call):
    command = ["score", "--run", made_runs["gcnn", "word"], "--device", "cpu"]
    lists = f"1 ||| {known[0]}\n1 ||| {known[0]} xyzzy qux\n2 ||| plugh\n".encode()
    done = call(*command, "--nbest", "moses", stdin=lists)
    assert done.out.count("\n") == 3
    assert "2 of 3 hypotheses have words that the model does not know, 3 in all" in done.err
    assert "--unknown-penalty" in done.err
    told = call(*command, "--nbest", "moses", "--unknown-penalty", "5", stdin=lists)
    assert "3 in all" in told.err
    assert "--unknown-penalty" not in told.err
    assert call(*command, "--nbest", "moses", stdin=f"1 ||| {known[0]}\n".encode()).err == ""
    for wrong in ("-1", "nan", "inf"):
        assert (
            call(*command, "--nbest", "moses", f"--unknown-penalty={wrong}", stdin=lists).code == 2
        )
    assert call(*command, "--unknown-penalty", "5", stdin=lists).code == 2


@pytest.mark.parametrize("weight", [None, 0.5])
def test_a_word_weight_is_added_for_each_word(scorer, weight):
    own = {words: -1.5 * i for i, words in enumerate(WORDS)}
    lines = [f"1 ||| {words} ||| {own[words]}" for words in WORDS]
    for word_weight in (-3.0, 0.0, 40.0):
        raw = iter([[line.encode() for line in lines]])
        ranker = Ranker(weight, None, word_weight)
        (text,) = rerank_windows(scorer, raw, "moses", ranker)
        found = [line.split(" ||| ") for line in text.splitlines()]
        totals = {
            words: log_prob(scorer, words) + word_weight * len(words.split()) for words in WORDS
        }
        if weight is not None:
            totals = {words: own[words] + weight * totals[words] for words in WORDS}
        assert [fields[1] for fields in found] == sorted(totals, key=lambda words: -totals[words])
        for _, words, _, model, count, total in found:
            assert float(model) == pytest.approx(log_prob(scorer, words), abs=1e-5)
            assert int(count) == len(words.split())
            assert float(total) == pytest.approx(totals[words], abs=1e-4)
    assert found[0][1] == max(WORDS, key=lambda words: len(words.split()))


def test_a_word_weight_goes_with_nbest_lists(made_runs, call):
    command = ["score", "--run", made_runs["gcnn", "word"]]
    for options, said in (
        (["--word-weight", "1"], "--word-weight goes with --nbest"),
        (["--nbest", "--word-weight", "nan"], "--word-weight is nan; give a finite number"),
    ):
        done = call(*command, *options, stdin=b"1 ||| a\n")
        assert (done.code, done.out) == (2, "")
        assert said in done.err
