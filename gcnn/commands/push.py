"""Write a run's model card (README.md in its folder) and upload what scoring needs to the Hub.

Uploaded to the Hugging Face Hub are config.yaml, tokenizer/, model.safetensors, results.json and
the card; no checkpoints, no logs. Paths of this machine are left out of config.yaml, results.json
and a new card; --card-only names each other file that still contains one. An existing card is kept:
write it with --card-only, name a license in it, push. The token is that of `hf auth login`, or
HF_TOKEN.
"""

import dataclasses
import json
import os
import re
import shlex
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

import yaml

from gcnn.base.errors import RunError, UsageError, one_line
from gcnn.base.files import write_json, write_text
from gcnn.base.provenance import portable, words_of
from gcnn.commands.arguments import new_parser
from gcnn.config.schema import TrainConfig
from gcnn.config.stored import save_config
from gcnn.reporting.document import Code, Heading, Paragraph, Table, to_markdown
from gcnn.reporting.results import Run, load_run, results_table
from gcnn.reporting.units import count, decimals, perplexity
from gcnn.reproduction.paper import PAPER
from gcnn.runs.directory import CONFIG, PUBLISHED, RESULTS, TOKENIZER, find_run
from gcnn.runs.hub import check_hub_name
from gcnn.runs.json_files import read_text

UPLOADED = ["README.md", *PUBLISHED]
NAMES = {  # options and keys whose value is a path, and the placeholder that replaces it
    "init_from": "RUN",
    "data.files": "FILES",
    "data.files.train": "FILES",
    "data.files.valid": "FILES",
    "data.files.test": "FILES",
    "--config-dir": "DIR",
    "-cd": "DIR",
    "--config-path": "RUN",
    "-cp": "RUN",
}
LINKED = ["README.md", "model.safetensors"]  # uploaded as they are; weights may be large
LICENSE = (
    "# license: yours to choose, as a line `license: mit`; "
    "the text that it was trained on may have a say"
)
USE = """import gcnn
model = gcnn.load("{repo}")
print(model.score(["a sentence", "another"]), model.perplexity("any text"))"""


def main() -> None:
    """Run `gcnn push`: write the run's card unless it has one, and upload the run to the Hub.

    With --card-only nothing is uploaded. Prints the card's path, the files that still contain paths
    of this machine (they are uploaded all the same), and the model's address. Before it writes
    anything, raises UsageError for invalid options, for an invalid name on the Hub and for a run
    that has not finished or has a damaged JSON file, and what `find_run` and `load_model` raise.
    Raises RunError where the upload fails; the card stays.
    """
    # The options
    parser = new_parser(__doc__)
    help = "a run, or the newest in a folder; `latest`: in runs/"
    parser.add_argument("run", type=find_run, metavar="RUN", help=help)
    parser.add_argument("repo", metavar="REPO", help="the model's name on the Hub, as user/name")
    parser.add_argument(
        "--card-only", action="store_true", help="write the card and upload nothing; default: both"
    )
    parser.add_argument(
        "--private", action="store_true", help="make a new repository private; default: public"
    )
    arguments = parser.parse_args()
    from gcnn.evaluation.run import load_model

    check_hub_name(arguments.repo, "Give a name as user/model.")

    # The run must be complete
    run = load_run(arguments.run, PAPER)
    required = ("model.safetensors", RESULTS, "tokenizer")
    missing = [name for name in required if not (run.path / name).exists()]
    if missing:
        raise UsageError(f"{run.path} has no {', '.join(missing)}. Push a run that has finished.")
    load_model(run.path, "cpu")  # what cannot be loaded here is of no use to others

    # The card, and what is uploaded
    path = run.path / "README.md"
    is_kept = path.exists()
    if not is_kept:
        write_text(path, card(run, arguments.repo))
    note = ", kept as it was: remove it for a new one" if is_kept else ""
    print(f"card: {path.resolve()}{note}")
    with tempfile.TemporaryDirectory() as folder:
        fill_upload_folder(run, Path(folder))
        print("paths: config.yaml and results.json are uploaded without the paths of this machine")
        telling = files_with_paths(run, Path(folder))
        if telling:
            print(
                f"paths: {', '.join(telling)} names some of them; change that first, for what is "
                "pushed is public"
            )
        if not arguments.card_only:
            print(f"model: {upload(Path(folder), arguments.repo, arguments.private)}")


def fill_upload_folder(run: Run, folder: Path) -> None:
    """Fill `folder` with the files to upload: config.yaml and results.json without local paths.

    folder: exists and is empty. The card, which the run must have, and the weights become links to
    the run's files, the tokenizer a copy. The run itself is not changed.
    """
    for name in LINKED:
        (folder / name).symlink_to((run.path / name).resolve())
    shutil.copytree(run.path / TOKENIZER, folder / TOKENIZER)
    results = json.loads(read_text(run.path / RESULTS))
    results["command"] = public_command(run.results.command, run.path / RESULTS)
    results["init_from"] = None
    write_json(folder / RESULTS, results)
    save_config(public_config(run.config), folder / CONFIG)


def public_command(line: str | None, where: object) -> str:
    """A run's command line for publication: placeholders stand for its paths, as data.path=DIR.

    The paths of data and tokenizer get the placeholders of `portable`, values of NAMES those that
    it lists. Any other value with an absolute path or `~` in it becomes PATH. Of a script, which is
    a word that ends in .py, the last folder and the name stay. A deleted key (~KEY) stays. run_dir,
    resume, data.cache_dir and logger are left out.
    line: the command, quoted for a shell, as is the result; None: not known, which gives "". where:
    the file it is from, for the message. Raises UsageError as `words_of` does.
    """
    words = portable(words_of(line, where))
    return shlex.join(public_word(word, before) for before, word in pairwise(["", *words]))


def public_word(word: str, before: str) -> str:
    """A word of a command as `public_command` shows it, its path replaced by a placeholder.

    before: the word before it in the command, which may be the option that it belongs to; "": none.
    """
    key = re.match(r"([^/=][^=]*=)?", word)[0]  # with its "="; of a bare word or path empty
    name = key.lstrip("+").removesuffix("=")  # as Hydra allows: ++init_from=RUN
    if name in NAMES:
        return f"{key}{NAMES[name]}"
    if before in NAMES:  # an option, whose value this word is
        return NAMES[before]
    if re.fullmatch(r"~[\w.]+", word):  # as Hydra allows: deletes a key
        return word
    if word.endswith(".py") and not key:
        return "/".join(Path(word).parts[-2:])
    # A slash after a letter, digit, point or dash is one within a relative path
    if re.search(r"(^|[^\w.-])[/~]", word):
        return f"{key}PATH"
    return word


def public_config(config: TrainConfig) -> TrainConfig:
    """A copy of a run's config without paths of this machine, for publication.

    run_dir, init_from and data.path are None, data.files has an empty list for each of its splits,
    and resume is False. The tokenizer's vocabulary or model, if it has one, is the bare name of its
    file in the run's tokenizer folder. config: as `load_config` returns it, without data.cache_dir.
    """
    tokenizer = config.tokenizer
    for name, file in (("vocabulary", "vocabulary.txt"), ("model", "sentencepiece.model")):
        if getattr(tokenizer, name, None) is not None:
            # There is no such file where the run is loaded: the run's own tokenizer is taken.
            tokenizer = dataclasses.replace(tokenizer, **{name: file})
    files = {split: [] for split in config.data.files}
    data = dataclasses.replace(config.data, path=None, files=files)
    return dataclasses.replace(
        config, run_dir=None, init_from=None, resume=False, data=data, tokenizer=tokenizer
    )


def files_with_paths(run: Run, folder: Path) -> list[str]:
    """The files below `folder`, by their paths relative to it, that contain a path of this machine.

    They can be a card that was written earlier, or a SentencePiece model, which names the text that
    it was trained on. Looked for are the run's directory, the paths in its config and the home
    directory. Short paths are not looked for: absolute ones of a single name, as /data, and
    relative ones of one or two, as data/wiki. Weights (*.safetensors) are not searched. Sorted;
    empty if there are none.
    """
    config = run.config
    home = os.path.expanduser("~")  # stays "~" for a user without one
    paths = [run.path.resolve(), home, config.run_dir, config.data.path, config.init_from]
    paths += [getattr(config.tokenizer, name, None) for name in ("vocabulary", "model")]
    for files in config.data.files.values():
        paths += files
    searched = set()
    for path in paths:
        if path is not None and len(Path(path).parts) > 2:
            searched.add(str(path).encode())
    names = []
    for file in sorted(folder.rglob("*")):
        if not file.is_file() or file.suffix == ".safetensors":
            continue
        content = file.read_bytes()
        if any(path in content for path in searched):
            names.append(str(file.relative_to(folder)))
    return names


def card(run: Run, repo: str) -> str:
    """The model card in Markdown: what the model is, its perplexity, its training, how to load it.

    The Hub's YAML comes first; ends with a newline. run: one that has finished. repo: the model's
    name on the Hub, user/name.
    """
    results = run.results
    data = results.data
    rows = []
    for split, scores in (("validation", results.validation), ("test", results.test)):
        figures = [perplexity(scores.perplexity), perplexity(scores.word_perplexity)]
        rows.append([split, *figures, decimals(scores.bits_per_byte, 4), count(scores.tokens)])
    scored = "each line alone" if run.config.data.sentences else "running text"
    blocks = [
        Paragraph(
            f"{run.model_title}, {count(results.parameters.total)} parameters: a language model of "
            f"experiment {run.config.experiment}, trained with gcnn, which reproduces “Language "
            "Modeling with Gated Convolutional Networks” (Dauphin, Fan, Auli, Grangier, 2017; "
            "https://arxiv.org/abs/1612.08083)."
        ),
        Heading("Use"),
        Code(USE.format(repo=repo)),
        Heading("Perplexity"),
        Table(["split", "perplexity per token", "per word", "bits per byte", "tokens"], rows),
        Paragraph(
            f"Data: {data.name}, {run.config.tokenizer.kind} tokens of "
            f"{count(data.vocabulary_size)} types, fingerprint {data.fingerprint}; {scored}."
        ),
        Heading("Training"),
        Code(f"{public_command(results.command, run.path / RESULTS)}\n\n{results_table(results)}"),
        Paragraph(
            f"Commit {results.git_commit or 'unknown'}, seed {run.config.seed}; the rest is in "
            "config.yaml."
        ),
    ]
    name = repo.rpartition("/")[2]
    front = [
        "---",
        "library_name: gcnn",
        "pipeline_tag: text-generation",
        LICENSE,
        "tags: [gated-cnn]",
        model_index(run, name).rstrip(),
        "---",
        "",
    ]
    return "\n".join(front) + "\n" + to_markdown(name, blocks)


def model_index(run: Run, name: str) -> str:
    """The YAML `model-index` of a model card, from which the Hub shows and compares results.

    It has perplexity per token and per word and bits per byte, on validation and test; those that
    were not measured are left out, and the list is empty if none was. name: the model's, without
    the user's. Ends with a newline.
    """
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    data = run.config.data
    measured = []
    for split, scores in (("validation", run.results.validation), ("test", run.results.test)):
        values = {
            "perplexity per token": ("perplexity", scores.perplexity),
            "perplexity per word": ("word_perplexity", scores.word_perplexity),
            "bits per byte": ("bits_per_byte", scores.bits_per_byte),
        }
        for title, (kind, value) in values.items():
            if value is not None:
                result = EvalResult(
                    task_type="text-generation",
                    task_name="language modeling",
                    dataset_type="Salesforce/wikitext" if data.source == "wikitext" else data.name,
                    dataset_name=data.name,
                    dataset_config=data.hub_config,
                    dataset_split=split,
                    metric_type=kind,
                    metric_name=title,
                    metric_value=value,
                )
                measured.append(result)
    index = eval_results_to_model_index(name, measured) if measured else []
    return yaml.safe_dump({"model-index": index}, sort_keys=False)


def upload(folder: Path, repo: str, private: bool) -> str:
    """Upload the files UPLOADED of a folder to a repository of the Hub; returns its URL.

    repo: as user/name; made if it does not exist. private: for a new repository; one that exists
    stays as it is. Raises RunError for any error of the Hub's client: no token, no network, no
    right to write there.
    """
    from huggingface_hub import HfApi

    try:
        address = HfApi().create_repo(repo, private=private, exist_ok=True)
        HfApi().upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=UPLOADED,
            commit_message="Add the model and its card",
        )
    except Exception as error:
        raise RunError(
            f"{repo} was not uploaded ({one_line(error)[:300]}). Check the network and the token "
            "(hf auth login, or HF_TOKEN), and push again."
        ) from None
    return str(address)
