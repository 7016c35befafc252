"""Rules of the user's own: `bridge.rule` takes what looks like a file of `bridge/rules/`, and puts it beside those.

All that the rest of the bridge asks of a rule it asks of such a one, too. What is wrong with it is said when it is
given, all at once: found later it would be an error of the bridge in the middle of somebody's network.
"""

import builtins
import inspect
import symtable
import textwrap
from types import ModuleType

from bridge import layout, rules
from bridge.graph import BridgeError, Obstacle

NAMES = ("OPERATORS", "KERAS", "TORCH")
OWNED = (*NAMES, "HELPERS", "MODELS")
CLASSES = (
    "KERAS",
    "TORCH",
    "SEVERAL",
    "WRAPPERS",
    "PASSING",
    "DOUBLE",
    "CASTS",
)  # which may name classes by themselves
FUNCTIONS = {"read_keras": "KERAS", "read_torch": "TORCH", "write_keras": "OPERATORS", "write_torch": "OPERATORS"}
GIVEN = {"torch", "nn", "F", "Path", *vars(builtins)}  # what model.py has
ACCEPTED = 'see "Your own rules" in docs/bridge.md'


def rule(namespace):
    """Add a rule for operators of your own, from the next conversion on; as a decorator, too.

    Args:
        namespace: A class or module with what `bridge.rules` says of a rule file. KERAS and TORCH may name classes by
            themselves, and HELPERS may be a tuple of classes of torch: their sources are the helpers. LAYOUT is `fixed`
            if it is left out. One of the same name as before takes its place.

    Returns:
        The same.

    Raises:
        BridgeError: Lists everything that is wrong with it.
    """
    name = namespace.__name__
    name = name if inspect.ismodule(namespace) else f"{namespace.__module__}.{namespace.__qualname__}"
    given = {k: getattr(namespace, k) for k in dir(namespace) if not k.startswith("_")}
    made = ModuleType(name, inspect.getdoc(namespace) or "A rule of the user's own")
    vars(made).update({"LAYOUT": layout.fixed, **dict.fromkeys(NAMES, ())} | given)
    wrong = _helpers(made) + _names(made)
    wrong = wrong or [*_claimed(made), *_lacking(made), *_weights(made), *_sources(made)]
    if wrong:
        raise BridgeError(
            f"{name} is no rule; {ACCEPTED}:", [Obstacle(name, what, why, remedy) for what, why, remedy in wrong]
        )
    rules.OWN[name] = made
    rules.changed()
    return namespace


def _helpers(made: ModuleType) -> list[tuple[str, str, str]]:
    """Put the helpers as name -> source, and each class that is one under both of its names."""
    helpers = getattr(made, "HELPERS", {})
    try:
        pairs = helpers.items() if isinstance(helpers, dict) else [(kind.__name__, kind) for kind in helpers]
        known = {f"{kind}" for _, kind in pairs if isinstance(kind, type)}
        made.HELPERS = {n: inspect.getsource(x) if not isinstance(x, str) else x for n, x in pairs}
    except (OSError, TypeError, AttributeError) as e:
        why = f"they have no source that could be read ({e})"
        return [("HELPERS", why, "give name -> source, or classes that are written in a file")]
    for attribute in ("TORCH", "SEVERAL", "WRAPPERS", "PASSING"):
        names = getattr(made, attribute, None)
        if isinstance(names, dict):
            setattr(made, attribute, names | {x.__name__: v for x, v in names.items() if f"{x}" in known})
        elif isinstance(names, tuple):
            setattr(made, attribute, (*names, *(x.__name__ for x in names if f"{x}" in known)))
    return []


def _names(made: ModuleType) -> list[tuple[str, str, str]]:
    """Put names in the place of classes."""
    wrong = []
    for attribute in (*CLASSES, "OPERATORS"):
        names = getattr(made, attribute, ())
        kinds = (str, type) if attribute in CLASSES else str
        if not isinstance(names, tuple | dict) or not all(isinstance(x, kinds) for x in names):
            also = " and classes" if attribute in CLASSES else ""
            wrong.append((attribute, f"it is {names!r}", f"give a tuple of names{also}"))
        elif isinstance(names, dict):
            setattr(made, attribute, {_name(x): v for x, v in names.items()})
        elif hasattr(made, attribute):
            setattr(made, attribute, tuple(map(_name, names)))
    return wrong


def _name(x: str | type) -> str:
    return x if isinstance(x, str) else rules.class_name(x)


def _claimed(made: ModuleType) -> list[tuple[str, str, str]]:
    """What another rule owns already."""
    others = {n: r for n, r in rules.families().items() if n != made.__name__}
    return [
        (attribute, f"{key!r} belongs to the rule {name}", "give it another name, or leave it out")
        for attribute in OWNED
        for key in getattr(made, attribute, ())
        for name, other in others.items()
        if key in getattr(other, attribute, ())
    ]


def _lacking(made: ModuleType) -> list[tuple[str, str, str]]:
    """The functions that its names ask for."""
    wrong = [
        (
            function,
            f"{names} has {', '.join(map(repr, getattr(made, names)))}, and there is no such function",
            "write it",
        )
        for function, names in FUNCTIONS.items()
        if getattr(made, names) and not callable(getattr(made, function, None))
    ]
    if not any(getattr(made, names) for names in NAMES):
        wrong.append((", ".join(NAMES), "they are empty", "name what it is for"))
    if not callable(made.LAYOUT):
        wrong.append(("LAYOUT", f"it is {made.LAYOUT!r}", "give a function of bridge.layout"))
    if getattr(made, "MODELS", ()) and not callable(getattr(made, "options", None)):
        wrong.append(("options", "it has MODELS, and there is no such function", "write it"))
    return wrong


def _weights(made: ModuleType) -> list[tuple[str, str, str]]:
    """What is no name in torch with a pattern, from Keras' axes to torch's."""
    table = getattr(made, "WEIGHTS", {})
    remedy = 'give Keras name -> (torch name, pattern of einops), such as {"kernel": ("weight", "i o -> o i")}'
    if not isinstance(table, dict):
        return [("WEIGHTS", f"it is {table!r}", remedy)]

    def fits(entry) -> bool:
        pair = isinstance(entry, tuple) and len(entry) == 2 and all(isinstance(x, str) for x in entry)
        return pair and entry[1].count("->") == 1

    return [("WEIGHTS", f"{role!r} is {entry!r}", remedy) for role, entry in table.items() if not fits(entry)]


def _sources(made: ModuleType) -> list[tuple[str, str, str]]:
    """Helpers that are no class or function, or need what model.py does not have."""
    wrong, known = [], GIVEN | rules.helper_names() | set(made.HELPERS)
    for name, source in made.HELPERS.items():
        text = textwrap.dedent(source).strip()
        try:
            table = symtable.symtable(text, name, "exec")
        except SyntaxError as e:
            wrong.append(("HELPERS", f"{name} is no Python: {e}", "give the source of a class"))
            continue
        if not text.startswith((f"class {name}(", f"def {name}(")):
            wrong.append(("HELPERS", f"the source of {name} begins with {text[:30]!r}", f"begin with class {name}("))
        elif missing := sorted(_free(table) - known):
            reason = f"{name} uses {', '.join(missing)}, which model.py does not have"
            wrong.append(("HELPERS", reason, "import it inside a method, or write it with torch, nn and F"))
    return wrong


def _free(table: symtable.SymbolTable) -> set[str]:
    """The names that a source takes from around it."""
    found = {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
    if table.get_type() == "module":
        found = {s.get_name() for s in table.get_symbols() if s.is_referenced() and not s.is_assigned()}
    for child in table.get_children():
        found |= _free(child)
    return found
