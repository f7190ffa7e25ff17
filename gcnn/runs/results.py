"""The JSON files of a run as dataclasses, the same for who writes them and who reads them."""

from dataclasses import dataclass
from typing import Any

from gcnn.runs.json_files import Number, Text


@dataclass(kw_only=True)
class Hardware:
    cpu: Text
    cores: Number
    threads: Number
    gpu: Any = ""  # null: none; absent: not said
    memory_bytes: Number
    platform: Text


@dataclass(kw_only=True)
class Parameters:
    total: Number
    embedding: Number
    body: Number
    softmax: Number


@dataclass(kw_only=True)
class Data:
    name: Text
    fingerprint: Text  # of the tokenizer and all texts
    tokenizer_fingerprint: Text  # null: of an older run
    vocabulary_size: Number


@dataclass(kw_only=True)
class Training:
    steps: Number
    tokens: Number
    seconds: Number
    tokens_per_second: Number
    peak_memory_bytes: Number


@dataclass(kw_only=True)
class Split:
    """The perplexity of a text. Null in it is what an older run did not measure, or what is not finite; of a word or
    byte also what does not compare, as words are out of vocabulary."""

    nll_nats: Number  # all of the text
    perplexity: Number  # a token
    known_perplexity: Number
    unigram_perplexity: Number
    word_perplexity: Number
    bits_per_byte: Number
    tokens: Number
    unknown: Number  # tokens that are <unk>
    out_of_vocabulary: Number  # those of them that are not <unk> in the text itself
    words: Number
    bytes: Number
    text_fingerprint: Text

    @property
    def unknown_words(self) -> float | None:
        """How many words of the text the model does not know; None where the run does not say. An older run says how
        many tokens are <unk>, among them those that are <unk> in the text itself."""
        return self.unknown if self.out_of_vocabulary is None else self.out_of_vocabulary

    @property
    def why_no_words(self) -> str:
        """Why the text has no perplexity per word and no bits per byte; empty where it has them."""
        if self.word_perplexity is not None or not self.out_of_vocabulary:
            return ""
        unknown = f"{self.out_of_vocabulary:,.0f} of {self.words:,.0f} words"
        return f"{unknown} are unknown, and <unk> does not pay for their spelling"


@dataclass(kw_only=True)
class Results:
    """results.json; of an unfinished run, nothing in it is known."""

    experiment: Text
    seed: Number
    init_from: Text  # a run; null: none
    date: Text  # of its end, UTC
    git_commit: Text
    hardware: Hardware
    versions: dict[str, Text]
    command: Text
    processes: Number
    parameters: Parameters
    receptive_field: Number = 0  # tokens; null: unbounded; absent: not said
    flops_per_token: Number
    data: Data
    train: Training
    validation: Split
    test: Split


@dataclass(kw_only=True)
class Metric:
    """A line of metrics.jsonl."""

    kind: Text  # train | validation
    step: Number
    tokens: Number
    seconds: Number
    loss: Number
    perplexity: Number
    tokens_per_second: Number


@dataclass(kw_only=True)
class GeneratedText:
    """An entry of samples.json; the text begins with its prompt."""

    prompt: Text
    text: Text
    temperature: Number
    top_k: Number


@dataclass(kw_only=True)
class Member:
    """member.json, in the folder of a sweep's member."""

    number: Number
    overrides: list[Text]
    error: Text
    exit_code: Number

    @property
    def settings(self) -> dict[str, str]:
        """The overrides by key."""
        return dict(
            override.lstrip("+").partition("=")[::2] for override in self.overrides if override
        )
