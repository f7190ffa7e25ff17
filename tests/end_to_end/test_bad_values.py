"""Values out of their ranges, or at odds with each other: refused of the composed config, in one
line.
"""

import re

import pytest
from hydra.errors import HydraException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from gcnn.base.errors import UsageError
from gcnn.config.complaints import usage_errors
from gcnn.config.compose import compose_config

VALUES = [
    # key=value, what the line must name
    (["trainer.batch_size=many"], "trainer.batch_size.*many"),
    (["trainer.batch_size=-8"], "trainer.batch_size is -8"),
    (["trainer.batch_size=???"], "^trainer.batch_size has no value; give trainer.batch_size=VALUE"),
    (["model.embedding_dim=???"], "^model.embedding_dim has no value; give model.embedding_dim=V"),
    (
        ["model.blocks=[{repeat:2}]"],
        "^model.blocks.0.convs has no value; give model.blocks.0.convs=VALUE",
    ),
    (["trainer.block_size=0"], "trainer.block_size is 0"),
    (["trainer.block_size=1.5"], "trainer.block_size"),
    (["trainer.max_steps=null", "trainer.max_epochs=null"], "no end.*trainer.max_steps"),
    (["trainer.max_steps=-1"], "trainer.max_steps is -1"),
    (["trainer.max_minutes=inf"], "trainer.max_minutes is inf"),
    (["trainer.validate_every=0"], "trainer.validate_every is 0"),
    (["trainer.checkpoint_every=0"], "trainer.checkpoint_every is 0"),
    (["trainer.keep_checkpoints=0"], "trainer.keep_checkpoints is 0"),
    (["trainer.log_every=0"], "trainer.log_every is 0"),
    (["trainer.micro_batch_size=0"], "trainer.micro_batch_size is 0"),
    (["trainer.clip_norm=nan"], "trainer.clip_norm is nan"),
    (["trainer.precision=fp8"], "trainer.precision is 'fp8'.*float32, bf16"),
    (
        ["model.tie_embeddings=true", "model.projection_dim=8"],
        "projection_dim would .*tie_embeddings",
    ),
    (
        ["model=gcnn_small", "model.projection_dim=8"],
        "projection_dim would .*adaptive softmax a GCNN has none",
    ),
    (["trainer.skip_nonfinite=-1"], "trainer.skip_nonfinite is -1"),
    (["optimizer.lr=0"], "optimizer.lr is 0"),
    (["optimizer=nesterov", "optimizer.momentum=1"], "optimizer.momentum is 1"),
    (["optimizer.weight_decay=-0.1"], "optimizer.weight_decay is -0.1"),
    (["optimizer.kind=sgd"], "optimizer.kind is 'sgd'.*nesterov, adamw"),
    (["schedule.factor=2"], "schedule.factor is 2"),
    (["model.gate=swish"], "model.gate is 'swish'.*glu"),
    (["model.dropout=1"], "model.dropout is 1"),
    (["model.embedding_dim=0"], "model.embedding_dim is 0"),
    (["model@other=3"], "model@other=3: choose one of: .*gcnn_8"),
    (["model.blocks.first=1"], r"'first' is no entry of a list.* KEY.0=VALUE"),
    (["data.files.train.x=a.txt"], "'x' is no entry of a list"),
    (["model.blocks=[{convs:[[4]]}]"], r"model.blocks.*\[\[4\]\]"),
    (["model.blocks=[{convs:[[4,0]]}]"], r"model.blocks.*\[\[4, 0\]\]"),
    (["model.blocks=[{convs:[[4,8]],repeat:0}]"], "model.blocks.*repeat: 0"),
    (["model.cutoffs=[20,10]"], r"model.cutoffs is \[20, 10\].*increasing"),
    (["model.cutoffs=[0,10]"], r"model.cutoffs is \[0, 10\]"),
    (["tokenizer.min_count=0"], "tokenizer.min_count is 0"),
    (["tokenizer=sentencepiece", "tokenizer.model_type=wordpiece"], "model_type.*bpe, unigram"),
    (
        ["tokenizer=sentencepiece", "tokenizer.model=m", "tokenizer.vocabulary_size=9"],
        "model is trained already",
    ),
    (
        ["tokenizer=sentencepiece", "tokenizer.vocabulary_size=1000000000000"],
        "vocabulary_size is 1000000000000",
    ),
    (["model.embedding_dim=1000000000000"], "model.embedding_dim is 1000000000000"),
    (["model.projection_dim=0"], "model.projection_dim is 0"),
    (["trainer.batch_size=1000000000000"], "trainer.batch_size is 1000000000000.*2,147,483,647"),
    (["trainer.block_size=1000000000000"], "trainer.block_size is 1000000000000"),
    (["trainer.max_steps=1e400"], "trainer.max_steps.*1e400"),
    (["optimizer.lr=1" + "0" * 400], "^optimizer.lr is too large for a float"),
    (["schedule.warmup_steps=1000000000000"], "schedule.warmup_steps is 1000000000000"),
    (["optimizer.betas=[0.9]"], r"optimizer.betas is \[0.9\]"),
    (["optimizer.betas=[0.9,1]"], r"optimizer.betas is \[0.9, 1.0\]"),
    (["seed=-1"], "seed is -1; give a number from 0"),
    (["seed=18446744073709551616"], "seed is 18446744073709551616"),
    (["threads=1000000"], "threads is 1000000.*1,024"),
    (["device=tpu"], "device is 'tpu'.*auto, cpu, cuda"),
    (["seed=lucky"], "seed.*lucky"),
    (["threads=0"], "threads is 0"),
    (["logger.kind=mlflow"], "logger.kind is 'mlflow'.*none, wandb, tensorboard"),
    (["trainer.patience=0"], "trainer.patience is 0"),
    (
        ["schedule=plateau", "optimizer.lr=0.1", "schedule.min_lr=0.2"],
        "min_lr is 0.2; give at most optimizer.lr, 0.1",
    ),
    (["resume=3"], "resume is 3"),
    (["resume=0"], "resume is 0; give false, true or the path"),  # which equals False
    (["resume=1"], "resume is 1"),
    (["resume="], "resume is ''"),
    (
        ["run_dir="],
        "run_dir is ''; give a path or leave it out",
    ),  # of an empty variable of the shell
    (["data.path="], "data.path is ''"),
    (["data.files={dev:[a]}"], "data.files.dev"),
    # With line ends.
    (["-x\ny"], "no option -x y"),
    (["seed=a(b\nc"], r"seed=a\(b c: Hydra cannot read .* for the shell 'seed=\"a\(b c\"'"),
    (["trainer.max_steps !=3"], "cannot read this key.* nearest is trainer.max_steps"),
    (["model='x\ny'"], "no model=x y; choose one of"),
    (["model=x\ny"], "model=x y: choose one of"),
    (["hydra=x\ny"], "hydra=x y: hydra is not a group"),
    # The value of a group that is no name.
    (["model=[1,2]"], r"model=\[1,2\]: choose one of: .*gcnn_14"),
    (["model=[gcnn_8]"], r"model=\[gcnn_8\]: choose one of"),
    (["+model=[1]"], r"\+model=\[1\]: choose one of"),
    (["~model=[1]"], r"~model=\[1\]: choose one of"),
    (["model=gcnn_8,[1]"], r"model=gcnn_8,\[1\]: choose one of"),
    (["model=choice(1,2)"], r"model=choice\(1,2\): choose one of"),
    (["model=1.5"], "model=1.5: choose one of"),
    (["model=NULL"], "model=NULL: choose one of"),
    (["model=gcnn_8,"], "model=gcnn_8,: choose one of"),
    (["experiment=[quickstart]"], r"experiment=\[quickstart\]: choose one of: .*quickstart"),
    (["hydra/launcher=[1]"], r"hydra/launcher=\[1\]: choose one of: those of Hydra"),
]


@pytest.mark.parametrize(("arguments", "named"), VALUES, ids=str)
def test_a_bad_value_is_one_line(tiny, arguments, named):
    """The line that the command prints behind `error: `, as test_bad_input.py has it of some."""
    with pytest.raises(UsageError) as refused:
        compose_config(*tiny, *arguments)
    line = str(refused.value)
    assert re.search(named, line), line
    assert line.endswith(".")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (HydraException(""), "HydraException"),
        (OmegaConfBaseException("\n"), "OmegaConfBaseException"),
        (MissingMandatoryValue(""), "MissingMandatoryValue"),
        (YAMLError(""), "YAMLError"),
        (UnicodeDecodeError("utf-8", b"a\rb\xff", 3, 4, "invalid"), "0xff after `a b`"),
    ],
    ids=str,
)
def test_an_error_without_a_message_or_with_a_line_end_is_one_line(error, named):
    with pytest.raises(UsageError, match=rf"^[^\n]*{named}[^\n]*\.$"), usage_errors():
        raise error
