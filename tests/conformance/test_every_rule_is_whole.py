"""Every rule file has what `bridge.rules` promises of it, and what it claims nobody else does."""

from collections import defaultdict

import pytest

from bridge import rules

# function of a rule -> the names that ask for it: what becomes of others' operators is read alone
FUNCTIONS = {"read_keras": "KERAS", "read_torch": "TORCH", "write_keras": "OPERATORS", "write_torch": "OPERATORS"}


@pytest.mark.parametrize("attribute", ["OPERATORS", "KERAS", "TORCH", "HELPERS"])
def test_no_two_rules_claim_the_same(attribute):
    owners = defaultdict(list)
    for name, rule in rules.families().items():
        for key in dict.fromkeys(getattr(rule, attribute, ())):
            owners[key].append(name)
    assert {key: names for key, names in owners.items() if len(names) > 1} == {}


@pytest.mark.parametrize("name, rule", rules.families().items(), ids=rules.families())
def test_a_rule_is_whole(name, rule):
    for attribute in ("OPERATORS", "KERAS", "TORCH"):
        keys = getattr(rule, attribute)
        assert isinstance(keys, tuple) and all(isinstance(key, str) for key in keys), attribute
    assert rule.OPERATORS or rule.KERAS or rule.TORCH
    assert callable(rule.LAYOUT)
    assert all(callable(getattr(rule, function)) for function, names in FUNCTIONS.items() if getattr(rule, names))
    for helper in getattr(rule, "HELPERS", ()):
        assert rules.helper_source(helper).startswith((f"class {helper}(", f"def {helper}("))
    for role, (weight, pattern) in getattr(rule, "WEIGHTS", {}).items():
        parts = role.split("/")  # of a small model, by the names of its layers
        assert all(part.isidentifier() for part in [*parts, weight]) and pattern.count("->") == 1
