"""Train a model: scripts/train.py experiment=NAME key=value ...

`make train EXPERIMENT=NAME ARGS="key=value ..."` is the same.
"""

import argparse
import logging
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from gcnn.config import CONFIGS, load_config, register_schemas, typed
from gcnn.errors import one_line_errors, run_command

register_schemas()


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
def main(config: DictConfig) -> None:
    with one_line_errors():  # here, before Hydra adds lines of its own
        run(config, HydraConfig.get())


def run(config: DictConfig, hydra_config: DictConfig) -> None:
    from gcnn.reporting.results import results_table
    from gcnn.training.run import train

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("gcnn").setLevel(logging.INFO)
    config.experiment = hydra_config.runtime.choices.get("experiment") or config.experiment
    if hydra_config.mode == RunMode.MULTIRUN:  # each member of a sweep has a folder of its own
        config.run_dir = f"{config.run_dir or f'runs/{config.experiment}/sweep'}/{hydra_config.job.num}"
    run_dir, results = train(typed(config))
    if results is not None:  # else another process says it
        print(results_table(results))
        print(f"run: {run_dir}")


def command() -> None:
    """Train; a run to be repeated may be a stranger's, and Hydra would obey its config: it must be plain data."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config-path", "-cp", type=Path)
    repeated = parser.parse_known_args()[0].config_path
    if repeated is not None:
        load_config(repeated)
    main()


if __name__ == "__main__":
    run_command(command)
