"""Read `.npy` files of other programs, pickled dictionaries of arrays included, without running code that they name."""

import io
import math
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from pseudolabel.errors import SampleError
from pseudolabel.io.images import decoding

UNSAFE = "unsafe"  # status of a file whose pickle names something else than arrays
_LARGEST_LIST = 256  # arrays in a list; a short pickle can name one array a million times
_NUMBERS = re.compile(r"(b1|[iu][1248]|f[248])")


def read_npy(data: bytes, origin: str) -> Any:
    """Decode a `.npy` file.

    NumPy stores a dictionary as a pickle. This reads pickles of arrays, and of PyTorch's tensors, which IRNet stores,
    and rebuilds them itself: no function or class that the file names is ever called.

    Args:
        data: the file's bytes.
        origin: its name, for messages.

    Returns:
        An array; or a dictionary of arrays, numbers and text by number or text. Lists become arrays.

    Raises:
        SampleError: `unsafe` if the pickle names anything else, `truncated` or `unreadable` for other files.
    """
    file = io.BytesIO(data)
    with decoding(origin):
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read_header or not read_header[version](file)[2].hasobject:
            return np.load(io.BytesIO(data), allow_pickle=False)
        try:
            content = _value(_ArrayUnpickler(file).load())
            return _dictionary(content) if isinstance(content, dict) else _entry(content)
        except pickle.UnpicklingError as error:
            raise SampleError(UNSAFE, f"{origin}: {error}; save it as a dictionary of NumPy arrays alone") from error


class _Opaque:
    """An object of a pickle that no instruction of the pickle can change."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes what it may only call")


class _Name(_Opaque):
    """Stands for a function or class that a pickle of arrays names."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)


class _Type:
    """A type of numbers, or `O8` for the one object that a dictionary's file holds."""

    __slots__ = ("name", "order")

    def __init__(self, name: str, *_: Any) -> None:
        if name != "O8" and not (isinstance(name, str) and _NUMBERS.fullmatch(name)):
            raise pickle.UnpicklingError(f"it holds values of the type {name!r:.40}")
        self.name, self.order = name, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"it holds values of the byte order {state[1]!r:.40}")
        self.order = state[1]

    @property
    def numbers(self) -> np.dtype:
        if self.name == "O8":
            raise pickle.UnpicklingError("it holds an array of objects")
        return np.dtype(self.order + self.name)


class _Array:
    """An array, which a pickle first makes and then fills."""

    __slots__ = ("value",)

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, is_fortran, content = state
        if kind.name == "O8" and shape == () and len(content) == 1:
            self.value = _value(content[0])
        else:
            self.value = np.frombuffer(content, kind.numbers).reshape(shape, order="F" if is_fortran else "C")


class _Storage(_Opaque):
    """The numbers of a tensor."""

    __slots__ = ("numbers",)

    def __init__(self, data: bytes) -> None:
        import torch

        self.numbers = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _tensor(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> _Array:
    import torch

    numbers = torch.empty(0, dtype=storage.numbers.dtype).set_(storage.numbers)
    if math.prod(size) > numbers.numel():  # strides of 0 would fill the memory from a few bytes
        raise pickle.UnpicklingError(f"it holds {numbers.numel()} numbers for a tensor of the size {size}")
    return _Array(numbers.as_strided(size, stride, offset).numpy().copy())  # as_strided checks the bounds


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _Storage,
    ("collections", "OrderedDict"): dict,
}
for _package in ("numpy.core", "numpy._core"):  # before and since NumPy 2
    _NAMES[f"{_package}.multiarray", "_reconstruct"] = lambda *_: _Array()
    _NAMES[f"{_package}.multiarray", "scalar"] = lambda kind, data: np.frombuffer(data, kind.numbers)[0].item()
    _NAMES[f"{_package}.numeric", "_frombuffer"] = lambda data, kind, shape, order: _Array(
        np.frombuffer(data, kind.numbers).reshape(shape, order=order)
    )


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"its pickle names '{module}.{name}', which is not called")
        return _Name(_NAMES[module, name])


def _value(content: Any) -> Any:
    return content.value if isinstance(content, _Array) else content


def _dictionary(content: dict[Any, Any]) -> dict[Any, Any]:
    return {_value(name): _entry(value) for name, value in content.items()}


def _entry(content: Any) -> Any:
    content = _value(content)
    if isinstance(content, list | tuple) and len(content) <= _LARGEST_LIST:
        return np.array([_number_or_array(part) for part in content])
    if isinstance(content, str | bytes | None):
        return content
    return _number_or_array(content)


def _number_or_array(content: Any) -> Any:
    content = _value(content)
    if not isinstance(content, np.ndarray | int | float):
        raise pickle.UnpicklingError(f"it holds a {type(content).__name__}")
    return content
