"""Score the lines of standard input: `scripts/score.py --run DIR < sentences`, the same as `gcnn-score`."""

from gcnn.evaluation.score_command import main

if __name__ == "__main__":
    main()
