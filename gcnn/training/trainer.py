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

from gcnn.base.errors import Interrupted, RunError
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
from gcnn.training.schedules import Schedule
from gcnn.training.signals import StopSignals
from gcnn.training.update import MicroBatch, Updater, join_states

log = logging.getLogger(__name__)
PASSES = 3  # forward, and two products of its size backward


class Trainer:
    """Trains a model in a run directory: `run` makes steps until a bound of the config is reached.

    A step is one update of the weights; after it come logging, validation and checkpoints, where
    they are due. `step` alone needs no run directory. One trainer a process: torchrun's processes
    each have one, all call the same methods, and rank 0 writes the files.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: LanguageModel,
        data: PreparedData,
        run_dir: Path,
        device: torch.device,
    ):
        """`model` is on `device`; `config` fits the data and the processes (see preflight.py)."""
        self.config = config
        self.model = model
        self.data = data
        self.run_dir = run_dir
        self.device = device

        # Data, and how much of it is read
        train = data.streams["train"]
        kind = Sentences if config.data.sentences else RunningText
        self.batches = kind(
            train.tokens,
            train.eos_id,
            config.trainer.batch_size,
            config.trainer.block_size,
            config.trainer.micro_batch_size,
            rank(),
            world_size(),
        )
        self.order: Sequence[int] | None = None  # of this epoch's batches; None: not drawn yet
        self.bounds = Bounds(config.trainer, len(self.batches), self.max_tokens())
        self.progress = Progress()
        self.timer = StepTimer()

        # Updates of the weights
        self.optimizer = build_optimizer(config.optimizer, model)
        self.updater = Updater(config.trainer, model, self.optimizer, device)
        self.schedule = Schedule(config.schedule, self.optimizer)
        # The model's state after the last batch, for the next one, with trainer.carry_state; None:
        # the next batch begins with zeros
        self.state: State | None = None

        # Files, and what ends the run
        identity = identity_of(config, data)
        self.checkpoints = Checkpoints(run_dir, identity, config.trainer.keep_checkpoints)
        self.saved_at = time.monotonic()  # of the last checkpoint
        self.metrics: Metrics | None = None  # none before `run`
        self.best_scores: dict[str, float] | None = None  # by a validation in this process
        self.signals = StopSignals()
        self.stopping: int | None = None  # a signal that any process got, known to all of them

    def max_tokens(self) -> float | None:
        """`trainer.max_flops` in training tokens; None: no bound."""
        if self.config.trainer.max_flops is None:
            return None
        counts = torch.from_numpy(type_counts(self.data.streams["train"]))
        return self.config.trainer.max_flops / (PASSES * self.model.flops_per_token(counts))

    def run(self) -> None:
        """Train until the run is finished; all processes must call it, in their main thread.

        Writes metrics.jsonl, checkpoints and the best weights, shows the progress bar, and handles
        SIGNALS until it returns. Of a run that is at a bound already, it makes no step. Raises
        RunError once more than `trainer.skip_nonfinite` steps had a loss or gradient that is not
        finite (such a step changes no weights), where no validation is finite, and where the
        compiler fails; Interrupted after one of SIGNALS, once the step is finished and a checkpoint
        written.
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
                if self.progress.best_nll == math.inf:
                    raise RunError(
                        "validation was not finite, not once: there is no best model, and none was "
                        "saved. Lower optimizer.lr or trainer.clip_norm, and train anew."
                    )
        finally:
            self.bar.close()
            self.metrics.close()

    def validate_before_steps(self) -> None:
        """Validate a model that is to be fine-tuned, and one whose run is already finished."""
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
        """Compile for the first batch, without counting it. RunError if the compiler fails."""
        before = dataclasses.replace(self.progress), self.state
        batches, count = self.next_batch()
        self.updater.try_compiler(batches, self.state, count)
        self.progress, self.state = before

    def fraction_done(self) -> float:
        """How much of the run is over, from 0 to 1; the nearest bound decides."""
        return self.bounds.fraction_done(self.progress)

    def finished(self) -> bool:
        """Whether a bound is reached, or validation no longer improves (`trainer.patience`)."""
        return self.bounds.reached(self.progress)

    def next_batch(self) -> tuple[list[MicroBatch], int]:
        """This process's micro-batches of an update, on the CPU, and the update's target count.

        The targets are those of all processes. Moves `progress` on. At the end of an epoch it draws
        the order of the next one and drops the carried state.
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

        Moves `progress` on; sets `lr`, `grad_norm` (before clipping) and `stopping`. A loss or
        gradient that is not finite leaves the weights as they are: see `on_nonfinite`.
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
        status = distributed.share_status(loss, seconds, self.signals.received)

        # The update
        norm = self.updater.clip_and_update(status[0])

        # Wait for the device, and count
        loss, self.grad_norm, seconds, signals = distributed.wait_for_status(status, norm)
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

        Drops the carried state. Raises RunError once more than `trainer.skip_nonfinite` steps were
        so.
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
        raise RunError(
            f"{what}; the model was not updated. {last}. Lower optimizer.lr or trainer.clip_norm."
        )

    def after_step(self) -> None:
        """Log, validate and write a checkpoint where it is time; all processes must call it.

        Raises Interrupted, with everything saved, where any process has received a signal.
        """
        trainer = self.config.trainer
        step = self.progress.step
        if step % trainer.log_every == 0:
            self.log_metrics()
        if self.finished() or step % trainer.validate_every == 0:
            self.validate()
        if self.checkpoint_is_due():
            self.save_checkpoint()
        # After the last step too: a sweep would begin its next member
        if self.stopping is not None:
            distributed.wait_for_all()  # torchrun ends the others soon after the first has left
            name = signal.Signals(self.stopping).name
            saved = f"{name}: saved at step {step} in {self.run_dir}"
            raise Interrupted(saved, command_to_resume(self.run_dir), self.stopping)

    def checkpoint_is_due(self) -> bool:
        """Whether a checkpoint follows this step: by its number, by the clock, or at the end."""
        trainer = self.config.trainer
        if self.finished() or self.stopping is not None:
            return True
        if self.progress.step % (trainer.checkpoint_every or math.inf) == 0:
            return True
        if trainer.checkpoint_minutes is None:
            return False
        # Writing is collective: one clock decides for all processes
        seconds = distributed.from_rank_0(time.monotonic() - self.saved_at)
        return seconds >= 60 * trainer.checkpoint_minutes

    def log_metrics(self) -> None:
        """Write means since the last call to metrics.jsonl and show them on the progress bar."""
        progress = self.progress
        loss = progress.logged_nll / progress.logged_tokens if progress.logged_tokens else math.nan
        speed = progress.logged_tokens / progress.logged_seconds
        self.metrics.write(
            "train", **self.position(), loss=loss, perplexity=math.exp(min(loss, 700)), lr=self.lr,
            grad_norm=self.grad_norm, tokens_per_second=speed,
        )  # fmt: skip
        self.bar.update(self.fraction_done(), progress.step, loss, speed)
        progress.logged_nll = 0.0
        progress.logged_tokens = 0
        progress.logged_seconds = 0.0

    def position(self) -> dict[str, float]:
        """How far the run is, as each line of metrics.jsonl says it.

        `step` (updates made), `epoch` (passes over the text, with the part of the present one),
        `tokens` (targets trained on) and `seconds` (of training alone).
        """
        progress = self.progress
        return {
            "step": progress.step,
            "epoch": self.bounds.epochs(progress),
            "tokens": progress.tokens,
            "seconds": progress.seconds,
        }

    def validate(self) -> None:
        """Measure the exact validation perplexity; save the weights if it is the best so far.

        All processes must call it: each reads a part of the text. A validation that is not at a
        multiple of `validate_every`, as the one at a run's end, counts neither against `patience`
        nor for the schedule, so that a run that is extended has the same learning rates.
        """
        valid = self.data.streams["valid"]
        shared = world_size() > 1
        scores = distributed.from_rank_0(
            evaluate(self.model, valid, self.config.data.sentences, shared=shared)
        )
        nll = scores["nll_nats"] / scores["tokens"]
        self.metrics.write(
            "validation", **self.position(), loss=nll, perplexity=scores["perplexity"]
        )
        progress = self.progress
        progress.validated = progress.step
        is_regular = progress.step % self.config.trainer.validate_every == 0
        progress.no_better += is_regular
        if nll < progress.best_nll:
            progress.best_nll = nll
            progress.no_better = 0
            self.best_scores = scores
            if rank() == 0:
                fingerprint = self.data.tokenizer.fingerprint
                save_weights(self.model.state_dict(), self.run_dir / WEIGHTS, fingerprint)
        if is_regular:
            self.schedule.validated(nll)
        step = f"{progress.step:,}"
        log.info("step %s: validation perplexity %.2f", step, scores["perplexity"])
        if not math.isfinite(nll):
            log.warning("step %s: validation is not finite: this model is not kept.", step)
        if self.bounds.out_of_patience(progress):
            log.info(
                "Validation has not improved %d times in a row: the run ends.", progress.no_better
            )

    def save_checkpoint(self) -> None:
        """Write a checkpoint; all processes must call it."""
        state = self.state_dict()
        if rank() == 0:
            self.checkpoints.save(self.progress.step, self.model.state_dict(), state)
        self.saved_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """All that decides how the run goes on except the weights; all processes must call it."""
        on_gpu = self.device.type == "cuda"
        return {
            "progress": dataclasses.asdict(self.progress),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": distributed.all_gather(torch.get_rng_state()),  # of each rank
            "random_cuda": distributed.all_gather(torch.cuda.get_rng_state()) if on_gpu else [],
            "state": self.gathered_state(),
            "layout": self.batches.layout,
        }

    def gathered_state(self) -> State | None:
        """The carried state of all processes' sequences, in order; None where none is carried."""
        if self.state is None:
            return None
        return [torch.cat(distributed.all_gather(part)) for part in self.state]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; the number of processes may be another one.

        Sets torch's random state. Learning rate, momentum and weight decay stay those of the
        config. Raises KeyError, TypeError, ValueError or RuntimeError, as torch does, for a state
        that does not fit; the trainer is not to be used then.
        """
        self.progress = Progress(**state["progress"])
        pairs = zip(self.optimizer.param_groups, state["optimizer"]["param_groups"], strict=True)
        groups = [{**own, "params": saved["params"]} for own, saved in pairs]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        self.schedule.load_state_dict(state["schedule"])
        if state["state"] is not None:
            own = [part.chunk(world_size())[rank()] for part in state["state"]]
            self.state = [part.to(self.device) for part in own]
        if len(state["random"]) != world_size():
            torch.manual_seed(hash((self.config.seed, self.progress.step, rank())) % (1 << 63))
            log.warning(
                "Resumed with another number of processes: "
                "dropout goes on with other random numbers."
            )
            return
        torch.set_rng_state(state["random"][rank()])
        if self.device.type == "cuda" and state["random_cuda"]:
            torch.cuda.set_rng_state(state["random_cuda"][rank()])
