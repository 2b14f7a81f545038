"""Every exception class of the package; `ShardError` is pseudolabel's."""

from pseudolabel.errors import UserError


class ConfigError(UserError):
    """A config is missing or cannot be used."""


class ImageError(UserError, ValueError):
    """An image or its mask cannot be used for training or scoring; the message names the file."""


class PredictionNameError(UserError):
    """Two images' predictions would be written to one file."""


class WeightsError(UserError):
    """Weights are missing, unreadable, or belong to another model."""
