import dataclasses
from pathlib import Path

from gcnn.reproduction.figures import describe_size
from gcnn.reproduction.records import load_records

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "reproduction"


def test_the_size_is_that_of_what_is_finished_where_each_rate_has_diverged_at_the_seeds_in_common():
    record = load_records(RESULTS)["cpu"]["fig3"]
    none = {"test_perplexity": {}, "validation_perplexity": {}, "mean": None, "diverged": [1]}
    diverged = dataclasses.replace(record.groups[0], variant="1", lr=1.0, **none)
    one = {
        "test_perplexity": {"2": 5.0},
        "validation_perplexity": {"2": 5.0},
        "mean": 5.0,
        "diverged": [1],
    }
    done = dataclasses.replace(record.groups[0], **one)
    assert describe_size(dataclasses.replace(record, groups=[diverged, done])).endswith("; 1 seed")
