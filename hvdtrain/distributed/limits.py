"""How many files this process may have open: each connection to another worker is one, and 1,024 is a usual limit."""

import resource

SPARE_FILES = 512  # for everything else: images, logs, libraries
EACH = 2  # connections to each worker: Gloo's, or MPI's over TCP, and at rank 0 the watchdog's


def needed(size: int) -> int:
    """By a worker of `size`.

    >>> needed(1024)
    2560
    """
    return EACH * size + SPARE_FILES


def allow_open_files(count: int) -> int:
    """Raise this process's own limit as far as it may; returns how many files it may open, `count` at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return count if soft == resource.RLIM_INFINITY else min(count, soft)
