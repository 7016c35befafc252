"""The sizes of a view that torch.export has worked out anew, and what follows from them."""

import re

import torch

from bridge import torch_export

OPEN = [{0, 2, 3}]


def windows(m, x):
    """Of four by four pixels, with a mean for each, in a picture whose size is made a multiple of four."""
    b, c, h, w = x.shape
    y = m.c(torch.nn.functional.pad(x, (0, -w % 4, 0, -h % 4)))
    high, wide = y.shape[2] // 4, y.shape[3] // 4
    y = y.view(b, c, high, 4, wide, 4).transpose(3, 4).reshape(b * high * wide, c, 16)
    return y.view(-1, c, 4, 4).mean(3)


def test_windows(check):
    module = check.module_of(windows, c=check.conv())
    program = torch_export.export(module, (torch.randn(2, 3, 9, 14),), OPEN)
    views = [n.meta["val"] for n in program.graph.nodes if re.search("view|reshape", str(n.target))]
    assert [[n for n in y.shape if isinstance(n, int)] for y in views] == [[3, 4, 4], [3, 16], [3, 4, 4]]
    (made,) = (n.meta["val"] for n in program.graph.nodes if "mean" in str(n.target))
    assert made.shape[1:] == (3, 4)  # what comes after them has them, too
    assert made.dtype == torch.float32 and len(str(made.shape[0])) < 200


def test_a_program_without_views_is_left_as_it_is(check):
    program = torch_export.export(check.conv(), (torch.randn(2, 3, 9, 14),), OPEN)
    (made,) = (n.meta["val"] for n in program.graph.nodes if "conv" in str(n.target))
    assert made.shape[1] == 3 and not isinstance(made.shape[2], int)
