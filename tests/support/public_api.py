"""The public API as text: names, signatures and the types of attributes.

``python -m tests.support.public_api`` renews the record and the pickles in ``tests/data``.
"""

from __future__ import annotations

import importlib
import inspect
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fal_async
import fal_async.sync

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).parents[1] / "data"
RECORD = DATA / "public_api.txt"
MODULES = [
    "fal_async",
    "fal_async.auth",
    "fal_async.batch",
    "fal_async.client",
    "fal_async.emulator",
    "fal_async.errors",
    "fal_async.hooks",
    "fal_async.proxy",
    "fal_async.pytest_plugin",
    "fal_async.stores",
    "fal_async.sync",
    "fal_async.telemetry",
    "fal_async.types",
    "fal_async.webhooks",
]
#: Classes that only calls construct, and their wrappers: constructors are no part of the API.
MADE_BY_CALLS = {
    "AsyncRealtimeConnection",
    "Download",
    "EventStream",
    "HTTPOverWebSocket",
    "ProxyRequest",
    "WebSocketConnection",
    "WebSocketResponse",
}
#: Methods of public classes that users call by syntax.
SYNTAX = {
    "__init__",
    "__aiter__",
    "__anext__",
    "__iter__",
    "__next__",
    "__aenter__",
    "__enter__",
    "__contains__",
}
JOB = "764cabcf-b745-4b3e-ae38-1200304cf45b"


def describe() -> str:
    """Return the record of all public modules."""
    return "\n".join(line for name in MODULES for line in _describe_module(name)) + "\n"


def _describe_module(name: str) -> Iterator[str]:
    yield f"# {name}"
    module = importlib.import_module(name)
    for public in sorted(module.__all__):
        value = getattr(module, public)
        if isinstance(value, type) and value.__module__ not in {name, "builtins"}:
            yield f"{public} = {value.__module__}.{value.__qualname__}"
        elif isinstance(value, type) and value.__module__ == name:
            yield from _describe_class(value)
        elif inspect.isfunction(value):
            yield _describe_function(public, value)
        elif name == "fal_async.types" or not hasattr(value, "__dict__"):
            yield f"{public} = {value!r}" if public != "__version__" else public
        else:
            yield f"{public}: {type(value).__name__}"
    yield ""


def _describe_class(cls: type) -> Iterator[str]:
    bases = ", ".join(base.__name__ for base in cls.__bases__)
    yield f"class {cls.__name__}({bases})"
    for name, annotation in sorted(_attributes(cls).items()):
        yield f"    {name}: {annotation}"
    for name in sorted(dir(cls)):
        member = inspect.getattr_static(cls, name)
        function = getattr(member, "fget", getattr(member, "__func__", member))
        ours = str(getattr(function, "__module__", "")).startswith("fal_async")
        if not inspect.isfunction(function) or not ours or (name[0] == "_" and name not in SYNTAX):
            continue
        if isinstance(member, property):
            yield f"    {name}: {function.__annotations__.get('return')}"
        elif name != "__init__" or _has_public_constructor(cls):
            yield f"    {_describe_function(name, function)}"


def _has_public_constructor(cls: type) -> bool:
    is_wrapper = cls.__module__ == "fal_async.sync" and cls.__name__ not in {
        "SyncClient",
        "SyncResult",
    }
    is_described = "__dataclass_fields__" in vars(cls)
    return not (is_wrapper or is_described or cls.__name__ in MADE_BY_CALLS)


def _attributes(cls: type) -> dict[str, str]:
    """Return the public annotations of a class and its bases, as they are written."""
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        if each.__module__.startswith("fal_async"):
            # Unlike reading an item, this leaves the text as it is.
            found |= {
                name: text if isinstance(text, str) else inspect.formatannotation(text)
                for name, text in dict.items(vars(each).get("__annotations__", {}))
                if not name.startswith("_")
            }
    return found


def _describe_function(name: str, function: Any) -> str:
    kind = "async def" if inspect.iscoroutinefunction(function) else "def"
    text = str(inspect.signature(function)).replace("'", "")
    return f"{kind} {name}{text}"


def samples() -> dict[str, object]:
    """Return the values that are kept as pickles, by the names of their files."""
    urls = f"https://queue.fal.run/acme/echo/requests/{JOB}"
    handle = fal_async.AsyncRequestHandle(
        request_id=JOB,
        response_url=urls,
        status_url=f"{urls}/status",
        cancel_url=f"{urls}/cancel",
        application="acme/echo",
    )
    output = {"images": [{"url": "https://v3.fal.media/files/a.png", "width": 4}], "seed": 7}
    facts: dict[str, Any] = {
        "request_id": JOB,
        "billable_units": 1.5,
        "metrics": {"inference_time": 0.5},
        "retries": 1,
        "headers": {"x-fal-request-id": JOB},
    }
    error = fal_async.InvalidInputError(
        "too small",
        422,
        details=[fal_async.ErrorDetail(message="too small", type="image_too_small")],
        request_id=JOB,
        body={"detail": "too small"},
    )
    error.stage, error.started = "job", True
    return {
        "handle": handle,
        "sync_handle": fal_async.sync.attach(handle.to_dict()),
        "result": fal_async.Result(output, **facts),
        "sync_result": fal_async.sync.SyncResult(output, **facts),
        "file": fal_async.Result(output).files()[0],
        "sync_file": fal_async.sync.SyncResult(output).files()[0],
        "error": error,
        "timeout_error": fal_async.FalClientTimeoutError(5.0, JOB, fal_async.Queued(3)),
        "completed": fal_async.Completed([{"message": "drawing"}], {"inference_time": 0.5}),
    }


def renew() -> None:
    """Write the record, and the pickles that are missing. Those that exist stay readable."""
    DATA.mkdir(exist_ok=True)
    RECORD.write_text(describe(), "utf-8")
    for name, value in samples().items():
        path = DATA / f"{name}.pickle"
        if not path.exists():
            path.write_bytes(pickle.dumps(value, protocol=4))


if __name__ == "__main__":
    renew()
