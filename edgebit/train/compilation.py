"""torch.compile where it works, and the way without it where it does not."""

from collections.abc import Callable

import torch
from torch import nn

from edgebit.train.batch import Batch


def compiled(body: nn.Module, batch: Batch, note: Callable[[str], None]) -> nn.Module:
    """A decoder's body compiled for batches of the shape of `batch`; itself, with a note, where that fails.

    Compiling takes 15 to 60 s and needs a C++ compiler. Gradients of the trial are removed.
    """
    try:
        faster: nn.Module = torch.compile(body, dynamic=False)  # which refuses a Python that it does not know
        faster(batch.ids, batch.positions, batch.documents).sum().backward()
    except (RuntimeError, OSError) as error:  # what torch.compile raises is a RuntimeError
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        note(f"torch.compile does not work here ({reason[:160]}): training goes on without, at about half the speed")
        return body
    finally:
        body.zero_grad(set_to_none=True)
    return faster
