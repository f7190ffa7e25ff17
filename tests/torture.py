"""Torture of training: `make torture`, about 15 minutes on two cores.

A real training run, of a small GCNN on Shakespeare, is killed with SIGKILL at 50 random moments, a
third of them while a checkpoint is being written and a tenth while it starts; resumed each time;
and compared with a run that was not disturbed. Then the same with signals, with runs that turn back
to an older checkpoint, with full and read-only disks, and with 50 damaged checkpoints. Prints a
Markdown table and writes it as JSON to --out. Exits with 1 if anything was lost.
"""

import argparse
import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import safetensors.torch
import torch

from gcnn.base.errors import RunError
from gcnn.base.files import write_json
from gcnn.base.provenance import git_commit, hardware
from gcnn.config.stored import load_config
from gcnn.data.tokenizers import load_tokenizer
from gcnn.models.language_model import build_model
from gcnn.training.checkpoints import BEST, MANIFEST, STATE, WEIGHTS, Checkpoints

ROOT = Path(__file__).parents[1]
STEPS = 1200
ARGUMENTS = (
    "experiment=quickstart",
    "device=cpu",
    "threads=1",
    "model.embedding_dim=32",
    "model.blocks=[{convs:[[4,64]]}]",
    "trainer.batch_size=4",
    "trainer.block_size=32",
    f"trainer.max_steps={STEPS}",
    "trainer.max_minutes=null",
    "trainer.checkpoint_every=10",
    "trainer.validate_every=100",
    "trainer.log_every=1",
    "trainer.keep_checkpoints=3",
)
HEADER = ("what was done", "cases", "detected", "lost")


def start(run: Path, *arguments: str) -> subprocess.Popen:
    """Start training into `run`, with further overrides; stderr is a pipe of text."""
    command = [
        sys.executable,
        str(ROOT / "scripts" / "train.py"),
        *ARGUMENTS,
        f"run_dir={run}",
        *arguments,
    ]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def finish(run: Path) -> None:
    """Train a run to its end, from its newest checkpoint on; exits with its stderr if it fails."""
    process = start(run, "resume=true")
    _, err = process.communicate()
    if process.returncode:
        sys.exit(f"{run}: exit code {process.returncode}\n{err}")


def steps(run: Path) -> int:
    """The last step in a run's metrics; 0 if there are none or a line is cut short."""
    try:
        lines = (run / "metrics.jsonl").read_text().splitlines()
        return max(json.loads(line)["step"] for line in lines[-3:])
    except (OSError, ValueError):
        return 0


def wait_until(process: subprocess.Popen, condition, pause: float = 0.001) -> None:
    """Wait until condition() is true or the process has ended, asking every `pause` seconds."""
    while process.poll() is None and not condition():
        time.sleep(pause)


def writing(run: Path) -> list[Path]:
    """The folders of a run's checkpoints that are being written, or whose writing was cut short."""
    return list((run / "checkpoints").glob(".step_*.tmp"))


def differences(first: Path, second: Path) -> list[str]:
    """What differs between two finished runs: names of parts; empty if they are the same.

    Compared are all weights, the last training state, metrics without times, and perplexities.
    """

    def timeless(run: Path) -> list[dict]:
        lines = (run / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if "second" not in k} for line in lines]

    def weights(run: Path) -> list[dict]:
        files = [run / WEIGHTS, *sorted((run / "checkpoints").glob(f"step_*/{WEIGHTS}"))]
        return [safetensors.torch.load_file(file) for file in files]

    def moments(run: Path) -> list[torch.Tensor]:
        (*_, last) = sorted((run / "checkpoints").glob("step_*"))
        state = torch.load(last / STATE, weights_only=True)
        return [
            *state["random"],
            *(t for s in state["optimizer"]["state"].values() for t in s.values()),
        ]

    def perplexities(run: Path) -> list[dict]:
        results = json.loads((run / "results.json").read_text())
        return [results["validation"], results["test"]]

    pairs = zip(weights(first), weights(second), strict=True)
    same = {
        "weights": all(
            a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a) for a, b in pairs
        ),
        "training state": all(
            a.equal(b) for a, b in zip(moments(first), moments(second), strict=True)
        ),
        "metrics.jsonl": timeless(first) == timeless(second),
        "results": perplexities(first) == perplexities(second),
    }
    return [what for what, equal in same.items() if not equal]


def disturb(whole: Path, run: Path, kinds: list[str], draw: random.Random) -> list[list]:
    """Kill a run once for each of `kinds`, in their order, resume it each time, and let it end.

    whole: an undisturbed run, to compare with. run: a folder, made here. draw: for the moments.
    kinds: names of signals, or "killed in a step" and the like (see `main`), which are SIGKILLs.
    Returns rows of HEADER, a row a kind and one of the comparison; exits on a wrong exit code.
    """
    hit = dict.fromkeys(kinds, 0)
    cut_short = 0
    # Each death is after at least so many steps.
    targets = sorted(draw.sample(range(5, STEPS - 20), len(kinds)))
    for kind, target in zip(kinds, targets, strict=True):
        process = start(run, "resume=true")
        if kind == "killed while starting":
            time.sleep(draw.uniform(0.2, 5))
        else:
            wait_until(process, lambda target=target: steps(run) >= target, 0.01)
        if kind == "killed while writing a checkpoint":
            wait_until(process, lambda: writing(run))
            time.sleep(draw.uniform(0, 0.01))
        elif kind == "killed in a step":
            time.sleep(draw.uniform(0, 0.1))
        number = {
            "SIGTERM": signal.SIGTERM,
            "SIGINT": signal.SIGINT,
            "SIGUSR1": signal.SIGUSR1,
        }.get(kind)
        process.send_signal(number or signal.SIGKILL)
        process.communicate()
        if process.returncode != (128 + number if number else -signal.SIGKILL):
            sys.exit(f"{kind}: exit code {process.returncode}")
        hit[kind] += 1
        cut_short += bool(writing(run))
        print(
            f"  {kind} after step {steps(run)}{', cut short' if writing(run) else ''}",
            file=sys.stderr,
            flush=True,
        )
    finish(run)
    found = differences(whole, run)
    print(f"  differences: {found or 'none'}", file=sys.stderr)
    rows = [[f"{kind}, then resumed", count, count, ""] for kind, count in hit.items()]
    total = (
        f"the end of those {len(kinds)} ({cut_short} left a checkpoint cut short): weights, "
        "state, metrics, results"
    )
    return [*rows, [f"{total} that differ from an undisturbed run's", 4, "", len(found)]]


def turned_back(whole: Path, folder: Path, cases: int, draw: random.Random) -> tuple[int, int, int]:
    """Have copies of `whole` go on from their oldest checkpoint with another learning rate.

    One is not disturbed; `cases` others are killed up to two seconds after they have stored the new
    config, and resumed. Copies are put into `folder`. Returns cases, detected (killed before their
    end) and lost (ended differently from the first); exits if a run that is not killed fails.
    """

    def arguments(run: Path) -> list[str]:
        older = min((run / "checkpoints").glob("step_*"))
        return [f"resume={older}", "optimizer.lr=0.001", f"trainer.max_steps={STEPS + 60}"]

    def finished_branch(run: Path, *changes: str) -> None:
        process = start(run, *changes)
        _, err = process.communicate()
        if process.returncode:
            sys.exit(f"{run}: exit code {process.returncode}\n{err}")

    branch = Path(shutil.copytree(whole, folder / "branch"))
    finished_branch(branch, *arguments(branch))
    detected = lost = 0
    for i in range(cases):
        run = Path(shutil.copytree(whole, folder / f"branch_{i}"))
        process = start(run, *arguments(run))
        wait_until(process, lambda run=run: load_config(run).optimizer.lr == 0.001)
        time.sleep(draw.choice([0, draw.uniform(0, 0.05), draw.uniform(0, 2)]))
        process.kill()
        process.communicate()
        detected += process.returncode == -signal.SIGKILL
        print(f"  turned back, then killed after step {steps(run)}", file=sys.stderr, flush=True)
        finished_branch(run, "resume=true", f"trainer.max_steps={STEPS + 60}")
        lost += bool(differences(branch, run))
        shutil.rmtree(run)
    return cases, detected, lost


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount a disk of `size` bytes at `folder`, which must not exist; raises as `mount` does."""
    folder.mkdir()
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def mount(*arguments: str | Path) -> None:
    """Call mount(8). Raises CalledProcessError, with its stderr, if this user may not."""
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def one_line_and_1(process: subprocess.Popen) -> bool:
    """Wait for a process; whether it ended with exit code 1 and one line "error: ..." on stderr."""
    _, err = process.communicate()
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    print(f"  exit code {process.returncode}, {errors}", file=sys.stderr)
    return process.returncode == 1 and len(errors) == 1 and "Traceback" not in err


def full_disks(whole: Path, folder: Path) -> tuple[int, int, int]:
    """Train on disks in `folder` that fill up after the first checkpoints; enlarge them, resume.

    Returns cases, detected (by a one-line error), lost (unlike `whole`); raises as `mount` does.
    """
    files = next((whole / "checkpoints").glob("step_*")).iterdir()
    # Without the best one, which is a link and takes no room.
    checkpoint = sum(file.stat().st_size for file in files if file.name != BEST)
    sizes = [int(checkpoint * part) for part in (2.2, 2.6, 3.1, 3.4, 3.7, 4.1)]
    detected = lost = 0
    for i, size in enumerate(sizes):
        with small_disk(folder / f"full_{i}", size) as disk:
            detected += one_line_and_1(start(disk / "run"))
            mount("-o", "remount,size=100%", disk)
            finish(disk / "run")
            lost += bool(differences(whole, disk / "run"))
    return len(sizes), detected, lost


def read_only_folders(whole: Path, folder: Path, draw: random.Random) -> tuple[int, int, int]:
    """Make the checkpoints read-only while a run in `folder` trains, then writable, and resume it.

    Returns the same, and raises the same, as `full_disks`.
    """
    detected = lost = 0
    for i in range(3):
        run = folder / f"read_only_{i}"
        target = draw.randrange(20, STEPS // 2)
        checkpoints = run / "checkpoints"
        process = start(run)
        wait_until(process, lambda run=run, target=target: steps(run) >= target, 0.01)
        mount("--bind", checkpoints, checkpoints)
        try:
            mount("-o", "remount,bind,ro", checkpoints)
            detected += one_line_and_1(process)
        finally:
            subprocess.run(["umount", checkpoints], check=True)
        finish(run)
        lost += bool(differences(whole, run))
    return 3, detected, lost


def damaged_checkpoints(
    whole: Path, folder: Path, draw: random.Random
) -> dict[str, tuple[int, int, int]]:
    """Truncate the newest checkpoint of a copy of `whole`, or flip one of its bits, and load it.

    Returns title -> cases, detected (the one before it was loaded instead), lost (it was not).
    """
    config = load_config(whole)
    run = folder / "damaged"
    model = build_model(config.model, load_tokenizer(whole / "tokenizer").vocabulary_size)
    manifest = json.loads(next((whole / "checkpoints").iterdir()).joinpath(MANIFEST).read_text())
    rows = {}
    for what in ("truncated", "with a flipped bit"):
        detected = lost = 0
        for i in range(25):
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(whole / "checkpoints", run / "checkpoints")
            checkpoints = Checkpoints(run, manifest["identity"], keep=3)
            *_, before, newest = checkpoints.all()
            file = newest / (WEIGHTS, STATE, MANIFEST)[i % 3]
            content = bytearray(file.read_bytes())
            if what == "truncated":
                del content[draw.randrange(len(content)) :]
            else:
                bit = draw.randrange(8 * len(content))
                content[bit // 8] ^= 1 << bit % 8
            file.write_bytes(content)
            try:
                path, state = checkpoints.load_newest(model)
            except RunError:
                path, state = None, {}
            expected = safetensors.torch.load_file(before / WEIGHTS)
            fell_back = path == before and all(
                t.equal(expected[n]) for n, t in model.state_dict().items()
            )
            detected += fell_back
            lost += not fell_back or state["progress"]["step"] != int(
                before.name.removeprefix("step_")
            )
        rows[f"checkpoint {what}"] = (25, detected, lost)
    return rows


def markdown(rows: list[list]) -> str:
    """The table of HEADER and these rows, as Markdown."""
    lines = [HEADER, ("---",) * len(HEADER), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def main() -> None:
    """Run the torture that the options ask for, print its table, and write it to --out.

    Exits with 1 if anything was lost or not detected. --turns-only writes nothing and exits with
    the number lost.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1, help="of the random moments; default: 1")
    parser.add_argument("--kills", type=int, default=50, help="default: 50")
    parser.add_argument("--turns", type=int, default=10, help="to an older one; default: 10")
    parser.add_argument("--turns-only", action="store_true", help="nothing else")
    parser.add_argument("--out", type=Path, help="a JSON file for the table")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    began = time.monotonic()
    kinds = ["killed in a step"] * 3 + ["killed while writing a checkpoint"] * 2
    kinds = [
        kinds[i % 5] if i % 10 != 9 else "killed while starting" for i in range(arguments.kills)
    ]
    with tempfile.TemporaryDirectory(prefix="gcnn_torture_") as temporary:
        folder = Path(temporary)
        whole = folder / "whole"
        finish(whole)
        turned = turned_back(whole, folder, arguments.turns, draw)
        rows = [["turned back to an older checkpoint, killed, then resumed", *turned]]
        if arguments.turns_only:
            print(markdown(rows))
            sys.exit(turned[2])
        for title, disturbances in (
            ("SIGKILL", kinds),
            ("signal", ["SIGTERM", "SIGINT", "SIGUSR1"] * 3),
        ):
            rows += disturb(whole, folder / title, disturbances, draw)
        try:
            rows.append(["disk full, then freed and resumed", *full_disks(whole, folder)])
            read_only = read_only_folders(whole, folder, draw)
            rows.append(["folder read-only, then mended and resumed", *read_only])
        except subprocess.CalledProcessError as error:
            rows.append(
                [f"disk full or read-only: not tried ({error.stderr.decode().strip()})", 0, "", ""]
            )
        rows += [[name, *row] for name, row in damaged_checkpoints(whole, folder, draw).items()]
    seconds = time.monotonic() - began
    print(markdown(rows) + f"\n{seconds / 60:.1f} minutes, seed {arguments.seed}")
    if arguments.out:
        about = {
            "git_commit": git_commit(),
            "hardware": hardware(),
            "seed": arguments.seed,
            "seconds": seconds,
        }
        write_json(arguments.out, {**about, "header": HEADER, "rows": rows})
    went_wrong = any(row[-1] or row[2] not in ("", row[1]) for row in rows)
    sys.exit(1 if went_wrong else 0)


if __name__ == "__main__":
    main()
