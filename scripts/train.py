"""Train a model: scripts/train.py experiment=NAME key=value ... (`make train EXPERIMENT=NAME ARGS="key=value ..."`)."""

import logging
import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from gcnn.config import register_schemas, typed
from gcnn.errors import run_command

os.environ.setdefault("HYDRA_FULL_ERROR", "1")


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
def main(config: DictConfig) -> None:
    from gcnn.reporting.results import results_table
    from gcnn.training.run import train

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("gcnn").setLevel(logging.INFO)
    hydra_config = HydraConfig.get()
    choice = hydra_config.runtime.choices.get("experiment")
    if choice is not None:
        config.experiment = choice
    if hydra_config.mode == RunMode.MULTIRUN and config.run_dir is None:
        raise_for_sweep = f"runs/{config.experiment}/{hydra_config.sweep.dir}"
        config.run_dir = f"{raise_for_sweep}/{hydra_config.job.num}"
    run_dir, results = train(typed(config))
    print(results_table(results))
    print(f"run: {run_dir}")


if __name__ == "__main__":
    register_schemas()
    run_command(main)
