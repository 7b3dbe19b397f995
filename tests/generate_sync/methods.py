"""How one method of an async class is said by its blocking face, and by a function."""

from __future__ import annotations

import ast
import re
from textwrap import indent
from typing import TYPE_CHECKING

from tests.generate_sync import docstrings as words

if TYPE_CHECKING:
    from tests.generate_sync.sources import Function

__all__ = ["FACES", "MARGIN", "Method", "documented", "renamed"]

#: The async classes that have a blocking face, and the names of the faces.
FACES = {
    "AsyncRequestHandle": "SyncRequestHandle",
    "EventStream": "SyncEventStream",
    "AsyncRealtimeConnection": "RealtimeConnection",
    "WebSocketConnection": "SyncWebSocketConnection",
    "WebSocketResponse": "SyncWebSocketResponse",
    "HTTPOverWebSocket": "SyncHTTPOverWebSocket",
    "Download": "SyncDownload",
    "File": "SyncFile",
    "AsyncClient": "SyncClient",
}
#: Public methods that are only for neighbours of their class.
INTERNAL = {
    ("AsyncRequestHandle", "fetch"),
    ("AsyncRequestHandle", "follow"),
}
#: Public methods that the base of the face has.
INHERITED = {("EventStream", "aclose"), ("WebSocketResponse", "aclose"), ("Download", "aclose")}
#: Special methods that a face says; those of other classes are said by its base.
SPECIAL = {
    "AsyncClient": {"__init__", "__aenter__", "__aexit__"},
    "AsyncRequestHandle": {
        "__copy__",
        "__deepcopy__",
        "__get_pydantic_core_schema__",
        "__reduce__",
    },
}
#: The bodies that do not follow from the rules.
BY_HAND = {
    ("AsyncClient", "aclose"): "self._close()",
    ("AsyncRequestHandle", "__reduce__"): "return attach, (self.to_dict(),)",
    ("AsyncRequestHandle", "__get_pydantic_core_schema__"): "return handle_schema(cls, attach)",
    ("AsyncRequestHandle", "from_request_id"): (
        "check_client(client)\n"
        'return client.attach({"application": application, "request_id": request_id})'
    ),
}
NAMES = {
    **FACES,
    "Result": "SyncResult",
    "AsyncGenerator": "Generator",
    "AsyncIterator": "Iterator",
    "aclose": "close",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
}
#: What calls return that give the output of a model.
OUTPUT = "T"
MARGIN = "    "

#: What is code in a docstring.
_CODE = re.compile(r"`[^`]+`|(?:>>>|\.\.\.) .*")


class Method:
    """One method of an async class.

    Attributes:
        owner: The class whose face gets it.
        name: Its name.
    """

    def __init__(self, owner: str, function: Function) -> None:
        self.owner, self.name = owner, function.name
        self._function = function
        self._returns = ast.unparse(function.returns) if function.returns else "None"
        decorators = {ast.unparse(node).split(".")[-1] for node in function.decorator_list}
        self._is_property = "property" in decorators
        self._is_classmethod = "classmethod" in decorators
        self._is_overload = "overload" in decorators
        self._is_block = self._returns.startswith("AbstractAsyncContextManager[")
        iterators = ("AsyncGenerator[", "AsyncIterator[")
        self._is_iterator = not self._is_block and self._returns.startswith(iterators)
        self._is_coroutine = isinstance(function, ast.AsyncFunctionDef) and not (
            self._is_block or self._is_iterator
        )

    @property
    def is_said(self) -> bool:
        """Whether it is said in the face's own text."""
        if self.name.startswith("_"):
            return self.name in SPECIAL.get(self.owner, ())
        return (self.owner, self.name) not in INTERNAL | INHERITED

    def as_method(self) -> str:
        """The method of the face."""
        text = self._head(self.name, ast.unparse(self._function.args), self._face)
        return self._with_body(renamed(text), self._method_body(), blocking=True)

    def as_function(self, *, blocking: bool) -> str:
        """A function of a module, on a client that its callers share."""
        client, awaited, returns = "_client()", "", self._face
        if not blocking:
            client, awaited, returns = "default_client()", "", self._async_face
            if self._is_coroutine:
                client, awaited = "(await load_default_client())", "await "
        parameters = ast.unparse(self._function.args).removeprefix("self").removeprefix(", ")
        head = self._head(self.name, parameters, returns)
        head = renamed(head) if blocking else f"{awaited and 'async '}{head}"
        body = f"{self._return}{awaited}{client}.{self.name}({self._arguments(over=False)})"
        return self._with_body(head, body, blocking=blocking)

    @staticmethod
    def _head(name: str, parameters: str, returns: str) -> str:
        return f"def {name}({parameters}) -> {returns}:"

    def _with_body(self, head: str, body: str, *, blocking: bool) -> str:
        if self._is_overload:
            return f"@overload\n{head} ..."
        head = f"@property\n{head}" if self._is_property else head
        head = f"@classmethod\n{head}" if self._is_classmethod else head
        return f"{head}\n{indent(documented(self._function, blocking=blocking) + body, MARGIN)}"

    @property
    def _item(self) -> str:
        """What a block gives."""
        return self._returns.partition("[")[2].split(",")[0].rstrip("]")

    @property
    def _face(self) -> str:
        return f"AbstractContextManager[{self._item}]" if self._is_block else self._returns

    @property
    def _async_face(self) -> str:
        return f"AbstractAsyncContextManager[{self._item}]" if self._is_block else self._returns

    @property
    def _return(self) -> str:
        return "" if self._returns == "None" else "return "

    def _method_body(self) -> str:
        if (self.owner, self.name) in BY_HAND:
            return BY_HAND[self.owner, self.name]
        if self.name == "__init__":
            return f"{self._concealed}super().__init__({self.owner}({self._arguments(over=False)}))"
        if self.name.startswith("_"):  # what is said there holds for a face as well
            return renamed("\n".join(map(ast.unparse, self._function.body)).replace("await ", ""))
        return self._concealed + self._return + self._over_portal()

    @property
    def _concealed(self) -> str:
        """Puts a key out of sight of those who show tracebacks, as the async class does."""
        args = self._function.args
        has_key = any(arg.arg == "key" for arg in [*args.args, *args.kwonlyargs])
        return "key = conceal(key)\n" if has_key else ""

    def _over_portal(self) -> str:
        method, arguments = f"self._async.{self.name}", self._arguments(over=True)
        if self._is_property:
            return method
        handed = ", ".join(filter(None, [method, arguments]))
        if self._is_block:
            return f"self._portal.enter({renamed(self._item)}, {handed})"
        if self._is_iterator:
            return f"self._portal.iterate({handed})"
        value = f"self._portal.call({handed})" if self._is_coroutine else f"{method}({arguments})"
        if self._returns == "Self":
            return f"self._sharing_portal({value})"
        if (returned := self._returns.partition("[")[0]) in FACES:
            return self._brought(FACES[returned], handed, value)
        return self._brought("wrap_result", handed, value) if self._returns == OUTPUT else value

    def _brought(self, into: str, handed: str, value: str) -> str:
        """A value that is made into something else, where nothing can interrupt that."""
        if self._is_coroutine:
            return f"self._portal.bring({into}, {handed})"
        return f"{into}(self._portal, {value})"

    def _arguments(self, *, over: bool) -> str:
        """The parameters, passed on; with care for callbacks and faces on the way ``over``."""
        args = self._function.args
        passed = [_passed(arg, over=over) for arg in args.args[1:]]
        passed += [f"*{args.vararg.arg}"] if args.vararg else []
        passed += [f"{arg.arg}={_passed(arg, over=over)}" for arg in args.kwonlyargs]
        return ", ".join(passed)


def _passed(arg: ast.arg, *, over: bool) -> str:
    annotation = ast.unparse(arg.annotation) if arg.annotation else ""
    if over and "Callable[" in annotation and "Awaitable[None]" in annotation:
        return f"run_in_caller_thread({arg.arg})"
    if over and FACES.keys() & set(re.findall(r"\w+", annotation)):
        return f"self._unwrap({arg.arg})"
    return arg.arg


def renamed(text: str) -> str:
    """Source text with the names that its face has."""
    text = re.sub(r"AsyncGenerator\[(\w+), None\]", r"Generator[\1, None, None]", text)
    return re.sub(r"\w+", lambda word: NAMES.get(word[0], word[0]), text)


def documented(node: Function | ast.ClassDef, *, blocking: bool) -> str:
    """The docstring, as source text."""
    text = ast.get_docstring(node)
    if text is None:
        return ""
    if blocking:
        text = re.sub(
            r"`[^`]+`|(>>>|\.\.\.) .*", lambda code: renamed(code[0]), words.blocking(text)
        )
    return f'"""{text}{chr(10) if chr(10) in text else ""}"""\n'
