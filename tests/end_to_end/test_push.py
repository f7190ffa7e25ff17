"""`gcnn push`: the card, and which files go to the Hub. No request leaves this machine: HfApi is a
stand-in here, and in one test the Hub's address is a port where nobody listens.
"""

import pickle
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.utils import _cache_assets, filter_repo_objects

import gcnn
from gcnn.base.errors import RunError, UsageError
from gcnn.commands.push import files_with_paths, public_command
from gcnn.config.stored import load_config
from gcnn.reporting.results import load_run


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub of one folder, as HfApi's two methods would fill it."""
    calls = []

    class Hub:
        def create_repo(self, repo, private, exist_ok):
            calls.append((repo, private, exist_ok))
            return f"https://hub/{repo}"

        def upload_folder(self, repo_id, folder_path, allow_patterns, commit_message):
            for path in filter_repo_objects(
                [
                    str(path.relative_to(folder_path))
                    for path in folder_path.rglob("*")
                    if path.is_file()
                ],
                allow_patterns=allow_patterns,
            ):
                target = tmp_path / "hub" / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(folder_path / path, target)

    def snapshot_download(repo, local_dir, allow_patterns):
        calls.append(repo)
        if repo != "someone/tiny":
            raise OSError(f"Repository Not Found for {repo}")
        files = [path for path in (tmp_path / "hub").rglob("*") if path.is_file()]
        names = [str(path.relative_to(tmp_path / "hub")) for path in files]
        for name in filter_repo_objects(names, allow_patterns=allow_patterns):
            target = local_dir / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "hub" / name, target)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(_cache_assets, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    return calls


def test_a_pushed_model_scores_as_the_run_does(hub, call, run_dir, tmp_path):
    done = call("push", run_dir, "someone/tiny")
    assert (done.code, done.err) == (0, "")
    assert "names some of them" not in done.out
    assert done.out.splitlines()[-1] == "model: https://hub/someone/tiny"
    assert hub == [("someone/tiny", False, True)]
    files = sorted(
        str(path.relative_to(tmp_path / "hub"))
        for path in (tmp_path / "hub").rglob("*")
        if path.is_file()
    )
    tokenizer = [f"tokenizer/{name.name}" for name in (run_dir / "tokenizer").iterdir()]
    assert files == sorted(
        ["README.md", "config.yaml", "model.safetensors", "results.json", *tokenizer]
    )
    here, there = (
        gcnn.load(folder, "cpu").score(["w1 w2", "w3"]) for folder in (run_dir, tmp_path / "hub")
    )
    assert here == there


def test_the_card_says_what_it_is_and_one_of_the_users_own_is_kept(hub, call, run_dir):
    done = call("push", run_dir, "someone/tiny", "--card-only")
    assert (done.code, hub) == (0, [])
    card = (run_dir / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: gcnn\n")
    results = load_run(run_dir).results
    for said in (
        "arxiv.org/abs/1612.08083", results.data.fingerprint, f"{results.test.perplexity:,.2f}",
        "someone/tiny", "# license:", "gcnn.load(", f"{results.train.steps:,} steps",
    ):  # fmt: skip
        assert said in card
    (run_dir / "README.md").write_text("my own")
    again = call("push", run_dir, "someone/tiny")
    assert again.code == 0
    assert "README.md, kept as it was" in again.out
    assert (run_dir / "README.md").read_text() == "my own"


def test_what_is_uploaded_does_not_say_where_it_was_made(
    hub, call, tiny, corpus, tmp_path, monkeypatch
):
    """Neither the user's name nor the client's, in any file; the run's config stays as it is."""
    secret = tmp_path / "jane.roe" / "client acme"
    shutil.copytree(corpus, secret / "text", ignore=shutil.ignore_patterns("cache"))
    own = secret / "words.txt"
    own.write_text("".join(f"w{i}\n" for i in range(40)))
    (secret / "mine" / "experiment").mkdir(parents=True)
    (secret / "mine" / "experiment" / "own.yaml").write_text("# @package _global_\nseed: 1\n")
    run = secret / "run"
    kept = [word for word in tiny if not word.startswith(("data.path", "run_dir"))]
    files = ",".join(
        f"{split}:['{secret}/text/{split}.txt']" for split in ("train", "valid", "test")
    )
    arguments = ["--config-dir", secret / "mine", "experiment=own", *kept, f"run_dir={run}"]
    done = call("train", *arguments, f"data.files={{{files}}}", f"tokenizer.vocabulary={own}")
    assert done.code == 0, done.err
    assert "acme" in (run / "config.yaml").read_text()
    assert "acme" in (run / "results.json").read_text()
    monkeypatch.setenv("HOME", str(secret))
    done = call("push", run, "someone/tiny")
    assert done.code == 0, done.err
    assert "paths: config.yaml and results.json are uploaded without" in done.out
    assert "names some of them" not in done.out
    uploaded = [path for path in (tmp_path / "hub").rglob("*") if path.is_file()]
    assert len(uploaded) == 6
    for path in uploaded:
        for word in (b"acme", b"jane.roe", str(tmp_path).encode()):
            assert word not in path.read_bytes(), path
    assert "data.files=FILES" in (tmp_path / "hub" / "README.md").read_text()
    assert load_config(run).data.files["train"] == [f"{secret}/text/train.txt"]
    here, there = (
        gcnn.load(folder, "cpu").score(["w1 w2", "w3"]) for folder in (run, tmp_path / "hub")
    )
    assert here == there
    # A card of one's own is kept, and named.
    (run / "README.md").write_text(f"Trained in {secret}.")
    done = call("push", run, "someone/tiny", "--card-only")
    assert "paths: README.md names some of them" in done.out


@pytest.mark.parametrize(("typed", "published"), [
    ("init_from=acme/run", "init_from=RUN"),
    ("++init_from=acme/run", "++init_from=RUN"),
    ("+data.files=acme/a.txt", "+data.files=FILES"),
    ("-cp ../acme/run", "-cp RUN"),
    ("-cp=../acme/run seed=2", "-cp=RUN seed=2"),
    ("--config-path ../acme/run", "--config-path RUN"),
    ("-cd acme", "-cd DIR"),
    ("model.code=/acme/roe/gate.py", "model.code=PATH"),
    ("/acme=roe/words.txt seed=2", "PATH seed=2"),
    ("data.files.train=[acme/a.txt]", "data.files.train=FILES"),
    ("'data.name=[a, /acme/b]'", "data.name=PATH"),
    ("'data.name=a;/acme/b'", "data.name=PATH"),
    ("'data.name=(a|~acme)'", "data.name=PATH"),
    ("experiment=own/a-1/b.c/d_/e", "experiment=own/a-1/b.c/d_/e"),
    ("~trainer.clip_norm seed=2", "'~trainer.clip_norm' seed=2"),
    ("~acme/roe seed=2", "PATH seed=2"),
])  # fmt: skip
def test_paths_are_left_out_of_a_command_and_keys_stay(typed, published):
    script = "python /acme=roe/scripts/train.py"
    assert (
        public_command(f"{script} {typed}", "results.json")
        == f"python scripts/train.py {published}"
    )


def test_a_stored_command_with_an_open_quote_is_a_usage_error():
    with pytest.raises(UsageError, match=r"run/results\.json: the command .*No closing quotation"):
        public_command("gcnn 'x", "run/results.json")


def test_a_user_without_a_home_folder_can_push(tmp_path, monkeypatch):
    """As in a container whose user id is in no /etc/passwd."""

    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    data = SimpleNamespace(path=None, files={})
    config = SimpleNamespace(run_dir=None, init_from=None, data=data, tokenizer=None)
    run = SimpleNamespace(path=tmp_path / "run", config=config)
    (tmp_path / "card").write_text(f"Trained in {run.path}.")
    (tmp_path / "other").write_text("~")
    assert files_with_paths(run, tmp_path) == ["card"]


@pytest.mark.parametrize("repo", ["a b/c", "tiny"])
def test_a_name_that_is_not_user_and_model_is_refused(repo, hub, call, run_dir):
    done = call("push", run_dir, repo)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.endswith("Give a name as user/model.\n")
    assert hub == []


@pytest.mark.parametrize(("repo", "spoil", "code", "named"), [
    ("me/x", "results.json", 2, "has no results.json"),
    ("me/x", None, 1, "me/x was not uploaded .* token"),
])  # fmt: skip
def test_what_cannot_be_pushed_is_one_line(
    repo, spoil, code, named, run_dir, tmp_path, monkeypatch
):
    for name, content in {
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path),
        "HF_TOKEN": "none",
    }.items():
        monkeypatch.setenv(name, content)
    if spoil:
        (run_dir / spoil).unlink()
    command = [sys.executable, "-m", "gcnn", "push", run_dir, repo]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert re.search(named, done.stderr), done.stderr


def test_a_pushed_run_comes_back_with_the_same_scores(hub, call, run_dir, tmp_path):
    """And nothing else that lies in the repository."""
    assert call("push", run_dir, "someone/tiny").code == 0
    for name in ("pytorch_model.bin", "modeling.py", "checkpoints/step_1/state.pt"):
        (tmp_path / "hub" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "hub" / name).write_text("not to be had")
    sentences = ["w1 w2", "w3"]
    expected = gcnn.load(run_dir, "cpu").score(sentences)
    for name in ("someone/tiny", "hf://someone/tiny"):
        assert gcnn.load(name, "cpu").score(sentences) == expected
    assert hub[1:] == ["someone/tiny"] * 2
    done = call("score", "--run", "hf://someone/tiny", "--format", "tsv", stdin=b"w1 w2\nw3\n")
    assert (done.code, done.err) == (0, "")
    found = [float(line.split("\t")[0]) for line in done.out.splitlines()[1:]]
    assert found == [score.log_prob for score in expected]
    files = {path.name for path in (tmp_path / "assets").rglob("*") if path.is_file()}
    tokenizer = {path.name for path in (run_dir / "tokenizer").iterdir()}
    assert files == {"config.yaml", "model.safetensors", "results.json"} | tokenizer


@pytest.mark.parametrize(("file", "content", "error", "named"), [
    ("model.safetensors", pickle.dumps(print), RunError, "is damaged"),
    ("config.yaml", b"run_dir: ${oc.env:HOME}\n", UsageError, "interpolation"),
    ("tokenizer/tokenizer.json", b"{}", UsageError, "is damaged"),
])  # fmt: skip
def test_a_damaged_run_is_neither_pushed_nor_had_from_the_hub(
    hub, call, run_dir, tmp_path, file, content, error, named
):
    """A run of the Hub is checked as any stranger's."""
    assert call("push", run_dir, "someone/tiny").code == 0
    (tmp_path / "hub" / file).write_bytes(content)
    with pytest.raises(error, match=named):
        gcnn.load("someone/tiny", "cpu")
    hub.clear()
    (run_dir / file).write_bytes(content)
    done = call("push", run_dir, "someone/tiny")
    assert (done.code, done.out, done.err.count("\n")) == (error.exit_code, "", 1)
    assert named in done.err
    assert hub == []


def test_a_path_that_was_mistyped_is_not_asked_of_the_hub(hub, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    names = ["models/nowhere", "runs/nowhere", "a/b/c", "./a", "../secret", "nowhere", "~/models"]
    for name in [*names, tmp_path / "x"]:
        with pytest.raises(UsageError, match="not a run directory"):
            gcnn.load(name, "cpu")
    assert call("score", "--run", "models/nowhere").code == 2
    assert call("score", "--run", "someone/tiny").code == 2
    assert hub == []
    with pytest.raises(RunError, match=r"someone/else was not had from the Hub .*Not Found"):
        gcnn.load("someone/else")
    for name in ("hf://a b/c", "hf://tiny"):
        done = call("score", "--run", name)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "hf://user/name" in done.err
    assert hub == ["someone/else"]


def test_the_card_has_results_as_the_hub_reads_them(hub, call, run_dir):
    assert call("push", run_dir, "someone/tiny", "--card-only").code == 0
    data = huggingface_hub.ModelCard.load(run_dir / "README.md").data
    found = {(r.dataset_split, r.metric_type): r.metric_value for r in data.eval_results}
    results = load_run(run_dir).results
    assert found["test", "perplexity"] == results.test.perplexity
    assert found["validation", "bits_per_byte"] == results.validation.bits_per_byte
    assert {r.dataset_name for r in data.eval_results} == {results.data.name}
    assert data.model_name == "tiny"
    assert data.library_name == "gcnn"
