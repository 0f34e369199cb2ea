"""User errors, as opposed to bugs in the program."""


class UserError(Exception):
    """Invalid input that the user can fix. The message is one line that names the file, the value and the remedy.

    The command line prints it without a traceback and exits with code 2.
    """
