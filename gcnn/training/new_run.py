"""The config of a new run, as Hydra has composed it: checked, and what is said about it.

With init_from, model and tokenizer are those of another run. What the user may not have meant is a
line to log.
"""

from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from gcnn.base.errors import UsageError
from gcnn.base.files import user_path
from gcnn.config.complaints import usage_errors
from gcnn.config.compose import typed
from gcnn.config.rules import keys_of, refuse_without_effect
from gcnn.config.schema import SCHEMAS, TrainConfig
from gcnn.config.stored import load_config, migrated
from gcnn.runs.directory import CONFIG, find_run
from gcnn.runs.hub import PREFIX
from gcnn.training.resume import parse_overrides


def new_run(config: DictConfig, hydra_config: DictConfig) -> tuple[TrainConfig, list[str], bool]:
    """The arguments of `gcnn.training.run.train` for a new run: config, notes, fit_cutoffs.

    config: as Hydra composed it, without the key `hydra`; it is changed in place. hydra_config:
    Hydra's own, its `hydra` key. Cutoffs may be dropped to fit the vocabulary (fit_cutoffs) unless
    the command line sets them. Call it while Hydra runs, as in its main function. Raises UsageError
    as `begin_with_model_of_source` and `checked_composed` do.
    """
    notes = begin_with_model_of_source(config, hydra_config)
    notes += notes_on_overruled_keys(config, hydra_config)
    notes += note_on_learning_rate(config, hydra_config)
    fit_cutoffs = "model.cutoffs" not in keys_of(hydra_config.overrides.task)
    return checked_composed(config, hydra_config), notes, fit_cutoffs


@usage_errors()
def begin_with_model_of_source(config: DictConfig, hydra_config: DictConfig) -> list[str]:
    """Replace model and tokenizer of a composed config, in place, by those of the `init_from` run.

    `init_from` may name the run as `find_run` takes it, `latest` or hf://user/name, and becomes the
    run's folder. A group that the command line chooses (`model=...`) is not replaced; its single
    keys (`model.dropout=...`) are applied on top of one that is.
    hydra_config: Hydra's own.
    Returns a line to log for each group that is replaced; without `init_from` does nothing and
    returns an empty list. Raises UsageError if `init_from` is no run or its config is damaged, in a
    sweep also if it is the newest of several; for an override that Hydra does not understand; and
    for a key or value that the run's model or tokenizer cannot have. Raises RunError if a download
    fails.
    """
    if config.init_from is None:
        return []
    is_sweep = hydra_config.mode == RunMode.MULTIRUN
    config.init_from = str(run_to_begin_with(config.init_from, is_sweep))
    stored = load_config(Path(config.init_from))
    given = parse_overrides(hydra_config.overrides.task)
    keys = [override.key_or_group for override in given]
    notes = []
    for group in ("model", "tokenizer"):
        if group in keys:  # the user chose another
            continue
        config[group] = OmegaConf.structured(getattr(stored, group))
        notes.append(f"init_from: {group} as in {config.init_from}")
        for override in given:
            if override.key_or_group.startswith(f"{group}."):
                OmegaConf.update(config, override.key_or_group, override.value())
    return notes


def run_to_begin_with(name: str, is_sweep: bool) -> Path:
    """The folder of the run that `init_from=name` means, as `find_run` finds it.

    Raises UsageError and RunError as `find_run` does; UsageError in a sweep for the newest of
    several runs, which would be another as soon as a member has ended.
    """
    if is_sweep and not name.startswith(PREFIX):
        folder = user_path(name, "its files; give the path")
        if name == "latest" or (folder.is_dir() and not (folder / CONFIG).exists()):
            raise UsageError(
                f"init_from={name} is not one run, and in a sweep the newest of several changes. "
                "Give the folder of a run."
            )
    return find_run(name)


def checked_composed(config: DictConfig, hydra_config: DictConfig) -> TrainConfig:
    """The TrainConfig, checked, of a config that Hydra has composed (without the key `hydra`).

    hydra_config: Hydra's own. If it says that a stored config is repeated (its --config-name is not
    `train`), keys of older versions are updated in `config`, in place, and only the keys of the
    command line are checked for effect. Raises UsageError as `typed` does, and for a key that is
    set and has no effect.
    """
    composed = hydra_config.job.config_name == "train"
    if not composed:
        with open_dict(config):
            migrated(config)
    result = typed(config)
    refuse_without_effect(result, keys_of(hydra_config.overrides.task), all_keys=composed)
    return result


def notes_on_overruled_keys(config: DictConfig, hydra_config: DictConfig) -> list[str]:
    """A line to log for each choice of the command line, group=NAME, that the experiment changes.

    An experiment's own keys go before those of a choice, as quickstart's model.dropout before that
    of model=lstm_small; keys that the command line sets too are not named. The list is empty
    without an experiment; a choice that does not compose without it is left out.
    config: as composed; not changed. hydra_config: Hydra's own. Call it while Hydra runs, as in its
    main function.
    """
    keys = keys_of(hydra_config.overrides.task)
    choices = hydra_config.runtime.choices
    if choices.get("experiment") is None:
        return []
    loader = GlobalHydra.instance().config_loader()
    notes = []
    for group in SCHEMAS:
        if group not in keys:
            continue
        choice = f"{group}={choices[group]}"
        try:
            with usage_errors():
                alone = loader.load_configuration("train", [choice], RunMode.RUN)[group]
        except UsageError:
            continue
        composed = OmegaConf.to_container(config[group])  # interpolations stay as they are
        changed = []
        for key, value in OmegaConf.to_container(alone).items():
            if composed.get(key, value) != value and f"{group}.{key}" not in keys:
                changed.append(f"{group}.{key}={composed[key]}")
        if changed:
            notes.append(f"{choice}: experiment={choices.experiment} has {', '.join(changed)}.")
    return notes


def note_on_learning_rate(config: DictConfig, hydra_config: DictConfig) -> list[str]:
    """A line to log if model=NAME leaves an experiment's learning rate to a model of another kind.

    An experiment's rate is chosen for its own model: at quickstart's, a Transformer learns little.
    The list is empty if the command line has no model=NAME or no experiment, if it sets the
    optimizer or its rate too, if the kind is that of the experiment's model, or if the experiment
    alone does not compose, as with keys of the chosen model or a hydra.searchpath.
    config: as composed; not changed. hydra_config: Hydra's own. Call it while Hydra runs, as in its
    main function: its global loader composes the experiment, without the rest of the command line.
    """
    keys = keys_of(hydra_config.overrides.task)
    experiment = hydra_config.runtime.choices.get("experiment")
    if "model" not in keys or experiment is None or keys & {"optimizer", "optimizer.lr"}:
        return []
    # By the loader of the Hydra that called us: it knows the folder of --config-dir
    loader = GlobalHydra.instance().config_loader()
    try:
        with usage_errors():
            own = loader.load_configuration("train", [f"experiment={experiment}"], RunMode.RUN)
    except UsageError:  # it needs the chosen model, or the rest of the command line
        return []
    if own.model.kind == config.model.kind:
        return []
    return [
        f"optimizer.lr={config.optimizer.lr:g} is what experiment={experiment} has for a model of "
        f"the kind {own.model.kind}; for a {config.model.kind} another may be better: set it, too."
    ]
