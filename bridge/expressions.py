"""Sizes that are worked out from open ones, as torch.export writes them: "2*((s0 + 1)//2)", "Max(1, s0)".

What two such texts have in common is found by their numbers, at thousands of sizes: there are many ways to write one
size, and those of a network are whole parts of linear functions, of small numerators and denominators.
"""

import ast
import functools
import operator
from collections.abc import Callable
from math import ceil, floor

import numpy as np

SIZES = 4096  # at as many are the numbers compared
OPERATORS = {
    **{ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Pow: operator.pow},
    **{ast.FloorDiv: operator.floordiv, ast.Div: operator.truediv, ast.Mod: operator.mod, ast.USub: operator.neg},
}
SIGNS = {"Mod": ast.Mod(), "PythonMod": ast.Mod(), "FloorDiv": ast.FloorDiv(), "IntTrueDiv": ast.Div()}
FUNCTIONS: dict[str, Callable] = {
    **{"ToFloat": lambda x: np.asarray(x, "float64"), "TruncToInt": lambda x: np.trunc(x).astype("int64")},
    **{"CeilToInt": lambda x: np.ceil(x).astype("int64"), "FloorToInt": lambda x: np.floor(x).astype("int64")},
    **{"FloorDiv": operator.floordiv, "IntTrueDiv": operator.truediv, "FloatTrueDiv": operator.truediv},
    **{"Max": np.maximum, "Min": np.minimum, "Mod": operator.mod, "PythonMod": operator.mod},
}
Part = tuple[int, int, int]
WHOLE: Part = (1, 0, 1)
DENOMINATORS, MOST = 32, 64  # of parts; and the most cells that are added
FAR, MORE = 2**20, 1024  # a size where a slope tells; and what it may not hide


def symbols(text: str) -> frozenset[str]:
    """The open sizes that an expression is made of."""
    return frozenset(n.id for n in ast.walk(_parsed(text)) if isinstance(n, ast.Name) and n.id not in FUNCTIONS)


@functools.cache
def _parsed(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def evaluate(text: str, given: dict, functions: dict[str, Callable] = FUNCTIONS):
    """An expression of anything that its names stand for; a KeyError says what of it is of another kind."""

    def at(node):
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return node.value
        if isinstance(node, ast.Name):
            return given[node.id]
        if isinstance(node, ast.UnaryOp):
            return OPERATORS[type(node.op)](at(node.operand))
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](at(node.left), at(node.right))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            first, *others = map(at, node.args)
            function = functions[node.func.id]
            return functools.reduce(function, others, first) if others else function(first)
        raise KeyError(ast.unparse(node))

    return at(_parsed(text))


def renamed(text: str, names: dict[str, str]) -> str:
    """An expression with other names, in the one way in which Python writes it."""

    class Renamed(ast.NodeTransformer):
        def visit_Name(self, node):
            return ast.Name(names.get(node.id, node.id))

        def visit_Call(self, node):
            kind = node.func.id
            self.generic_visit(node)
            if kind in SIGNS:
                return ast.BinOp(node.args[0], SIGNS[kind], node.args[1])
            if kind in ("Max", "Min"):  # torch.export has them in any order
                return ast.Call(node.func, sorted(node.args, key=ast.unparse), [])
            whole = node.args[0]
            if kind not in ("CeilToInt", "FloorToInt") or not isinstance(getattr(whole, "op", None), ast.Div):
                return node
            # a quotient that is rounded is computed in whole numbers: n / 8 to above is (n + 7) // 8
            more = whole.right.value - 1 if kind == "CeilToInt" and isinstance(whole.right, ast.Constant) else 0
            if kind == "CeilToInt" and not more:
                return node
            left = ast.BinOp(whole.left, ast.Add(), ast.Constant(more)) if more else whole.left
            return ast.BinOp(left, ast.FloorDiv(), whole.right)

    return ast.unparse(Renamed().visit(ast.parse(text, mode="eval")))


def operations(text: str) -> set[str]:
    """What an expression does, by the names of its functions and of Python's signs."""
    nodes = list(ast.walk(_parsed(text)))
    signs = {type(node.op).__name__ for node in nodes if isinstance(node, ast.BinOp)}
    return signs | {node.func.id for node in nodes if isinstance(node, ast.Call)}


def negative(text: str) -> bool | None:
    """Tell whether an expression is below 0 at any size; None where it is at some."""
    (values,) = _together(text)
    if values is None:
        return None
    return bool((values < 0).all()) if len(set((values < 0).tolist())) == 1 else None


@functools.cache
def _numbers(text: str, names: tuple[str, ...]) -> np.ndarray | None:
    """An expression at many sizes of these names, at all of a single one; None where it is of another kind."""
    random = np.random.default_rng(0)
    places = [np.arange(1, SIZES + 1)] if len(names) == 1 else random.integers(1, SIZES, (len(names), SIZES))
    try:
        with np.errstate(all="ignore"):
            made = np.broadcast_to(evaluate(text, dict(zip(names, places, strict=True))), SIZES)
    except (KeyError, TypeError, ValueError):
        return None
    return made if made.dtype.kind == "i" or np.array_equal(made, np.round(made)) else None


def _together(*texts: str) -> list[np.ndarray | None]:
    names = tuple(sorted(frozenset().union(*map(symbols, texts))))
    return [_numbers(text, names) for text in texts]


def equal(left: str, right: str) -> bool:
    """Tell whether two expressions are the same number at any size."""
    a, b = _together(left, right)
    return a is not None and b is not None and np.array_equal(a, b)


def constant(text: str) -> int | None:
    """The number that an expression is at any size, if it is one."""
    (values,) = _together(text)
    return None if values is None or (values != values[0]).any() else int(values[0])


@functools.cache
def part(text: str, whole: str) -> Part | None:
    """The simplest `(p, c, q)` such that a size is `(p * whole + c) // q`, wherever that is one."""
    if symbols(text) != symbols(whole):
        return None
    values, given = _together(text, whole)
    if values is None or given is None:
        return None
    values, given = values.astype("int64"), given.astype("int64")
    largest = int(given.argmax())
    for q in range(1, DENOMINATORS + 1):
        for p in {floor(q * values[largest] / given[largest]), ceil(q * values[largest] / given[largest])} - {0}:
            rest = q * values - p * given
            least, most = int(rest.max()), int(rest.min()) + q - 1
            if least <= most:
                c = min(max(0, least), most)
                return (p, c, q) if abs(c) <= MOST * q else None
    return None


def cover(text: str, whole: str) -> tuple[int, int] | None:
    """The least `p`, and `c`, such that `p * whole + c` is no less than a size, wherever there are some."""
    far = {name: f"({name} + {FAR})" for name in symbols(whole)}
    near = _together(text, whole)
    values, given = zip(near, _together(renamed(text, far), renamed(whole, far)), strict=True)
    if any(x is None for x in (*values, *given)):
        return None
    values, given = np.concatenate(values), np.concatenate(given)
    for p in range(1, MOST + 1):
        if (c := int((values - p * given).max())) <= MORE:
            return p, max(c, 0)
    return None
