"""Runs of the Hugging Face Hub, as `gcnn push` puts them there, brought into the Hub's own cache on
this machine.
"""

import os
import re
from pathlib import Path

from gcnn.base.errors import RunError, UsageError, one_line

PREFIX = "hf://"  # before the name of a run on the Hub, user/name


def as_hub_name(run: str) -> str:
    """`hf://user/name` if `run` is a `user/name` of the Hub; otherwise `run` as it is.

    It is one if it has a slash between two names of ASCII letters, digits, `_`, `-` and `.`, unless
    it is probably a path with a mistake in it: `user` may not begin with a dot or be `runs`, `name`
    may not be `.` or `..`, and nothing named `user` may exist in the current folder. The Hub is not
    asked.
    """
    user, _, name = run.partition("/")
    is_hub_name = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", run, re.ASCII) and name not in (".", "..")
    if not is_hub_name or user == "runs" or os.path.lexists(user):
        return run
    return PREFIX + run


def check_hub_name(repo: str, remedy: str) -> None:
    """Raise UsageError, its message followed by `remedy`, unless `repo` is a valid `user/name`.

    The Hub is not asked.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError(f"{one_line(error)} {remedy}") from None
    if "/" not in repo:
        raise UsageError(f"{repo} is a name on the Hub without its user. {remedy}")


def download_run(repo: str, files: list[str]) -> Path:
    """Download the files of a run on the Hub, `user/name`, and return the folder that has them.

    files: patterns of their names (fnmatch). The folder is in the Hub's cache; files that are there
    and have not changed are not downloaded again. Nothing is checked: neither what is in the files
    nor that all are there. If the Hub does not answer or refuses, the folder is returned as an
    earlier download left it, maybe incomplete.
    Raises UsageError if `repo` is not a valid `user/name`; RunError if a download breaks off, or if
    the Hub does not answer or refuses and the earlier download is missing or known to be
    incomplete, or if the cache's folder cannot be made.
    """
    import huggingface_hub

    check_hub_name(repo, f"Give a run on the Hub as {PREFIX}user/name.")
    try:
        # Not the Hub's own layout of links into a store, which a run may not have.
        folder = huggingface_hub.cached_assets_path("gcnn", namespace=repo, subfolder="run")
        huggingface_hub.snapshot_download(repo, local_dir=folder, allow_patterns=files)
    except Exception as error:
        raise RunError(
            f"{repo} was not had from the Hub ({one_line(error)[:300]}). "
            "Check its name, the network, the token (hf auth login, or HF_TOKEN) and the cache "
            "(HF_HOME, HF_ASSETS_CACHE); "
            "a run on this machine is given as the path of its folder."
        ) from None
    return folder
