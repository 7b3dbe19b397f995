"""The module that public classes show, and annotations that resolve at run time.

Most names in annotations are imported under ``TYPE_CHECKING``: their modules take longer to import
than this package does. Frameworks read annotations at run time, and cause these imports by that.
"""

from __future__ import annotations

import sys
from dataclasses import fields, is_dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView

    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

__all__ = ["make_resolvable", "set_module"]

ClassT = TypeVar("ClassT", bound=type)

_PACKAGE = __name__.partition(".")[0]
#: The modules that define classes which show another one.
_defined_in: WeakKeyDictionary[type, str] = WeakKeyDictionary()
_complete: set[str] = set()


def set_module(module: str) -> Callable[[ClassT], ClassT]:
    """Make a decorator that shows the public module of a class.

    Tracebacks, reprs and pickles then name the public module, so the defining one can be renamed.
    Functions keep theirs, since frameworks resolve their annotations in it.

    Args:
        module: The module that exports the class.
    """

    def decorator(cls: ClassT) -> ClassT:
        _defined_in.setdefault(cls, cls.__module__)
        cls.__module__ = module
        shown: type = cls
        if is_dataclass(shown) and not hasattr(shown, "__get_pydantic_core_schema__"):
            setattr(shown, "__get_pydantic_core_schema__", classmethod(_dataclass_schema))  # noqa: B010 -- a new attribute
        return cls

    return decorator


def _dataclass_schema(cls: Any, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    """Return the schema of a dataclass, which pydantic reads from the types of its fields."""
    make_resolvable(cls)
    hints = get_type_hints(cls)
    for field in fields(cls):
        field.type = hints[field.name]
    return handler(source)


def make_resolvable(value: object) -> None:
    """Let the annotations of a function or class of this package, and of its methods, be resolved.

    Args:
        value: The function or class. Other objects are left alone.
    """
    if isinstance(value, FunctionType):
        _defer_function(value)
    elif isinstance(value, type):
        for cls in value.__mro__:
            if cls.__module__.partition(".")[0] != _PACKAGE:
                continue
            if "__annotations__" in vars(cls):
                _defer(cls, _defined_in.get(cls, cls.__module__), as_types=cls in _defined_in)
            for member in vars(cls).values():
                function = getattr(member, "fget", getattr(member, "__func__", member))
                if isinstance(function, FunctionType):
                    _defer_function(function)


def _defer_function(function: FunctionType) -> None:
    _defer(function, function.__module__)
    wrapped = getattr(function, "__wrapped__", None)  # signatures are of the innermost function
    if isinstance(wrapped, FunctionType):
        _defer_function(wrapped)


def _defer(annotated: Any, module: str, *, as_types: bool = False) -> None:
    annotations: dict[str, Any] = annotated.__annotations__
    if annotations and not isinstance(annotations, _Annotations):
        annotated.__annotations__ = _Annotations(annotations, module, as_types=as_types)


class _Annotations(dict[str, Any]):
    """Annotations that import the names in them when they are read.

    Args:
        annotations: The annotations.
        module: The name of the module that they are written in.
        as_types: Whether to return types for strings: `typing.get_type_hints` evaluates the strings
            of a class in the module that the class shows.
    """

    def __init__(self, annotations: dict[str, Any], module: str, *, as_types: bool) -> None:
        super().__init__(annotations)
        self._module = module
        self._as_types = as_types

    def _resolve(self) -> None:
        _import_names(self._module)
        if self._as_types:
            self._as_types = False
            namespace = vars(sys.modules[self._module])
            for name, annotation in list(super().items()):
                if isinstance(annotation, str):
                    self[name] = eval(annotation, namespace)  # noqa: S307 -- the module's own text

    def __getitem__(self, name: str) -> Any:
        self._resolve()
        return super().__getitem__(name)

    def __iter__(self) -> Iterator[str]:  # `dict(annotations)` calls no other method
        self._resolve()
        return super().__iter__()

    def get(self, name: str, default: Any = None) -> Any:
        self._resolve()
        return super().get(name, default)

    def keys(self) -> KeysView[str]:  # type: ignore[override]  # the type in typeshed is private
        self._resolve()
        return super().keys()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]  # as above
        self._resolve()
        return super().values()

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]  # as above
        self._resolve()
        return super().items()


def _import_names(module: str) -> None:
    """Execute a module's imports under ``TYPE_CHECKING``, except for names that it has."""
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
