"""The family of errors a user may see: what came, what was allowed, what to do.

Every class derives from :class:`NnunetError`, so that a shell or a dock can show the sentence without a traceback and
let everything else (a bug) show its traceback.
"""

from __future__ import annotations


class NnunetError(Exception):
    """Something the user can understand and mend.

    Parameters
    ----------
    message : str
        One or more sentences: what came, what was allowed, what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class DatasetError(NnunetError):
    """A dataset.json, a case or a label does not hold what it should."""


class ImageError(NnunetError):
    """An image file or an array cannot be used as it is."""


class PlanError(NnunetError):
    """A plans.json asks for something unknown or contradictory."""


class ModelError(NnunetError):
    """A model folder or a checkpoint cannot be used."""


class ResourceError(NnunetError):
    """Disk, memory or device do not suffice."""


class TrainingError(NnunetError):
    """A training cannot go on; what it saved last is kept."""


class SettingsError(NnunetError):
    """A setting or an argument is outside what is allowed."""
