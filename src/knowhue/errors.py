"""The one root of every error that a user can mend: the command line prints it as one line."""


class KnowhueError(Exception):
    """Something the user asked for cannot be done; the message says why and how to mend it."""


class ConfigError(KnowhueError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class PictureError(KnowhueError):
    """The pictures cannot be used: none found, unreadable, one class, too few of one."""


class WeightsError(KnowhueError):
    """The pretrained weights of a base cannot be had or do not fit it."""


class RunError(KnowhueError):
    """A run folder cannot be written, read, or continued with these settings."""


class ExtraError(KnowhueError):
    """A feature needs a package that is an extra; the message gives the command that installs it."""
