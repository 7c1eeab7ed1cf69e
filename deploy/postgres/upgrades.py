"""What the text of a migration says: who it is, what it follows, what its upgrade does."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from deploy.postgres.changes import UNNAMED, Change, in_sql, perhaps
from deploy.postgres.constants import (
    Names,
    called_name,
    constant_text,
    constant_texts,
    is_false,
    is_given,
    is_true,
    label,
    meanings,
)

# The arguments of each operation in their order; in a batch, the table is said by the batch.
OPERATIONS = {
    "add_column": ("table", "column"),
    "alter_column": ("table", "column"),
    "create_check_constraint": ("name", "table"),
    "create_exclude_constraint": ("name", "table"),
    "create_foreign_key": ("name", "table"),
    "create_index": ("name", "table"),
    "create_primary_key": ("name", "table"),
    "create_table": ("table",),
    "create_unique_constraint": ("name", "table"),
    "drop_column": ("table", "column"),
    "drop_constraint": ("name", "table"),
    "drop_index": ("name", "table"),
    "drop_table": ("table",),
    "rename_table": ("table", "new"),
} | dict.fromkeys(("execute", "exec_driver_sql", "scalar", "scalars"), ("sql",))
BATCH = "batch_alter_table"
ARGUMENTS = OPERATIONS | {BATCH: ("table", "schema"), "Column": ("name", "type")}
KEYWORDS = {
    **dict.fromkeys(("table_name", "source_table", "old_table_name"), "table"),
    **dict.fromkeys(("constraint_name", "index_name"), "name"),
    **dict.fromkeys(("new_table_name", "new_column_name"), "new"),
    **dict.fromkeys(("sqltext", "statement"), "sql"),
    "column_name": "column",
    "source_schema": "schema",
}
OPAQUE = ("run_async", "invoke", "create_all", "drop_all")
# What runs perhaps: a table that is made there need not be new afterwards.
PERHAPS = (
    *(ast.If, ast.IfExp, ast.BoolOp, ast.match_case, ast.For, ast.While),
    *(ast.Try, ast.TryStar, ast.ExceptHandler),
)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Script:
    """What the text of one file says."""

    file: str
    revision: str = ""
    down: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True)
class _File:
    """What the functions of a file share; each is walked through once, so that none hangs us."""

    functions: Mapping[str, ast.FunctionDef | ast.AsyncFunctionDef]
    names: Names
    seen: set[str] = field(default_factory=set)


def read(file: str, text: str) -> Script:
    """Return what the text of a migration says, never running it.

    Args:
        file: The file's name.
        text: Its text, which may be anything.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a strange escape in a string is its author's affair
            tree = ast.parse(text)
        return _understood(file, tree)
    except SyntaxError as error:
        return Script(file, wrong=(f"cannot be read as Python: {error.msg}, line {error.lineno}",))
    except (ValueError, RecursionError, MemoryError) as error:
        return Script(file, wrong=(f"cannot be read as Python: {type(error).__name__}",))


def _understood(file: str, tree: ast.Module) -> Script:
    names = meanings((item for item in tree.body if not isinstance(item, DEFINITIONS)), {})
    revision = constant_text(names.get("revision"), names)
    if not revision:
        return Script(file, wrong=("has no revision that can be read",))
    down, needs, labels = (
        constant_texts(names.get(name), names)
        for name in ("down_revision", "depends_on", "branch_labels")
    )
    wrong = ("says only at run time what it follows",) if down is None or needs is None else ()
    functions = {item.name: item for item in ast.walk(tree) if isinstance(item, DEFINITIONS[:2])}
    changes = tuple(_in_function("upgrade", _File(functions, names)))
    return Script(file, revision, (*(down or ()), *(needs or ())), labels or (), changes, wrong)


def _in_function(name: str, file: _File) -> Iterator[Change]:
    function = file.functions.get(name)
    if function and name not in file.seen:
        file.seen.add(name)
        names = meanings([function], file.names)
        for statement in function.body:
            yield from _in_node(statement, names, file)


def _in_node(node: ast.AST, names: Names, file: _File) -> Iterator[Change]:
    """Return what happens in a piece of a function, in the order in which it runs."""
    if isinstance(node, DEFINITIONS):
        return
    for _, value in ast.iter_fields(node):
        block: list[Change] = []
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                block += _in_node(item, names, file)
            if isinstance(item, ast.withitem) and isinstance(item.optional_vars, ast.Name):
                names = {**names, item.optional_vars.id: item.context_expr}
        yield from perhaps(block) if isinstance(node, PERHAPS) else block
    if isinstance(node, ast.Call):
        called = called_name(node)
        if isinstance(node.func, ast.Name) and called in file.functions:
            yield from _in_function(called, file)
        elif called in OPAQUE:
            yield Change("execute")
        elif called in OPERATIONS:
            given = _given(node, names)
            changes = _in_operation(called, given, names)
            yield from perhaps(changes) if is_true(given.get("if_not_exists")) else changes


def _given(call: ast.Call, names: Names) -> dict[str, ast.expr]:
    """Return the arguments of a call by name, with those that its batch says."""
    called = called_name(call)
    order, given = ARGUMENTS[called], dict[str, ast.expr]()
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    batch = names.get(owner.id) if isinstance(owner, ast.Name) else None
    if isinstance(batch, ast.Call) and called_name(batch) == BATCH != called:
        given = _given(batch, names)
        order = tuple(name for name in order if name != "table")
    given |= zip(order, call.args, strict=False)
    return given | {
        KEYWORDS.get(item.arg, item.arg): item.value for item in call.keywords if item.arg
    }


def _in_operation(called: str, given: Mapping[str, ast.expr], names: Names) -> Iterator[Change]:
    table, schema = label(given.get("table"), names), constant_text(given.get("schema"), names)
    table = f"{schema}.{table}" if schema and schema != "public" else table
    kind = called.replace("_", " ")
    if "sql" in OPERATIONS[called]:
        text = constant_text(given.get("sql"), names)
        if "sql" in given:
            yield from [Change("execute")] if text is None else in_sql(text)
    elif called == "add_column":
        yield from _in_column(table, given.get("column"), names)
    elif called == "alter_column":
        column = label(given.get("column"), names)
        if is_false(given.get("nullable")):
            yield Change("require column", table, column)
        if is_given(given.get("type_")):
            yield Change("retype column", table, column)
        if is_given(given.get("new")):
            yield Change("rename column", table, column, label(given["new"], names))
    elif is_true(given.get("postgresql_concurrently")) and called == "create_index":
        yield Change("create spared index", table, label(given.get("name"), names))
    elif not is_true(given.get("postgresql_not_valid")):
        key = next((key for key in OPERATIONS[called] if key in ("name", "column")), "")
        name = label(given.get(key), names) if key else ""
        yield Change(kind, table, name, label(given["new"], names) if "new" in given else "")


def _in_column(table: str, column: ast.expr | None, names: Names) -> Iterator[Change]:
    column = names.get(column.id) if isinstance(column, ast.Name) else column
    if not isinstance(column, ast.Call) or called_name(column) != "Column":
        yield Change("add unknown column", table)
        return
    given = _given(column, names)
    name = label(given.get("name"), names)
    parts = [called_name(item) for item in column.args]
    filled = is_given(given.get("server_default")) or not {"Identity", "Computed"}.isdisjoint(parts)
    required = is_false(given.get("nullable")) or is_true(given.get("primary_key"))
    yield Change("add column" if filled or not required else "add bare column", table, name)
    if "ForeignKey" in parts:
        yield Change("create foreign key", table, name)
    if is_true(given.get("unique")):
        yield Change("create unique constraint", table, name)
    if is_true(given.get("index")):
        yield Change("create index", table, UNNAMED)
