"""Which of a pool's workers gets a new request."""

import random

from chansup.relay.interface.worker import Worker


def emptiest(workers: list[Worker]) -> Worker | None:
    """Take a permit of the worker with the fewest WebSockets."""
    free = [worker for worker in workers if worker.has_permit]
    if not free:
        return None
    worker = min(free, key=lambda one: (one.load, one.used, random.random()))  # noqa: S311
    worker.used += 1
    return worker


def least_busy(workers: list[Worker]) -> Worker | None:
    """Take a permit of the worker with the fewest requests; of equals, the longest idle.

    `workers` are in that order, and are kept in it.
    """
    if len(workers) == 1:
        worker = workers[0]
        if worker.used >= worker.granted:
            return None
        worker.used += 1
        return worker
    place, fewest = -1, 0
    for index, worker in enumerate(workers):
        if worker.used < worker.granted and (place < 0 or worker.used < fewest):
            place, fewest = index, worker.used
    if place < 0:
        return None
    worker = workers[place]
    worker.used += 1
    del workers[place]
    workers.append(worker)
    return worker
