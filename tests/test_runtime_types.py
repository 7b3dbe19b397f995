"""What frameworks do with public types: resolve annotations, check, serialize, copy and mock."""

from __future__ import annotations

import ast
import copy
import dataclasses
import inspect
import json
import pickle
import subprocess
import sys
import typing
from importlib import import_module
from typing import TYPE_CHECKING, Any
from unittest import mock

import anyio
import httpx
import pydantic
import pytest

import fal_async
import fal_async.sync
from fal_async import AsyncRequestHandle, Cancellation, Completed, File, InProgress, Queued, Result
from fal_async._core import annotations as annotations_module
from fal_async.sync import SyncFile, SyncRequestHandle, SyncResult
from tests.test_public_api import SHOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FACTS = {
    "request_id": "764cabcf-b745-4b3e-ae38-1200304cf45b",
    "response_url": "https://queue.fal.run/acme/echo/requests/764cabcf",
    "status_url": "https://queue.fal.run/acme/echo/requests/764cabcf/status",
    "cancel_url": "https://queue.fal.run/acme/echo/requests/764cabcf/cancel",
    "application": "acme/echo",
}
LINE = fal_async.LogLine(message="drawing", timestamp="2026-02-17T10:30:01Z", level="INFO")


def annotated(value: object) -> Iterator[tuple[str, Any]]:
    """What can be asked for its annotations: a function, or a class with its public methods."""
    if inspect.isfunction(value):
        yield value.__qualname__, value
    if isinstance(value, type) and value.__module__.startswith("fal_async"):
        yield value.__qualname__, value
        for name in dir(value):
            member = inspect.getattr_static(value, name)
            function = getattr(member, "fget", getattr(member, "__func__", member))
            module = getattr(function, "__module__", None) or ""
            ours = inspect.isfunction(function) and module.startswith("fal_async")
            if ours and (not name.startswith("_") or name == "__init__"):
                yield f"{value.__qualname__}.{name}", function


@pytest.mark.parametrize("name", SHOWN)
def test_public_annotations_can_be_resolved(name: str) -> None:
    module = import_module(name)
    for shown in getattr(module, "__all__", ()):
        for path, value in annotated(getattr(module, shown)):
            try:
                hints = typing.get_type_hints(value)
                if not isinstance(value, type):
                    inspect.signature(value, eval_str=True)
            except (NameError, TypeError) as error:
                pytest.fail(f"{name}: {path}: {error}")
            assert not [hint for hint in hints.values() if isinstance(hint, str)], path


def test_walk_finds_every_kind_of_callable() -> None:
    client = {path for path, _ in annotated(fal_async.AsyncClient)}
    names = {"__init__", "default_timeout", "submit", "upload"}
    assert {"AsyncClient", *(f"AsyncClient.{name}" for name in names)} <= client
    assert [path for path, _ in annotated(fal_async.run)] == ["run"]


#: Ways in which frameworks read annotations. Each is the first in its process, since the imports of
#: one would help the next.
LOOKS = [
    "typing.get_type_hints(subject)",
    "inspect.signature(subject, eval_str=True)",
    "eval(inspect.signature(subject).parameters['headers'].annotation, subject.__globals__)",
    "eval(subject.__annotations__['headers'], subject.__globals__)",
    "eval(subject.__annotations__.get('headers'), subject.__globals__)",
    "[eval(x, subject.__globals__) for x in subject.__annotations__.values()]",
    "[eval(x, subject.__globals__) for _, x in subject.__annotations__.items()]",
    "[eval(subject.__annotations__[x], subject.__globals__) for x in subject.__annotations__]",
    "pydantic.validate_call(subject)",
    "typing.get_type_hints(functools.wraps(subject)(lambda *args: None))",
]
FORKS = """
import functools, inspect, os, sys, typing, fal_async.sync, pydantic
for subject in (fal_async.submit, fal_async.sync.submit):
    for look in sys.argv[1:]:
        if not (child := os.fork()):
            eval(look)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(f"{subject.__module__}: {look}")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forks of POSIX")
def test_however_they_are_looked_at() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS, *LOOKS], timeout=60, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_unread_annotations_import_nothing() -> None:
    heavy = {"anyio", "httpx", "pydantic", "typing_extensions"}
    code = f"import sys, fal_async; fal_async.run; print(*{heavy} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=30, capture_output=True, text=True
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", ["fal_async.errors", "fal_async.types"])
def test_annotations_of_a_module_that_is_imported_alone(name: str) -> None:
    code = (
        f"import typing, {name} as module\n"
        "for name in module.__all__:\n"
        "    if isinstance(value := getattr(module, name), type):\n"
        "        typing.get_type_hints(value)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_types_of_missing_extras_are_any() -> None:
    names: dict[str, Any] = {}
    source = "import no_such_package.inner\nfrom no_such_package import Picture as Image"
    for statement in ast.parse(source).body:
        annotations_module._execute(statement, names)
    assert {name: names[name] for name in ("no_such_package", "Image")} == {
        "no_such_package": Any,
        "Image": Any,
    }


@pytest.mark.parametrize(
    ("kind", "value", "data"),
    [
        (Queued, Queued(3), {"position": 3}),
        (InProgress, InProgress([LINE]), {"logs": [dict(LINE)]}),
        (
            Completed,
            Completed([], {"inference_time": 0.5}),
            {
                "logs": [],
                "metrics": {"inference_time": 0.5},
                "error": None,
                "error_type": None,
            },
        ),
        (fal_async.LogLine, LINE | {"labels": {"a": 1}}, LINE | {"labels": {"a": 1}}),
        (Result, Result({"seed": 7}, request_id="764cabcf"), {"seed": 7}),
        (Cancellation, Cancellation("OK"), "OK"),
        (fal_async.Priority, "low", "low"),
        (
            fal_async.StorageSettings,
            fal_async.StorageSettings("1h", fal_async.StorageACL("hide", [])),
            {"expires_in": "1h", "initial_acl": {"default": "hide", "rules": []}},
        ),
        (AsyncRequestHandle, AsyncRequestHandle(**FACTS), FACTS),
        (SyncRequestHandle, fal_async.sync.attach(FACTS), FACTS),
        (SyncResult, SyncResult({"seed": 7}), {"seed": 7}),
        (
            File,
            File(url="data:,hello"),
            dict.fromkeys(("content_type", "file_name", "file_size", "width", "height"))
            | {"url": "data:,hello"},
        ),
    ],
)
def test_public_values_work_as_model_fields(kind: Any, value: Any, data: Any) -> None:
    adapter = pydantic.TypeAdapter(kind)
    checked = adapter.validate_python(value)
    assert checked == value
    assert adapter.dump_python(checked, mode="json") == data
    again = adapter.validate_json(json.dumps(data))
    assert again == value
    assert type(again) is type(value)
    assert adapter.json_schema()
    assert adapter.json_schema(mode="serialization")
    holder = pydantic.create_model("Holder", it=(kind, ...))(it=value)
    assert json.loads(holder.model_dump_json()) == {"it": data}


def public_objects(holds: Callable[[object], bool]) -> dict[str, Any]:
    """Return the public objects for which a condition holds, by their names."""
    found: dict[str, Any] = {}
    for name in SHOWN:
        module = import_module(name)
        for shown in getattr(module, "__all__", ()):
            if holds(value := getattr(module, shown)) and value not in found.values():
                found[f"{name}.{shown}"] = value
    return found


VALUES = public_objects(lambda value: dataclasses.is_dataclass(value) and isinstance(value, type))
FUNCTIONS = public_objects(inspect.isfunction)
#: Values with fields that JSON cannot hold, such as an exception.
NOT_JSON = {"fal_async.emulator.Fault", "fal_async.hooks.CallEnded"}


@pytest.mark.parametrize("name", sorted(VALUES.keys() - NOT_JSON))
def test_every_value_is_the_type_of_a_field(name: str) -> None:
    assert pydantic.TypeAdapter(VALUES[name]).json_schema(mode="serialization")
    fastapi = pytest.importorskip("fastapi")
    app = fastapi.FastAPI()
    app.get("/value", response_model=VALUES[name])(lambda: None)
    assert app.openapi()


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_call_can_be_validated(name: str) -> None:
    checked = pydantic.validate_call(config={"arbitrary_types_allowed": True})(FUNCTIONS[name])
    assert inspect.signature(checked).parameters.keys() == (
        inspect.signature(FUNCTIONS[name]).parameters.keys()
    )


def test_result_in_a_model_keeps_its_request() -> None:
    result = Result({"seed": 7}, request_id="764cabcf", retries=1)
    checked = pydantic.TypeAdapter(Result).validate_python(result)
    assert checked is result
    kept = pydantic.TypeAdapter(Result).validate_python({"seed": 7})
    assert isinstance(kept, Result)
    assert kept.request_id is None


def test_what_is_no_result_or_handle_is_refused() -> None:
    for kind, value in [
        (Result, [1]),
        (AsyncRequestHandle, {"request_id": "764cabcf"}),
        (Cancellation, 7),
        (fal_async.Upload, b"data"),
        (fal_async.LogLine, {"level": "INFO"}),
    ]:
        with pytest.raises(pydantic.ValidationError):
            pydantic.TypeAdapter(kind).validate_python(value)


def test_input_models_may_hold_uploads() -> None:
    class Edit(pydantic.BaseModel):
        image_url: fal_async.Upload | str
        options: fal_async.StorageSettings | None = None

    upload = fal_async.Upload(b"...", "image/png", "cat.png")
    assert Edit(image_url=upload).image_url is upload
    assert Edit.model_json_schema()["properties"]["image_url"]["anyOf"][0]["format"] == "uri"


def endpoints() -> Any:
    app = pytest.importorskip("fastapi").FastAPI()
    result = Result({"images": [{"url": "data:,x"}]}, request_id="764cabcf")

    def get_result() -> Result:
        return result

    app.post("/result")(get_result)

    def get_file() -> object:
        return result.files()[0]

    app.get("/file", response_model=File)(get_file)

    def get_done() -> Completed:
        return Completed([LINE], {"inference_time": 0.5})

    app.get("/done")(get_done)

    def get_any() -> object:
        return {"output": result, "files": result.files(), "status": Queued(1)}

    app.get("/any", response_model=None)(get_any)

    def post_job(handle: AsyncRequestHandle) -> AsyncRequestHandle:
        return handle

    app.post("/job")(post_job)

    return app


async def test_public_types_are_the_types_of_endpoints() -> None:
    transport = httpx.ASGITransport(endpoints())
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        assert (await client.post("/result")).json() == {"images": [{"url": "data:,x"}]}
        assert (await client.get("/file")).json()["url"] == "data:,x"
        assert (await client.get("/done")).json()["logs"] == [dict(LINE)]
        assert (await client.get("/any")).json()["status"] == {"position": 1}
        assert (await client.post("/job", json=FACTS)).json() == FACTS
        assert (await client.get("/openapi.json")).status_code == 200


def test_a_call_can_be_a_dependency() -> None:
    fastapi = pytest.importorskip("fastapi")
    app = fastapi.FastAPI()
    app.get("/status", dependencies=[fastapi.Depends(fal_async.status)])(lambda: None)
    parameters = app.openapi()["paths"]["/status"]["get"]["parameters"]
    assert {each["name"] for each in parameters} == {
        "application",
        "request_id",
        "with_logs",
        "timeout",
    }


@pytest.mark.parametrize("kind", [Result, SyncResult])
def test_results_serialize_to_json_and_yaml(kind: Any) -> None:
    yaml = pytest.importorskip("yaml")
    result = kind({"images": [{"url": "data:,x", "width": 4}]}, request_id="764cabcf")
    assert json.loads(json.dumps(result)) == dict(result)
    assert yaml.safe_load(yaml.safe_dump(dict(result))) == dict(result)
    [file] = result.files()
    assert json.loads(file.model_dump_json())["width"] == 4
    assert isinstance(file, SyncFile if kind is SyncResult else File)


def test_values_serialize_to_json_and_yaml() -> None:
    yaml = pytest.importorskip("yaml")
    for plain in (str(Cancellation("OK")), dataclasses.asdict(InProgress([LINE])), dict(LINE)):
        assert json.loads(json.dumps(plain)) == plain
        assert yaml.safe_load(yaml.safe_dump(plain)) == plain


@pytest.mark.parametrize(
    "value",
    [
        Queued(1),
        InProgress([LINE]),
        Result({"seed": 7}, request_id="764cabcf"),
        Cancellation("OK"),
        AsyncRequestHandle(**FACTS),
        fal_async.Hosts(),
        fal_async.Limits(),
        fal_async.StorageSettings("1h"),
        fal_async.WorkflowEvent(type="submit"),
    ],
)
def test_values_can_be_copied_and_pickled(value: Any) -> None:
    for again in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert again == value
        assert type(again) is type(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        facts = dataclasses.asdict(value)
        assert facts.keys() == {field.name for field in dataclasses.fields(value)}


def test_bound_handle_unpacks_without_its_key() -> None:
    client = fal_async.AsyncClient("a:b")
    facts = dataclasses.asdict(client.attach(FACTS))
    assert "a:b" not in repr(facts)


@pytest.mark.parametrize(
    ("subject", "arguments"),
    [(fal_async.run, ("acme/echo", {})), (fal_async.sync.run, ("acme/echo", {}))],
)
def test_mocks_take_the_shape_of_the_calls(subject: Any, arguments: Any) -> None:
    double = mock.create_autospec(subject, return_value=Result({"seed": 7}))
    assert anyio.run(_call, double, arguments, {"timeout": 3}) == {"seed": 7}
    with pytest.raises(TypeError):  # async doubles of Python 3.13 raise when they are awaited
        anyio.run(_call, double, arguments, {"no_such_option": 3})


async def _call(double: Any, arguments: Any, options: Any) -> Any:
    outcome = double(*arguments, **options)
    return await outcome if inspect.isawaitable(outcome) else outcome


@pytest.mark.parametrize(
    "kind",
    [fal_async.AsyncClient, fal_async.sync.SyncClient, AsyncRequestHandle, SyncRequestHandle],
)
def test_mocks_take_the_shape_of_the_classes(kind: Any) -> None:
    double = mock.create_autospec(kind, instance=True)
    with pytest.raises(TypeError):
        double.status(no_such_option=True)
