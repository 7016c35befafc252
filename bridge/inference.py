"""A torch module as it is used: in eval mode, without gradients, on its own device and in its own dtype."""

import contextlib
import itertools
from collections.abc import Iterator

import numpy as np
import torch

from bridge.graph import flatten
from bridge.tensors import tensor


@contextlib.contextmanager
def in_eval(module: torch.nn.Module) -> Iterator[None]:
    """Put a module into eval mode for as long; then every part of it is in the mode that it was in."""
    training = {part: part.training for part in module.modules()}
    try:
        module.eval()
        yield
    finally:
        for part, mode in training.items():
            part.training = mode


def run(module: torch.nn.Module, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Run a module.

    Args:
        module: It is left as it was.
        arrays: Its inputs; floats become those of its weights.

    Returns:
        Its outputs, flat.
    """
    held = next(itertools.chain(module.parameters(), module.buffers()), torch.empty(0))
    floats = [t.dtype for t in itertools.chain(module.parameters(), module.buffers()) if t.is_floating_point()]
    given = [tensor(np.array(x, order="C")).to(held.device) for x in arrays]
    given = [x.to(floats[0]) if floats and x.is_floating_point() else x for x in given]
    with torch.no_grad(), in_eval(module):
        made = flatten(module(*given))
        return [(x.float() if x.dtype == torch.bfloat16 else x).detach().cpu().numpy() for x in made]
