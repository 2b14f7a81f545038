from collections.abc import Iterator

import pytest
from mmengine.registry import DefaultScope


@pytest.fixture(scope="module", autouse=True)
def mmseg_scope() -> Iterator[None]:
    """Where names in configs are looked up, as a config's `default_scope = "mmseg"` does."""
    with DefaultScope.overwrite_default_scope("mmseg"):
        yield
