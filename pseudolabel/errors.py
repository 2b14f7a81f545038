"""Every exception class of the package.

`UserError` and its subclasses concern a whole command: the command line prints them as one message, without a
traceback. `SampleError` concerns one sample; the run continues with the others.
"""

USAGE_EXIT = 2
"""Exit status of a command whose options, or the settings in its experiment file, cannot be used."""

FAILED_SAMPLES_EXIT = 3
"""Exit status of a command that ended, but could not handle every sample."""


class UserError(Exception):
    """Something outside the code is wrong; the message names it, the value, and the fix.

    Attributes:
        exit_status: of the command that it ends.
    """

    exit_status = 1


class SettingError(UserError, ValueError):
    """A setting is invalid, or invalid for this model; the message names it."""

    exit_status = USAGE_EXIT


class DeviceMemoryError(UserError):
    """The device's memory is full; the message names the settings to reduce."""


class PathError(UserError, ValueError):
    """A path or URL cannot be used; the message names it."""

    exit_status = USAGE_EXIT


class SourceError(UserError, ValueError):
    """The list of images cannot be made: a missing folder or file, a broken table, a repeated key."""


class NoLabelsError(SourceError):
    """None of a source's labels is a class of the vocabulary, or there are none."""


class ImageListError(UserError, ValueError):
    """An image list is missing, is not text, is empty, or names an image twice."""


class ParquetError(UserError, ValueError):
    """A file is not Parquet, is damaged, or cannot be read here."""


class VocabularyError(UserError, ValueError):
    """A vocabulary file or a class name cannot be used."""

    exit_status = USAGE_EXIT


class ModelError(UserError):
    """A model cannot be loaded; the message says what to try."""


class MethodError(UserError):
    """A method of the user's own does not do what the registry asks for; the message names the method and the fix."""


class ShardError(UserError, ValueError):
    """Shards cannot be read; the message names the shard and the fix."""


class OutputError(UserError):
    """The output folder cannot be used; the message names what is kept and what to do."""


class FullDiskError(OutputError):
    """Nothing more can be written: the file system is full, or read-only."""


class NotOursError(OutputError):
    """A file that this package did not write would be overwritten."""


class NoCamsError(UserError):
    """There are no class activation maps to refine, or not all of them."""


class StoppedError(UserError):
    """The work was stopped from outside."""


class NothingScoredError(SourceError):
    """There are predictions and ground truth, but no image has both."""

    exit_status = FAILED_SAMPLES_EXIT


class NoRecordError(UserError):
    """A folder holds no job's records."""


class SampleError(Exception):
    """One sample cannot be handled; a stage turns it into a `Failure`.

    Attributes:
        status: a short word that ledgers count, such as `missing`.
    """

    def __init__(self, status: str, message: str) -> None:
        """Say what to fix in `message`."""
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type["SampleError"], tuple[str, str]]:
        """Both arguments, so that it can be pickled in worker processes."""
        return type(self), (self.status, str(self))


class LatticeOverflowError(ValueError):
    """There are too many points, or a lattice too large, for the integers that number its vertices."""
