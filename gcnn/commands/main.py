"""The command `gcnn`: gcnn train experiment=quickstart, gcnn score --run latest < sentences, ..."""

import sys
from importlib import import_module

from gcnn.base.errors import UsageError, nearest
from gcnn.base.process import run_command
from gcnn.base.provenance import version

COMMANDS = {
    "train": "train a model: experiment=NAME key=value ...",
    "sweep": "train a model for each combination of key=a,b ..., and write one table",
    "evaluate": "the exact perplexity of a run on a split or any text",
    "compare": "two runs on the same text: perplexities, an interval, where they differ",
    "score": "the log-probability of each line of standard input or of files",
    "tune-nbest": "the weights that rank n-best lists at the fewest word errors",
    "generate": "sample text from a run",
    "describe": "parameters, receptive field and operations of models beside Table 1",
    "data": "encode a corpus ahead of training",
    "push": "a run's model card, and its upload to the Hugging Face Hub",
    "report": "one page about runs, as HTML and Markdown",
    "import-fairseq": "make a run of fairseq's checkpoint",
    "benchmark": "latency of the paper's models or of runs",
    "benchmark-train": "training's speed, or its profile",
    "benchmark-softmax": "adaptive and full softmax at growing vocabularies",
    "benchmark-gpu": "tests, speed and a training on a GPU within some minutes, a JSON file a part",
    "benchmark-data": "speed and memory of preparing text",
    "benchmark-scoring": "speed and memory of scoring a corpus",
    "reproduce": "the paper's tables and figures, by their sweeps",
    "reproduce-report": "what they say of the paper's claims, as a page",
}


def main(name: str | None = None) -> None:
    """Run a command with the options in sys.argv and end the process with its exit code.

    name: of COMMANDS, or --help, --version; None: the first argument in sys.argv, which moves into
    sys.argv[0], as "gcnn NAME"; without any, --help. Never returns. Errors are printed to stderr in
    one line, with exit code 2 for usage and 1 for failures; a bug is raised (see `run_command`).
    """
    if name is None:
        name = sys.argv[1] if len(sys.argv) > 1 else "--help"
        sys.argv[:2] = [f"gcnn {name}"]
    run_command(lambda: run(name))


def run(name: str) -> int | None:
    """Run a command with the options in sys.argv[1:]; returns its exit code, None for 0.

    name: of COMMANDS, or --version or --help (also -h, help), which print. "sweep" is "train" with
    --multirun put into sys.argv. Raises UsageError for another name, and whatever the command
    raises.
    """
    if name == "--version":
        print(f"gcnn {version('gcnn') or 'from a checkout, not installed'}")
        return None
    if name in ("help", "--help", "-h"):
        print("gcnn COMMAND --help says more of each:\n")
        for command, summary in COMMANDS.items():
            print(f"  {command:18} {summary}")
        return None
    if name not in COMMANDS:
        raise UsageError(
            f"gcnn has no command {name!r}; choose one of: {', '.join(COMMANDS)}."
            f"{nearest(name, COMMANDS)}"
        )
    if name == "sweep":
        name = "train"
        sys.argv.insert(1, "--multirun")
    return import_module(f"gcnn.commands.{name.replace('-', '_')}").main()
