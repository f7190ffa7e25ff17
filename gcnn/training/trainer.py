"""The training loop: batches to updates, validation, checkpoints."""

import contextlib
import dataclasses
import logging
import math
import signal
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from gcnn.base.errors import Interrupted, RunError, one_line, out_of_memory
from gcnn.base.provenance import command_to_resume
from gcnn.config.schema import TrainConfig
from gcnn.data.batches import RunningText, Sentences
from gcnn.data.stream import PreparedData
from gcnn.evaluation.perplexity import evaluate, type_counts
from gcnn.models.language_model import LanguageModel, State
from gcnn.models.weights import WEIGHTS, save_weights
from gcnn.training import distributed
from gcnn.training.checkpoints import Checkpoints
from gcnn.training.distributed import SIGNALS, rank, world_size
from gcnn.training.metrics import Metrics, ProgressBar
from gcnn.training.optimizers import build_optimizer
from gcnn.training.progress import Progress
from gcnn.training.schedules import Schedule

log = logging.getLogger(__name__)
MicroBatch = tuple[
    Tensor, Tensor, list[Tensor]
]  # tokens and targets (batch, time), the targets' rows in each cluster
PASSES = 3  # forward, and two products of its size backward


class Trainer:
    """Trains a model in a run directory; `run` returns when a bound of the config is reached.

    Raises RunError for a loss or gradient that is not finite, before the optimizer moves, where no
    validation is finite, and where the compiler fails; and Interrupted after one of SIGNALS, when the
    step is finished and a checkpoint written.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: LanguageModel,
        data: PreparedData,
        run_dir: Path,
        device: torch.device,
    ):
        self.config, self.model, self.data, self.run_dir, self.device = (
            config,
            model,
            data,
            run_dir,
            device,
        )
        train = data.streams["train"]
        self.max_tokens = None
        if config.trainer.max_flops is not None:
            flops_per_token = PASSES * model.flops_per_token(torch.from_numpy(type_counts(train)))
            self.max_tokens = config.trainer.max_flops / flops_per_token
        loss = distributed.Loss(model)
        self.loss = torch.compile(loss) if config.trainer.compile else loss
        if world_size() > 1:
            self.loss = DistributedDataParallel(self.loss, gradient_as_bucket_view=True)
        kind = Sentences if config.data.sentences else RunningText
        sizes = (
            config.trainer.batch_size,
            config.trainer.block_size,
            config.trainer.micro_batch_size,
        )
        self.batches = kind(train.tokens, train.eos_id, *sizes, rank(), world_size())
        self.order: Sequence[int] | None = None  # of the batches in this epoch
        self.optimizer = build_optimizer(config.optimizer, model)
        self.schedule = Schedule(config.schedule, self.optimizer)
        identity = {
            "model": {
                k: v for k, v in dataclasses.asdict(config.model).items() if "dropout" not in k
            },  # may change
            "tokenizer": data.tokenizer.fingerprint,
            "data": data.fingerprint,
            "optimizer": config.optimizer.kind,
        }
        self.checkpoints = Checkpoints(run_dir, identity, config.trainer.keep_checkpoints)
        self.progress = Progress()
        self.state: State | None = None  # the model's, carried over block borders
        self.uncounted_seconds = 0.0  # seconds of the last step after the ranks shared their status
        self.signal: int | None = None  # that this process got
        self.stopping: int | None = (
            None  # that any process got, known to all since the end of a step
        )
        self.saved_at = time.monotonic()
        self.metrics: Metrics | None = None
        self.best_scores: dict[str, float] | None = (
            None  # what validation said of the best weights, in this process
        )

    def run(self) -> None:
        self.model.train()
        if self.config.trainer.compile:
            self.try_compiler()
        self.metrics = Metrics(self.config, self.run_dir, self.progress.step)
        self.bar = ProgressBar(self.fraction_done())
        previous = {number: signal.signal(number, self.on_signal) for number in handled(SIGNALS)}
        try:
            if self.config.init_from is not None and self.progress.step == 0:
                self.validate()  # no fine-tuning is better than a bad one
            if self.finished():
                log.info(
                    "Step %s is at a bound of this run, or past it: no step is made.",
                    f"{self.progress.step:,}",
                )
                if (
                    self.progress.validated != self.progress.step
                    or self.progress.best_nll == math.inf
                ):
                    self.validate()
            while not self.finished():
                self.step()
                self.after_step()
            if self.progress.best_nll == math.inf:
                raise RunError(
                    "validation was not finite, not once: there is no best model, and none was saved. Lower "
                    "optimizer.lr or trainer.clip_norm, and train anew."
                )
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            self.bar.close()
            self.metrics.close()

    def try_compiler(self) -> None:
        """Compile for the first batch, and leave no trace of it. Raises RunError where the compiler fails."""
        before = dataclasses.replace(self.progress), self.state
        try:
            with torch.random.fork_rng(), warnings.catch_warnings():
                batches, count = self.next_batch()
                self.backward(batches[0], self.split_state(batches)[0], count)
        except (
            Exception
        ) as error:  # torch has no class of errors for it: there may be no C++ compiler, say
            if out_of_memory(error):
                raise
            reason = one_line(error)[:200]
            raise RunError(
                f"trainer.compile: the compiler fails ({reason}). Set trainer.compile=false."
            ) from None
        self.optimizer.zero_grad(set_to_none=True)
        self.progress, self.state = before

    def on_signal(self, number: int, frame: Any) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        log.warning(
            "%s: finishing the step, then saving. Ctrl-C stops at once.",
            signal.Signals(number).name,
        )

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

    def finished(self) -> bool:
        """Whether a bound is reached, or validation has not improved for `trainer.patience` times."""
        return self.fraction_done() >= 1 or self.progress.no_better >= (
            self.config.trainer.patience or math.inf
        )

    def next_batch(self) -> tuple[list[MicroBatch], int]:
        """This process's micro-batches of one update, and the targets of all processes' ones."""
        progress = self.progress
        if progress.index == len(self.batches):
            progress.epoch, progress.index, self.state, self.order = (
                progress.epoch + 1,
                0,
                None,
                None,
            )
        if self.order is None:
            in_order = (
                self.config.trainer.carry_state
            )  # a state is of no use but in the text's order
            draw = self.batches.text_order if in_order else self.batches.draw_order
            self.order = draw(self.config.seed, progress.epoch)
        index = int(self.order[progress.index])
        progress.index += 1
        batches = self.batches.micro_batches(index)
        return [
            (*batch, self.model.softmax.rows(batch[1])) for batch in batches
        ], self.batches.count_targets(index)

    def step(self) -> None:
        """One update: forward and backward over the micro-batches, clipping, the optimizer's step. The host waits for
        the device once, at the end."""
        start = time.perf_counter()
        progress, trainer = self.progress, self.config.trainer
        self.lr = self.schedule.set(progress.step, self.fraction_done())
        batches, count = self.next_batch()
        states = self.split_state(batches)
        loss = torch.zeros((), device=self.device)
        copies = isinstance(
            self.loss, DistributedDataParallel
        )  # average gradients once an update, with its last part
        for i, batch in enumerate(batches):
            with (
                self.loss.no_sync() if copies and i + 1 < len(batches) else contextlib.nullcontext()
            ):
                nats, states[i] = self.backward(batch, states[i], count)
            loss += nats
        if trainer.carry_state:
            self.state = [torch.cat(parts) for parts in zip(*states, strict=True)]
        clock = time.perf_counter() - start
        status = distributed.share_status(
            loss, progress.seconds + self.uncounted_seconds + clock, self.signal
        )
        norm = self.clip_and_update(status[0])
        self.optimizer.zero_grad(set_to_none=True)
        loss, self.grad_norm, seconds, signals = self.wait_for_status(status, norm)
        self.stopping = signals[-1] if signals else None
        if math.isfinite(loss) and math.isfinite(self.grad_norm):
            progress.logged_nll += loss * count
            progress.logged_tokens += count
        else:
            self.on_nonfinite(loss)
        progress.step += 1
        progress.tokens += count
        progress.logged_seconds += seconds - progress.seconds
        progress.seconds, self.uncounted_seconds = seconds, time.perf_counter() - start - clock

    def clip_and_update(self, loss: Tensor) -> Tensor:
        """Clip the gradients (section 4.2) and make the optimizer's step; returns their norm before clipping.

        This is torch's clip_grad_norm_ and step, without waiting for the device: its fused optimizers divide
        gradients by `grad_scale`, and make no step where `found_inf` is 1 (a loss or norm that is not finite).
        """
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        limit = self.config.trainer.clip_norm
        self.optimizer.found_inf = (~(loss.isfinite() & norm.isfinite())).float()
        self.optimizer.grad_scale = None if limit is None else ((norm + 1e-6) / limit).clamp(min=1)
        self.optimizer.step()
        return norm

    @staticmethod
    def wait_for_status(
        status: Tensor, norm: Tensor
    ) -> tuple[float, float, float, list[signal.Signals]]:
        """Wait for the device: loss, gradient norm, seconds, and the signals that any rank received."""
        loss, seconds, *ranks, norm = torch.cat([status, norm.double()[None]]).tolist()
        return (
            loss,
            norm,
            seconds,
            [number for number, received in zip(SIGNALS, ranks, strict=True) if received],
        )

    def split_state(self, batches: list[MicroBatch]) -> list[State | None]:
        """The carried state of each micro-batch."""
        if self.state is None:
            return [None] * len(batches)
        rows = [len(tokens) for tokens, *_ in batches]
        return [
            list(parts)
            for parts in zip(*(tensor.split(rows) for tensor in self.state), strict=True)
        ]

    def backward(self, batch: MicroBatch, state: State | None, count: int) -> tuple[Tensor, State]:
        """Add a micro-batch's gradient of nats / count; returns nats / count, and the state after it."""
        tokens, targets, rows = batch
        tokens, targets, *rows = map(self.to_device, (tokens, targets, *rows))
        for cluster_rows in rows if self.config.trainer.compile else ():
            torch._dynamo.maybe_mark_dynamic(
                cluster_rows, 0
            )  # each batch has other numbers of them: one graph for all
        bf16 = self.config.trainer.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            nats, state = self.loss(tokens, targets, rows, state)
        (
            nats * (world_size() / count)
        ).backward()  # times their number, for the average over processes is their sum
        return nats.detach() / count, state

    def to_device(self, tensor: Tensor) -> Tensor:
        """To the device, without waiting: out of pinned memory where it has its own."""
        return (tensor.pin_memory() if self.device.type == "cuda" else tensor).to(
            self.device, non_blocking=True
        )

    def on_nonfinite(self, loss: float) -> None:
        progress = self.progress
        batch = f"epoch {progress.epoch + 1}, batch {progress.index} of {len(self.batches)}"
        what = f"step {progress.step + 1} ({batch}): loss {loss}, gradient norm {self.grad_norm}"
        self.state = None  # it came out of the same forward pass
        if progress.skipped < self.config.trainer.skip_nonfinite:
            progress.skipped += 1
            log.warning("%s; update skipped.", what)
            return
        saved = self.checkpoints.all()
        last = (
            f"The last good checkpoint is {saved[-1]}" if saved else "No checkpoint was written yet"
        )
        raise RunError(
            f"{what}; the model was not updated. {last}. Lower optimizer.lr or trainer.clip_norm."
        )

    def after_step(self) -> None:
        """Log, validate and save where it is time, and at the end."""
        trainer, step = self.config.trainer, self.progress.step
        if step % trainer.log_every == 0:
            self.log_metrics()
        if self.finished() or step % trainer.validate_every == 0:
            self.validate()
        due = (
            self.finished()
            or self.stopping is not None
            or step % (trainer.checkpoint_every or math.inf) == 0
        )
        if (
            not due and trainer.checkpoint_minutes is not None
        ):  # saving is collective: one clock decides
            due = (
                distributed.from_rank_0(time.monotonic() - self.saved_at)
                >= 60 * trainer.checkpoint_minutes
            )
        if due:
            self.save_checkpoint()
        if (
            self.stopping is not None
        ):  # after the last step too: a sweep would begin its next member
            distributed.wait_for_all()  # torchrun ends the others soon after the first has left
            name = signal.Signals(self.stopping).name
            saved = f"{name}: saved at step {step} in {self.run_dir}"
            raise Interrupted(saved, command_to_resume(self.run_dir), self.stopping)

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
        epoch = progress.epoch + progress.index / len(self.batches)
        return {
            "step": progress.step,
            "epoch": epoch,
            "tokens": progress.tokens,
            "seconds": progress.seconds,
        }

    def validate(self) -> None:
        """Measure the exact validation perplexity; keep the weights if it is the best so far."""
        valid = self.data.streams["valid"]
        shared = world_size() > 1
        scores = distributed.from_rank_0(
            evaluate(self.model, valid, self.config.data.sentences, shared=shared)
        )
        nll = scores["nll_nats"] / scores["tokens"]
        self.metrics.write(
            "validation", **self.position(), loss=nll, perplexity=scores["perplexity"]
        )
        self.progress.validated = self.progress.step
        on_grid = (
            self.progress.step % self.config.trainer.validate_every == 0
        )  # the end of a run may come sooner
        self.progress.no_better += on_grid
        if nll < self.progress.best_nll:
            self.progress.best_nll, self.best_scores, self.progress.no_better = nll, scores, 0
            if rank() == 0:
                save_weights(
                    self.model.state_dict(), self.run_dir / WEIGHTS, self.data.tokenizer.fingerprint
                )
        if on_grid:
            self.schedule.validated(nll)
        log.info(
            "step %s: validation perplexity %.2f", f"{self.progress.step:,}", scores["perplexity"]
        )
        if not math.isfinite(nll):
            log.warning(
                "step %s: validation is not finite: this model is not kept.",
                f"{self.progress.step:,}",
            )
        if self.progress.no_better >= (self.config.trainer.patience or math.inf):
            log.info(
                "Validation has not improved %d times in a row: the run ends.",
                self.progress.no_better,
            )

    def save_checkpoint(self) -> None:
        """Write a checkpoint; all processes must call it."""
        state = self.state_dict()
        if rank() == 0:
            self.checkpoints.save(self.progress.step, self.model.state_dict(), state)
        self.saved_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """All that decides how the run goes on, but for the weights; all processes must call it."""
        on_gpu = self.device.type == "cuda"
        return {
            "progress": dataclasses.asdict(self.progress),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": distributed.all_gather(torch.get_rng_state()),  # of each rank
            "random_cuda": distributed.all_gather(torch.cuda.get_rng_state()) if on_gpu else [],
            "state": self.state
            and [torch.cat(distributed.all_gather(rows)) for rows in self.state],
            "layout": self.batches.layout,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned, in as many processes or others; sets torch's random state.

        Learning rate, momentum and weight decay stay those of the config. Raises KeyError, TypeError,
        ValueError or RuntimeError, as torch does, for a state that does not fit.
        """
        self.progress = Progress(**state["progress"])
        pairs = zip(self.optimizer.param_groups, state["optimizer"]["param_groups"], strict=True)
        groups = [{**own, "params": saved["params"]} for own, saved in pairs]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        self.schedule.load_state_dict(state["schedule"])
        if state["state"] is not None:
            self.state = [
                rows.chunk(world_size())[rank()].to(self.device) for rows in state["state"]
            ]
        if len(state["random"]) != world_size():
            torch.manual_seed(hash((self.config.seed, self.progress.step, rank())) % (1 << 63))
            log.warning(
                "Resumed with another number of processes: dropout goes on with other random numbers."
            )
            return
        torch.set_rng_state(state["random"][rank()])
        if self.device.type == "cuda" and state["random_cuda"]:
            torch.cuda.set_rng_state(state["random_cuda"][rank()])


def handled(numbers: tuple[signal.Signals, ...]) -> list[signal.Signals]:
    """Those of some signals that are to be handled: nohup has SIGHUP ignored, and it stays so."""
    return [n for n in numbers if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
