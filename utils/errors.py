"""Errors that are the user's to mend, and the one place that prints them."""

import errno
import functools
import sys

# What the operating system refuses for the user's own reasons: no room, no permission, a name that cannot be.
REFUSALS = {
    *(errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
}


class UserError(ValueError):
    """Something the user gave is wrong: one sentence with what, where and what to do about it."""


def script(main):
    """Decorate a script's ``main(argv=None) -> None``: a user's mistake prints one sentence and exits with 2.

    `UserError` and the operating system's refusals are the user's; every other exception is ours and keeps its traceback. Ctrl-C
    outside of a training loop, which handles it itself, ends with one sentence and exit code 130.
    """

    @functools.wraps(main)
    def run(argv=None):
        try:
            return main(argv)
        except UserError as error:
            message = str(error)
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            message = f"{error.filename or 'a file'} cannot be used: {error.strerror}; free some space or choose another place."
        except KeyboardInterrupt:
            print("stopped; every file written so far is whole, a saved training goes on with --resume", file=sys.stderr)
            sys.exit(130)
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)

    return run
