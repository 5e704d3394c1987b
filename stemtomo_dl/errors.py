"""What is raised when the user's input, not the program, is wrong."""

from __future__ import annotations


class InputError(Exception):
    """The input is wrong; the message is one line: what, where, what to do.

    The command prints the message on stderr and exits with status 2.
    """


class BadScan(InputError):
    """One scan of a series cannot be used; ``--skip-bad`` goes on without it."""
