"""What a number was made with: commit, machine, versions, command."""

import importlib.metadata
import os
import platform
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import torch


def git_commit() -> str | None:
    """The commit of the code that runs, marked where files differ from it; None outside a checkout."""
    root = Path(__file__).parent.parent
    try:
        commit = subprocess.run(
            ["git", "-C", root, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"],
            capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip()


def hardware() -> dict[str, str | int | None]:
    """cpu, cores, threads, gpu, memory_bytes, platform."""
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "platform": platform.platform(),
    }


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    names = ("gcnn", "torch", "datasets", "sentencepiece", "hydra-core", "numpy")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def command() -> str:
    return shlex.join(["python", *sys.argv])


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory held at once: on a GPU what torch allocated there, else what the process had resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
