"""The wrapper and the function of one method of an async class."""

from __future__ import annotations

import ast
import re
from textwrap import indent
from typing import TYPE_CHECKING

from tests.generate_sync.docstrings import NAMES, blocking_docstring, rename

if TYPE_CHECKING:
    from tests.generate_sync.sources import Function

__all__ = ["MARGIN", "WRAPPED", "Method", "docstring"]

#: The async classes that have a wrapper, with the base class of the wrapper.
WRAPPED = {
    "AsyncRequestHandle": "SyncWrapper[AsyncRequestHandle]",
    "EventStream": "SyncStreamBase[EventStream[E], E]",
    "AsyncRealtimeConnection": "SyncConnectionBase[AsyncRealtimeConnection, Any]",
    "WebSocketConnection": "SyncConnectionBase[WebSocketConnection, str | bytes]",
    "WebSocketResponse": "SyncStreamBase[WebSocketResponse, Any]",
    "HTTPOverWebSocket": "SyncWrapper[HTTPOverWebSocket]",
    "AsyncRequests": "SyncWrapper[AsyncRequests]",
    "AsyncModels": "SyncWrapper[AsyncModels]",
    "AsyncClient": "SyncClientBase[AsyncClient]",
    "Download": "SyncStreamBase[Download, bytes]",
    "File": "SyncFileBase",
    "Batch": "SyncBatchBase",
}
#: Special methods that a wrapper defines; the base classes define all others.
SPECIAL = {
    "AsyncClient": {"__init__", "__aenter__", "__aexit__"},
    "AsyncRequestHandle": {
        "__copy__",
        "__deepcopy__",
        "__get_pydantic_core_schema__",
        "__reduce__",
        "_repr_html_",
    },
}
#: Method bodies that differ from those of the async class.
BODIES = {
    ("AsyncRequestHandle", "_repr_html_"): "return self._async._repr_html_()",
    ("AsyncClient", "aclose"): "self._close()",
    ("AsyncClient", "statistics"): (
        "async def read() -> Statistics:\n    return self._async.statistics()\n\n"
        "return self._portal.call(read)"
    ),
    ("Batch", "stop"): "self._portal.call(self._async._stop)",
    ("AsyncRequestHandle", "__reduce__"): "return type(self)._attach_to_default, (self.to_dict(),)",
    ("AsyncRequestHandle", "__get_pydantic_core_schema__"): (
        "return handle_schema(cls, cls._attach_to_default)"
    ),
}
#: Wrappers that most programs do without, and their modules.
LATE = {
    "SyncBatch": "fal_async.sync._batch",
    "SyncModels": "fal_async.sync._platform",
    "SyncRequests": "fal_async.sync._platform",
}
MARGIN = "    "


class Method:
    """A method of an async class.

    Attributes:
        owner: The name of the class.
        name: The name of the method.
    """

    def __init__(self, owner: str, function: Function) -> None:
        self.owner, self.name = owner, function.name
        self._function = function
        self._returns = ast.unparse(function.returns) if function.returns else "None"
        decorators = {ast.unparse(node).split(".")[-1] for node in function.decorator_list}
        self._is_property = "property" in decorators
        self._is_classmethod = "classmethod" in decorators
        self._is_overload = "overload" in decorators
        self._is_context = self._returns.startswith("AbstractAsyncContextManager[")
        iterators = ("AsyncGenerator[", "AsyncIterator[")
        self._is_iterator = not self._is_context and self._returns.startswith(iterators)
        self._is_coroutine = isinstance(function, ast.AsyncFunctionDef) and not (
            self._is_context or self._is_iterator
        )

    @property
    def is_wrapped(self) -> bool:
        """Whether the wrapper defines the method, rather than its base class."""
        if self.name.startswith("_"):
            return self.name in SPECIAL.get(self.owner, ())
        is_stream = WRAPPED[self.owner].startswith(("SyncStreamBase", "SyncBatchBase"))
        return self.name != "aclose" or not is_stream

    def as_method(self) -> str:
        """Return the source text of the wrapper's method."""
        parameters = ast.unparse(self._function.args)
        head = rename(f"def {self.name}({parameters}) -> {self._blocking_type}:")
        return self._definition(head, self._method_body(), blocking=True)

    def as_function(self, *, blocking: bool) -> str:
        """Return the source text of a module's function, which calls the default client."""
        parameters = ast.unparse(self._function.args).removeprefix("self").removeprefix(", ")
        head = f"def {self.name}({parameters}) -> "
        client, await_ = "default_client()", ""
        if blocking:
            head, client = rename(f"{head}{self._blocking_type}:"), "_client()"
        else:
            head += f"{self._plain_type}:"
            if self._is_coroutine:
                head = f"async {head}"
                client, await_ = "(await load_default_client())", "await "
        arguments = self._arguments(wrapped=False)
        body = f"{self._return}{await_}{client}.{self.name}({arguments})"
        return self._definition(head, body, blocking=blocking)

    def _definition(self, head: str, body: str, *, blocking: bool) -> str:
        if self._is_overload:
            return f"@overload\n{head} ..."
        head = f"@property\n{head}" if self._is_property else head
        head = f"@classmethod\n{head}" if self._is_classmethod else head
        return f"{head}\n{indent(docstring(self._function, blocking=blocking) + body, MARGIN)}"

    @property
    def _yielded_type(self) -> str:
        """The type that an async context manager yields."""
        return self._returns.partition("[")[2].split(",")[0].rstrip("]")

    @property
    def _blocking_type(self) -> str:
        if self._is_context:
            return f"AbstractContextManager[{self._yielded_type}]"
        return self._returns

    @property
    def _plain_type(self) -> str:
        if self._is_context:
            return f"AbstractAsyncContextManager[{self._yielded_type}]"
        return self._returns

    @property
    def _return(self) -> str:
        return "" if self._returns == "None" else "return "

    def _method_body(self) -> str:
        if (self.owner, self.name) in BODIES:
            return BODIES[self.owner, self.name]
        if self.name == "__init__":
            arguments = self._arguments(wrapped=False)
            return f"{self._conceal_key}super().__init__({self.owner}({arguments}))"
        if self._is_classmethod or self.name.startswith("_"):  # these hold for the wrapper too
            body = self._function.body[ast.get_docstring(self._function) is not None :]
            return rename("\n".join(map(ast.unparse, body)).replace("await ", ""))
        late = [
            f"from {LATE[name]} import {name}  # most programs do without\n" for name in self._late
        ]
        return self._conceal_key + "".join(late) + self._return + self._portal_call()

    @property
    def _late(self) -> list[str]:
        """The wrappers that the method itself imports."""
        return [name for name in LATE if NAMES.get(self._returns) == name]

    @property
    def _conceal_key(self) -> str:
        """A statement that hides the key from tools that show the locals of a traceback."""
        args = self._function.args
        keys = [arg for arg in [*args.args, *args.kwonlyargs] if arg.arg == "key"]
        # The key of an input is no secret.
        has_key = any(
            arg.annotation and "KeyProvider" in ast.unparse(arg.annotation) for arg in keys
        )
        return "key = conceal(key)\n" if has_key else ""

    def _portal_call(self) -> str:
        method, arguments = f"self._async.{self.name}", self._arguments(wrapped=True)
        passed = ", ".join(filter(None, [method, arguments]))
        if self._is_context:
            return f"self._portal.enter({rename(self._yielded_type)}, {passed})"
        if self._is_iterator:
            return f"self._portal.iterate({passed})"
        call = method if self._is_property else f"{method}({arguments})"
        if self._is_coroutine:
            call = f"self._portal.call({passed})"
        returned = self._returns.partition("[")[0]
        if returned == "Self":
            return f"self._sharing_portal({call})"
        if returned not in {*WRAPPED, "AsyncPages", "T"}:  # `T` is the output of a model
            return call
        wrapper = "wrap_result" if returned == "T" else NAMES[returned]
        if self._is_coroutine:  # wrapped on the loop, where no interrupt can come between
            if self._function.args.kwarg:  # type checkers cannot pass on such arguments
                passed = f"lambda: {method}({arguments})"
            return f"self._portal.call_and_wrap({wrapper}, {passed})"
        return f"{wrapper}(self._portal, {call})"

    def _arguments(self, *, wrapped: bool) -> str:
        """Return the arguments that pass on all parameters.

        Callbacks and wrappers need a conversion on the way from a wrapper to its async object.
        """

        def argument(arg: ast.arg) -> str:
            annotation = ast.unparse(arg.annotation) if arg.annotation else ""
            if wrapped and "Callable[" in annotation and "Awaitable[None]" in annotation:
                return f"run_in_caller_thread({arg.arg})"
            if wrapped and WRAPPED.keys() & set(re.findall(r"\w+", annotation)):
                return f"self._unwrap({arg.arg})"
            return arg.arg

        args = self._function.args
        passed = [argument(arg) for arg in args.args[1:]]
        passed += [f"*{args.vararg.arg}"] if args.vararg else []
        passed += [f"{arg.arg}={argument(arg)}" for arg in args.kwonlyargs]
        passed += [f"**{args.kwarg.arg}"] if args.kwarg else []
        return ", ".join(passed)


def docstring(node: Function | ast.ClassDef, *, blocking: bool) -> str:
    """Return a docstring as source text."""
    text = ast.get_docstring(node)
    if text is None:
        return ""
    text = blocking_docstring(text) if blocking else text
    return f'"""{text}{chr(10) if chr(10) in text else ""}"""\n'
