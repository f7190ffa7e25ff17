"""The provenance of a result: commit, machine, versions, and the command to repeat it."""

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import re
import resource
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcnn.base import torchrun
from gcnn.base.errors import RunError, UsageError, one_line

if TYPE_CHECKING:
    import torch

PATH_PLACEHOLDERS = {  # key -> what published commands show instead of the path
    "data.path": "DIR",
    "tokenizer.vocabulary": "FILE",
    "tokenizer.model": "FILE",
}
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
# Runs Python with the arguments that it gets, and prints in a last line the exit code and the
# resources used. On Linux a process begins with the peak memory of the one that starts it; this one
# is small. Its own end by Ctrl-C is silent, and Python in it handles the signal as ever.
CHILD = """
import json, resource, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
code = subprocess.call([sys.executable, *sys.argv[1:]])
print()
print(json.dumps([code, *resource.getrusage(resource.RUSAGE_CHILDREN)]), end="")
"""
LOCAL_KEYS = ("run_dir", "resume", "data.cache_dir", "logger")  # not in published commands


@cache
def git_commit() -> str | None:
    """The commit of the running code, 40 hexadecimal digits, with "+changes" if files differ.

    Files that git does not track do not count. None if the code does not run from a checkout or git
    fails. The first answer is kept for the whole process, since a checkout may change while its
    code runs: call it early.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # installed, perhaps inside a checkout of something else
        return None
    call = ["git", "-C", root, "describe"]
    call += ["--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    try:
        result = subprocess.run(call, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def hardware() -> dict[str, str | int | None]:
    """This machine, by the keys of `Hardware` in gcnn/runs/results.py. Imports torch.

    cpu: its name. cores: those that this process may use. threads: torch's, of the CPU. gpu: the
    current device's name; gpu_count: of visible ones. driver: as `gpu_driver` returns it. cudnn:
    torch's number for its version, as "90100". tf32: as `tf32` returns it. memory_bytes: main
    memory. platform: the operating system, as Python's `platform` writes it. Without a GPU,
    gpu_count is 0, and gpu, driver, cudnn and tf32 are None.
    """
    import torch  # here: importing it takes seconds, which commands without it save

    cores = os.cpu_count()
    if hasattr(os, "sched_getaffinity"):  # macOS does not have it
        cores = len(os.sched_getaffinity(0))
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "cpu": cpu_name(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if gpus else None,
        "gpu_count": gpus,
        "driver": gpu_driver() if gpus else None,
        "cudnn": str(torch.backends.cudnn.version()) if gpus else None,
        "tf32": tf32() if gpus else None,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "platform": platform.platform(),
    }


def gpu_driver() -> str | None:
    """The version of NVIDIA's driver, such as 580.65.06, which Linux has in NVIDIA_DRIVER.

    None if this file cannot be read or has no version.
    """
    try:
        text = NVIDIA_DRIVER.read_text()
    except OSError:
        return None
    found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)\s", text)
    return found[1] if found else None


def tf32() -> str:
    """For which float32 operations torch lets a GPU use TF32, which keeps 10 bits of the mantissa.

    "off", "products" (of matrices), "convolutions" or "products and convolutions". Imports torch.
    """
    from torch import backends

    allowed = []
    if backends.cuda.matmul.allow_tf32:
        allowed.append("products")
    if backends.cudnn.allow_tf32:
        allowed.append("convolutions")
    return " and ".join(allowed) or "off"


def cpu_name() -> str:
    """The CPU's model name if Linux has it; else `platform`'s processor name or architecture."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str | None]:
    """name -> version, as "3.11.2", of what results depend on; None for what is not installed.

    The names: python, gcnn, torch, datasets, sentencepiece, hydra-core and numpy.
    """
    found = {"python": platform.python_version()}
    for name in ("gcnn", "torch", "datasets", "sentencepiece", "hydra-core", "numpy"):
        found[name] = version(name)
    return found


def version(name: str) -> str | None:
    """The version of a package; None if it is not installed (gcnn in a checkout may not be)."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def made_with() -> dict[str, Any]:
    """The provenance entries of a result's JSON, by key. Imports torch.

    command, git_commit, hardware and versions: what the functions of these names return. processes:
    their number in the torchrun group. date: now, in UTC, ISO 8601 to the second.
    """
    return {
        "command": command(),
        "processes": torchrun.world_size(),
        "git_commit": git_commit(),
        "hardware": hardware(),
        "versions": versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def run_child(call: list[str]) -> tuple[str, resource.struct_rusage]:
    """Run this Python in a child process and wait; returns its stdout and the resources it used.

    call: Python's arguments, as a script and its options. The usage (ru_utime in seconds, ru_maxrss
    in KiB on Linux) includes the child's own children. ru_maxrss is the peak of the largest of
    them, without this process. stdin and stderr are those of this process, and there is no time
    limit. Raises RunError if the child's exit code is not 0, or a signal ended it.
    """
    measured = [sys.executable, "-c", CHILD, *call]
    process = subprocess.run(measured, stdout=subprocess.PIPE, text=True)
    code = process.returncode
    if code == 0:
        text, _, report = process.stdout.rpartition("\n")
        code, *used = json.loads(report)
    if code:
        raise RunError(f"{shlex.join(call)[:200]} failed with {code}. See its message above.")
    return text, resource.struct_rusage(used)


def command(arguments: list[str] | None = None) -> str:
    """The shell command that repeats this one (sys.argv), quoted, with the same torchrun layout.

    arguments: put in place of this command's own; None keeps them. A script is called by `python`,
    as in an activated environment; the console command by its name, or with several processes as
    `python -m torch.distributed.run ... -m -- gcnn`. For several machines it has their number, but
    not the address at which they meet.
    """
    if arguments is None:
        arguments = sys.argv[1:]
    installed = sys.argv[0].startswith("gcnn ")  # the console command and its subcommand
    program = sys.argv[0].split() if installed else sys.argv[:1]
    words = [*program, *arguments]
    if torchrun.world_size() == 1:
        if not installed:
            words.insert(0, "python")
        return shlex.join(words)
    machines = torchrun.machines()
    where = "--standalone" if machines == 1 else f"--nnodes={machines}"
    each = f"--nproc-per-node={torchrun.local_world_size()}"
    module = ["-m"] if installed else []
    return shlex.join(["python", "-m", "torch.distributed.run", where, each, *module, "--", *words])


def command_to_resume(run_dir: Path | None = None) -> str:
    """The shell command that resumes a run, to be called from the current folder.

    It is what `command` returns for other arguments. If that begins with `python`, this is replaced
    by the path of this process's Python, relative if it is below the current folder.
    run_dir: the arguments are run_dir=RUN_DIR resume=true; the stored config says the rest. None,
    for a sweep: the arguments are this process's own without any resume=, then resume=true.
    """
    if run_dir is None:
        arguments = [word for word in sys.argv[1:] if override_key(word) != "resume"]
    else:
        arguments = [f"run_dir={run_dir}"]
    line = command([*arguments, "resume=true"])
    here = os.path.relpath(sys.executable)
    python = sys.executable if here.startswith("..") else here
    if line.startswith("python "):  # works whether or not the environment is activated
        line = shlex.quote(python) + line.removeprefix("python")
    return line


def peak_memory_bytes(device: "torch.device") -> int:
    """The peak memory of this process so far, in bytes.

    For a GPU, the most that torch had allocated on it since its statistics were last reset.
    Otherwise the peak resident set size since the process began. It may be too large on a Linux
    whose /proc lacks it: the process then begins with the peak of the one that started it.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return 1024 * int(found[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform != "darwin":  # Linux counts KiB, macOS bytes
        peak *= 1024
    return peak


def override_key(word: str) -> str:
    """The key of an override such as key=value, also of +key=value and ++key=value, as Hydra has.

    A word without "=" is all key.
    """
    return word.partition("=")[0].lstrip("+")


def words_of(line: str | None, where: object) -> list[str]:
    """The words of a stored shell command, as of results.json; [] if `line` is None.

    where: the file it is from, for the message. Raises UsageError if a quote in it is not closed.
    """
    try:
        return shlex.split(line or "")
    except ValueError as error:
        raise UsageError(
            f"{where}: the command {line!r} cannot be read ({one_line(error)}). Correct it there."
        ) from None


def portable(words: list[str]) -> list[str]:
    """The words of a command without the paths of its data, tokenizer, cache and run directory.

    For publication, since these paths hold on one machine alone. Returns a new list.
    words: such as key=value, +key=value and ++key=value. data.path, tokenizer.vocabulary and
    tokenizer.model become key=DIR or key=FILE, without a +. run_dir, resume, data.cache_dir and
    logger are left out. All other words stay as they are, also paths in data.files and init_from.
    """
    shown = []
    for word in words:
        key = override_key(word)
        if key in PATH_PLACEHOLDERS:
            shown.append(f"{key}={PATH_PLACEHOLDERS[key]}")
        elif key not in LOCAL_KEYS:
            shown.append(word)
    return shown
