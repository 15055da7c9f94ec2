"""Memory of the CPU that is freed is kept for the next tensors."""

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # parameters of glibc's mallopt


def keep_freed_memory():
    """Let glibc give tensors memory that others have left, instead of asking the system for new pages, cleared, for each.

    For large tensors that is its default, and took up to half of the time. Left alone where the environment sets MALLOC_... .
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)
