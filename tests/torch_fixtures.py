"""How tests run the reference implementation."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def eager() -> Iterator[None]:
    """No compiler in transformers' loop, no gradients, and no progress bars."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    # Not by MonkeyPatch: it takes for an attribute to delete what PyTorch's settings answer for a default.
    with torch._dynamo.config.patch(disable=True), torch.no_grad():
        yield
