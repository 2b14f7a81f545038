from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")  # before the fixtures of a module that run something
def one_thread() -> Iterator[None]:
    """As many threads here as the commands have in processes of their own, so that the sums come out alike."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
