"""Errors that are the user's to mend, warnings, and the one place that prints them."""

import contextlib
import errno
import functools
import math
import os
import signal
import sys
from pathlib import Path

from utils.interrupts import ending_signals, handling
from utils.memory import keep_freed_memory

# What the operating system refuses for the user's own reasons: no room, no permission, a name that cannot be, a disk that is gone.
REFUSALS = {
    *(errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP),
    *(errno.ENOENT, errno.EIO),
}
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # says nothing of the file that was opened
REFUSALS |= EXHAUSTED
ADVICE = dict.fromkeys((errno.ENOSPC, errno.EFBIG, errno.EDQUOT), "free some space, or choose another place")
ADVICE |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "change its permissions, or choose another")
ADVICE |= {errno.ENAMETOOLONG: "give a shorter name", errno.ENOENT: "check the name"}
ADVICE |= dict.fromkeys((errno.EMFILE, errno.ENFILE), "let more files be open (ulimit -n), or give less --num_workers")
ADVICE |= {errno.ENOMEM: "give less --num_workers or a smaller --batch_size"}


def warn(message):
    """Tell the user on stderr without stopping."""
    print(f"warning: {message}", file=sys.stderr)


class Warnings(list):
    """Messages that the user was told: as `warn` when called with one, which is then kept."""

    def __call__(self, message):
        warn(message)
        self.append(message)


class UserError(ValueError):
    """Something the user gave is wrong: one sentence with what, where and what to do about it."""

    exit_code = 2


def check_finite(numbers, step, advice, unit="step"):
    """Stop when a number of a training is none any more: what follows would be lost.

    Args:
        numbers: {name: float} at this step (or another unit). advice: what the last sentence says after the name and the step.
    Raises: UserError, naming the first that is infinite or not a number.
    """
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise UserError(f"{name} is not finite at {unit} {step}; {advice}")


def launched():
    """Whether a launcher such as torchrun has started this process as one of several."""
    return "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def refuse_several(what):
    """Inside `script`: exit code 2 and one sentence if a launcher has started several processes of `what`, which runs in one."""
    if launched():
        print(f"error: {what} runs in one process; start it with python, not with torchrun", file=sys.stderr)
        sys.exit(UserError.exit_code)


def script(main=None, *, several=False):
    """Decorate a script's ``main(argv=None) -> None``: a user's mistake prints one sentence and exits with 2.

    `UserError` and the operating system's refusals are the user's; every other exception is ours and keeps its traceback. Ctrl-C
    and SIGTERM outside of a training loop, which handles them itself, end with one sentence and exit code 130.

    Args:
        several: several processes (of torchrun, say) may share the script's work, and the first speaks for all; otherwise such a
            launch is refused.
    """
    if main is None:
        return functools.partial(script, several=several)

    @functools.wraps(main)
    def run(argv=None):
        keep_freed_memory()
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be any bytes
        try:
            with handling(signal.default_int_handler, *ending_signals()), _first_process_speaks():
                if not several:
                    refuse_several("this command")
                result = main(argv)
                if sys.stdout:  # None if it was closed from the beginning
                    sys.stdout.flush()
                return result
        except KeyboardInterrupt as error:
            with handling(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM), _first_process_speaks():
                print(f"stopped; {error if error.args else 'no file is half written, start the command again'}", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            message = _told(error)
            if message is None:
                raise
            print(f"error: {message}", file=sys.stderr)
            sys.exit(error.exit_code if isinstance(error, UserError) else UserError.exit_code)

    return run


def _told(error):
    """One sentence on an exception that the user, or the machine, is to blame for; None for one of ours."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, BrokenPipeError):
        return "what read the output has ended (head, say); write it to a file, and look at that" if _stdout_is_closed() else None
    if isinstance(error, OSError):
        if error.errno not in REFUSALS:
            return None
        place, advice = error.filename or "a file (or standard output)", ADVICE.get(error.errno, "choose another place")
        return f"{place} cannot be used: {error.strerror}; {advice}"
    if out_of_memory(error):
        return (
            "there is not enough memory; give a smaller --batch_size, --class_batch_size or --size, or (train.py) --width; "
            "train.py on a GPU needs less with --cuda_graphs False, too, also with --resume"
        )
    return None


def _stdout_is_closed():
    """Whether nobody reads standard output any more; it leads nowhere then, so that its end is no second error."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def out_of_memory(error):
    """Whether an exception is Python's, torch's or a GPU library's for memory that is not there."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(words in str(error) for words in ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED"))


@contextlib.contextmanager
def _first_process_speaks():
    """In all but the first process of a launcher, drop what is printed until an exception leaves this context."""
    if not launched() or os.environ["RANK"] == "0":
        yield
        return
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield
