"""Prose: summaries of docstrings, and words that mean something else in this field."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fal_async

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(fal_async.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

#: No summary begins with one of these; a property may begin with Whether.
QUESTION = re.compile(r"(What|Where|How|Whether|Who|Whose|When|Which|Why|Whatever|Whoever)\b")
#: Words that the glossary of CONTRIBUTING.md replaces, in docstrings, comments and messages.
REPLACED = {
    r"repl(?:y|ies)": "response",
    r"answer(?:s|ed|ing)?": "response, respond",
    r"errands?": "task",
    r"hang(?:s)? up": "disconnect",
    r"hung up": "disconnected",
    r"stand(?:s|ing)? in line": "wait in the queue",
    r"in line": "in the queue",
    r"befall(?:s)?": "inject",
    r"renew(?:s|ed|al)?": "refresh",
    r"of which": "a new sentence",
    r"that nobody": "a new sentence",
    r"hand(?:s|ed|ing)? over": "return, pass",
    r"g(?:i|a)ve(?:s|n)? back": "release, return",
    r"(?:is|are|was|were) told": "receives",
    r"mishaps?": "fault",
}


def strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Find docstrings, messages of exceptions and texts of log calls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def documented(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield node, text


def is_property(node: ast.AST) -> bool:
    decorators = getattr(node, "decorator_list", [])
    return any("property" in ast.unparse(decorator) for decorator in decorators)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_summaries_begin_with_a_verb_or_noun(path: Path) -> None:
    wrong = []
    for node, text in documented(ast.parse(path.read_text("utf-8"))):
        summary = text.partition("\n")[0]
        whether = summary.startswith("Whether") and is_property(node)
        if QUESTION.match(summary) and not whether:
            wrong.append(summary)
    assert wrong == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_uses_the_words_of_the_field(path: Path) -> None:
    source = path.read_text("utf-8")
    wrong = []
    for line, text in [*strings(ast.parse(source)), *comments(source)]:
        for word, instead in REPLACED.items():
            if found := re.search(rf"\b{word}\b", text, re.IGNORECASE):
                wrong.append(f"line {line}: {found[0]!r}; {instead}")
    assert wrong == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_documents_use_the_words_of_the_field(name: str) -> None:
    text = (ROOT.parent / name).read_text("utf-8")
    found = [word for word in REPLACED if re.search(rf"\b{word}\b", text, re.IGNORECASE)]
    assert found == []
