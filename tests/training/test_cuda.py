"""What holds on a GPU; where there is none, nothing of this has been seen to hold."""

import copy

import pytest
import torch

from gcnn.config.models import BlockConfig, GCNNConfig, LSTMConfig
from gcnn.data.stream import prepare
from gcnn.evaluation.perplexity import evaluate
from gcnn.evaluation.run import choose_device
from gcnn.models.language_model import build_model
from gcnn.training import distributed
from gcnn.training.trainer import Trainer

DEVICE = "cuda"
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]
MODELS = {
    "gcnn": GCNNConfig(
        embedding_dim=16, blocks=[BlockConfig([[4, 32]], 2)], cutoffs=[10, 20], dropout=0.0
    ),
    "lstm": LSTMConfig(
        embedding_dim=16, hidden_dim=32, cutoffs=[10, 20], dropout=0.0, output_dropout=0.0
    ),
}


@pytest.fixture
def trainer_on(config, tmp_path):
    def make(device, **changes):
        changed = copy.deepcopy(config)
        for key, value in changes.items():
            setattr(changed.trainer, key, value)
        data = prepare(config.data, config.tokenizer)
        torch.manual_seed(1)
        where = choose_device(device)
        model = build_model(changed.model, data.tokenizer.vocabulary_size).to(where)
        run_dir = tmp_path / device
        run_dir.mkdir(exist_ok=True)
        return Trainer(changed, model, data, run_dir, where)

    return make


@pytest.mark.parametrize("model", MODELS)
def test_twenty_updates_are_those_of_the_cpu(config, trainer_on, model):
    """Loss and gradient norm of each: forward and backward pass, clipping and optimizer."""
    config.model = MODELS[model]
    cpu = trainer_on("cpu", carry_state=True)
    gpu = trainer_on(DEVICE, carry_state=True)
    for _ in range(20):
        for trainer in (cpu, gpu):
            trainer.step()
        assert gpu.progress.logged_nll == pytest.approx(cpu.progress.logged_nll, rel=1e-4)
        assert gpu.grad_norm == pytest.approx(cpu.grad_norm, rel=1e-2)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_an_update_waits_for_the_device_where_it_reads_alone(
    config, trainer_on, monkeypatch, model, precision
):
    config.model = MODELS[model]
    trainer = trainer_on(DEVICE, precision=precision, micro_batch_size=2)
    for _ in range(2):  # libraries set themselves up
        trainer.step()
    wait = distributed.wait_for_status

    def allowed(*said):
        torch.cuda.set_sync_debug_mode("default")
        return wait(*said)

    monkeypatch.setattr(distributed, "wait_for_status", allowed)
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_an_lstm_computes_in_bf16_under_autocast(config):
    """Left to autocast it would be float16."""
    config.model = MODELS["lstm"]
    model = build_model(config.model, 42).to(DEVICE)
    tokens = torch.zeros(2, 5, dtype=torch.long, device=DEVICE)
    with torch.autocast(DEVICE, torch.bfloat16):
        hidden, state = model(tokens)
    assert {hidden.dtype, *(part.dtype for part in state)} == {torch.bfloat16}
    torch.testing.assert_close(hidden.float(), model(tokens)[0], rtol=0.05, atol=0.05)


def test_evaluation_waits_once_a_block(config, trainer_on):
    """For its result: where the clusters' targets stand is found on the CPU."""
    config.model = MODELS["gcnn"]
    model = trainer_on(DEVICE).model.eval()
    targets = torch.randint(40, (2, 16))
    hidden, _ = model(targets.to(DEVICE))
    with torch.no_grad():
        model.nll(hidden, targets)  # libraries set themselves up
        torch.cuda.set_sync_debug_mode("error")
        try:
            model.nll(hidden, targets)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_padded_products_are_those_of_the_cpu():
    """Widths that are no multiples of 8, in bf16."""
    torch.manual_seed(1)
    blocks = [BlockConfig([[4, 33]], 2)]
    model = build_model(GCNNConfig(embedding_dim=13, blocks=blocks, cutoffs=[11, 21]), 43).eval()
    tokens = torch.randint(43, (2, 16))
    expected = model.nll(model(tokens)[0], tokens)
    model.to(DEVICE)
    with torch.autocast(DEVICE, torch.bfloat16):
        found = model.nll(model(tokens.to(DEVICE))[0], tokens)
    torch.testing.assert_close(found.cpu(), expected, rtol=0.02, atol=0.02)


def test_a_compiled_step_is_that_of_eager(config, trainer_on):
    config.model = MODELS["gcnn"]
    eager = trainer_on(DEVICE)
    compiled = trainer_on(DEVICE, compile=True)
    for _ in range(3):
        for trainer in (eager, compiled):
            trainer.step()
        assert compiled.progress.logged_nll == pytest.approx(eager.progress.logged_nll, rel=1e-4)


def test_one_process_of_nccl_is_none(config, trainer_on, tmp_path):
    config.model = MODELS["gcnn"]
    alone = trainer_on(DEVICE)
    alone.step()
    torch.distributed.init_process_group(
        "nccl" if DEVICE == "cuda" else "gloo",
        init_method=f"file://{tmp_path}/store",
        rank=0,
        world_size=1,
    )
    try:
        member = trainer_on(DEVICE)
        member.updater.loss = torch.nn.parallel.DistributedDataParallel(
            member.updater.loss, gradient_as_bucket_view=True
        )
        member.step()
    finally:
        torch.distributed.destroy_process_group()
    assert member.grad_norm == pytest.approx(alone.grad_norm, rel=1e-5)


def test_memory_of_evaluation_does_not_grow_with_depth(config, trainer_on):
    peaks = []
    for depth in (4, 16):
        config.model = GCNNConfig(
            embedding_dim=16, blocks=[BlockConfig([[2, 256]], depth)], cutoffs=[10]
        )
        trainer = trainer_on(DEVICE)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        evaluate(trainer.model, trainer.data.streams["valid"], sentences=False)
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < 1.2 * peaks[0]
