"""What every other package builds on: flags, files, processes, devices, logging, tables; and the error for users."""


class UserError(ValueError):
    """Something that the user can mend: the message names the flag or file, the value, and the remedy.

    Commands print it as one line and exit with 2. Every other exception keeps its traceback.
    """


class FileError(UserError, OSError):
    """A file that cannot be read or written."""
