"""A fairseq `fconv_lm` as a run directory.

fairseq                                   here
----------------------------------------  ----------------------------------------------------------
decoder_layers (out, k), residual 1       a block of one convolution [k, out]
... (out, k, r) after r - 1 with 0        a block of r convolutions, as the bottlenecks of Table 1
... (out, k, 0) outside such a block      a block without residual
weights by their layers                   as layer_names of fairseq_checkpoint.py says
dict.txt after <s>, <pad>, </s>, <unk>    the types of a word tokenizer whose end of line is </s>
dropout, adaptive_softmax_dropout         model.dropout, .output_dropout and .softmax_dropout
lr, momentum, weight_decay of `nag`       optimizer.lr, .momentum, .weight_decay
clip_norm, tokens_per_sample, updates     trainer.clip_norm, .block_size, .max_steps
sample_break_mode eos                     data.sentences: each line scored alone

A checkpoint with something that this project's model lacks (attention, positions, a start symbol)
is refused. The two models agree to rounding. In training with dropout they drop the same values
with the same probability, but each draws its own random numbers.

The order: load the checkpoint and the dictionary, make the config, convert the weights, write all.
"""

import reprlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gcnn.base.errors import UsageError, one_line
from gcnn.base.files import write_atomically
from gcnn.base.text_files import check_no_pointer_at
from gcnn.config.compose import typed
from gcnn.config.models import GCNNConfig
from gcnn.config.schema import TrainConfig, TrainerConfig
from gcnn.config.stored import save_config
from gcnn.data.tokenizers import WordTokenizer
from gcnn.interop.fairseq_checkpoint import Checkpoint, convert_weights, load_checkpoint
from gcnn.interop.fairseq_layers import blocks_of, parse, parse_layers
from gcnn.models.weights import WEIGHTS, write_weights
from gcnn.runs.directory import CONFIG, TOKENIZER, check_run_name

EOS, UNK = "</s>", "<unk>"
SPECIAL = ["<s>", "<pad>", EOS, UNK]  # fairseq's first ids
OVERWRITE = " #fairseq:overwrite"
# Options that change what is predicted from what; no model here has them.
NOT_HERE = ("add_bos_token", "self_target", "past_target")


def import_fairseq(checkpoint: Path, dictionary: Path, out: Path) -> None:
    """Write a new run directory `out` with the model of a fairseq checkpoint and its dict.txt.

    It gets config.yaml, the folder tokenizer and model.safetensors, but no results. Missing parent
    folders are created. The folder is written whole or not at all.
    Raises UsageError if `out` exists and is not an empty folder, if its path is not UTF-8, if a
    file is missing, damaged or hostile, if checkpoint and dictionary do not belong together, and
    for a model that this project does not have; RunError or OSError if the files cannot be written.
    """
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists already. Give a new folder.")
    check_run_name("OUT", out)
    loaded = load_checkpoint(checkpoint)
    tokenizer = read_dictionary(dictionary)
    try:
        config = run_config(loaded, out)
        rows = len(loaded.weights["decoder.embed_tokens.weight"])
        if tokenizer.vocabulary_size != rows:
            raise UsageError(
                f"it embeds {rows} types, but {dictionary} has {tokenizer.vocabulary_size} with "
                f"the {len(SPECIAL)} special ones. Give the dict.txt that it was trained with."
            )
        weights = convert_weights(loaded.weights, config.model)
    except (UsageError, OmegaConfBaseException, RuntimeError, OverflowError) as error:
        # Of a tensor where an option should be torch raises RuntimeError, of a whole number that is
        # too large for a float OmegaConf raises OverflowError
        raise UsageError(f"{checkpoint}: {one_line(error)}") from None

    def write(aside: Path) -> None:
        """Create the run directory, with config, tokenizer and weights, at a temporary path."""
        aside.mkdir()
        save_config(config, aside / CONFIG)
        tokenizer.save(aside / TOKENIZER)
        write_weights(weights, aside / WEIGHTS, tokenizer.fingerprint)

    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, write)


def run_config(checkpoint: Checkpoint, out: Path) -> TrainConfig:
    """The config of the run, with fairseq's training settings as far as they are known.

    The optimizer is Nesterov's momentum, with fairseq's settings if the checkpoint was trained with
    `nag`, otherwise with the defaults. The data is local text without a path.
    out: the run's directory, which is not created; the experiment is named `fairseq/` and its name.
    Raises UsageError for a model that this project does not have; UsageError, OverflowError or
    OmegaConf's errors for settings of a wrong type or out of range; and RuntimeError as
    `model_config` does.
    """
    options = checkpoint.options
    optimizer = {"kind": "nesterov"}
    if options.get("optimizer") == "nag":
        for name in ("lr", "momentum", "weight_decay"):
            if options.get(name) is not None:
                optimizer[name] = number_option(options, name)
    config = {
        "experiment": f"fairseq/{out.name}",
        "run_dir": str(out),
        "data": {
            "name": "local",
            "source": "local",
            "sentences": options.get("sample_break_mode") == "eos",
        },
        "tokenizer": {"kind": "word"},
        "model": model_config(checkpoint),
        "optimizer": optimizer,
        "schedule": {"kind": "constant"},
        "trainer": {
            "block_size": number_option(options, "tokens_per_sample", int)
            or TrainerConfig.block_size,
            "clip_norm": number_option(options, "clip_norm") or None,  # 0 is fairseq's for none
            "max_steps": max(1, checkpoint.updates),
        },
    }
    return typed(OmegaConf.create(config))


def number_option(options: dict[str, Any], name: str, kind: type = float) -> float:
    """The option `name`, a number; 0 if it is absent or None.

    Of a list, only the first entry is read. kind: float for any number, int for a whole one alone.
    Raises UsageError for anything else, as a bool, a string, an empty list or one that begins with
    None.
    """
    value = options.get(name)
    if value is None:
        return 0
    if isinstance(value, list) and value:
        value = value[0]
    # A string of a stranger must not reach OmegaConf, which would interpret it
    if type(value) not in (int, kind):
        expected = "a whole number" if kind is int else "a number"
        raise UsageError(f"{name} is {reprlib.repr(value)}; expected {expected}.")
    return value


def model_config(checkpoint: Checkpoint) -> GCNNConfig:
    """The model's config, from fairseq's options and weights.

    The embedding's size is that of its weights. The softmax is the adaptive one if the checkpoint
    has weights for it, otherwise the full one (`cutoffs` empty).
    Raises UsageError for a model that is no `fconv_lm` or has what models here do not have, and for
    options that are malformed (RuntimeError for a tensor in the place of one in NOT_HERE). Whether
    numbers are within their ranges is not checked: `typed` does that.
    """
    options = checkpoint.options
    if not isinstance(options.get("decoder_layers"), str):
        raise UsageError("decoder_layers is no string in its options, so that it is no fconv_lm.")
    attention = parse("decoder_attention", str(options.get("decoder_attention", False)))
    settings = {"decoder_attention": attention}
    for name in NOT_HERE:
        settings[name] = options.get(name)
    for name, setting in settings.items():
        # Attention may be a list, of a bool for each layer
        is_set = any(setting) if isinstance(setting, list | tuple) else setting
        if is_set:
            raise UsageError(f"{name} is set; this project's models do not have it.")
    embedding = checkpoint.weights.get("decoder.embed_tokens.weight")
    if embedding is None or embedding.dim() != 2:
        raise UsageError(
            "no matrix decoder.embed_tokens.weight is in it, so that it is no fconv_lm."
        )
    vocabulary_size, embedding_dim = embedding.shape
    dropout = number_option(options, "dropout")
    config = GCNNConfig(
        embedding_dim=embedding_dim,
        blocks=blocks_of(parse_layers(options["decoder_layers"])),
        dropout=dropout,
    )
    if "decoder.adaptive_softmax.head.weight" not in checkpoint.weights:
        return replace(config, cutoffs=[], projection_dim=embedding_dim, output_dropout=dropout)
    softmax_dropout = number_option(options, "adaptive_softmax_dropout")
    return replace(
        config,
        cutoffs=cutoffs_of(options.get("adaptive_softmax_cutoff"), vocabulary_size),
        projection_dim=None,
        output_dropout=softmax_dropout,
        softmax_dropout=softmax_dropout,
    )


def cutoffs_of(text: Any, vocabulary_size: int) -> list[int]:
    """The cutoffs of fairseq's option `adaptive_softmax_cutoff`.

    text: as "4000,20000", "[4000, 20000]" or "4000". If the last number is the vocabulary size, it
    is dropped. Raises UsageError if `text` is no such string, if no cutoff is left, or if one is
    not a whole number below the vocabulary size. Not checked: their order, and whether one is 0.
    """
    cutoffs = parse("adaptive_softmax_cutoff", text)
    cutoffs = list(cutoffs) if isinstance(cutoffs, list | tuple) else [cutoffs]
    if cutoffs[-1:] == [vocabulary_size]:
        cutoffs.pop()
    valid = [type(cutoff) is int and cutoff < vocabulary_size for cutoff in cutoffs]
    if not cutoffs or not all(valid):
        raise UsageError(
            f"adaptive_softmax_cutoff is {reprlib.repr(text)}; expected numbers below the "
            f"{vocabulary_size} types."
        )
    return cutoffs


def read_dictionary(path: Path) -> WordTokenizer:
    """The word tokenizer of a dict.txt, which has a line `word count` for each type.

    Ids are fairseq's: first its four special types (SPECIAL), then the words in the order of the
    lines. A line that ends with ` #fairseq:overwrite` may repeat a word: the word then has the new
    id, and the old id stays but matches no text any more.
    Raises UsageError for a file that is missing, a Git LFS pointer, empty, not UTF-8 or not of this
    form, for a word that is empty, has a blank or is repeated without this ending, and for the
    words </s> and <unk>.
    """
    try:
        check_no_pointer_at(path)
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}). Give the dict.txt of the model."
        ) from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8 (offset {error.start}). Give the dict.txt of the model."
        ) from None
    types = list(SPECIAL)
    index = {word: i for i, word in enumerate(types)}
    for i, line in enumerate(lines, start=1):
        entry = line.rstrip()
        word, _, count = entry.removesuffix(OVERWRITE).rpartition(" ")
        if not word or " " in word or not count.lstrip("-").isdecimal():
            raise UsageError(
                f"{path}, line {i}: expected `word count`. Give the dict.txt of the model."
            )
        if word in index:
            if not entry.endswith(OVERWRITE) or word in (EOS, UNK):
                raise UsageError(
                    f"{path}, line {i}: {word} has an id already. Give the dict.txt of the model."
                )
            # Types must differ; one with a blank matches no word of a text
            types[index[word]] = f"{word} #{index[word]}"
        index[word] = len(types)
        types.append(word)
    return WordTokenizer(types, eos=EOS, unk=UNK)
