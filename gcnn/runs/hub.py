"""Runs of the Hugging Face Hub, as `gcnn push` puts them there, brought into the Hub's own cache on
this machine.
"""

import os
import re
from pathlib import Path

from gcnn.base.errors import RunError, UsageError, one_line

PREFIX = "hf://"  # before the name of a run on the Hub, user/name


def as_hub_name(run: str) -> str:
    """`hf://user/name` for a `user/name` that can be no path on this machine; all else as it is.

    A path that was mistyped is not to be asked of the Hub: neither `user/name` nor a folder `user`
    may exist here, and `runs` is where runs are.
    """
    user, _, name = run.partition("/")
    plain = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", run, re.ASCII) is not None
    if not plain or user == "runs" or name in (".", "..") or os.path.lexists(user):
        return run
    return PREFIX + run


def download_run(repo: str, files: list[str]) -> Path:
    """A folder with the files of a run on the Hub that match the patterns `files`, brought up to
    date.

    They are checked by who reads them, as those of any run. Without a network, the folder is as it
    was left. Raises UsageError for a name that can be none, RunError for whatever the Hub's client
    meets.
    """
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError(f"{one_line(error)} Give a run on the Hub as {PREFIX}user/name.") from None
    # Not the Hub's own layout of links into a store, which a run may not have.
    folder = huggingface_hub.cached_assets_path("gcnn", namespace=repo, subfolder="run")
    try:
        huggingface_hub.snapshot_download(repo, local_dir=folder, allow_patterns=files)
    except Exception as error:
        raise RunError(
            f"{repo} was not had from the Hub ({one_line(error)[:300]}). "
            "Check its name, the network and the token (hf auth login, or HF_TOKEN); "
            "a run on this machine is given as the path of its folder."
        ) from None
    return folder
