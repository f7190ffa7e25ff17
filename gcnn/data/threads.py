"""Work on batches in threads: Arrow, hashing and SentencePiece let others run meanwhile."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 3  # more would wait for Python itself, and hold more batches in memory

Batch = TypeVar("Batch")
Result = TypeVar("Result")


def in_threads(work: Callable[[Batch], Result], batches: Iterable[Batch]) -> Iterator[Result]:
    """The results of `work` in the order of the batches, of which one for each thread is in memory, and the next."""
    with ThreadPoolExecutor(THREADS) as pool:
        pending = deque()
        for batch in batches:
            pending.append(pool.submit(work, batch))
            if len(pending) > THREADS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
