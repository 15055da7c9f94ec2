"""Errors that are the user's to mend, and the one place that prints them."""

import errno
import functools
import sys


class UserError(ValueError):
    """Something the user gave is wrong: one sentence with what, where and what to do about it."""


def script(main):
    """Decorate a script's ``main(argv=None) -> None``: a user's mistake prints one sentence and exits with 2.

    `UserError` and the operating system's refusals (no space, no permission, file too large) are the user's; every other
    exception is ours and keeps its traceback.
    """

    @functools.wraps(main)
    def run(argv=None):
        try:
            return main(argv)
        except UserError as error:
            message = str(error)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            message = f"{error.filename or 'a file'} cannot be used: {error.strerror}; free some space or choose another place."
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)

    return run
