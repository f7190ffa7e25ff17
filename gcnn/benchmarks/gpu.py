"""What is measured on a borrowed GPU, the most valuable first; on a CPU the same at toy size.

(1) tests marked `cuda`, (2) training's speed, memory and share of the chip's rate, (3) Table 4 and
single sentences, (4) training compiled, (5) sentences as CUDA graphs, (6) a training of GCNN-8 on a
text. Each writes what it knows the moment it knows it (see time_boxes.py).

A part is a function of `notes`, which it fills, and the `seconds` that it has; most rely on being
killed when these are over. `device` is auto, cpu or cuda; not one of several GPUs, as cuda:1. Parts
change their process for good (torch's random seed, TF32): run each in one of its own.
"""

import dataclasses
import gc
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch

from gcnn.base.errors import RunError, one_line
from gcnn.base.files import remove
from gcnn.benchmarks.bounds import Clock, Machine, Sizes
from gcnn.benchmarks.latency import Candidate, Zipf, benchmark
from gcnn.benchmarks.plan import GPU, MODELS
from gcnn.benchmarks.time_boxes import Notes, Part
from gcnn.benchmarks.training import make_trainer, measure
from gcnn.config.compose import compose_config
from gcnn.evaluation.run import choose_device
from gcnn.models.inference import prepare_for_inference
from gcnn.models.language_model import LanguageModel, build_model
from gcnn.training.run import train

ROOT = Path(__file__).parents[2]
CUDA_TESTS = ROOT / "tests" / "training" / "test_cuda.py"
PEAK = GPU().flops_per_second  # dense bf16, of an H100 and an H200 in the SXM form
UPDATES = {  # of 16 k tokens
    "gcnn_8": ["trainer.batch_size=16"],
    "gcnn_14": ["trainer.batch_size=16"],
    "lstm_1024": ["trainer.batch_size=128"],
}
TOY_BATCH = ["trainer.batch_size=2", "trainer.block_size=8"]
TOY_GCNN = ["model.embedding_dim=4", "model.blocks=[{convs:[[2,8]]}]"]
TOY_UPDATES = {
    "small": [*TOY_GCNN, *TOY_BATCH],
    "lstm_small": ["model.embedding_dim=4", "model.hidden_dim=8", *TOY_BATCH],
}
TABLE_4 = ["gcnn_8b", "gcnn_9", "lstm_2048"]
TOY_SIZES = Sizes(1 << 20, 64, (21, 64))
TYPES = {False: MODELS["gcnn_8b"][0], True: 100}  # of the latency models, at size and as toys
SENTENCE = 20  # words
TOY_WORDS = 400  # of a made-up text


def parts(device: str, folder: Path, text: Path | None) -> list[Part]:
    """All parts for `run_parts`, the most valuable first; nothing is measured yet.

    device: its name, which is looked up in the parts' processes, so that this one uses no GPU.
    folder, text: as in `train_on_text`.
    """
    return [
        Part("tests", 60, run_tests),
        Part("training", 110, partial(training, device, False)),
        Part("latency", 90, partial(table_4, device)),
        Part("compiled", 80, partial(training, device, True)),
        Part("graphs", 20, partial(graphs, device)),
        Part("text", 120, partial(train_on_text, device, folder, text)),
    ]


def run_tests(notes: Notes, seconds: float) -> None:
    """Run the tests marked `cuda` by pytest.

    Adds `exit_code` and `output`, a list of the last 60 lines of stdout, to `notes`; if the exit
    code is not 0, raises RunError then. Adds nothing if the tests are not there (RunError: no
    checkout) or last longer than `seconds` - 1, at least 1 (subprocess.TimeoutExpired).
    """
    if not CUDA_TESTS.exists():
        raise RunError(f"no tests at {CUDA_TESTS}; run from a checkout")
    call = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "cuda", str(CUDA_TESTS)]
    timeout = max(1.0, seconds - 1)  # before this process is ended, which would leave pytest behind
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    lines = done.stdout.splitlines()
    notes.add(exit_code=done.returncode, output=lines[-60:])
    if done.returncode:
        raise RunError(f"pytest ended with {done.returncode}: {(lines or [''])[-1]}")


def training(device: str, compiled: bool, notes: Notes, seconds: float) -> None:
    """Time the real update of each model of UPDATES (on a CPU of TOY_UPDATES), compiled or not.

    Adds to `notes` `precision`, `compiled` and, by model, `Speed.report` with
    `share_of_dense_bf16_peak`, the share of the chip's dense bf16 rate (None unless `has_peak`). A
    model that fails has `failed` instead (`one_by_one`). Changes the process as `make_trainer`
    does; on a CPU, `compiled` also turns torch's compiler off in it.
    Raises UsageError if there is no such `device` (see `choose_device`), and RunError at the end if
    a model failed. `seconds` is not used.
    """
    where = choose_device(device)
    toy = where.type == "cpu"
    precision = "float32" if toy else "bf16"
    settings = [f"device={device}", f"trainer.precision={precision}"]
    rounds, steps = (1, 1) if toy else (3, 5)

    def speed(name: str, overrides: list[str]) -> dict:
        """The JSON of one model, as `training` says: it is made, and trained for some updates.

        name: a key of WORKLOADS; overrides (key=value) are added to it.
        """
        trainer = make_trainer(name, *overrides, *settings, f"trainer.compile={compiled}")
        if compiled and toy:
            torch.compiler.set_stance("force_eager")  # compiling would take a minute
        if not toy:
            torch.cuda.reset_peak_memory_stats()
        warm_up, sizes = (1, TOY_SIZES) if toy else (3, None)
        measured = measure(trainer, name, rounds, steps, warm_up, sizes).report()

        share = None
        if not toy and has_peak(torch.cuda.get_device_name()):
            share = measured["flops_per_second"] / PEAK
        return {**measured, "share_of_dense_bf16_peak": share}

    notes.add(precision=precision, compiled=compiled)
    updates = TOY_UPDATES if toy else UPDATES
    calls = {}
    for name, overrides in updates.items():
        calls[name] = partial(speed, name, overrides)
    one_by_one(notes, calls)


def has_peak(chip: str) -> bool:
    """Whether the GPU with this name has the rate PEAK: a whole H100 or H200 in the SXM form."""
    words = set(chip.split())
    is_hopper = bool(words & {"H100", "H200"})
    is_slower = bool(words & {"PCIe", "NVL", "MIG"})  # other forms, and a part of a chip
    return is_hopper and not is_slower


def table_4(device: str, notes: Notes, seconds: float) -> None:
    """Measure the models of Table 4, with random weights, by its protocol and on single sentences.

    Adds to `notes`, by precision (bfloat16, float32, float16; on a CPU float32 alone), what
    `latency.benchmark` returns, or `failed` (`one_by_one`).
    Raises UsageError if there is no such `device` (see `choose_device`), and RunError at the end if
    a precision failed. `seconds` is not used.
    """
    where = choose_device(device)
    toy = where.type == "cpu"
    repeats, long_repeats = (1, 1) if toy else (20, 3)

    def latencies(dtype: torch.dtype) -> dict:
        """What `latency.benchmark` returns of the models of TABLE_4 (toys on a CPU), in `dtype`."""
        machine = Machine(where, dtype, sizes=TOY_SIZES if toy else None)
        description = f"random weights, {TYPES[toy]:,} types"
        candidates = []
        for name in TABLE_4:
            candidates.append(Candidate(name, description, partial(model_of, name, toy)))
        return benchmark([candidates], machine, repeats, long_repeats)

    dtypes = [torch.float32] if toy else [torch.bfloat16, torch.float32, torch.float16]
    calls = {}
    for dtype in dtypes:
        calls[str(dtype).removeprefix("torch.")] = partial(latencies, dtype)
    one_by_one(notes, calls)


def graphs(device: str, notes: Notes, seconds: float) -> None:
    """Time the scoring of one sentence, kernel by kernel and, on a GPU, as one CUDA graph.

    Adds to `notes` `words` (how many the sentence has), `precision` and, by model of TABLE_4 (toys
    on a CPU), the medians `eager_ms` and `graph_ms`, the latter None on a CPU; of a model that
    failed, `failed` with the reason instead.
    Raises UsageError if there is no such `device` (see `choose_device`), and RunError at the end if
    a model failed. `seconds` is not used.
    """
    where = choose_device(device)
    toy = where.type == "cpu"
    dtype = torch.float32 if toy else torch.bfloat16
    notes.add(words=SENTENCE, precision=str(dtype).removeprefix("torch."))

    @torch.inference_mode()
    def both_ways(name: str) -> dict:
        """The median milliseconds of one model: `eager_ms` and `graph_ms` (None on a CPU).

        name: of configs/model, and in TABLE_4.
        """
        model = model_of(name, toy).to(where, dtype)
        prepare_for_inference(model)
        tokens, targets = Zipf(TYPES[toy], seed=1).sentence(SENTENCE)
        # Found on the CPU beforehand: on the GPU the host would wait, which no graph allows.
        cluster_indices = [i.to(where) for i in model.softmax.cluster_indices(targets)]
        tokens = tokens.to(where)
        targets = targets.to(where)

        def score() -> torch.Tensor:
            return model.nll(model(tokens)[0], targets, cluster_indices)

        eager_ms = median_ms(score, where)
        graph_ms = None if toy else median_ms(captured(score), where)
        return {"eager_ms": eager_ms, "graph_ms": graph_ms}

    one_by_one(notes, {name: partial(both_ways, name) for name in TABLE_4})


def captured(call: Callable[[], torch.Tensor]) -> Callable[[], None]:
    """A function that replays the GPU work of `call` as one CUDA graph.

    `call` is run three times to warm up and once to be captured. It must not make the host wait for
    the GPU, and what it reads must stay in memory: a replay reads and writes the same memory each
    time. A replay returns None and does not wait for the GPU.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # libraries set themselves up outside the graph
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def median_ms(call: Callable[[], object], device: torch.device, repeats: int = 20) -> float:
    """The median milliseconds of `repeats` calls after three to warm up.

    The host waits for the device after each. device: where `call` computes; a GPU must be torch's
    current one, and the work in its current stream. repeats: at least one.
    """
    clock = Clock(device)
    milliseconds = []
    for _ in range(3 + repeats):
        start = clock.mark()
        call()
        end = clock.mark()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        milliseconds.append(1000 * clock.seconds(start, end))
    return median(milliseconds[3:])


def train_on_text(
    device: str, folder: Path, text: Path | None, notes: Notes, seconds: float
) -> None:
    """Train and evaluate GCNN-8 on a text (on a CPU a toy of it, for three updates).

    On a GPU it is trained for 0.75 * seconds - 20 seconds, at least 6, or for the experiment's
    `max_epochs` if these end sooner. Cutoffs that are not below the vocabulary size are dropped.
    text: a folder with {train,valid,test}.txt; None: one is written to folder/made_up_text. The run
    directory is folder/text_run, in place of an earlier one; `folder` is made. Adds to `notes` its
    path (`run`), the content of its results.json (`results`) and, of a made-up text, what it is
    (`text`). Changes the process and writes caches as `train` does.
    Raises what `train` raises, such as UsageError if there is no such `device` or the text lacks
    these files.
    """
    toy = choose_device(device).type == "cpu"
    if text is None:
        text = folder / "made_up_text"
        write_made_up_text(text, TOY_WORDS if toy else 2_000_000)
        notes.add(text="made up of words by Zipf's law")
    overrides = ["experiment=wikitext103/gcnn_8", "data=local", "schedule=cosine"]
    if toy:
        overrides += [*TOY_GCNN, *TOY_BATCH, "model.cutoffs=[5]"]
        overrides += ["trainer.precision=float32", "trainer.max_steps=3", "schedule.warmup_steps=1"]
    else:
        minutes = max(0.1, (0.75 * seconds - 20) / 60)  # the rest prepares and evaluates
        overrides += ["trainer.batch_size=16", f"trainer.max_minutes={minutes:.2f}"]
    config = compose_config(*overrides, f"device={device}")
    run_dir = folder / "text_run"
    remove(run_dir)  # an earlier call's
    config = dataclasses.replace(
        config,
        run_dir=str(run_dir),
        data=dataclasses.replace(config.data, path=str(text)),
    )
    run, results = train(config, fit_cutoffs=True)
    notes.add(run=str(run), results=results)


def write_made_up_text(folder: Path, words: int) -> None:
    """Write train.txt, valid.txt and test.txt with random words by Zipf's law into `folder`.

    words: how many train.txt gets; valid.txt and test.txt get a tenth of them. All lines have 20
    words, so numbers are rounded down to whole lines, but each file gets a line. There are 50,000
    types, or 20 if `words` is at most TOY_WORDS. Each call writes the same text. The folder is
    made; files of these names are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    types = 50_000 if words > TOY_WORDS else 20
    shares = {"train": 1, "valid": 0.1, "test": 0.1}
    for seed, (split, share) in enumerate(shares.items()):
        line_count = max(1, int(words * share) // 20)
        ids = Zipf(types, seed).words(line_count, 20)
        lines = []
        for ids_of_line in ids.tolist():
            lines.append(" ".join(f"w{word}" for word in ids_of_line))
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")


def model_of(name: str, toy: bool) -> LanguageModel:
    """A model of configs/model with random weights, on the CPU; sets torch's random seed.

    It has TYPES[toy] types. name: one of TABLE_4. toy: a model of the same kind with few channels.
    Raises UsageError if the model needs more than the machine's main memory.
    """
    torch.manual_seed(1)
    settings = []
    if toy:
        small = "model.hidden_dim=8" if name.startswith("lstm") else TOY_GCNN[1]
        settings = ["model.embedding_dim=4", "model.cutoffs=[20,60]", small]
        if name.startswith("lstm"):
            settings.append("model.projection_dim=null")
    return build_model(compose_config(f"model={name}", *settings).model, TYPES[toy])


def one_by_one(notes: Notes, calls: dict[str, Callable[[], dict]]) -> None:
    """Run the calls in turn; add to `notes`, by name, what each returns.

    For a call that fails it is {"failed": reason}; the others still run, and RunError is raised at
    the end. GPU memory that a call leaves unused is freed after it.
    """
    failed = []
    for name, call in calls.items():
        try:
            notes.add(**{name: call()})
        except Exception as error:  # one that does not fit the memory, say
            reason = f"{type(error).__name__}: {one_line(error)}"[:500]
            notes.add(**{name: {"failed": reason}})
            failed.append(name)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if failed:
        raise RunError(f"{', '.join(failed)} failed: the reason is in its entry")
