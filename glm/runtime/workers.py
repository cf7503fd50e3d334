"""Worker processes that end with the process that started them, however it ends."""

import ctypes
import multiprocessing
import os
import signal

PR_SET_PDEATHSIG = 1  # from Linux's prctl.h


def end_with_run(worker: int) -> None:
    """Makes a worker end when the run ends, however that ends; called in the worker.

    Paddle's workers are meant to check for their parent every few seconds, but block while they wait for work.
    """
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        pass  # not Linux
    if multiprocessing.parent_process() is not None and os.getppid() != multiprocessing.parent_process().pid:
        os._exit(1)  # the parent has exited already
