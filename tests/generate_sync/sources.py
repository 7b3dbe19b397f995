"""Syntax trees of the async modules, which the generator reads without importing them."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["PACKAGE", "Function", "Source", "public_names"]

PACKAGE = Path(__file__).parents[2] / "fal_async"

#: A type variable with a default, as annotations of public methods need; others are private.
_VARIABLE = re.compile(r"[A-Z] = TypeVar\(.*default=")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Source:
    """A module: its classes, and the names that their annotations need.

    Attributes:
        name: The path of the module within the package, without its suffix.
        classes: The classes by name.
        imports: The imports, at any depth.
        variables: The type variables that the module defines for type checkers.
    """

    name: str
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    imports: list[ast.Import | ast.ImportFrom] = field(default_factory=list)
    variables: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, name: str) -> Source:
        source = cls(name)
        for node in map(_InlineConstants(name).visit, _statements(name)):
            if isinstance(node, ast.ClassDef):
                source.classes[node.name] = node
            elif isinstance(node, ast.Import | ast.ImportFrom):
                source.imports.append(node)
            elif isinstance(node, ast.Assign) and _VARIABLE.match(ast.unparse(node)):
                source.variables.append(ast.unparse(node))
        return source

    def bases(self, name: str) -> list[tuple[Source, ast.ClassDef]]:
        """Return the bases of a class that are classes of the package, each with its module."""
        found = []
        for base in self.classes[name].bases:
            for node in self.imports:
                if isinstance(node, ast.ImportFrom) and _imports(node, ast.unparse(base)):
                    module = (node.module or "").removeprefix("fal_async.").replace(".", "/")
                    source = Source.read(module)
                    found.append((source, source.classes[ast.unparse(base)]))
        return found


class _InlineConstants(ast.NodeTransformer):
    """Replace the module's constants by their values in the defaults of parameters."""

    def __init__(self, name: str) -> None:
        self._values = {
            ast.unparse(node.target): node.value
            for node in _statements(name)
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "Final"
        }

    def visit_arguments(self, node: ast.arguments) -> ast.arguments:
        node.defaults = [self._value(default) or default for default in node.defaults]
        node.kw_defaults = [self._value(default) or default for default in node.kw_defaults]
        return node

    def _value(self, default: ast.expr | None) -> ast.expr | None:
        return self._values.get(ast.unparse(default)) if isinstance(default, ast.Name) else default


def public_names(module: str) -> list[str]:
    """Return the names in a module's ``__all__``."""
    for node in _statements(module):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    raise LookupError(f"{module} has no __all__")


def _statements(name: str) -> list[ast.stmt]:
    tree = ast.parse((PACKAGE / f"{name}.py").read_text("utf-8"))
    return [node for top in tree.body for node in (top.body if isinstance(top, ast.If) else [top])]


def _imports(node: ast.ImportFrom, name: str) -> bool:
    return (node.module or "").startswith("fal_async.") and any(
        alias.name == name for alias in node.names
    )
