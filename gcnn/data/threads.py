"""Work on batches in threads, for functions that release the GIL: Arrow, hashing, SentencePiece."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 3  # more would wait for the GIL, and hold more batches in memory

Batch = TypeVar("Batch")
Result = TypeVar("Result")
Item = TypeVar("Item")


def in_threads(work: Callable[[Batch], Result], batches: Iterable[Batch]) -> Iterator[Result]:
    """The results of `work` on each batch, computed in threads, in the order of the batches.

    work: called in several threads at once. It gains time only where it releases the GIL.
    Batches are read in the calling thread as results are taken, at most THREADS + 1 ahead.
    An error of `work` is raised in place of its result, and one in reading the batches after the
    results of those before it. After an error, or when the iterator is closed, the threads finish
    the batches that were read and end.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        futures = (pool.submit(work, batch) for batch in batches)
        for future in read_ahead(futures, THREADS):
            yield future.result()


def read_ahead(items: Iterable[Item], ahead: int) -> Iterator[Item]:
    """The items in their order, each once `ahead` more are read, or all are.

    An error in reading the items is raised after those before it.
    """
    pending = deque()
    try:
        for item in items:
            pending.append(item)
            if len(pending) > ahead:
                yield pending.popleft()
    except Exception:  # not GeneratorExit, with which nobody takes the others
        yield from pending
        raise
    yield from pending
