"""Reading ahead: threads prepare what comes next while the caller works on what is there."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor


def read_ahead(read, parts, num_workers=0):
    """Yield read(part) for each of `parts`, in their order.

    Args:
        read: function that may run in several threads at once (files are decoded outside Python's lock); what it raises is raised
            here in its turn.
        parts: iterable.
        num_workers: threads, at most 2 * num_workers + 1 results waiting; 0 reads each part when it is asked for.
    """
    if not num_workers:
        yield from map(read, parts)
        return
    pool, ahead = ThreadPoolExecutor(num_workers), deque()
    try:
        for part in parts:
            ahead.append(pool.submit(read, part))
            if len(ahead) > 2 * num_workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
