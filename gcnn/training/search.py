"""Resuming a search of Optuna that is stored in a database, `hydra.sweeper.storage`.

Optuna by itself would make as many trials again, number the members from 0, draw the values of its
first trials once more (by the sampler's seed), and forget the trials that were running.
"""

import logging
import warnings
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from gcnn.base.errors import UsageError, one_line

log = logging.getLogger(__name__)
REPEATED = "repeated"  # marks a trial that was stopped while it ran and is queued once more


def continue_search(config: DictConfig, folder: Path) -> None:
    """Change a sweep's composed config, in place, to go on with the search in its database.

    config: with Hydra's own key `hydra`. Optuna then makes the trials that are missing, if any, and
    begins with those that were stopped. The sampler's seed, if set, grows by the number of trials
    that are done; members are numbered after them. The study's name, unless the config has one, is
    the path of the sweep's `folder`.
    Without a database (hydra.sweeper.storage) nothing changes; with `resume=false` only the name
    does. Writes to the database, and raises, as `requeue_and_count_trials` does.
    """
    sweeper = config.hydra.sweeper
    storage = sweeper.get("storage")
    if not isinstance(storage, str):
        return
    sweeper.study_name = sweeper.study_name or str(folder)
    if config.resume is False:
        return
    done = requeue_and_count_trials(storage, sweeper.study_name)
    sweeper.n_trials = max(0, sweeper.n_trials - done)
    if OmegaConf.select(sweeper, "sampler.seed") is not None:
        sweeper.sampler.seed += done  # the same seed would draw the first trials' values again
    # Hydra numbers members from 0 in each process; its resolver `plus` (config/compose.py) adds
    subdir = f"${{plus:${{hydra.job.num}},{done}}}"
    config.hydra.overrides.hydra.append(f"hydra.sweep.subdir='{subdir}'")


def requeue_and_count_trials(storage: str, name: str) -> int:
    """Queue the stopped trials of a study again; returns the number of the finished ones.

    storage: the URL of the database. name: the study's, which is created if there is none.
    Trials that were running when the search was stopped are marked as failed in the database and
    queued again; they are not counted, now or later. Others that failed are finished, too. No other
    process may be at this search: its running trials would be taken for stopped ones. Logs the
    number. Raises UsageError if the database cannot be read or written.
    """
    import optuna  # late: only searches need it

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(study_name=name, storage=storage, load_if_exists=True)
            for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
                study._storage.set_trial_user_attr(trial._trial_id, REPEATED, True)
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
                study.enqueue_trial(trial.params)
            trials = study.trials
    except Exception as error:  # each database's driver has classes of its own
        raise UsageError(
            f"hydra.sweeper.storage: {storage} does not open ({one_line(error)[:300]})."
        ) from None
    finished = []
    for trial in trials:
        if trial.state.is_finished() and REPEATED not in trial.user_attrs:
            finished.append(trial)
    log.info("search %s: %d trials are done.", name, len(finished))
    return len(finished)
