"""Hydra composes in half the time: it reads and merges the project's config files once a session.

No test changes those files. Where a command searches another folder, too, nothing is remembered.
"""

import copy

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository

import gcnn.commands.train  # noqa: F401  gives Hydra its own config, which is then remembered, too
from gcnn.config.groups import CONFIGS

read = ConfigRepository.load_config
merge = ConfigLoaderImpl._compose_config_from_defaults_list
files = {}  # what is searched and a file's name -> what was read
configs = {}  # what is searched and the files' names -> their merged config


def remember_the_projects_configs() -> None:
    """Patch Hydra in this process; commands in processes of their own are as they are."""
    ConfigRepository.load_config = read_once
    ConfigLoaderImpl._compose_config_from_defaults_list = merge_once


def read_once(repository, config_path):
    searched = searched_by(repository)
    if searched is None:
        return read(repository, config_path)
    key = searched, config_path
    if key not in files:
        files[key] = read(repository, config_path)
    return copy.deepcopy(files[key])  # Hydra changes it


def merge_once(loader, defaults, repo):
    searched = searched_by(repo)
    if searched is None:
        return merge(loader, defaults, repo)
    key = searched, repr(defaults)
    if key not in configs:
        configs[key] = merge(loader, defaults, repo)
    return copy.deepcopy(configs[key])  # overrides are applied to it


def searched_by(repository) -> tuple | None:
    """What Hydra searches, in order; None if that includes other folders than the project's."""
    sources = [(source.scheme(), source.path) for source in repository.get_sources()]
    folders = {path for scheme, path in sources if scheme == "file"}
    return tuple(sources) if folders <= {str(CONFIGS)} else None
