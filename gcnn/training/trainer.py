"""The training loop: batches to updates, validation, checkpoints."""

import dataclasses
import logging
import math
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gcnn.config import TrainConfig
from gcnn.data.batches import RunningText, Sentences
from gcnn.data.stream import PreparedData
from gcnn.errors import Interrupted, RunError, UsageError, one_line
from gcnn.evaluation.perplexity import evaluate, type_counts
from gcnn.models.language_model import LanguageModel, State
from gcnn.models.weights import WEIGHTS, save_weights
from gcnn.training import distributed
from gcnn.training.checkpoints import Checkpoints
from gcnn.training.distributed import rank, world_size
from gcnn.training.metrics import Metrics, ProgressBar
from gcnn.training.optimizers import build_optimizer
from gcnn.training.schedules import Schedule
from gcnn.training.sharding import load_optimizer, shard, together, whole

log = logging.getLogger(__name__)
PASSES = 3  # forward, and two products of its size backward


@dataclasses.dataclass
class Progress:
    """Where a run stands; with the tensors of a checkpoint it says how to go on."""

    step: int = 0  # updates made
    epoch: int = 0  # full passes made
    index: int = 0  # batches of this epoch taken
    tokens: int = 0  # targets trained on
    seconds: float = 0.0  # of training; validation and checkpoints are not counted
    best_nll: float = math.inf  # validation, nats a token
    skipped: int = 0  # updates left out for a loss or gradient that was not finite
    logged_nll: float = 0.0  # nats since the last line of metrics
    logged_tokens: int = 0
    logged_seconds: float = 0.0


class Trainer:
    """Trains a model in a run directory; `run` returns when a bound of the config is reached.

    Raises RunError for a loss or gradient that is not finite, before the optimizer moves, and Interrupted after
    SIGTERM, SIGINT or SIGUSR1, when the step is finished and a checkpoint written.
    """

    def __init__(
        self, config: TrainConfig, model: LanguageModel, data: PreparedData, run_dir: Path, device: torch.device
    ):
        self.config, self.model, self.data, self.run_dir, self.device = config, model, data, run_dir, device
        train = data.streams["train"]
        self.max_tokens = None
        if config.trainer.max_flops is not None:
            flops_per_token = PASSES * model.flops_per_token(torch.from_numpy(type_counts(train)))
            self.max_tokens = config.trainer.max_flops / flops_per_token
        if config.trainer.shard:
            shard(model, config.model.tie_embeddings, device)
        loss = distributed.Loss(model, torch.compile(model) if config.trainer.compile else model)
        self.loss = distributed.parallel(loss, config.trainer.shard)
        kind = Sentences if config.data.sentences else RunningText
        sizes = config.trainer.batch_size, config.trainer.block_size, config.trainer.micro_batch_size
        self.batches = kind(train.tokens, train.eos_id, *sizes, rank(), world_size())
        self.order: Sequence[int] = []  # of the batches in the epoch `drawn`
        self.drawn: int | None = None
        self.optimizer = build_optimizer(config.optimizer, model, config.trainer.shard)
        self.schedule = Schedule(config.schedule, self.optimizer)
        identity = {"model": dataclasses.asdict(config.model), "tokenizer": data.tokenizer.fingerprint}
        identity["model"] = {k: v for k, v in identity["model"].items() if "dropout" not in k}  # may change on resume
        self.checkpoints = Checkpoints(run_dir, identity, config.trainer.keep_checkpoints)
        self.progress = Progress()
        self.state: State | None = None  # the model's, carried over block borders
        self.signal: int | None = None  # that this process got
        self.stopping: int | None = None  # that any process got, known to all since the end of a step
        self.saved_at = time.monotonic()

    def run(self) -> None:
        self.metrics = Metrics(self.config, self.run_dir, self.progress.step)
        self.bar = ProgressBar(self.fraction_done())
        previous = {number: signal.signal(number, self.on_signal) for number in SIGNALS}
        self.model.train()
        try:
            while self.fraction_done() < 1:
                self.step()
                self.after_step()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            self.bar.close()
            self.metrics.close()

    def on_signal(self, number: int, frame: Any) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        log.warning("%s: finishing the step, then saving. Ctrl-C stops at once.", signal.Signals(number).name)

    def fraction_done(self) -> float:
        """The part of the run that is over: the bound that is nearest decides."""
        trainer, progress = self.config.trainer, self.progress
        bounds = (
            (progress.step, trainer.max_steps),
            (progress.epoch + progress.index / len(self.batches), trainer.max_epochs),
            (progress.seconds / 60, trainer.max_minutes),
            (progress.tokens, self.max_tokens),
        )
        return max(done / bound for done, bound in bounds if bound is not None)

    def next_batch(self) -> tuple[list[tuple[Tensor, Tensor]], int]:
        """This process's micro-batches of one update, and the targets of all processes' ones."""
        progress = self.progress
        if progress.index == len(self.batches):
            progress.epoch, progress.index, self.state = progress.epoch + 1, 0, None
        if self.drawn != progress.epoch:
            in_order = self.config.trainer.carry_state  # a state is of no use but in the text's order
            order = range(len(self.batches)) if in_order else self.batches.draw(self.config.seed, progress.epoch)
            self.order, self.drawn = order, progress.epoch
        index = int(self.order[progress.index])
        progress.index += 1
        return self.batches.share(index), self.batches.count(index)

    def step(self) -> None:
        """One update: forward and backward over the micro-batches, clipping, the optimizer's step."""
        start = time.perf_counter()
        progress, trainer = self.progress, self.config.trainer
        self.lr = self.schedule.set(progress.step, self.fraction_done())
        batches, count = self.next_batch()
        states = self.split_state([len(tokens) for tokens, _ in batches])
        loss = torch.zeros((), device=self.device)
        for i, (tokens, targets) in enumerate(batches):
            with distributed.quiet_backward(self.loss, last=i + 1 == len(batches)):
                nats, states[i] = self.backward(tokens, targets, states[i], count)
            loss += nats
        if trainer.carry_state:
            self.state = [torch.cat(parts) for parts in zip(*states, strict=True)]
        limit = math.inf if trainer.clip_norm is None else trainer.clip_norm
        norm = together(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit))
        loss, self.grad_norm = torch.stack([loss, norm]).tolist()  # one synchronisation a step
        loss = distributed.total(loss)
        if math.isfinite(loss) and math.isfinite(self.grad_norm):
            self.optimizer.step()
            progress.logged_nll += loss * count
            progress.logged_tokens += count
        else:
            self.on_nonfinite(loss)
        self.optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        progress.tokens += count
        seconds = time.perf_counter() - start
        progress.seconds += seconds
        progress.logged_seconds += seconds
        progress.seconds, self.stopping = distributed.agree(progress.seconds, self.signal)

    def split_state(self, rows: list[int]) -> list[State | None]:
        """The carried state of each micro-batch, which have so many rows."""
        if self.state is None:
            return [None] * len(rows)
        return [list(parts) for parts in zip(*(part.split(rows) for part in self.state), strict=True)]

    def backward(self, tokens: Tensor, targets: Tensor, state: State | None, count: int) -> tuple[Tensor, State]:
        """Add a micro-batch's gradient of nats / count; returns nats / count, and the state after it."""
        tokens, targets = (part.to(self.device, non_blocking=True) for part in (tokens, targets))
        bf16 = self.config.trainer.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            nats, state = self.loss(tokens, targets, state)
        (nats * (world_size() / count)).backward()  # times their number, for the average over processes is their sum
        return nats.detach() / count, state

    def on_nonfinite(self, loss: float) -> None:
        progress = self.progress
        what = f"loss {loss}, gradient norm {self.grad_norm}"
        batch = f"epoch {progress.epoch + 1}, batch {progress.index} of {len(self.batches)}"
        where = f"step {progress.step + 1} ({batch})"
        self.state = None  # it came out of the same forward pass
        if progress.skipped < self.config.trainer.skip_nonfinite:
            progress.skipped += 1
            log.warning("%s: %s; update skipped.", where, what)
            return
        saved = self.checkpoints.all()
        last = f"The last good checkpoint is {saved[-1]}" if saved else "No checkpoint was written yet"
        raise RunError(f"{where}: {what}; the model was not updated. {last}. Lower optimizer.lr or trainer.clip_norm.")

    def after_step(self) -> None:
        """Log, validate and save where it is time, and at the end."""
        trainer, step = self.config.trainer, self.progress.step
        done = self.fraction_done() >= 1
        if step % trainer.log_every == 0:
            self.log_metrics()
        if done or step % trainer.validate_every == 0:
            self.validate()
        minutes = (time.monotonic() - self.saved_at) / 60
        if trainer.checkpoint_minutes is not None:
            minutes = distributed.from_rank_0(minutes)  # saving is collective: one clock decides
        due = step % trainer.checkpoint_every == 0 or (trainer.checkpoint_minutes or math.inf) <= minutes
        if done or due or self.stopping is not None:
            self.save()
        if self.stopping is not None:  # after the last step too: a sweep would begin its next member
            distributed.wait_for_all()  # torchrun ends the others soon after the first has left
            name = signal.Signals(self.stopping).name
            raise Interrupted(f"{name}: saved at step {step} in {self.run_dir}; resume=true goes on.", self.stopping)

    def log_metrics(self) -> None:
        progress = self.progress
        loss = progress.logged_nll / progress.logged_tokens if progress.logged_tokens else math.nan
        speed = progress.logged_tokens / progress.logged_seconds
        self.metrics.write(
            "train", **self.position(), loss=loss, perplexity=math.exp(min(loss, 700)), lr=self.lr,
            grad_norm=self.grad_norm, tokens_per_second=speed,
        )  # fmt: skip
        self.bar.update(self.fraction_done(), progress.step, loss, speed)
        progress.logged_nll, progress.logged_tokens, progress.logged_seconds = 0.0, 0, 0.0

    def position(self) -> dict[str, float]:
        progress = self.progress
        return {
            "step": progress.step,
            "epoch": progress.epoch + progress.index / len(self.batches),
            "tokens": progress.tokens,
            "seconds": progress.seconds,
        }

    def validate(self) -> None:
        """Measure the exact validation perplexity; keep the weights if it is the best so far."""
        valid = self.data.streams["valid"]
        takes_part = rank() == 0 or self.config.trainer.shard  # a sharded model computes on all ranks or none
        found = evaluate(self.model, valid, self.config.data.sentences) if takes_part else None
        found = distributed.from_rank_0(found)
        nll = found["nll_nats"] / found["tokens"]
        self.metrics.write("validation", **self.position(), nll_nats=nll, perplexity=found["perplexity"])
        if nll < self.progress.best_nll:
            self.progress.best_nll = nll
            weights = whole(self.model.state_dict())
            if rank() == 0:
                save_weights(weights, self.run_dir / WEIGHTS, self.data.tokenizer.fingerprint)
        if self.progress.step % self.config.trainer.validate_every == 0:  # the end of a run may come sooner
            self.schedule.validated(nll)
        log.info("step %s: validation perplexity %.2f", f"{self.progress.step:,}", found["perplexity"])

    def save(self) -> None:
        """Write a checkpoint of all that decides how the run goes on."""
        state = {
            "progress": dataclasses.asdict(self.progress),
            "optimizer": whole(self.optimizer.state_dict()),
            "schedule": self.schedule.state_dict(),
            "random": distributed.gathered(torch.get_rng_state()),  # of each rank
            "random_cuda": distributed.gathered(torch.cuda.get_rng_state()) if self.device.type == "cuda" else [],
            "state": self.state and [torch.cat(distributed.gathered(part)) for part in self.state],  # all ranks' rows
            "layout": self.batches.layout,
        }
        weights = whole(self.model.state_dict())
        if rank() == 0:
            self.checkpoints.save(self.progress.step, weights, state)
        self.saved_at = time.monotonic()

    def resume(self, path: Path | None) -> None:
        """Go on from a checkpoint, or from the newest intact one where `path` is None; without any, from the start."""
        newest = None
        if path is None:
            newest = self.checkpoints.load_newest(self.model) if rank() == 0 else None
            path = distributed.from_rank_0(newest and newest[0])
            if path is None:
                log.info("No checkpoint in %s: starting at step 0.", self.run_dir)
                return
        try:
            state = newest[1] if newest else self.checkpoints.load(path, self.model)
        except RunError as error:
            raise RunError(f"{error} Give another checkpoint, or resume=true for the newest intact one.") from None
        if state.get("layout") != self.batches.layout:
            raise UsageError(
                f"checkpoint {path} stands at a place in batches of {state.get('layout')}, over all processes; the "
                f"config gives {self.batches.layout}. Set trainer.batch_size and trainer.block_size as they were."
            )
        try:
            self.restore(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise UsageError(
                f"checkpoint {path} does not fit this config ({reason}). Resume with the config of that run."
            ) from None
        log.info("Resumed at step %s from %s.", f"{self.progress.step:,}", path)

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint's training state; what `save` wrote."""
        self.progress = Progress(**state["progress"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if state["state"] is not None:
            self.state = [part.chunk(world_size())[rank()].to(self.device) for part in state["state"]]
        if len(state["random"]) != world_size():
            torch.manual_seed(hash((self.config.seed, self.progress.step, rank())) % (1 << 63))
            log.warning("Resumed with another number of processes: dropout goes on with other random numbers.")
            return
        torch.set_rng_state(state["random"][rank()])
        if self.device.type == "cuda" and state["random_cuda"]:
            torch.cuda.set_rng_state(state["random_cuda"][rank()])


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
