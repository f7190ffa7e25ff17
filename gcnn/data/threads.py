"""Work on batches in threads, for functions that release the GIL: Arrow, hashing, SentencePiece."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 3  # more would wait for the GIL, and hold more batches in memory

Batch = TypeVar("Batch")
Result = TypeVar("Result")


def in_threads(work: Callable[[Batch], Result], batches: Iterable[Batch]) -> Iterator[Result]:
    """The results of `work` on each batch, computed in threads, in the order of the batches.

    work: called in several threads at once. It gains time only where it releases the GIL.
    Batches are read in the calling thread as results are taken, at most THREADS + 1 ahead.
    An error of `work` is raised in place of its result. One in reading the batches is raised at
    once: the results of up to THREADS batches before it are lost. After an error, or when the
    iterator is closed, the threads finish the batches that were read and end.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        pending = deque()
        for batch in batches:
            pending.append(pool.submit(work, batch))
            if len(pending) > THREADS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
