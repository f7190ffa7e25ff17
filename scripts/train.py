"""Train a model: scripts/train.py experiment=NAME key=value ...

`make train EXPERIMENT=NAME ARGS="key=value ..."` is the same.
"""

import logging
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from gcnn.config import CONFIGS, register_schemas, typed
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
    print(results_table(results))
    print(f"run: {run_dir}")


if __name__ == "__main__":
    run_command(main)
