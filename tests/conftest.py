"""Where the real data and the golden tensors lie, and one thread for torch.

``PTR_FAST_SHARED`` (default: ``../shared`` beside the repository) holds ``data/`` and ``golden/``;
``PTR_FAST_GOLDEN`` names another set of golden tensors of the same layout. Tests that need an absent folder are skipped
with a reason, and fail where ``CI=true``.
"""

import os
import shutil
import signal
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parents[1]


# Without a GPU the Triton kernels are interpreted; this must be set before Triton is imported.
if not torch.cuda.is_available() and find_spec("triton"):
    os.environ.setdefault("TRITON_INTERPRET", "1")


# The same examples in every run, wherever it runs; to look for new ones: --hypothesis-profile=default.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")


def pytest_configure(config):
    torch.set_num_threads(1)
    # Exported models are kept for the session, for its processes too, and not in the home of whoever runs it.
    if "PTR_FAST_CACHE" not in os.environ:
        os.environ["PTR_FAST_CACHE"] = cache = tempfile.mkdtemp(prefix="ptr-fast-cache-")
        config.add_cleanup(lambda: shutil.rmtree(cache, ignore_errors=True))
    # A shell's background job ignores Ctrl-C, and the processes that tests interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# They measure a clock, or wait for one.
REALTIME = (
    *("cameras/", "robots/", "serving/test_server", "serving/test_serve.py::test_hostile"),
    *("trials/test_robot", "trials/test_session"),
    *("runtime/test_control_loop", "runtime/test_chunk", "runtime/test_phase_lock"),
)


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in this hook too
def pytest_collection_modifyitems(items):
    """Where tests run side by side (``-n 2 --dist loadgroup``), a file's stay in one process: they share fixtures.

    Those of ``REALTIME`` are one group, which comes last: one at a time, with nothing beside them.
    """
    for item in items:
        name = item.path.relative_to(REPOSITORY / "tests").as_posix()
        item.is_realtime = f"{name}::{item.name}".startswith(REALTIME)
        item.add_marker(pytest.mark.xdist_group("realtime" if item.is_realtime else name))
    items.sort(key=lambda item: item.is_realtime)


def _folder(variable: str, default: Path) -> Path:
    folder = Path(os.environ.get(variable, default)).resolve()
    if not folder.is_dir():
        reason = f"{folder} is absent (set {variable})"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder with the real Bridge episodes under ``data/bridge_rlds``."""
    return _folder("PTR_FAST_SHARED", REPOSITORY.parent / "shared")


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder with the tensors computed by the published PTR code."""
    shared = Path(os.environ.get("PTR_FAST_SHARED", REPOSITORY.parent / "shared"))
    return _folder("PTR_FAST_GOLDEN", shared / "golden")
