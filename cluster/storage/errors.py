"""Errors of storage that a user can fix, each one line with the URL and the remedy."""

from cluster.errors import UserError


class StorageError(UserError):
    """Storage cannot do what was requested."""


class MissingFileError(StorageError):
    """The file or object does not exist."""


class UnreachableError(StorageError):
    """Storage does not respond, or reports a temporary failure: a retry may succeed."""


class MachineError(StorageError):
    """This machine lacks what the work needs, such as space on a disk: neither a retry nor another input helps."""


class ReplacedError(StorageError):
    """The object was replaced while it was read."""
