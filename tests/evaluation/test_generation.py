import json
import math

import pytest
import torch

from gcnn.base.errors import UsageError
from gcnn.evaluation import perplexity
from gcnn.evaluation.generation import Sampling, generate, generate_tokens
from gcnn.evaluation.run import load_model
from tests.evaluation.conftest import WORDS


@pytest.fixture
def start(run):
    return torch.tensor([run.tokenizer.eos_id, 3, 17, 5, 40])


def full_log_probs(model, tokens):
    """Of the token after each, in one pass: (batch, time) -> (batch, time, vocabulary)."""
    hidden, _ = model(tokens)
    return model.log_prob(hidden)


def test_log_probs_with_a_carried_state_are_those_of_the_full_forward_pass(run, start):
    given = torch.randint(
        run.tokenizer.vocabulary_size, (2, 30), generator=torch.Generator().manual_seed(0)
    )
    seen = []

    def choose(log_probs):
        seen.append(log_probs)
        return given[:, len(seen) - 1]

    assert torch.equal(generate_tokens(run.model, start, 2, 30, choose), given)
    whole = full_log_probs(run.model, torch.cat([start.expand(2, -1), given[:, :-1]], dim=1))
    torch.testing.assert_close(
        torch.stack(seen, dim=1), whole[:, len(start) - 1 :], atol=1e-5, rtol=0
    )


def test_temperature_0_takes_the_likeliest_token_at_every_step(run, start):
    greedy = generate_tokens(run.model, start, 1, 20, Sampling(temperature=0).chooser())
    texts = start[None]
    for _ in range(20):
        texts = torch.cat(
            [texts, full_log_probs(run.model, texts)[:, -1].argmax(dim=-1, keepdim=True)], dim=1
        )
    assert torch.equal(greedy, texts[:, len(start) :])


def test_top_k_takes_none_but_the_k_likeliest(run, start):
    taken = generate_tokens(run.model, start, 20, 15, Sampling(temperature=2, top_k=3).chooser())
    whole = full_log_probs(run.model, torch.cat([start.expand(20, -1), taken[:, :-1]], dim=1))
    likeliest = whole[:, len(start) - 1 :].topk(3).indices
    ranks = (likeliest == taken[..., None]).float()
    assert ranks.any(dim=-1).all()
    assert (ranks.mean(dim=(0, 1)) > 0.05).all()  # each of the three is taken at times


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("top_k", [None, 2, 99])
def test_draws_have_the_frequencies_of_the_tempered_distribution(temperature, top_k):
    probs = [0.5, 0.25, 0.15, 0.1]
    draws = 20_000
    choose = Sampling(temperature, top_k, seed=5).chooser()
    counts = torch.bincount(choose(torch.tensor([probs] * draws).log()), minlength=4).tolist()
    weights = [p ** (1 / temperature) for p in probs[: top_k or 4]]
    for i, count in enumerate(counts):
        expected = weights[i] / sum(weights) if i < len(weights) else 0.0
        assert abs(count / draws - expected) <= 5 * math.sqrt(expected * (1 - expected) / draws)


def test_a_temperature_next_to_0_is_no_division_by_0():
    log_probs = torch.tensor([[0.5, 0.3, 0.2]]).log()
    assert Sampling(temperature=1e-320).chooser()(log_probs).tolist() == [0]


def test_unknown_words_are_never_sampled(run):
    texts = generate(run.model, run.tokenizer, "", 60, 30, Sampling(temperature=3))
    assert not any("<unk>" in text for text in texts)
    log_probs = full_log_probs(run.model, torch.tensor([[run.tokenizer.eos_id]]))
    assert log_probs[0, 0, run.tokenizer.unk_id] > -20  # though the model would
    assert len(set(texts)) == 30


def test_a_seed_gives_the_same_text_again_and_another_seed_another(run):
    first, again, other = (
        generate(run.model, run.tokenizer, "ab", 30, 2, Sampling(seed=s)) for s in (1, 1, 2)
    )
    assert first == again
    assert not set(first) & set(other)


@pytest.mark.parametrize("prompt", ["", "{0} {1}", "{0}  zzz {1} ", "{0}\n{1}", "{0}\n"])
def test_a_text_starts_with_its_prompt_and_goes_on_with_the_tokens_taken(run, prompt):
    tokenizer = run.tokenizer
    prompt = prompt.format(tokenizer.decode([30]), tokenizer.decode([33]))
    (text,) = generate(run.model, tokenizer, prompt, 12, 1, Sampling(temperature=0))
    assert text.startswith(prompt)
    read = [tokenizer.eos_id, *tokenizer.encode_lines(prompt.split("\n"))[:-1].tolist()]
    for _ in range(12):  # greedy, by the full forward pass
        log_probs = full_log_probs(run.model, torch.tensor([read]))[0, -1]
        log_probs[tokenizer.unk_id] = -math.inf
        read.append(int(log_probs.argmax()))
    assert (
        text.removeprefix(prompt).split()
        == tokenizer.decode(read[1:])[len(tokenizer.decode(read[1:-12])) :].split()
    )


@pytest.mark.parametrize("blank", [" ", "  ", "\t", "\u00a0"])
def test_a_blank_that_ends_the_prompt_is_not_doubled(run, blank):
    """The tokenizer's blank between two words is the prompt's own."""
    word = run.tokenizer.decode([run.tokenizer.encode("se")[0]])
    sampling = Sampling(temperature=0)
    (bare,) = generate(run.model, run.tokenizer, word, 8, 1, sampling)
    (text,) = generate(run.model, run.tokenizer, word + blank, 8, 1, sampling)
    assert text == word + blank + bare.removeprefix(word).removeprefix(" ")


def test_a_long_prompt_is_read_once_and_in_blocks(run, monkeypatch):
    monkeypatch.setattr(perplexity, "POSITIONS", 20)
    prompt = " ".join(WORDS) * 3
    sizes = []
    run.model.register_forward_pre_hook(lambda model, inputs: sizes.append(tuple(inputs[0].shape)))
    few = generate(run.model, run.tokenizer, prompt, 5, 3, Sampling(temperature=0))
    read = len(run.tokenizer.encode(prompt)) + 1
    blocks = [size for size in sizes if size[0] == 1]
    assert max(time for _, time in blocks) == 20
    assert sum(time for _, time in blocks) == read
    assert sizes[len(blocks) :] == [(3, 1)] * 4
    monkeypatch.setattr(perplexity, "POSITIONS", 10_000)
    assert generate(run.model, run.tokenizer, prompt, 5, 3, Sampling(temperature=0)) == few


@pytest.mark.parametrize("values", [{"temperature": -0.1}, {"temperature": "1"},
                                    {"temperature": None}, {"top_k": 1.5}, {"seed": "1"},
                                    {"temperature": math.nan}, {"temperature": math.inf},
                                    {"top_k": 0}, {"seed": -1}, {"seed": 2**64}])  # fmt: skip
def test_values_out_of_range_are_refused(values):
    with pytest.raises(UsageError, match="give"):
        Sampling(**values)


def test_the_command_prints_texts_and_saves_them_for_the_report(gcnn_dir, call):
    options = "--prompt", "é", "--tokens", 9, "--top-k", 20, "--temperature", 0.8, "--samples", 3
    outcome = call("generate", "--run", gcnn_dir, *options)
    assert (outcome.code, outcome.err) == (0, "")
    assert not (gcnn_dir / "samples.json").exists()
    assert call("generate", "--run", gcnn_dir, *options, "--save") == outcome
    samples = json.loads((gcnn_dir / "samples.json").read_bytes())
    assert "\n---\n".join(sample.pop("text") for sample in samples) + "\n" == outcome.out
    assert samples == [{"prompt": "é", "temperature": 0.8, "top_k": 20}] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tokens", 0], "tokens is 0"),
        (["--samples", 0], "samples is 0"),
        (["--temperature", -1], "temperature is -1"),
        (["--top-k", 0], "top-k is 0"),
        (["--run", "nowhere"], "nowhere is not a run directory"),
    ],
)
def test_what_the_command_cannot_do_is_one_line_and_2(options, message, gcnn_dir, call):
    outcome = call("generate", "--run", gcnn_dir, *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_samples_past_the_memory_and_prompts_that_are_no_text_are_refused(made_runs, monkeypatch):
    run = load_model(made_runs["gcnn", "word"], "cpu")
    with pytest.raises(UsageError, match="prompt is not UTF-8"):
        generate(run.model, run.tokenizer, "a \udcff", 1, 1, Sampling())
    monkeypatch.setattr("gcnn.base.values.os.sysconf", lambda name: 1 << 15)  # a GiB
    generate(run.model, run.tokenizer, "a", 1, 100, Sampling())
    with pytest.raises(UsageError, match=r"2,000,000 samples takes .* GiB of memory"):
        generate(run.model, run.tokenizer, "a", 1, 2_000_000, Sampling())
