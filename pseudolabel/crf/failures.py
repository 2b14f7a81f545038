"""Errors of DenseCRF on a single image, as that image's failure."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pseudolabel.errors import LatticeOverflowError, SampleError, UserError

STATUS = "crf"


@contextmanager
def crf_failures(device: torch.device, option: str = "`crf.engine`") -> Iterator[None]:
    """Turn an error of the CRF, or of what goes into it, into a `SampleError` of status `crf`.

    Args:
        device: where the engine works.
        option: the setting of the engine, for the message.
    """
    try:
        yield
    except UserError:
        raise  # a setting concerns all images
    except (ValueError, MemoryError, torch.OutOfMemoryError) as error:
        raise crf_failure(error, device, option) from error


def crf_failure(error: Exception, device: torch.device, option: str = "`crf.engine`") -> SampleError:
    """The failure of the image with which the CRF raised this error; see `crf_failures`."""
    is_too_much = isinstance(error, LatticeOverflowError | torch.OutOfMemoryError)
    where = f" on {device}" if is_too_much else ""
    hint = f". {option} pydensecrf may" if is_too_much else ""
    return SampleError(STATUS, f"DenseCRF cannot take this image{where}: {str(error) or type(error).__name__}{hint}")
