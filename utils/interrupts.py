"""Ctrl-C and SIGTERM: a training stops at a step's end, everything else at once, and says how to go on."""

import contextlib
import signal
import sys
import threading

from utils.locks import let_go


@contextlib.contextmanager
def handling(handler, *numbers):
    """Context in which `handler` answers these signals; outside the main thread they are left as they are."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def ending_signals():
    """What asks a process to end beside Ctrl-C: SIGTERM, and SIGHUP (its terminal is gone) unless that is ignored, as by nohup."""
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    lasting = hangup is None or signal.getsignal(hangup) is signal.SIG_IGN
    return (signal.SIGTERM,) if lasting else (signal.SIGTERM, hangup)


class StopRequest:
    """Context in which Ctrl-C and `ending_signals` only set `.asked`, so that a step is never left half done.

    A second Ctrl-C interrupts at once, unless `patient`: a launcher passes on what the terminal has sent to all processes
    already.
    """

    def __init__(self, patient=False):
        self.asked, self.patient = False, patient
        self._handling = handling(self._handle, signal.SIGINT, *ending_signals())

    def _handle(self, number, _frame):
        if self.asked and number == signal.SIGINT and not self.patient:
            raise KeyboardInterrupt
        self.asked = True

    def __enter__(self):
        self._handling.__enter__()
        return self

    def __exit__(self, *error):
        self._handling.__exit__(*error)


class _Ended(BaseException):
    """What `heard` raises inside the library."""


@contextlib.contextmanager
def heard():
    """Context for a library's call that catches KeyboardInterrupt and goes on: Ctrl-C and `ending_signals` end it all the same."""

    def end(_number, _frame):
        raise _Ended

    interrupting = [n for n in (signal.SIGINT, *ending_signals()) if signal.getsignal(n) is signal.default_int_handler]
    try:
        with handling(end, *interrupting):
            yield
    except _Ended:
        raise KeyboardInterrupt from None


def to_resume(overwrite):
    """What the same command needs to go on, in words; `overwrite` is whether it had that option."""
    return "--resume instead of --overwrite" if overwrite else "--resume"


def exit_stopped(step, overwrite, processes):
    """End a training that was asked to stop, after its checkpoint is written: how to go on, and exit code 130."""
    print(f"stopped after step {step}; go on with the same command and {to_resume(overwrite)}")
    processes.wait()  # a launcher ends the others as soon as one has ended
    sys.exit(130)


@contextlib.contextmanager
def leaving(folder, option):
    """Context in which a command fills a folder: if it is interrupted, the last sentence says what is kept and how to go on.

    Args:
        folder: its path.
        option: `to_resume` or "--overwrite", what the same command then needs; "" for nothing. A function is asked when it happens.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not folder.exists():
            raise
        option = option() if callable(option) else option
        verb = "starts anew" if option == "--overwrite" else "goes on"
        words = f"every file in {folder} is whole, and the same command{f' with {option}' if option else ''} {verb}"
        raise KeyboardInterrupt(words) from None
    finally:
        let_go()
