"""Mistakes of the user, as opposed to faults of the program."""


class UserError(Exception):
    """Something the user can put right. The message is one line that names file, value and remedy.

    The command line prints it without a traceback and exits with code 2.
    """
