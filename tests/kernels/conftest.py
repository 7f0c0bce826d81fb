"""What the tests of several ops share."""

import pytest

from ptr_fast import native

ISAS = native.build_info()["isas"].split() if native.module() is not None else ["none"]


@pytest.fixture(params=ISAS)
def each_isa(request: pytest.FixtureRequest):
    """The native kernels of one instruction set after the other."""
    if native.module() is None:
        pytest.skip(str(native.why_missing()))
    before = native.isa()
    try:
        native.set_isa(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield request.param
    native.set_isa(before)
