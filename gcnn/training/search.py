"""A search of Optuna that is kept in a database, `hydra.sweeper.storage`: it goes on where it was stopped.

Optuna by itself would make as many trials again, beginning with member 0 and, by the sampler's seed, with
the values of its first trials; what was under way would be lost.
"""

import logging
import warnings
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from gcnn.base.errors import UsageError, one_line

log = logging.getLogger(__name__)
REPEATED = "repeated"  # on a trial that was stopped and is asked for once more


def continue_search(config: DictConfig, folder: Path) -> None:
    """Prepare a composed sweep, in place, to go on with the search in its database: with the trials that
    are missing, those under way first, each in its own member's folder. Nothing without a database.

    The study is that of the sweep's `folder` unless it has a name. Raises UsageError for a database that
    cannot be opened.
    """
    sweeper = config.hydra.sweeper
    storage = sweeper.get("storage")
    if not isinstance(storage, str):
        return
    sweeper.study_name = sweeper.study_name or str(folder)
    if config.resume is False:
        return
    done = trials_done(storage, sweeper.study_name)
    sweeper.n_trials = max(0, sweeper.n_trials - done)
    if OmegaConf.select(sweeper, "sampler.seed") is not None:
        sweeper.sampler.seed += done  # else it draws its first values once more
    subdir = f"${{plus:${{hydra.job.num}},{done}}}"  # members are numbered from 0 in each process
    config.hydra.overrides.hydra.append(f"hydra.sweep.subdir='{subdir}'")


def trials_done(storage: str, name: str) -> int:
    """The trials of a study that have a result. Those that were under way are asked for again."""
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
    except Exception as error:  # of the database, whose driver has its own classes
        raise UsageError(
            f"hydra.sweeper.storage: {storage} does not open ({one_line(error)[:300]})."
        ) from None
    finished = [
        trial for trial in trials if trial.state.is_finished() and REPEATED not in trial.user_attrs
    ]
    log.info("search %s: %d trials are done.", name, len(finished))
    return len(finished)
