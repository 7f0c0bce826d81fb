"""Pickles: honest ones come back equal in every protocol, hostile ones are refused and nothing of them runs."""

import collections
import os
import pickle
import pickletools
import subprocess
import tracemalloc

import numpy as np
import pytest

from ptr_fast.errors import DataError
from ptr_robot.datasets.restricted_pickle import load_object_array, load_pickle, loads

HONEST = {
    "numbers": [1, 2.5, None, True, "text", b"bytes", (1, [2])],
    "arrays": [np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((0, 7)), np.array(3), np.eye(3, order="F")],
    "big endian": np.arange(3, dtype=">i4"),
    "bools": np.array([True, False]),
    "text": np.array(["ab", "c"]),
    "scalars": [np.float32(1.5), np.int64(-3), np.bool_(True)],
    "ordered": collections.OrderedDict(a=1, b=np.ones(2)),
    "objects": np.array([{"a": np.ones(2)}, None], dtype=object),
}


def assert_same(left, right):
    if isinstance(right, dict):
        assert set(left) == set(right)
        for key in right:
            assert_same(left[key], right[key])
    elif (isinstance(right, np.ndarray) and right.dtype == object) or isinstance(right, list | tuple):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    else:
        assert type(left) is type(right)
        assert getattr(left, "dtype", None) == getattr(right, "dtype", None)
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_honest_pickles(protocol):
    assert_same(loads(pickle.dumps(HONEST, protocol=protocol), "here"), HONEST)


def test_pickles_of_older_numpy():
    data = pickle.dumps(np.arange(3.0), protocol=2)
    assert b"numpy._core.multiarray" in data
    older = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    np.testing.assert_array_equal(loads(older, "here"), np.arange(3.0))


class Runs:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (lambda mark: Runs(os.system, f"touch {mark}"), r"posix.system|nt.system"),
        (lambda mark: Runs(subprocess.getoutput, f"touch {mark}"), "subprocess.getoutput"),
        (lambda mark: Runs(exec, f"open({str(mark)!r}, 'w')"), "builtins.exec"),
        (lambda mark: Runs(eval, f"open({str(mark)!r}, 'w')"), "builtins.eval"),
        (lambda mark: Runs(open, str(mark), "w"), r"(_?io).open"),
        (lambda mark: Runs(getattr, "text", "upper"), "builtins.getattr"),
        (lambda mark: Runs(np.fromfile, str(mark)), r"numpy(\.\w+)*.fromfile"),
        (lambda mark: Runs(np.ndarray, (10**12,)), "calls numpy.ndarray"),
        (lambda mark: collections.deque([1]), "collections.deque"),
        (lambda mark: DataError("x"), "ptr_fast.errors.DataError"),
    ],
)
def test_hostile_pickles_are_refused_and_not_run(tmp_path, payload, name):
    mark, file = tmp_path / "mark", tmp_path / "obs_dict.pkl"
    file.write_bytes(pickle.dumps({"full_state": [payload(mark)]}))
    with pytest.raises(DataError, match=rf"obs_dict.pkl: refused pickle: .*{name}"):
        load_pickle(file)
    array = tmp_path / "out.npy"
    np.save(array, np.array([{"observations": payload(mark)}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"out.npy: refused pickle"):
        load_object_array(array)
    assert not mark.exists()


# Pickles that no program would write.
STATE = b"(K\x01K\x01\x85cnumpy\ndtype\nX\x02\x00\x00\x00f8K\x00K\x01\x87R\x89C\x08" + b"\x00" * 8 + b"tb"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04",
        b".",
        RECONSTRUCT + b"(dX\x03\x00\x00\x00abcK\x01sb.",  # sets an attribute of a function
        RECONSTRUCT + b"N}X\x0c\x00\x00\x00__defaults__)s\x86b.",
        RECONSTRUCT + b".",  # a function is no value
        b"cnumpy\nndarray\n.",
        RECONSTRUCT + b")R.",  # an array without state
        RECONSTRUCT + b")R" + STATE.replace(b"K\x01\x85", b"J\xff\xff\xff\x7f\x85") + b".",  # more elements than bytes
        RECONSTRUCT + b")R" + STATE.replace(b"f8", b"V8") + b".",
        RECONSTRUCT + b")R" + STATE.replace(b"f8", b"O8") + b".",
        RECONSTRUCT + b")\x81.",  # NEWOBJ of a function
        b"Pid\n.",
        b"]q\x00h\x00a.",  # a list inside itself
        b"(" * 100_000 + b"t" * 100_000 + b".",
        b"\x8e" + (2**60).to_bytes(8, "little") + b"x.",
    ],
)
def test_impossible_pickles_are_refused(data):
    with pytest.raises(DataError, match=r"here: (refused|damaged) pickle"):
        loads(data, "here")


def test_flipped_bytes_never_escape():
    good = pickle.dumps(HONEST, protocol=4)
    rng = np.random.default_rng(0)
    refused = 0
    for offset in rng.choice(len(good), 400, replace=False):
        data = bytearray(good)
        data[offset] ^= 1 << int(rng.integers(8))
        try:
            loads(bytes(data), "here")
        except DataError:
            refused += 1
    assert refused > 40


def test_only_the_pieces_are_called():
    """The honest pickle itself names numpy's functions; ours are the ones that run."""
    names = {arg for _, arg, _ in pickletools.genops(pickle.dumps(np.ones(3), protocol=2)) if isinstance(arg, str)}
    assert any("_reconstruct" in name for name in names)
    assert not loads(pickle.dumps(np.ones(3)), "here").flags.writeable


def test_stated_sizes_cost_no_memory():
    """The reader in C would clear 16 GiB for the first one, the one in Python 4 GiB for the second."""
    tracemalloc.start()
    assert loads(b"\x80\x02K\x01r\xff\xff\xff\x3f.", "here") == 1
    with pytest.raises(DataError, match="4294967296 bytes stated, 2 there"):
        loads(b"\x80\x05\x96" + (2**32).to_bytes(8, "little") + b"x.", "here")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_sizes_are_bounded(tmp_path):
    file = tmp_path / "big.pkl"
    file.write_bytes(pickle.dumps(np.zeros(1000)))
    with pytest.raises(DataError, match=r"big.pkl: expected at most 100 bytes, got \d+"):
        load_pickle(file, max_bytes=100)
    with pytest.raises(DataError, match=r"nothing.pkl: missing"):
        load_pickle(tmp_path / "nothing.pkl")
