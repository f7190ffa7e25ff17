"""The JSON files of a run as dataclasses, which both the writer and the reader use.

results.json is Results, a line of metrics.jsonl is Metric, an entry of samples.json is
GeneratedText, member.json is Member. Every Number and Text may be None: an older version did not
write it, or the run has not finished.
"""

from dataclasses import dataclass
from typing import Any

from gcnn.runs.json_files import Flag, Number, Text


@dataclass(kw_only=True)
class Hardware:
    """The machine that a run was trained on; see base/provenance.py."""

    cpu: Text
    cores: Number
    threads: Number
    gpu: Any = ""  # its name; None: there was none; "": not recorded
    gpu_count: Number = None
    driver: Text = None  # of the GPU
    cudnn: Text = None
    tf32: Text = None  # which float32 operations of the GPU took TF32, as `tf32` there names them
    memory_bytes: Number
    platform: Text


@dataclass(kw_only=True)
class Parameters:
    """The model's parameters, in all and by part; body: without embedding and softmax."""

    total: Number
    embedding: Number
    body: Number
    softmax: Number


@dataclass(kw_only=True)
class Data:
    """The corpus and the tokenizer; equal fingerprints mean equal content."""

    name: Text
    fingerprint: Text  # of the tokenizer and all texts
    tokenizer_fingerprint: Text
    vocabulary_size: Number


@dataclass(kw_only=True)
class Training:
    """What the run's training took. seconds: without validation."""

    steps: Number
    tokens: Number
    seconds: Number
    tokens_per_second: Number
    peak_memory_bytes: Number
    precision: Text = None  # of products: float32 | bf16
    recurrent_kernel: Text = None  # whose code an LSTM ran by; null: no LSTM, or not said


@dataclass(kw_only=True)
class Split:
    """The perplexity of a split.

    None: not measured by an older version, or not finite. Per word and per byte also None if the
    text has words out of vocabulary, since such values cannot be compared between vocabularies.
    """

    nll_nats: Number  # of the whole text
    perplexity: Number  # per token
    known_perplexity: Number  # per token that is not <unk>
    unigram_perplexity: Number  # of a unigram model, for comparison
    word_perplexity: Number
    bits_per_byte: Number
    tokens: Number
    unknown: Number  # tokens that are <unk>
    out_of_vocabulary: Number  # unknown tokens that are not written <unk> in the text itself
    words: Number
    bytes: Number
    text_fingerprint: Text

    @property
    def unknown_words(self) -> float | None:
        """The number of words out of vocabulary; None if not recorded.

        Of an older run, all <unk> tokens, including those written so in the text itself.
        """
        if self.out_of_vocabulary is None:
            return self.unknown
        return self.out_of_vocabulary

    @property
    def why_no_words(self) -> str:
        """Why the split has no perplexity per word and no bits per byte: a clause without a stop.

        It says how many words are out of vocabulary, of how many if that is recorded. Empty if the
        split has a perplexity per word, or if no such words are recorded.
        """
        if self.word_perplexity is not None or not self.out_of_vocabulary:
            return ""
        unknown = f"{self.out_of_vocabulary:,.0f}"
        if self.words is not None:
            unknown += f" of {self.words:,.0f}"
        return f"{unknown} words are unknown, and <unk> does not pay for their spelling"


@dataclass(kw_only=True)
class Results:
    """results.json. For a run that has not finished, readers make one whose entries are all absent.

    Its numbers and texts are then None, but receptive_field is 0 and hardware.gpu is empty.
    """

    experiment: Text
    seed: Number
    init_from: Text  # the run whose weights it started with; None: random weights
    date: Text  # when it finished, UTC
    git_commit: Text
    hardware: Hardware
    versions: dict[str, Text]
    command: Text
    processes: Number
    parameters: Parameters
    receptive_field: Number = 0  # tokens; None: unbounded; 0: not recorded
    flops_per_token: Number
    data: Data
    train: Training
    validation: Split
    test: Split


@dataclass(kw_only=True)
class Metric:
    """A line of metrics.jsonl, with the entries that are read of it."""

    kind: str  # train | validation
    step: float
    tokens: Number  # targets trained on so far
    seconds: Number  # of training so far
    loss: Number  # nats per token
    perplexity: Number
    tokens_per_second: Number


@dataclass(kw_only=True)
class GeneratedText:
    """An entry of samples.json. text: begins with the prompt."""

    prompt: Text
    text: Text
    temperature: Number
    top_k: Number


@dataclass(kw_only=True)
class Member:
    """member.json, in the folder of a sweep's member."""

    overrides: list[Text]
    error: Text  # None: the member has not failed
    exit_code: Number
    diverged: Flag  # None: it has not failed, or an older version wrote it

    @property
    def settings(self) -> dict[str, str]:
        """The member's overrides as key -> value, both as typed, without Hydra's prefix + or ++.

        The last value of a key counts. Entries of the list that are null or empty are left out;
        `key=null` is kept, as the text null.
        """
        settings = {}
        for override in self.overrides:
            if override:
                key, _, value = override.lstrip("+").partition("=")
                settings[key] = value
        return settings
