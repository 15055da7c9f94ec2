"""Stopping at a step's end when the user or the scheduler asks."""

import signal
import threading


class StopRequest:
    """Context in which Ctrl-C and SIGTERM only set `.asked`, so that a step is never left half done.

    A second Ctrl-C interrupts at once. Outside the main thread signals are left as they are.
    """

    def __init__(self):
        self.asked = False
        self._previous = {}

    def _handle(self, number, _frame):
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_error):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
