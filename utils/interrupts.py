"""Stopping at a step's end when the user or the scheduler asks."""

import signal
import threading


class StopRequest:
    """Context in which Ctrl-C and SIGTERM only set `.asked`, so that a step is never left half done.

    A second Ctrl-C interrupts at once, unless `patient`: a launcher passes on what the terminal has sent to all processes
    already. Outside the main thread signals are left as they are.
    """

    def __init__(self, patient=False):
        self.asked, self.patient = False, patient
        self._previous = {}

    def _handle(self, number, _frame):
        if self.asked and number == signal.SIGINT and not self.patient:
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
