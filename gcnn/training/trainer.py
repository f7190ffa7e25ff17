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

from gcnn.base.errors import Diverged, Interrupted
from gcnn.base.numbers import exp
from gcnn.base.provenance import command_to_resume
from gcnn.config.schema import TrainConfig
from gcnn.data.batches import RunningText, Sentences
from gcnn.data.stream import PreparedData
from gcnn.evaluation.perplexity import evaluate, type_counts
from gcnn.models.language_model import LanguageModel, State
from gcnn.models.weights import WEIGHTS, save_weights
from gcnn.training import distributed
from gcnn.training.checkpoints import Checkpoints, identity_of
from gcnn.training.distributed import rank, world_size
from gcnn.training.metrics import Metrics, ProgressBar
from gcnn.training.optimizers import build_optimizer
from gcnn.training.progress import Bounds, Progress, StepTimer
from gcnn.training.random_state import random_states, restore_random_states
from gcnn.training.schedules import Schedule
from gcnn.training.signals import StopSignals
from gcnn.training.update import MicroBatch, Updater, join_states

log = logging.getLogger(__name__)
PASSES = 3  # forward, and two products of its size backward


class Trainer:
    """Trains a model in a run directory: `run` makes steps until a bound of the config is reached.

    A step is one update of the weights, then the logging, validation and checkpoint that are due.
    `run` needs an existing run directory, `step` alone needs none. Each of torchrun's processes has
    one, with rank 0's weights; all call the same methods, and rank 0 writes files.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: LanguageModel,
        data: PreparedData,
        run_dir: Path,
        device: torch.device,
    ):
        """`model` is on `device` and in training mode; `config` is checked as in preflight.py."""
        self.config = config
        self.model = model
        self.data = data
        self.run_dir = run_dir
        self.device = device

        # Data, and how much of it is read
        train = data.streams["train"]
        kind = Sentences if config.data.sentences else RunningText
        self.batches = kind(
            train.tokens, train.eos_id, config.trainer.batch_size, config.trainer.block_size,
            config.trainer.micro_batch_size, rank(), world_size(),
        )  # fmt: skip
        self.order: Sequence[int] | None = None  # of this epoch's batches; None: not drawn yet
        self.bounds = Bounds(config.trainer, len(self.batches), self.max_tokens())
        self.progress = Progress()
        self.timer = StepTimer()

        # Updates of the weights
        self.optimizer = build_optimizer(config.optimizer, model)
        self.updater = Updater(config.trainer, model, self.optimizer, device)
        self.schedule = Schedule(config.schedule, self.optimizer)
        self.lr = self.grad_norm = math.nan  # of the last step
        # After the last batch, with trainer.carry_state; None: the next batch begins with zeros
        self.state: State | None = None

        # Files, and what ends the run
        identity = identity_of(config, data)
        self.checkpoints = Checkpoints(run_dir, identity, config.trainer.keep_checkpoints)
        self.saved_at = time.monotonic()  # of the last checkpoint
        self.due_by_clock = False  # by rank 0's clock in the last step
        self.metrics: Metrics | None = None  # none before `run`
        self.bar: ProgressBar | None = None  # none before `run`
        self.best_scores: dict[str, float] | None = None  # by a validation in this process
        self.signals = StopSignals()
        self.stopping: int | None = None  # a signal that any process got, known to all of them

    def max_tokens(self) -> float | None:
        """The tokens within `trainer.max_flops`, at PASSES forward passes each; None: no bound."""
        if self.config.trainer.max_flops is None:
            return None
        counts = torch.from_numpy(type_counts(self.data.streams["train"]))
        return self.config.trainer.max_flops / (PASSES * self.model.flops_per_token(counts))

    def run(self) -> None:
        """Train until the run is finished; all processes must call it, in their main thread.

        Writes metrics.jsonl, checkpoints and the best weights to `run_dir`, shows the progress bar,
        and handles SIGNALS (signals.py) until it returns. The model then has the last weights, not
        the best. A run that is at a bound makes no step. Raises Diverged if a step is not finite
        and may not be skipped (`on_nonfinite`) and if no validation is finite; RunError if the
        compiler fails; RunError or OSError if the disk is full; Interrupted after one of SIGNALS,
        once a checkpoint is written, also if it comes after the last update.
        """
        self.model.train()
        if self.config.trainer.compile:
            self.try_compiler()
        self.metrics = Metrics(self.config, self.run_dir, self.progress.step)
        self.bar = ProgressBar(self.fraction_done())
        try:
            with self.signals:
                self.validate_before_steps()
                while not self.finished():
                    self.step()
                    self.after_step()
                # One that came since: no step follows that would find it
                self.stopping = distributed.signal_of_any(self.signals.received)
                self.stop_if_signalled()
                if self.progress.best_nll == math.inf:
                    raise Diverged(
                        "validation was not finite, not once: there is no best model, and none was "
                        "saved. Lower optimizer.lr or trainer.clip_norm, and train anew."
                    )
        finally:
            self.bar.close()
            self.metrics.close()

    def validate_before_steps(self) -> None:
        """Validate at step 0 of a run with `init_from`, and in a run that is finished already.

        The latter is logged, and only validated if its last step was not or it has no best weights.
        """
        progress = self.progress
        if self.config.init_from is not None and progress.step == 0:
            self.validate()  # no fine-tuning is better than a bad one
        if not self.finished():
            return
        step = f"{progress.step:,}"
        log.info("Step %s is at a bound of this run, or past it: no step is made.", step)
        if progress.validated != progress.step or progress.best_nll == math.inf:
            self.validate()

    def try_compiler(self) -> None:
        """Compile for the next batch, which stays the next. RunError if the compiler fails."""
        before = dataclasses.replace(self.progress), self.state
        batches, count = self.next_batch()
        self.updater.try_compiler(batches, self.state, count)
        self.progress, self.state = before

    def fraction_done(self) -> float:
        """How much of the run is over, 1 or more at its end; the nearest bound decides."""
        return self.bounds.fraction_done(self.progress)

    def finished(self) -> bool:
        """Whether a bound is reached, or validation no longer improves (`trainer.patience`)."""
        return self.bounds.reached(self.progress)

    def next_batch(self) -> tuple[list[MicroBatch], int]:
        """This process's micro-batches of an update, on the CPU, and the update's target count.

        The count is over all processes. Moves `progress.index` on. The call after the last batch of
        an epoch begins the next one: it draws the order anew and drops the carried state.
        """
        progress = self.progress
        if progress.index == len(self.batches):
            progress.epoch += 1
            progress.index = 0
            self.state = None
            self.order = None
        if self.order is None:
            # A state is of use in the text's order alone. Either call also cuts the text anew.
            in_order = self.config.trainer.carry_state
            draw = self.batches.text_order if in_order else self.batches.draw_order
            self.order = draw(self.config.seed, progress.epoch)
        index = int(self.order[progress.index])
        progress.index += 1
        few_sizes = self.config.trainer.compile
        micro_batches = []
        for tokens, targets in self.batches.micro_batches(index):
            cluster_indices = self.model.softmax.cluster_indices(targets, few_sizes)
            micro_batches.append((tokens, targets, cluster_indices))
        return micro_batches, self.batches.count_targets(index)

    def step(self) -> None:
        """Make one update; all processes must call it. The host waits for the device once.

        Moves `progress` and a carried `state` on; sets `lr`, `grad_norm` (before clipping),
        `due_by_clock` and `stopping`. A loss or gradient that is not finite leaves the weights as
        they are; see `on_nonfinite` for errors.
        """
        self.timer.start()
        progress = self.progress
        self.lr = self.schedule.set(progress.step, self.fraction_done())

        # Forward and backward
        batches, count = self.next_batch()
        loss, states = self.updater.accumulate_gradients(batches, self.state, count)
        if self.config.trainer.carry_state:
            self.state = join_states(states)

        # What all processes must know to go on alike, shared in one collective
        seconds = progress.seconds + self.timer.seconds_to_share()
        minutes = self.config.trainer.checkpoint_minutes or math.inf
        due = time.monotonic() - self.saved_at >= 60 * minutes
        status = distributed.share_status(loss, seconds, due, self.signals.received)

        # The update
        norm = self.updater.clip_and_update(status[0])  # by the loss over all processes

        # Wait for the device, and count
        shared = distributed.wait_for_status(status, norm)
        loss, self.grad_norm, seconds, self.due_by_clock, signals = shared
        self.stopping = signals[-1] if signals else None
        if math.isfinite(loss) and math.isfinite(self.grad_norm):
            progress.logged_nll += loss * count
            progress.logged_tokens += count
        else:
            self.on_nonfinite(loss)
        progress.step += 1
        progress.tokens += count
        progress.logged_seconds += seconds - progress.seconds
        progress.seconds = seconds
        self.timer.stop()

    def on_nonfinite(self, loss: float) -> None:
        """Count and log a step whose loss or gradient norm is not finite; it changed no weights.

        Drops the carried state. Raises Diverged if `trainer.skip_nonfinite` steps of this run were
        skipped already (0, the default: at the first).
        """
        progress = self.progress
        batch = f"epoch {progress.epoch + 1}, batch {progress.index} of {len(self.batches)}"
        what = f"step {progress.step + 1} ({batch}): loss {loss}, gradient norm {self.grad_norm}"
        self.state = None  # it came out of the same forward pass
        if progress.skipped < self.config.trainer.skip_nonfinite:
            progress.skipped += 1
            log.warning("%s; update skipped.", what)
            return
        saved = self.checkpoints.all()
        last = "No checkpoint was written yet"
        if saved:
            last = f"The last good checkpoint is {saved[-1]}"
        raise Diverged(
            f"{what}; the model was not updated. {last}. Lower optimizer.lr or trainer.clip_norm."
        )

    def after_step(self) -> None:
        """Log, validate and write a checkpoint if due; all processes must call it, within `run`.

        Raises Interrupted, with everything saved, if `step` found that any process had a signal.
        """
        trainer = self.config.trainer
        step = self.progress.step
        if step % trainer.log_every == 0:
            self.log_metrics()
        if self.finished() or step % trainer.validate_every == 0:
            self.validate()
        if self.checkpoint_is_due():
            self.save_checkpoint()
        self.stop_if_signalled()

    def stop_if_signalled(self) -> None:
        """Raise Interrupted, which says that the run is saved, if `stopping` is a signal.

        All processes must call it, once this step's checkpoint is written; after the last step,
        too, for a sweep would begin its next member.
        """
        if self.stopping is None:
            return
        distributed.wait_for_all()  # torchrun ends the others soon after the first has left
        name = signal.Signals(self.stopping).name
        saved = f"{name}: saved at step {self.progress.step} in {self.run_dir}"
        raise Interrupted(saved, command_to_resume(self.run_dir), self.stopping)

    def checkpoint_is_due(self) -> bool:
        """Whether a checkpoint follows this step; the same on all ranks, which write it together.

        One does at the end, after a signal, and by trainer.checkpoint_every and checkpoint_minutes.
        """
        trainer = self.config.trainer
        if self.finished() or self.stopping is not None:
            return True
        if trainer.checkpoint_every and self.progress.step % trainer.checkpoint_every == 0:
            return True
        return self.due_by_clock

    def log_metrics(self) -> None:
        """Write a line to metrics.jsonl, with the entries of `position`, and update the bar.

        loss (nats a token), perplexity and tokens_per_second are those since the last call: call it
        after at least one more step. Of skipped steps only the time counts; if all were, loss and
        perplexity are null. A perplexity that no float holds is null, too. lr and grad_norm (before
        clipping) are those of the last step.
        """
        progress = self.progress
        loss = progress.logged_nll / progress.logged_tokens if progress.logged_tokens else math.nan
        speed = progress.logged_tokens / progress.logged_seconds
        self.metrics.write(
            "train", **self.position(), loss=loss, perplexity=exp(loss), lr=self.lr,
            grad_norm=self.grad_norm, tokens_per_second=speed,
        )  # fmt: skip
        self.bar.update(self.fraction_done(), progress.step, loss, speed)
        progress.logged_nll = 0.0
        progress.logged_tokens = 0
        progress.logged_seconds = 0.0

    def position(self) -> dict[str, float]:
        """How far the run is, as entries of each line of metrics.jsonl.

        `step` (updates made), `epoch` (passes over the text, with the part of the present one),
        `tokens` (targets so far) and `seconds` (of training alone). Skipped updates are included.
        """
        progress = self.progress
        return {
            "step": progress.step,
            "epoch": self.bounds.epochs(progress),
            "tokens": progress.tokens,
            "seconds": progress.seconds,
        }

    def validate(self) -> None:
        """Measure the exact validation perplexity; save the weights if it is the lowest so far.

        All processes must call it, within `run`: each reads a part of the text. Writes a line to
        metrics.jsonl (`position`, loss in nats a token, perplexity), and the best weights to
        model.safetensors. A validation that is not at a multiple of `validate_every`, as at a run's
        end, counts neither against `patience` nor for the schedule: a run that is extended has the
        same learning rates.
        """
        valid = self.data.streams["valid"]
        shared = world_size() > 1
        scores = evaluate(self.model, valid, self.config.data.sentences, shared=shared)
        scores = distributed.from_rank_0(scores)
        nll = scores["nll_nats"] / scores["tokens"]
        perplexity = scores["perplexity"]
        self.metrics.write("validation", **self.position(), loss=nll, perplexity=perplexity)
        progress = self.progress
        progress.validated = progress.step
        is_regular = progress.step % self.config.trainer.validate_every == 0
        if nll < progress.best_nll:
            progress.best_nll = nll
            progress.no_better = 0
            self.best_scores = scores
            if rank() == 0:
                fingerprint = self.data.tokenizer.fingerprint
                save_weights(self.model.state_dict(), self.run_dir / WEIGHTS, fingerprint)
        elif is_regular:
            progress.no_better += 1
        if is_regular:
            self.schedule.note_validation(nll)
        step = f"{progress.step:,}"
        log.info("step %s: validation perplexity %.2f", step, perplexity)
        if not math.isfinite(nll):
            log.warning("step %s: validation is not finite: this model is not kept.", step)
        if self.bounds.out_of_patience(progress):
            log.info(
                "Validation has not improved %d times in a row: the run ends.", progress.no_better
            )

    def save_checkpoint(self) -> None:
        """Write a checkpoint, on rank 0; all processes must call it."""
        state = self.state_dict()
        if rank() == 0:
            self.checkpoints.save(self.progress.step, self.model.state_dict(), state)
        self.saved_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on, but no weights; all processes must call it."""
        return {
            "progress": dataclasses.asdict(self.progress),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            **random_states(self.device),
            "state": distributed.gathered_state(self.state),
            "layout": self.batches.layout,  # `restore` compares it
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned, in a trainer that has made no step.

        The caller has compared `layout`. Sets torch's random state by `restore_random_states`.
        Learning rate, momentum and weight decay stay those of the config. Raises KeyError,
        TypeError, ValueError or RuntimeError, as torch does, for a state that does not fit; the
        trainer must not be used then.
        """
        self.progress = Progress(**state["progress"])
        saved_groups = state["optimizer"]["param_groups"]
        groups = []
        for own, saved in zip(self.optimizer.param_groups, saved_groups, strict=True):
            groups.append({**own, "params": saved["params"]})
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        self.schedule.load_state_dict(state["schedule"])
        if state["state"] is not None:
            own = [part.chunk(world_size())[rank()] for part in state["state"]]
            self.state = [part.to(self.device) for part in own]
        restore_random_states(state, self.device, (self.config.seed, self.progress.step))
