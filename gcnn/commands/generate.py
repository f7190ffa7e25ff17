"""Sample text from a trained model: `gcnn generate --run DIR --prompt TEXT`."""

import argparse
import sys

from gcnn.evaluation.generation import Sampling, generate
from gcnn.evaluation.run import add_run_argument, load_model
from gcnn.files import write_json


def main() -> None:
    arguments = parse_arguments()
    sampling = Sampling(arguments.temperature, arguments.top_k, arguments.seed)
    run = load_model(arguments.run)
    texts = generate(run.model, run.tokenizer, arguments.prompt, arguments.tokens, arguments.samples, sampling)
    sys.stdout.reconfigure(encoding="utf-8")
    print("\n---\n".join(texts), flush=True)
    if arguments.save:
        settings = {"temperature": sampling.temperature, "top_k": sampling.top_k}
        samples = [{"prompt": arguments.prompt, "text": text, **settings} for text in texts]
        write_json(arguments.run / "samples.json", samples)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Sample text from a trained model. <unk> is never sampled.")
    add_run_argument(parser)
    parser.add_argument(
        "--prompt", default="", metavar="TEXT",
        help="the text to continue, its unknown words read as <unk>; default: none, the start of a text",
    )  # fmt: skip
    parser.add_argument("--tokens", type=int, default=100, metavar="N", help="tokens to add; default: %(default)s")
    parser.add_argument(
        "--temperature", type=float, default=1.0, metavar="T",
        help="below 1 likely tokens become likelier, 0 always takes the likeliest; default: %(default)s",
    )  # fmt: skip
    parser.add_argument("--top-k", type=int, metavar="K", help="sample from the K likeliest types; default: from all")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the draws; default: %(default)s")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="texts to sample; default: %(default)s")
    parser.add_argument(
        "--save", action="store_true", help="also write samples.json into the run; default: print alone"
    )
    return parser.parse_args()
