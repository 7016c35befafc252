"""Reshape: keras.layers.Reshape, keras.ops.{reshape, expand_dims, squeeze} <-> view, flatten, unflatten, squeeze, ...

A reshape is a list of blocks: so many axes become axes of these sizes, from the first axis to the last, and most blocks
keep their one axis. So it follows any layout that leaves the axes of each block side by side:
`(B, H, W, C) -> (B, H*W, C)` is `(B, C, H, W) -> (B, C, H*W)`. Only a block whose axes lie in another order is permuted
first. All axes but the batch in one is Flatten, which has a rule of its own.

A block may have several open sizes: `(B, C, H*W) -> (B, C, H, W)`, as after attention. They are then those of another
tensor, or parts of them (`bridge.rules.sizes`), which the node reads, too.

Keras' functions reshape with one open size. With more, a small model of keras.ops (`bridge.composed`) takes the cells
by their numbers, (b * H + h) * W + w.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, groupby, pairwise, permutations
from math import prod

from bridge import expressions
from bridge.expressions import WHOLE
from bridge.graph import Node, Unsupported
from bridge.layout import Context, Placement, fixed, identity
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source, literal, sizes

OPERATORS = ("reshape",)
KERAS = ("Reshape", "ops.Reshape", "ops.ExpandDims", "ops.Squeeze", "ops.Ravel", "model.reshape_like")
TORCH = ("view", "_unsafe_view", "reshape", "view_as", "reshape_as", "unflatten", "squeeze", "unsqueeze")

# how many axes go in, and the sizes that come out: numbers; -1, what the others leave; or which input's axis and part
Block = tuple[int, tuple]
KEEP: Block = (1, (0,))  # one axis that stays as it is
NEW: Block = (0, (1,))
DROP: Block = (1, ())
TURNED = 3  # so many axes of size 1 are tried in every order


def _reshape_like(x, *others, shape: tuple):
    """In keras.ops: the cells of x as axes of these sizes: numbers, or which tensor's which axes and part of them."""
    from keras import ops

    tensors, places = (x, *others), None
    behind = 1 + max(i for i, n in enumerate(shape) if not isinstance(n, int))
    for size in shape[:behind]:
        if isinstance(size, int):
            numbers, count = ops.arange(size, dtype="int32"), size
        else:
            cells = sizes.row(tensors[size[0]], size[1], "float32", size[2])
            numbers = ops.cast(ops.cumsum(cells) - 1.0, "int32")
            count = ops.cast(ops.sum(cells), "int32")
        # the other way round Keras may take the numbers for a bias of axis 1, as (B, n, 1) + (n,)
        places = numbers if places is None else ops.add(numbers, places[..., None] * count)
    return ops.take(ops.reshape(x, (-1, *shape[behind:])), places, axis=0)


MODELS = {"reshape_like": _reshape_like}


def READS(node: Node) -> int:
    return 1


def options(name: str, model) -> Iterator[dict]:
    """The options with which a model of `MODELS` may have been made."""
    made = model.outputs[0]
    if type(made._keras_history.operation).__name__ != "Take":
        return
    rows = _rows(made._keras_history.operation._inbound_nodes[0].arguments.args[1], model.inputs)
    if None not in rows and len(rows) == made.shape.count(None):
        rows = iter(rows)
        yield {"shape": tuple(next(rows) if n is None else n for n in made.shape)}


def _rows(numbers, inputs: list) -> list:
    """Of what the rows are whose running sums the numbers of cells are made of, from the first axis to the last."""
    queue, known, found = [numbers], set(), []
    while queue:
        tensor = queue.pop()
        if id(tensor) in known or not hasattr(tensor, "_keras_history"):
            continue
        known.add(id(tensor))
        operation, index, _ = tensor._keras_history
        given = operation._inbound_nodes[index].input_tensors
        if type(operation).__name__ == "Cumsum":
            found.append(sizes.seen(given[0], inputs))
        else:
            queue += given  # of a sum the second part, which has the axes before, comes first
    return found


def LAYOUT(node: Node, context: Context) -> Placement:
    order, blocks, x = context.orders[0], node["blocks"], node.inputs[0]
    if not all(isinstance(o, tuple) for o in context.orders):
        return fixed(node, context)
    axes = _numbered([count for count, _ in blocks])  # of the input, by block
    made = _numbered([len(sizes) for _, sizes in blocks])  # of the output
    placed = sorted((i for i, a in enumerate(axes) if a), key=lambda i: order.index(axes[i][0]))
    order = tuple(a for i in placed for a in axes[i])
    if {NEW, DROP} & set(blocks):
        found = _places(blocks, placed, axes, made, x.shape, context.target)
    else:
        shape = [x.shape[a] for a in order]
        found = {tuple(a for i in placed for a in made[i]): plain([blocks[i] for i in placed], shape)}
    as_read = identity(node.outputs[0].rank)
    low = max(len(as_read), x.rank) < 4  # as it was read in either framework
    plainly = as_read if low and order == identity(x.rank) else None  # where no one cares
    kernel = context.as_kernel(node.outputs[0]) if len(found) > 1 else None

    def worth(out):
        return context.takers(node.outputs[0], out), out == kernel, out == plainly

    out = max(found, key=worth)
    orders = [order, *context.orders[1:]]

    def renumbered(size):
        return (size[0], sizes.renumbered(size[1], orders[size[0]]), size[2]) if isinstance(size, tuple) else size

    turned = tuple((count, tuple(map(renumbered, new))) for count, new in found[out])
    return Placement(orders, [out], {"blocks": turned})


def _places(blocks, placed, axes, made, shape, target: str) -> dict[tuple[int, ...], tuple[Block, ...]]:
    """Every order of the result that differs in the places of its axes of size 1, and the blocks that make it.

    As no number moves with such an axis, any that the input has may be any of those that the result has. The first ones
    have them together: next to the channels, on the side of the other axes, if no reader wants them elsewhere.
    """
    ones = [i for i, b in enumerate(blocks) if b in (NEW, DROP) or (b == KEEP and shape[axes[i][0]] == 1)]
    large, given = [i for i in placed if i not in ones], [0]  # given: how many the input has between those
    for i in placed:
        given = [*given[:-1], given[-1] + 1] if i in ones else [*given, 0]
    single = [a for i in ones for a in made[i]]
    total = len(large) + len(single)

    def preference(places):
        together = not places or places[-1] - places[0] < len(places)
        start = places[0] if places else 0
        return not together, -start if target == "first" else (max(1, total - 1 - len(places)) - start) % (total + 1)

    found = {}
    for places in sorted(combinations(range(total), len(single)), key=preference):
        rest = iter(large)
        way = [None if at in places else next(rest) for at in range(total)]
        ends = [-1, *(at for at, i in enumerate(way) if i is not None), total]
        written: list[Block] = []
        for have, want, i in zip(given, [b - a - 1 for a, b in pairwise(ends)], [*large, None], strict=True):
            written += [KEEP] * min(have, want) + [NEW] * (want - have) + [DROP] * (have - want)
            written += [] if i is None else [blocks[i]]
        for turned in permutations(single) if len(single) <= TURNED else [single]:
            numbers = iter(turned)
            out = tuple(a for i in way for a in ([next(numbers)] if i is None else made[i]))
            found[out] = tuple(written)
    return found


def normal(node: Node) -> Node:
    """A layout may have brought the batch to the front: what leaves one axis beside it is a "flatten"."""
    made = of_blocks(list(node["blocks"]), node.inputs[0].shape, node.name)
    return replace(node, operator=made.operator, attributes=made.attributes) if made.operator != "reshape" else node


def merge(node: Node, reader: Node) -> Node | None:
    """Axes of size 1 that come and go one after the other, do so at once; so does a batch that is put into an axis."""
    source, target = node.inputs[0].shape, reader.outputs[0].shape
    if source and source[0] is None and reader.operator in ("reshape", "permute"):
        return _without_detour(node, reader)
    if reader.operator != "reshape" or None in (*source, *target):
        return None
    blocks = find_blocks(source, target)
    if not {KEEP} < set(blocks) <= {KEEP, NEW, DROP}:
        return None
    return _at_once(node, reader, blocks)


def _at_once(node: Node, reader: Node, blocks) -> Node:
    """The node of these blocks, that does the work of two."""
    made = of_blocks(list(blocks), node.inputs[0].shape, reader.name)
    return replace(reader, operator=made.operator, inputs=node.inputs, attributes=made.attributes)


def _without_detour(node: Node, reader: Node) -> Node | None:
    """One reshape for two that make, or drop, axes of size 1, or where the batch is an axis before and after them.

    So is (B, C, H, W) -> (1, B*C, H, W) -> (B, C, H, W), where people may write the first of these as two, and may give
    the axis of size 1 another place.
    """
    source = tuple(f"axis{i}" if n is None else n for i, n in enumerate(node.inputs[0].shape))
    between, written = _through(source, node["blocks"]), {*node["blocks"], *reader.attributes.get("blocks", ())}
    # what drops one and makes another may leave it where it is in one layout, and move it in the other
    alike = written <= {KEEP, NEW} or written <= {KEEP, DROP}
    if not between or (between[0] == source[0] and (reader.operator == "permute" or not alike)):
        return None
    if reader.operator == "permute":
        moved = [a for a in reader["permutation"] if between[a] != 1]
        target = tuple(between[a] for a in reader["permutation"]) if moved == sorted(moved) else None
        ones = True
    else:
        target, ones = _through(between, reader["blocks"]), set(reader["blocks"]) <= {KEEP, NEW, DROP}
    if not target or (target[0] != source[0] and not ones):
        return None
    if source == target:
        return Node("permute", {"permutation": identity(len(source))}, inputs=node.inputs, outputs=reader.outputs)
    try:
        blocks = find_blocks(source, target)
    except Unsupported:
        return None
    if any(isinstance(n, str) for _, new in blocks for n in new):
        return None
    return _at_once(node, reader, blocks)


def _through(source: tuple, blocks: tuple[Block, ...]) -> tuple | None:
    """The sizes after a reshape by those before, numbers and products of names; None where they are others."""
    found, at = [], 0
    for block in blocks:
        count, new = block
        own, at = source[at : at + count], at + count
        if block == KEEP:
            found += own
            continue
        known = [n for n in new if n != -1]
        number, names = _product(own)
        if not all(isinstance(n, int) for n in new) or 0 in known or number % prod(known):
            return None
        left = "*".join([*([str(number // prod(known))] if number != prod(known) else []), *names])
        found += [n if n != -1 else left if names else number // prod(known) for n in new]
    return tuple(found)


def _numbered(counts: list[int]) -> list[list[int]]:
    """Count through: [1, 2, 0, 1] -> [[0], [1, 2], [], [3]]."""
    return [list(range(sum(counts[:i]), sum(counts[: i + 1]))) for i in range(len(counts))]


def plain(blocks: list[Block], shape) -> tuple[Block, ...]:
    """One way to say it where axes of size 1 come and go: those that stay are first."""
    axes = _numbered([count for count, _ in blocks])

    def is_one(i: int) -> bool:
        return blocks[i] in (NEW, DROP) or (blocks[i] == KEEP and shape[axes[i][0]] == 1)

    found: list[Block] = []
    for ones, run in groupby(range(len(blocks)), key=is_one):
        run = [blocks[i] for i in run]
        if ones:
            kept, new, gone = map(run.count, (KEEP, NEW, DROP))
            stay = min(new, gone)
            run = [KEEP] * (kept + stay) + [NEW] * (new - stay) + [DROP] * (gone - stay)
        found += run
    return tuple(found)


def find_blocks(source: tuple, target: tuple) -> tuple[Block, ...]:
    """Split a reshape into its blocks, from the left, each as small as can be.

    Args:
        source: The sizes before: numbers, and texts by which equal open sizes are known.
        target: The sizes after; None is what the others leave.

    Returns:
        The blocks; those with several open sizes have the texts of these.
    """
    blocks, i, j = [], 0, 0
    while i < len(source) or j < len(target):
        s, t = (source[i] if i < len(source) else None), (target[j] if j < len(target) else None)
        if s is not None and t is not None and _same_product((s,), (t,)):
            blocks, i, j = [*blocks, KEEP], i + 1, j + 1
        elif s == 1:
            blocks, i = [*blocks, DROP], i + 1
        elif t == 1:
            blocks, j = [*blocks, NEW], j + 1
        else:
            found = next(
                (
                    (p, q)
                    for p, q in sorted(
                        ((p, q) for p in range(i + 1, len(source) + 1) for q in range(j + 1, len(target) + 1)), key=sum
                    )
                    if _same_product(source[i:p], target[j:q])
                ),
                None,
            )
            p, q = found or _before_the_end(source, target, i, j)  # a size is not known: all that goes into it
            unknown = [n for n in target[j:q] if not isinstance(n, int)]
            if p <= i or q <= j or (None in unknown and len(unknown) > 1):
                raise Unsupported(f"it reshapes {_shown(source)} to {_shown(target)}", "fix all open sizes but one")
            new = target[j:q] if len(unknown) > 1 else tuple(n if isinstance(n, int) else -1 for n in target[j:q])
            ones = next(i for i, n in enumerate(reversed(new)) if n != 1) if set(new) != {1} else 0  # new axes after it
            blocks, i, j = [*blocks, (p - i, new[: len(new) - ones]), *[NEW] * ones], p, q
    return tuple(blocks)


def _before_the_end(source: tuple, target: tuple, i: int, j: int) -> tuple[int, int]:
    """Where the blocks of known sizes begin with which both sides end, from the right, each as small as can be."""
    p, q = len(source), len(target)
    while True:
        pairs = sorted(((a, b) for a in range(i + 1, p) for b in range(j + 1, q)), key=sum, reverse=True)
        found = next(((a, b) for a, b in pairs if _same_product(source[a:p], target[b:q])), None)
        if found is None:
            return p, q
        p, q = found


def _same_product(source: tuple, target: tuple) -> bool:
    if None in (*source, *target):
        return False
    if all(isinstance(n, int) or _is_product(n) for n in (*source, *target)):
        return _product(source) == _product(target)
    return expressions.equal(*("*".join(f"({n})" for n in shape) for shape in (source, target)))


def _shown(shape) -> str:
    return f"({', '.join('?' if n is None else str(n) for n in shape)})"


def _product(sizes) -> tuple:
    """A product of numbers and expressions such as "8*s0": equal if and only if the same is multiplied."""
    number, names = 1, []
    for factor in (f for n in sizes for f in (re.findall(r"\w+", n) if _is_product(n) else [n])):
        if isinstance(factor, int) or factor.isdigit():
            number *= int(factor)
        else:
            names.append(factor)
    return number, sorted(names)


def _is_product(size) -> bool:
    return isinstance(size, str) and re.fullmatch(r"\w+(\*\w+)*", size) is not None


def nodes(source: tuple, target: tuple, name: str) -> list[Node]:
    """The neutral node for sizes before and after; nothing where nothing changes."""
    blocks = find_blocks(source, target)
    if all(block == KEEP for block in blocks):
        return [Node("permute", {"permutation": tuple(range(len(source)))}, name=name)]
    return [of_blocks(list(blocks), source, name)]


def of_blocks(blocks: list[Block], source, name: str) -> Node:
    """The neutral node of a list of blocks, by the sizes before: all axes but the batch in one are a "flatten"."""
    if blocks[0] == KEEP and sum(len(sizes) for _, sizes in blocks) == 2 < len(source):
        return Node("flatten", {}, name=name)
    return Node("reshape", {"blocks": plain(blocks, source)}, name=name)


def read_keras(layer: KerasLayer) -> list[Node]:
    source, target = [f"axis{i}" if n is None else n for i, n in enumerate(layer.inputs[0].shape)], []
    if layer.class_name == "ops.ExpandDims":
        target = _with_new(source, layer.config["axis"])
    elif layer.class_name == "ops.Squeeze":
        gone = [i for i, n in enumerate(source) if n == 1] if (a := layer.config["axis"]) is None else a
        gone = [i % len(source) for i in (gone if isinstance(gone, (list, tuple)) else [gone])]
        target = [n for i, n in enumerate(source) if i not in gone]
    elif layer.class_name == "model.reshape_like":
        return _read_like(source, layer)
    else:
        target = list(layer.outputs[0].shape)
        if layer.class_name == "Reshape":  # it keeps the batch
            target[0] = source[0]
        left, unknown = [n for n in source if n not in target and isinstance(n, str)], target.count(None)
        if len(left) == unknown == 1 and _product([n for n in source if n != left[0]]) == _product(
            [n for n in target if n is not None]
        ):
            target[target.index(None)] = left[0]
    return nodes(tuple(source), tuple(target), layer.path)


def _read_like(source: list, layer: KerasLayer) -> list[Node]:
    """The nodes for a model: an axis of its own of which a part is left has so many times that part."""
    target, others = [], {}
    for n in layer.config["shape"]:
        if isinstance(n, int):
            target.append(n)
        elif n[0] == 0 and n[2][:2] == WHOLE[:2]:
            own = (n[1],) if isinstance(n[1], int) else n[1]
            target.append("*".join(str(source[a]) for a in own))
            if n[2] != WHOLE:
                first = next(a for a in own if isinstance(source[a], str))
                source[first] = f"{n[2][2]}*{source[first]}"
        else:
            target.append(f"other{len(others)}")
            others[target[-1]] = n
    made = nodes(tuple(source), tuple(target), layer.path)
    return [_with_sizes(node, others.__getitem__) for node in made]


def _with_sizes(node: Node, find) -> Node:
    """The node with what is found for the texts of its sizes."""
    if "blocks" not in node.attributes:
        return node
    blocks = tuple((count, tuple(find(n) if isinstance(n, str) else n for n in new)) for count, new in node["blocks"])
    return replace(node, attributes={"blocks": blocks})


def _with_new(source: list, axis) -> list:
    """The sizes with a 1 at each of these axes of the result."""
    new = [axis] if isinstance(axis, int) else list(axis)
    rank, rest = len(source) + len(new), iter(source)
    new = {a % rank for a in new}
    return [1 if a in new else next(rest) for a in range(rank)]


def _sizes(node: Node) -> list:
    """The sizes after: numbers, and which tensor's which axes, and what part of them."""
    shape, found = node.inputs[0].shape, []
    for block, axes in zip(node["blocks"], _numbered([count for count, _ in node["blocks"]]), strict=True):
        own = axes[0] if len(axes) == 1 else tuple(axes)
        for n in block[1]:
            if block == KEEP:
                n = (0, own, WHOLE) if shape[own] is None else shape[own]
            elif n == -1:
                n = (0, own, (1, 0, prod(m for m in block[1] if m != -1)))
            found.append(n)
    return found


def write_keras(node: Node) -> list[KerasCall]:
    blocks, shape = node["blocks"], _sizes(node)
    open_sizes = [n for n in shape if not isinstance(n, int)]
    plain_shape = tuple(n if isinstance(n, int) else -1 for n in shape)
    if blocks[0] == KEEP and shape[0] == (0, 0, WHOLE) and len(open_sizes) <= 2:
        return [KerasCall("Reshape", {"target_shape": plain_shape[1:]})]
    if len(open_sizes) <= 1:
        return [KerasCall("ops.reshape", {"newshape": plain_shape})]
    axes, made = _numbered([c for c, _ in blocks]), _numbered([len(new) for _, new in blocks])
    if set(blocks) <= {KEEP, NEW}:
        return [
            KerasCall("ops.expand_dims", {"axis": tuple(a[0] for b, a in zip(blocks, made, strict=True) if b == NEW)})
        ]
    if set(blocks) <= {KEEP, DROP}:
        return [KerasCall("ops.squeeze", {"axis": tuple(a[0] for b, a in zip(blocks, axes, strict=True) if b == DROP)})]
    return [KerasCall("model.reshape_like", {"shape": tuple(shape)})]


def read_torch(call: TorchOperation) -> list[Node]:
    inputs = [call["self"]]

    def find(symbol: str) -> tuple:
        x, axis, part = sizes.source(symbol, call)
        if x not in inputs:
            inputs.append(x)
        return inputs.index(x), axis, part

    (node,) = nodes(inputs[0].symbols, call.outputs[0].symbols, call.path)
    return [replace(_with_sizes(node, find), inputs=inputs)]


def write_torch(node: Node) -> TorchCall:
    blocks, shape = node["blocks"], _sizes(node)
    changed = [i for i, block in enumerate(blocks) if block != KEEP]
    others = any(isinstance(n, tuple) for _, new in blocks for n in new)
    if len(changed) == 1 and not others:
        at, (count, new) = changed[0], blocks[changed[0]]
        if count == 0 or not new:
            return TorchCall(f"{{0}}.{'unsqueeze' if new else 'squeeze'}({literal(at)})")
        if count == 1 or len(new) == 1:
            function, arguments = ("unflatten", (at, new)) if count == 1 else ("flatten", (at, at + count - 1))
            if node.name:
                return TorchCall("{self}({0})", call_source(f"nn.{function.title()}", *arguments))
            return TorchCall(call_source(f"{{0}}.{function}", *arguments))
    texts = [literal(n) if isinstance(n, int) else sizes.text(f"{{{n[0]}}}", *n[1:]) for n in shape]
    given = [n for _, new in blocks for n in new]
    opened = [i for i, n in enumerate(shape) if isinstance(n, tuple)]
    if opened and not others:  # torch works out one of them
        texts[given.index(-1) if -1 in given else opened[0]] = "-1"
    return TorchCall(f"{{0}}.reshape({', '.join(texts) or '()'})")
