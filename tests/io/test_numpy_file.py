"""`.npy` files of arrays and of pickled dictionaries, and pickles that want to run code."""

import builtins
import io
import os
import pickle
import subprocess
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pseudolabel.errors import SampleError
from pseudolabel.io.numpy_file import read_npy

MAPS = np.random.default_rng(0).random((2, 5, 7)).astype(np.float32)


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, content)
    return buffer.getvalue()


def with_pickle(data: bytes) -> bytes:
    """A file whose header announces an object, with this pickle."""
    whole = saved({})
    file = io.BytesIO(whole)
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    return whole[: file.tell()] + data


@pytest.mark.parametrize("content", [MAPS, MAPS.astype(np.float16), np.asfortranarray(MAPS), np.arange(3)])
def test_plain_arrays(content: np.ndarray) -> None:
    found = read_npy(saved(content), "a.npy")
    assert found.dtype == content.dtype
    np.testing.assert_array_equal(found, content)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_pickled_dictionaries(protocol: int) -> None:
    inner = {
        "keys": np.array([3, 7]),
        "cam": MAPS[:, ::2],
        "high_res": np.asfortranarray(MAPS),
        "big": MAPS.astype(">f8"),
    }
    found = read_npy(with_pickle(pickle.dumps(np.array(inner, object), protocol)), "a.npy")
    assert list(found) == list(inner)
    for name, value in inner.items():
        np.testing.assert_array_equal(found[name], value)


def test_dictionaries_by_class_and_lists() -> None:
    found = read_npy(saved({3: MAPS[0], np.int64(7): MAPS[1], "keys": [3, 7], "maps": [MAPS[0], MAPS[1]]}), "a.npy")
    np.testing.assert_array_equal(found[7], MAPS[1])
    assert found["keys"].tolist() == [3, 7]
    np.testing.assert_array_equal(found["maps"], MAPS)


def test_names_of_numpy_before_2() -> None:
    data = saved({"keys": np.array([3]), 3: np.float32(0.5)})
    assert data.count(b"\x16numpy._core.multiarray") == 1  # with its length
    old = data.replace(b"\x16numpy._core.multiarray", b"\x15numpy.core.multiarray").replace(b"\x95", b"\x95", 1)
    start = old.index(b"\x95") + 1  # the length of the frame
    length = int.from_bytes(old[start : start + 8], "little") - 1
    found = read_npy(old[:start] + length.to_bytes(8, "little") + old[start + 8 :], "a.npy")
    assert found["keys"].tolist() == [3]
    assert found[3] == 0.5


def test_tensors_as_irnet_saves_them() -> None:
    cams = torch.from_numpy(MAPS)
    found = read_npy(saved({"keys": torch.tensor([3, 7]), "cam": cams[:, ::2], "high_res": cams.half()}), "a.npy")
    assert found["keys"].tolist() == [3, 7]
    np.testing.assert_array_equal(found["cam"], MAPS[:, ::2])
    np.testing.assert_array_equal(found["high_res"], MAPS.astype(np.float16))


class Calls:
    """Pickled as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def global_of(module: str, name: str) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode()


def touch(path: Path) -> dict[str, Any]:
    return {"keys": np.array([3]), "cam": Calls(os.system, f"touch {path}")}


MALICIOUS = {
    "system": lambda path: saved(touch(path)),
    "as a key's value": lambda path: saved({3: Calls(os.system, f"touch {path}")}),
    "eval": lambda path: saved({3: Calls(builtins.eval, f"open({str(path)!r}, 'w')")}),
    "exec": lambda path: saved({3: Calls(builtins.exec, f"open({str(path)!r}, 'w')")}),
    "popen": lambda path: saved({3: Calls(subprocess.Popen, ["touch", str(path)])}),
    "getattr": lambda path: saved({3: Calls(getattr, 3, "real")}),
    "numpy's own loader": lambda path: saved({3: Calls(np.load, str(path))}),
    "an object array": lambda path: saved(np.array([Calls(os.system, f"touch {path}"), 1], object)),
    "before the array": lambda path: with_pickle(
        pickle.dumps([Calls(os.system, f"touch {path}")]) + saved({3: MAPS[0]})
    ),
    "torch storage": lambda path: with_pickle(
        global_of("torch.storage", "_load_from_bytes")
        + b"(B"
        + len(inner := pickle.dumps(Calls(os.system, f"touch {path}"))).to_bytes(4, "little")
        + inner
        + b"tR."
    ),
    "instance": lambda path: with_pickle(b"(S'touch " + str(path).encode() + b"'\nios\nsystem\n."),
    "attribute of a name": lambda path: with_pickle(
        global_of("numpy", "ndarray") + b"(N}S'_call'\n" + global_of("os", "system") + b"stb."
    ),
    "change of a name": lambda path: with_pickle(global_of("numpy", "ndarray") + b"(N}S'_call'\nI1\nstb."),
    "dotted name": lambda path: with_pickle(b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__class__\x93."),
}


@pytest.mark.parametrize("make", MALICIOUS.values(), ids=MALICIOUS.keys())
def test_no_code_is_run(make: Any, tmp_path: Path) -> None:
    target = tmp_path / "touched"
    with pytest.raises(SampleError, match=r"a\.npy") as caught:
        read_npy(make(target), "a.npy")
    assert caught.value.status in ("unsafe", "unreadable")
    assert not target.exists()


def test_the_samples_do_run_code_elsewhere(tmp_path: Path) -> None:
    """Else the test above would show nothing."""
    np.load(io.BytesIO(saved(touch(tmp_path / "touched"))), allow_pickle=True)
    assert (tmp_path / "touched").exists()


def test_objects_that_are_no_arrays_are_refused() -> None:
    with pytest.raises(SampleError, match=r"pathlib.*NumPy arrays alone") as caught:
        read_npy(saved({3: Path("a")}), "a.npy")
    assert caught.value.status == "unsafe"


@pytest.mark.parametrize("content", [{3: {4: MAPS}}, {3: OrderedDict()}, {3: np.array(["a"])}, {3: {1, 2}}])
def test_other_contents_are_refused(content: Any) -> None:
    with pytest.raises(SampleError, match=r"a\.npy"):
        read_npy(saved(content), "a.npy")


def test_a_pickle_cannot_reach_beyond_the_numbers_of_a_tensor() -> None:
    data = saved({3: torch.zeros(4)})
    assert data.count(b"K\x00K\x04\x85") == 1  # offset 0, size (4,)
    with pytest.raises(SampleError, match=r"a\.npy"):
        read_npy(data.replace(b"K\x00K\x04\x85", b"K\x00K\xff\x85"), "a.npy")


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", saved(MAPS)[:-9], saved({3: MAPS})[:-9], b"PK\x03\x04"])
def test_damaged_files(data: bytes) -> None:
    with pytest.raises(SampleError, match=r"a\.npy"):
        read_npy(data, "a.npy")
