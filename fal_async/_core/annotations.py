"""Annotations that can be resolved at run time, although their names are imported when needed.

Most names in annotations are imported for type checkers alone: what they stand for takes longer to
import than this package does. Frameworks read annotations at run time; whoever reads those of this
package gets the same imports, at that moment.
"""

from __future__ import annotations

import sys
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ast
    from collections.abc import ItemsView, Iterator, KeysView, ValuesView

__all__ = ["make_resolvable"]

_PACKAGE = __name__.partition(".")[0]
_complete: set[str] = set()


def make_resolvable(value: object) -> None:
    """Let the annotations of a function or class of this package, and of its methods, be resolved.

    Args:
        value: The function or class; anything else is left alone.
    """
    if isinstance(value, FunctionType):
        _defer(value, value.__module__)
    elif isinstance(value, type):
        for kind in value.__mro__:
            if kind.__module__.partition(".")[0] == _PACKAGE:
                _make_members_resolvable(kind)


def _make_members_resolvable(kind: type) -> None:
    if "__annotations__" in vars(kind):
        _defer(kind, kind.__module__)
    for member in vars(kind).values():
        function = getattr(member, "fget", getattr(member, "__func__", member))
        if isinstance(function, FunctionType):
            _defer(function, kind.__module__)


def _defer(annotated: Any, module: str) -> None:
    annotations: dict[str, Any] = annotated.__annotations__
    if annotations and not isinstance(annotations, _Annotations):
        annotated.__annotations__ = _Annotations(annotations, module)


class _Annotations(dict[str, Any]):
    """Annotations that import the names in them when they are read."""

    def __init__(self, annotations: dict[str, Any], module: str) -> None:
        super().__init__(annotations)
        self._module = module

    def __getitem__(self, name: str) -> Any:
        _import_names(self._module)
        return super().__getitem__(name)

    def __iter__(self) -> Iterator[str]:  # without it, `dict(annotations)` asks no method
        _import_names(self._module)
        return super().__iter__()

    def get(self, name: str, default: Any = None) -> Any:
        _import_names(self._module)
        return super().get(name, default)

    def keys(self) -> KeysView[str]:  # type: ignore[override]  # typeshed's is of no public type
        _import_names(self._module)
        return super().keys()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]  # as above
        _import_names(self._module)
        return super().values()

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]  # as above
        _import_names(self._module)
        return super().items()


def _import_names(module: str) -> None:
    """Do what a module does for type checkers alone; names that it has are left as they are."""
    if module in _complete:
        return
    import ast  # rarely needed
    import inspect

    namespace = vars(sys.modules[module])
    names = dict(namespace)
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError):  # a distribution without sources
        tree = ast.Module([], [])
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for statement in node.body:
                _execute(statement, names)
    for name, value in names.items():
        namespace.setdefault(name, value)
    _complete.add(module)


def _execute(statement: ast.stmt, names: dict[str, Any]) -> None:
    import ast  # rarely needed

    code = compile(ast.Module([statement], []), "<annotations>", "exec")
    try:
        exec(code, names)  # noqa: S102 -- the module's own text
    except ImportError:  # of an extra that is not installed
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                names.setdefault(alias.asname or alias.name.partition(".")[0], Any)
