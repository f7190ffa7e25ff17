"""What a number was made with: commit, machine, versions, command."""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import resource
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcnn.base import torchrun
from gcnn.base.errors import RunError

if TYPE_CHECKING:
    import torch

PATH_PLACEHOLDERS = {
    "data.path": "DIR",
    "tokenizer.vocabulary": "FILE",
    "tokenizer.model": "FILE",
}  # how commands show them
LOCAL_KEYS = ("run_dir", "resume", "data.cache_dir")


def git_commit() -> str | None:
    """The commit of the code that runs, marked where files differ from it; None outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # installed, perhaps inside a checkout of something else
        return None
    describe = [
        "git",
        "-C",
        root,
        "describe",
        "--always",
        "--abbrev=40",
        "--exclude=*",
        "--dirty=+changes",
    ]
    try:
        return subprocess.run(
            describe, capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def hardware() -> dict[str, str | int | None]:
    """cpu, cores, threads, gpu, memory_bytes, platform."""
    import torch  # here, for it takes seconds that a command without it need not wait

    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "platform": platform.platform(),
    }


def cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    names = ("gcnn", "torch", "datasets", "sentencepiece", "hydra-core", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def version(name: str) -> str | None:
    """The version of an installed package; None where it is not installed, as this project in a checkout may be."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def made_with() -> dict[str, Any]:
    """What a benchmark's JSON says of how it was made."""
    return {
        "command": command(),
        "processes": torchrun.world_size(),
        "git_commit": git_commit(),
        "hardware": hardware(),
        "versions": versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def run_child(call: list[str]) -> tuple[str, resource.struct_rusage]:
    """The output of a Python command and what it used, children of its own included. Raises RunError where it fails."""
    process = subprocess.Popen([sys.executable, *call], stdout=subprocess.PIPE, text=True)
    text = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RunError(
            f"{shlex.join(call)[:200]} failed with {process.returncode}. See its message above."
        )
    return text, used


def command(arguments: list[str] | None = None) -> str:
    """What to type to do the same again, or the same with other `arguments`: under torchrun, with as
    many processes on as many machines."""
    arguments = sys.argv[1:] if arguments is None else arguments
    installed = sys.argv[0].startswith("gcnn ")  # the console command and the first of its words
    words = [*(sys.argv[0].split() if installed else sys.argv[:1]), *arguments]
    if torchrun.world_size() == 1:
        return shlex.join(words if installed else ["python", *words])
    machines = torchrun.machines()
    where = "--standalone" if machines == 1 else f"--nnodes={machines}"
    each = f"--nproc-per-node={torchrun.local_world_size()}"
    module = ["-m"] if installed else []
    return shlex.join(["python", "-m", "torch.distributed.run", where, each, *module, "--", *words])


def command_to_resume(run_dir: Path | None = None) -> str:
    """What to type to go on with a run, which has its own config; without `run_dir`, with all that this
    command does. The Python is this one, whether or not its environment is activated."""
    if run_dir is None:
        arguments = [word for word in sys.argv[1:] if not word.startswith("resume=")]
    else:
        arguments = [f"run_dir={run_dir}"]
    line = command([*arguments, "resume=true"])
    here = os.path.relpath(sys.executable)
    python = sys.executable if here.startswith("..") else here
    return shlex.quote(python) + line.removeprefix("python") if line.startswith("python ") else line


def peak_memory_bytes(device: "torch.device") -> int:
    """The most memory held at once: on a GPU what torch allocated there, else what the process had resident."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def portable(words: list[str], named: bool = True) -> list[str]:
    """The words of a command without what holds on one machine alone: its folders become DIR or FILE, or,
    where `named` is false, are left out."""
    shown = []
    for word in words:
        key = word.partition("=")[0]
        if key in PATH_PLACEHOLDERS and named:
            shown.append(f"{key}={PATH_PLACEHOLDERS[key]}")
        elif key not in PATH_PLACEHOLDERS and key not in LOCAL_KEYS:
            shown.append(word)
    return shown
