"""Errors that the user can fix: the command line prints them as one message, without a traceback."""


class UserError(Exception):
    """Something outside the code is wrong; the message names it, the value, and the fix.

    Attributes:
        exit_status: of the command that it ends.
    """

    exit_status = 1


class SettingError(UserError, ValueError):
    """A setting makes no sense, or none for this model; the message names it."""


class PathError(UserError, ValueError):
    """A path or URL cannot be used; the message names it."""
