"""What expressions of Python are known to be without running them."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeGuard

from deploy.postgres.changes import UNNAMED

# Calls that return the text they are given, and methods of a text that leave what it says.
AROUND_TEXT = ("text", "DDL", "dedent", "cleandoc", "f", "conv")
AFTER_TEXT = ("bindparams", "execution_options", "columns", "strip")
LONGEST = 200_000  # characters that constants may add up to
Names = Mapping[str, ast.expr]


def meanings(nodes: Iterable[ast.AST], outer: Names) -> dict[str, ast.expr]:
    """Return what the names mean that are given a meaning once, on top of those outside."""
    inside = [item for node in nodes for item in ast.walk(node)]
    given = Counter(
        item.id if isinstance(item, ast.Name) else item.arg
        for item in inside
        if isinstance(item, ast.arg)
        or (isinstance(item, ast.Name) and not isinstance(item.ctx, ast.Load))
    )
    known = {name: value for name, value in outer.items() if name not in given}
    for item in inside:
        match item:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ) if given[name] == 1:
                text = constant_text(value, known)
                known[name] = value if text is None else ast.Constant(text)
    return known


def constant_text(node: ast.expr | None, names: Names) -> str | None:
    """Return the constant text that an expression is, None when it is none."""
    match node:
        case ast.Name(id=name):
            # Texts are worked out where a name gets its meaning, so that none is followed twice.
            known = names.get(name)
            return constant_text(known, {}) if isinstance(known, ast.Constant) else None
        case ast.Constant(value=str() as text):
            return text
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _joined((left, right), names)
        case ast.JoinedStr(values=parts):
            return _joined(parts, names)
    inner = _around(node)
    return None if inner is None else constant_text(inner, names)


def _around(node: ast.expr | None) -> ast.expr | None:
    match node:
        case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
            return value
        case ast.Call(args=[first, *_]) if called_name(node) in AROUND_TEXT:
            return first
        case ast.Call(func=ast.Attribute(value=value, attr=name)) if name in AFTER_TEXT:
            return value
    return None


def _joined(parts: Iterable[ast.expr], names: Names) -> str | None:
    whole = ""
    for part in parts:
        text = constant_text(part, names)
        if text is None or len(whole) + len(text) > LONGEST:
            return None
        whole += text
    return whole


def constant_texts(node: ast.expr | None, names: Names) -> tuple[str, ...] | None:
    """Return the texts that an expression is, one or several; None when they are not constant."""
    if not is_given(node):
        return ()
    parts = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    found = [constant_text(part, names) for part in parts]
    known = tuple(text for text in found if text is not None)
    return known if len(known) == len(found) else None


def label(node: ast.expr | None, names: Names) -> str:
    """Return what an argument names; what is not constant stands in brackets, as it is written."""
    if not is_given(node):
        return UNNAMED
    text = constant_text(node, names)
    if text is None:
        return f"<{' '.join(ast.unparse(node).split())[:40]}>"
    return text if text.isprintable() else repr(text)


def is_true(node: ast.expr | None) -> bool:
    """Tell whether an argument is known to be True."""
    return isinstance(node, ast.Constant) and node.value is True


def is_false(node: ast.expr | None) -> bool:
    """Tell whether an argument is known to be False."""
    return isinstance(node, ast.Constant) and node.value is False


def is_given(node: ast.expr | None) -> TypeGuard[ast.expr]:
    """Tell whether an argument is there, and is not None."""
    return node is not None and not (isinstance(node, ast.Constant) and node.value is None)


def called_name(node: ast.AST | None) -> str:
    """Return the name of the function or method that a call calls, empty when there is none."""
    match node:
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
            return name
    return ""
