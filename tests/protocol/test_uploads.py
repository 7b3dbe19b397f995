"""Uploads as values: requests, parts, trusted URLs and responses."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from fal_async import (
    Hosts,
    InvalidRequestError,
    InvalidResponseError,
    NotFoundError,
    StorageACL,
    StorageACLRule,
    StorageSettings,
    UploadError,
)
from fal_async._core.secrets import Secret
from fal_async._protocol import uploads
from fal_async._protocol.operation import Credential, Lane
from fal_async._protocol.response import Response
from fal_async._protocol.retry import Retry
from fal_async._protocol.uploads import (
    FileMetadata,
    MultipartUpload,
    Part,
    PartRange,
    PresignedTarget,
    lifecycle_headers,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fal_async._protocol.operation import Operation

HOSTS = Hosts()
CDN = "https://v3.fal.media"
METADATA = FileMetadata(content_type="image/png", file_name="a.png", lifecycle={"x-life": "1"})
BARE = FileMetadata(content_type="image/png")


class Nothing:
    """A body of no bytes."""

    size = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b""


NOTHING = Nothing()


def response(body: object, status: int = 200, **headers: str) -> Response:
    return Response(status_code=status, headers=headers, body=json.dumps(body).encode())


def sent(operation: Operation[Any]) -> tuple[str, str, dict[str, str]]:
    request = operation.request
    return request.method, request.url, dict(request.headers)


@pytest.mark.parametrize(
    ("size", "spans"),
    [
        (0, []),
        (1, [PartRange(1, 0, 1)]),
        (10, [PartRange(1, 0, 10)]),
        (11, [PartRange(1, 0, 10), PartRange(2, 10, 11)]),
        (30, [PartRange(1, 0, 10), PartRange(2, 10, 20), PartRange(3, 20, 30)]),
    ],
)
def test_file_is_split_into_parts(size: int, spans: list[PartRange]) -> None:
    assert list(uploads.split_into_parts(size, 10)) == spans


def test_part_size_grows_for_huge_files() -> None:
    spans = list(uploads.split_into_parts(100_001, 10))
    assert (spans[0].stop, spans[-1].stop, len(spans)) == (11, 100_001, 9091)
    assert all(one.stop == other.start for one, other in pairwise(spans))


def test_cdn_upload_request_is_complete() -> None:
    operation = uploads.upload_to_cdn(CDN, METADATA, NOTHING)
    headers = {
        "content-type": "image/png",
        "x-fal-file-name": "a.png",
        "x-life": "1",
        "accept": "application/json",
    }
    assert sent(operation) == ("POST", f"{CDN}/files/upload", headers)
    assert operation.credential is Credential.CDN_TOKEN
    assert (operation.retry, operation.lane) == (Retry.IDEMPOTENT, Lane.UPLOAD)
    assert operation.request.content is NOTHING
    assert operation.parse(response({"access_url": f"{CDN}/files/a"})) == f"{CDN}/files/a"
    with pytest.raises(NotFoundError):
        operation.parse(response({}, 404))


def test_nameless_upload_sends_no_name() -> None:
    assert "x-fal-file-name" not in uploads.upload_to_cdn(CDN, BARE, NOTHING).request.headers
    begin = uploads.start_cdn_multipart(HOSTS, CDN, BARE)
    assert begin.request.headers["x-fal-file-name"] == "upload.bin"  # as the official client does
    assert json.loads(BARE.body) == {"content_type": "image/png", "file_name": "upload.bin"}


def test_cdn_part_requests_are_complete() -> None:
    operation = uploads.start_cdn_multipart(HOSTS, CDN, METADATA)
    assert operation.request.url == f"{CDN}/files/upload/multipart"
    assert (operation.credential, operation.lane) == (Credential.CDN_TOKEN, Lane.CONTROL)
    url = "https://v3b.fal.media/files/a?b=c"
    begun = operation.parse(response({"access_url": url, "uploadId": "u/1"}))
    assert begun == MultipartUpload(
        "https://v3b.fal.media/files/a/multipart/u%2F1?b=c", url, Credential.CDN_TOKEN
    )
    part = uploads.upload_part(begun, METADATA, 7, NOTHING)
    assert sent(part) == (
        "PUT",
        "https://v3b.fal.media/files/a/multipart/u%2F1/7?b=c",
        {"content-type": "image/png", "accept-encoding": "identity"},
    )
    assert (part.credential, part.lane) == (Credential.CDN_TOKEN, Lane.UPLOAD)


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"access_url": f"{CDN}/a"},
        {"access_url": f"{CDN}/a", "uploadId": 7},
        {"access_url": f"{CDN}/a", "uploadId": "\ud800"},
        {"access_url": f"{CDN}/\ud800", "uploadId": "u"},
        {"access_url": "nonsense", "uploadId": "u"},
        {"access_url": "http://v3.fal.media/a", "uploadId": "u"},
        {"access_url": "https://evilfal.media/a", "uploadId": "u"},
        {"access_url": "https://v3.fal.media@evil.test/a", "uploadId": "u"},
        {"access_url": "https://v3.fal.media:444/a", "uploadId": "u"},
        {"access_url": "ftp://v3.fal.media/a", "uploadId": "u"},
    ],
)
def test_parts_are_sent_only_to_the_cdn(body: Any) -> None:
    with pytest.raises(InvalidResponseError):
        uploads.start_cdn_multipart(HOSTS, CDN, METADATA).parse(response(body))


def test_presigned_upload_request_is_complete() -> None:
    operation = uploads.initiate(HOSTS, METADATA)
    assert sent(operation) == (
        "POST",
        "https://rest.fal.ai/storage/upload/initiate?storage_type=fal-cdn-v3",
        {"accept": "application/json", "content-type": "application/json", "x-life": "1"},
    )
    assert operation.request.content == b'{"content_type":"image/png","file_name":"a.png"}'
    assert operation.credential is Credential.KEY
    body = {"upload_url": "https://storage.test/a?signature=1", "file_url": f"{CDN}/files/a"}
    target = operation.parse(response(body))
    signature = Secret("signature=1")
    assert target == PresignedTarget("https://storage.test/a", body["file_url"], signature)
    assert "signature=1" not in repr(target)
    put = uploads.upload_to_presigned(target, METADATA, NOTHING)
    assert sent(put) == ("PUT", "https://storage.test/a", {"content-type": "image/png"})
    assert put.request.signature == signature
    assert put.credential is Credential.NONE
    assert put.parse(Response(status_code=200)) == body["file_url"]


def test_presigned_parts_keep_their_signature() -> None:
    operation = uploads.start_multipart(HOSTS, METADATA)
    assert "/storage/upload/initiate-multipart?" in operation.request.url
    body = {"upload_url": "https://storage.test/a?signature=1", "file_url": f"{CDN}/files/a"}
    begun = operation.parse(response(body))
    part = uploads.upload_part(begun, METADATA, 2, NOTHING)
    assert part.request.url == "https://storage.test/a/2"
    done = uploads.complete(begun, METADATA, [], 0)
    assert done.request.url == "https://storage.test/a/complete"
    assert part.request.signature == done.request.signature == Secret("signature=1")
    assert {part.credential, done.credential} == {Credential.NONE}


@pytest.mark.parametrize("url", [None, 7, "", "a", "file:///a", "ws://a/", "http://u@a/", "http:"])
def test_invalid_upload_urls_are_refused(url: object) -> None:
    body = {"upload_url": url, "file_url": f"{CDN}/a"}
    with pytest.raises(InvalidResponseError, match="upload_url"):
        uploads.initiate(HOSTS, METADATA).parse(response(body))


BEGUN = MultipartUpload("https://storage.test/a", f"{CDN}/files/a", Credential.NONE)


@pytest.mark.parametrize(
    ("answer", "etag"),
    [
        (Response(status_code=200, headers={"etag": '"x"'}), '"x"'),
        (Response(status_code=200, headers={"etag": '"x"'}, body=b"{}"), '"x"'),
        (response({"partNumber": 3, "etag": '"y"'}), '"y"'),
        (response({"etag": '"y"'}, etag='"x"'), '"x"'),
    ],
)
def test_etag_is_in_header_or_body(answer: Response, etag: str) -> None:
    assert uploads.upload_part(BEGUN, METADATA, 3, NOTHING).parse(answer) == Part(3, etag, 0)


@pytest.mark.parametrize(
    "answer",
    [
        Response(status_code=200),
        response({}),
        response([]),
        response({"etag": 7}),
        response({"etag": ""}),
    ],
)
def test_part_without_etag_is_an_error(answer: Response) -> None:
    with pytest.raises(InvalidResponseError, match="ETag"):
        uploads.upload_part(BEGUN, METADATA, 3, NOTHING).parse(answer)


def test_completion_lists_parts_in_order() -> None:
    parts = [Part(3, "c", 1), Part(1, "a", 5), Part(2, "b", 5)]
    operation = uploads.complete(BEGUN, METADATA, parts, 11)
    assert isinstance(operation.request.content, bytes)
    assert json.loads(operation.request.content) == {
        "parts": [
            {"partNumber": 1, "etag": "a"},
            {"partNumber": 2, "etag": "b"},
            {"partNumber": 3, "etag": "c"},
        ]
    }
    assert operation.parse(Response(status_code=204)) == BEGUN.file_url


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [Part(1, "a", 5)],
        [Part(1, "a", 5), Part(3, "b", 5)],
        [Part(2, "a", 5), Part(3, "b", 5)],
        [Part(1, "a", 5), Part(1, "b", 5)],
        [Part(1, "a", 5), Part(2, "b", 6)],
    ],
)
def test_completion_requires_every_part(parts: list[Part]) -> None:
    with pytest.raises(UploadError) as caught:
        uploads.complete(BEGUN, METADATA, parts, 10)
    assert (caught.value.uploaded, caught.value.size) == (sum(part.size for part in parts), 10)


@pytest.mark.parametrize(
    ("first", "others", "order"),
    [
        (None, None, ["fal_v3", "fal"]),
        ("fal", None, ["fal"]),
        ("fal", "fal_v3", ["fal", "fal_v3"]),
        ("cdn", ["fal", "cdn"], ["fal_v3", "fal"]),
        ("fal_v3", [], ["fal_v3"]),
    ],
)
def test_each_repository_is_tried_once(first: Any, others: Any, order: list[str]) -> None:
    assert uploads.repositories(first, others) == order


def test_unknown_repository_is_refused() -> None:
    bad: Any = "floppy"
    with pytest.raises(InvalidRequestError, match="floppy"):
        uploads.repositories(bad, None)
    with pytest.raises(InvalidRequestError, match="floppy"):
        uploads.repositories(None, [bad])


@pytest.mark.parametrize(
    ("name", "header"),
    [("a b.png", "a b.png"), ("naïve.png", "na%C3%AFve.png"), ("a\r\nb: c", "a%0D%0Ab: c")],
)
def test_names_fit_into_headers(name: str, header: str) -> None:
    metadata = FileMetadata(content_type="image/png", file_name=name)
    assert metadata.headers["x-fal-file-name"] == header


def test_invalid_content_type_is_refused() -> None:
    with pytest.raises(InvalidRequestError):
        _ = FileMetadata(content_type="a\r\nb").headers


def test_lifecycle_is_sent_to_both_services() -> None:
    acl = StorageACL("forbid", [StorageACLRule("ann", "allow"), StorageACLRule("é", "hide")])
    headers = lifecycle_headers(StorageSettings("7d", acl))
    assert set(headers) == {"x-fal-object-lifecycle", "x-fal-object-lifecycle-preference"}
    (text,) = set(headers.values())
    assert text.isascii()
    assert json.loads(text) == {
        "expiration_duration_seconds": 604_800,
        "initial_acl": {
            "default": "forbid",
            "rules": [{"user": "ann", "decision": "allow"}, {"user": "é", "decision": "hide"}],
        },
    }


@pytest.mark.parametrize(
    "settings",
    [None, StorageSettings(), StorageSettings("never"), StorageSettings(None, StorageACL())],
)
def test_empty_settings_are_not_sent(settings: StorageSettings | None) -> None:
    assert lifecycle_headers(settings) == {}


@pytest.mark.parametrize(
    ("life", "seconds"),
    [
        ("immediate", 60),
        ("1h", 3600),
        ("1d", 86_400),
        ("30d", 2_592_000),
        ("1y", 31_536_000),
        (7, 7),
        ("never", None),
        (None, None),
    ],
)
def test_lifetimes_are_parsed(life: Any, seconds: int | None) -> None:
    assert StorageSettings(life)._expires_in_seconds == seconds


@pytest.mark.parametrize("life", [0, -1, True, 1.5, "2h", [1]])
def test_invalid_lifetimes_are_refused(life: Any) -> None:
    with pytest.raises(InvalidRequestError):
        StorageSettings(life)


@pytest.mark.parametrize("decision", ["maybe", None, 7])
def test_invalid_access_rules_are_refused(decision: Any) -> None:
    with pytest.raises(InvalidRequestError):
        StorageACLRule("ann", decision)
    if decision is not None:
        with pytest.raises(InvalidRequestError):
            StorageACL(decision)
