"""Sample text from a trained model. <unk> is never sampled."""

import argparse
import sys

from gcnn.base.files import write_json
from gcnn.commands.arguments import add_device, add_run, add_threads, new_parser, set_threads
from gcnn.runs.directory import SAMPLES


def main() -> None:
    """Run `gcnn generate`: print the samples, each with its prompt, with lines `---` between them.

    With --save it also writes samples.json into the run, an existing one replaced: a list with the
    prompt, text, temperature and top_k (null: all types) of each. Sets torch's threads. Raises
    UsageError for settings out of range, a prompt that is not UTF-8 and a run that cannot be
    loaded; RunError for damaged weights or a failed download; OSError where samples.json cannot be
    written, after the samples are printed.
    """
    arguments = parse_arguments()
    from gcnn.evaluation.generation import Sampling
    from gcnn.evaluation.scoring import Scorer

    settings = {"temperature": arguments.temperature, "top_k": arguments.top_k}
    Sampling(**settings, seed=arguments.seed)  # invalid settings fail before the model is loaded
    set_threads(arguments.threads)
    model = Scorer.from_run(arguments.run, arguments.device)
    texts = model.generate(
        arguments.prompt, arguments.tokens, arguments.samples, **settings, seed=arguments.seed
    )
    sys.stdout.reconfigure(encoding="utf-8")
    print("\n---\n".join(texts), flush=True)
    if arguments.save:
        samples = [{"prompt": arguments.prompt, "text": text, **settings} for text in texts]
        write_json(arguments.run / SAMPLES, samples)


def parse_arguments() -> argparse.Namespace:
    """The options of `gcnn generate`, from sys.argv; `main` checks the ranges of the numbers.

    `top_k` and `threads` are None where they are not given. The run is found, maybe downloaded, and
    errors raised for it, as `add_run` says. Raises UsageError for an invalid option.
    """
    parser = new_parser(__doc__, "a prompt is typed as --prompt TEXT")
    add_run(parser)
    help = (
        "the text to continue, its unknown words read as <unk>; default: none, the start of a text"
    )
    parser.add_argument("--prompt", default="", metavar="TEXT", help=help)
    parser.add_argument(
        "--tokens", type=int, default=100, metavar="N", help="tokens to add; default: %(default)s"
    )
    help = (
        "below 1 likely tokens become likelier, 0 always takes the likeliest; default: %(default)s"
    )
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help=help)
    parser.add_argument(
        "--top-k",
        type=int,
        metavar="K",
        help="sample from the K likeliest types; default: from all",
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="S", help="random seed; default: %(default)s"
    )
    parser.add_argument(
        "--samples", type=int, default=1, metavar="N", help="texts to sample; default: %(default)s"
    )
    help = "also write samples.json into the run, for its report; default: only print"
    parser.add_argument("--save", action="store_true", help=help)
    add_device(parser)
    add_threads(parser)
    return parser.parse_args()
