"""Make a run directory of a checkpoint of fairseq's `fconv_lm`."""

from gcnn.commands.arguments import given_path, new_parser


def main() -> None:
    """Run `gcnn import-fairseq`: write the run directory OUT and print its path.

    Raises UsageError for invalid arguments, where OUT exists and is not an empty folder or its path
    is not UTF-8, and for a checkpoint or dictionary that cannot be imported; RunError or OSError
    where OUT cannot be written. OUT is then left as it was.
    """
    parser = new_parser(__doc__)
    parser.add_argument(
        "checkpoint",
        type=given_path,
        metavar="CHECKPOINT",
        help="fairseq's .pt file; nothing in it is run",
    )
    parser.add_argument(
        "dictionary", type=given_path, metavar="DICT", help="the dict.txt that it was trained with"
    )
    parser.add_argument("out", type=given_path, metavar="OUT", help="the run directory to write")
    arguments = parser.parse_args()
    from gcnn.interop.fairseq import import_fairseq

    import_fairseq(arguments.checkpoint, arguments.dictionary, arguments.out)
    print(f"run: {arguments.out.resolve()}")
