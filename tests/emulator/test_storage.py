"""Storage and CDN: tokens, uploads, access rules and downloads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import fal_client
import fal_client.client
import httpx
import pytest
from fal_client import StorageACL, StorageACLRule, StorageSettings
from PIL import Image

from fal_async import AsyncClient, File, Upload
from fal_async.emulator import Emulator, Fault, StoredFile
from fal_async.emulator._storage import make_etag
from tests.emulator.test_official_python import rebase
from tests.support.http import make_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STORAGE = "/rest/storage"
PICTURE = {"content_type": "image/png", "file_name": "a.png"}


@pytest.fixture
def official(fal: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[fal_client.SyncClient]:
    rebase(fal, monkeypatch)
    monkeypatch.setattr(fal_client.client, "MULTIPART_THRESHOLD", 100)
    monkeypatch.setattr(fal_client.client, "MULTIPART_CHUNK_SIZE", 40)
    opened: list[httpx.Client] = []
    get_cdn_client = fal_client.SyncClient._get_cdn_client

    def remembered(client: fal_client.SyncClient) -> httpx.Client:
        opened.append(get_cdn_client(client))
        return opened[-1]

    monkeypatch.setattr(fal_client.SyncClient, "_get_cdn_client", remembered)
    client = fal_client.SyncClient(key=fal.key)
    yield client
    for each in (client._client, *opened):  # the official client never closes them
        each.close()


@pytest.fixture
def stranger(fal: Emulator) -> Iterator[httpx.Client]:
    """Return a client without a key."""
    with make_client(fal) as client:
        del client.headers["authorization"]
        yield client


def token(http: httpx.Client) -> dict[str, str]:
    response = http.post(
        f"{STORAGE}/auth/token?storage_type=fal-cdn-v3", json={}
    ).raise_for_status()
    created: dict[str, str] = response.json()
    return created


def authorized(http: httpx.Client, **headers: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token(http)['token']}", **headers}


def initiate(http: httpx.Client, step: str = "initiate", kind: str = "fal-cdn-v3") -> Any:
    url = f"{STORAGE}/upload/{step}?storage_type={kind}"
    return http.post(url, json=PICTURE).raise_for_status().json()


def only(fal: Emulator) -> StoredFile:
    (stored,) = fal.files.values()
    return stored


def test_token_names_its_cdn_and_expiry(fal: Emulator, http: httpx.Client) -> None:
    created = token(http)
    assert created["base_url"] == fal.hosts.cdn
    assert created["token_type"] == "Bearer"
    assert created["expires_at"].endswith("+00:00")
    assert (fal.count("cdn_token"), fal.requests[0].host) == (1, "rest")


def test_storage_hosts_are_routed_by_name(fal: Emulator, http: httpx.Client) -> None:
    port = httpx.URL(fal.url).port
    headers = {"host": f"rest.fal.ai:{port}"}
    response = http.post("/storage/auth/token", json={}, headers=headers).json()
    assert response["base_url"] == f"http://v3.fal.media:{port}"
    headers = {"host": f"v3.fal.media:{port}", "authorization": f"Bearer {response['token']}"}
    url = http.post("/files/upload", content=b"a", headers=headers).json()["access_url"]
    assert url.startswith(f"http://v3.fal.media:{port}/files/b/")


@pytest.mark.parametrize("path", ["auth/token", "upload/initiate", "upload/initiate-multipart"])
def test_storage_service_requires_a_key(stranger: httpx.Client, path: str) -> None:
    assert stranger.post(f"{STORAGE}/{path}", json=PICTURE).status_code == 401
    assert stranger.get(f"{STORAGE}/{path}").status_code == 405


def test_invalid_storage_request_is_rejected(http: httpx.Client) -> None:
    response = http.post(f"{STORAGE}/upload/initiate?storage_type=floppy", json=PICTURE)
    assert (response.status_code, response.json()) == (400, {"detail": "Invalid storage type"})
    assert http.post(f"{STORAGE}/upload/initiate", json={}).status_code == 422
    assert http.post(f"{STORAGE}/upload/initiate", content=b"[").status_code == 422
    wrong: Any
    for wrong in ({"content_type": 7}, PICTURE | {"file_name": 7}, []):
        assert http.post(f"{STORAGE}/upload/initiate", json=wrong).status_code == 422
    assert http.post(f"{STORAGE}/nothing", json={}).status_code == 404


def test_single_request_upload_works(fal: Emulator, http: httpx.Client) -> None:
    headers = authorized(
        http,
        **{
            "content-type": "text/plain",
            "x-fal-file-name": "a b.txt",
            "x-fal-object-lifecycle": '{"expiration_duration_seconds": 60}',
        },
    )
    url = http.post("/cdn/files/upload", content=b"hello", headers=headers).json()["access_url"]
    stored = only(fal)
    assert (stored.url, stored.content, stored.content_type) == (url, b"hello", "text/plain")
    assert (stored.file_name, stored.parts) == ("a b.txt", 0)
    assert stored.lifecycle == {"expiration_duration_seconds": 60}
    assert url.endswith("/a%20b.txt")
    assert http.get(url).content == b"hello"


@pytest.mark.parametrize("authorization", ["", "Bearer nonsense", "key", "reader"])
def test_upload_requires_an_account_token(
    fal: Emulator, http: httpx.Client, authorization: str
) -> None:
    values = {"key": f"Key {fal.key}", "reader": f"Bearer {fal.cdn_token('ann')}"}
    headers = {"authorization": values.get(authorization, authorization)}
    assert http.post("/cdn/files/upload", content=b"", headers=headers).status_code == 401
    assert http.post("/cdn/files/upload/multipart", headers=headers).status_code == 401
    assert fal.files == {}


def test_cdn_tokens_expire(http: httpx.Client) -> None:
    now = [0.0]
    with Emulator(clock=lambda: now[0]) as fal, make_client(fal) as client:
        headers = authorized(client)
        now[0] = 3599.0
        assert client.post("/cdn/files/upload", content=b"", headers=headers).status_code == 200
        now[0] = 3600.0
        assert client.post("/cdn/files/upload", content=b"", headers=headers).status_code == 401


@pytest.mark.parametrize(
    "lifecycle",
    [
        "{",
        "[]",
        "null",
        '{"expiration_duration_seconds": 0}',
        '{"expiration_duration_seconds": "long"}',
        '{"initial_acl": 7}',
        '{"initial_acl": {"default": "perhaps"}}',
        '{"initial_acl": {"rules": [{"user": "ann"}]}}',
    ],
)
def test_invalid_lifecycle_is_rejected(fal: Emulator, http: httpx.Client, lifecycle: str) -> None:
    lifecycle_headers = {"x-fal-object-lifecycle": lifecycle}
    headers = authorized(http, **lifecycle_headers)
    for response in (
        http.post("/cdn/files/upload", content=b"a", headers=headers),
        http.post("/cdn/files/upload/multipart", headers=headers),
        http.post(f"{STORAGE}/upload/initiate", json=PICTURE, headers=lifecycle_headers),
    ):
        assert response.status_code == 422
        assert response.json()["detail"].startswith("The lifecycle is not valid")
    assert fal.files == {}


def test_unknown_lifecycle_fields_are_kept(fal: Emulator, http: httpx.Client) -> None:
    lifecycle_headers = '{"initial_acl": {"rules": [], "note": 1}, "more": [2]}'
    headers = authorized(http, **{"x-fal-object-lifecycle": lifecycle_headers})
    http.post("/cdn/files/upload", content=b"a", headers=headers).raise_for_status()
    assert only(fal).lifecycle == {"initial_acl": {"rules": [], "note": 1}, "more": [2]}


def test_file_names_cannot_escape_their_folder(fal: Emulator, http: httpx.Client) -> None:
    headers = authorized(http, **{"x-fal-file-name": "../../a.txt"})
    url = http.post("/cdn/files/upload", content=b"a", headers=headers).json()["access_url"]
    assert url.endswith("/a.txt")
    assert http.get(url).content == b"a"
    assert only(fal).file_name == "../../a.txt"


@pytest.mark.parametrize("number", ["0", "-1", "x", "100000", "9" * 5000])
def test_part_numbers_are_validated(http: httpx.Client, number: str) -> None:
    headers = authorized(http)
    begun = http.post("/cdn/files/upload/multipart", headers=headers).json()
    url = f"{begun['access_url']}/multipart/{begun['uploadId']}/{number}"
    assert http.put(url, content=b"x", headers=headers).status_code == 404


def test_parts_are_assembled_in_order(fal: Emulator, http: httpx.Client) -> None:
    headers = authorized(http, **{"content-type": "video/mp4"})
    begun = http.post("/cdn/files/upload/multipart", headers=headers).json()
    url = f"{begun['access_url']}/multipart/{begun['uploadId']}"
    responses = [
        http.put(f"{url}/{number}", content=content, headers=headers)
        for number, content in ((2, b"two"), (1, b"one"))
    ]
    parts = [response.json() for response in responses]
    assert [part["etag"] for part in parts] == [response.headers["etag"] for response in responses]
    done = http.post(f"{url}/complete", json={"parts": parts}, headers=headers)
    assert done.status_code == 200
    assert http.get(begun["access_url"]).content == b"onetwo"
    assert only(fal).parts == 2
    assert http.post(f"{url}/complete", json={"parts": parts}, headers=headers).status_code == 404


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [{"partNumber": 2, "etag": "x"}],
        [{"partNumber": 1, "etag": "x"}],
        [{"partNumber": [1], "etag": "x"}],
        [{"partNumber": 1, "etag": make_etag(b"one")}] * 2,
    ],
)
def test_completion_lists_received_parts(http: httpx.Client, parts: list[dict[str, Any]]) -> None:
    headers = authorized(http)
    begun = http.post("/cdn/files/upload/multipart", headers=headers).json()
    url = f"{begun['access_url']}/multipart/{begun['uploadId']}"
    http.put(f"{url}/1", content=b"one", headers=headers).raise_for_status()
    assert http.post(f"{url}/complete", json={"parts": parts}, headers=headers).status_code == 400
    assert http.post(f"{url}/complete", json={}, headers=headers).status_code == 422


@pytest.mark.parametrize("kind", ["fal-cdn-v3", "gcs"])
def test_presigned_url_needs_no_key(
    fal: Emulator, http: httpx.Client, stranger: httpx.Client, kind: str
) -> None:
    target = initiate(http, kind=kind)
    headers = {"content-type": "image/png"}
    assert stranger.put(target["upload_url"], content=b"x").status_code == 403
    unsigned = target["upload_url"].partition("?")[0]
    assert stranger.put(unsigned, content=b"x", headers=headers).status_code == 403
    assert stranger.put(target["upload_url"], content=b"x", headers=headers).status_code == 200
    assert fal.files[target["file_url"]].content == b"x"
    assert fal.files[target["file_url"]].file_name == "a.png"
    assert not fal.requests[-1].warnings


@pytest.mark.parametrize("kind", ["fal-cdn-v3", "gcs"])
def test_key_sent_to_presigned_url_is_recorded(
    fal: Emulator, http: httpx.Client, kind: str
) -> None:
    target = initiate(http, kind=kind)
    headers = {"content-type": "image/png"}
    assert http.put(target["upload_url"], content=b"x", headers=headers).status_code == 200
    assert fal.requests[-1].warnings == ["an Authorization header was sent to a presigned URL"]


def test_presigned_multipart_upload_works(
    fal: Emulator, http: httpx.Client, stranger: httpx.Client
) -> None:
    target = initiate(http, "initiate-multipart")
    path, _, query = target["upload_url"].partition("?")
    parts = [
        stranger.put(f"{path}/{number}?{query}", content=b"%d" % number).json()
        for number in (1, 2, 3)
    ]
    done = stranger.post(f"{path}/complete?{query}", json={"parts": parts})
    assert done.status_code == 200
    assert fal.files[target["file_url"]].content == b"123"


def test_individually_signed_parts_work(
    fal: Emulator, http: httpx.Client, stranger: httpx.Client
) -> None:
    target = initiate(http, "initiate-multipart", "gcs")
    path = target["upload_url"]
    assert "?" not in path  # clients append the part number to the path
    assert stranger.post(f"{path}/1").status_code == 401
    assert stranger.put(f"{path}/1", content=b"one").status_code == 403
    signed = http.post(f"{path}/1").json()["upload_url"]
    etag = stranger.put(signed, content=b"one").headers["etag"].strip('"')
    assert stranger.post(f"{path}/complete", json={"parts": []}).status_code == 401
    done = http.post(f"{path}/complete", json={"parts": [{"part_number": 1, "etag": etag}]})
    assert done.status_code == 200
    assert fal.files[target["file_url"]].content == b"one"


def test_expired_file_returns_404(http: httpx.Client) -> None:
    now = [0.0]
    with Emulator(clock=lambda: now[0]) as fal, make_client(fal) as client:
        url = fal.store(b"x", "text/plain", lifecycle={"expiration_duration_seconds": 60})
        now[0] = 59.0
        assert client.get(url).status_code == 200
        now[0] = 60.0
        assert client.get(url).status_code == 404


@pytest.mark.parametrize(("decision", "status"), [("allow", 200), ("forbid", 403), ("hide", 404)])
def test_access_is_granted_refused_or_hidden(
    fal: Emulator, http: httpx.Client, stranger: httpx.Client, decision: str, status: int
) -> None:
    url = fal.store(b"x", "text/plain", lifecycle={"initial_acl": {"default": decision}})
    assert stranger.get(url).status_code == status
    assert stranger.head(url).status_code == status
    assert stranger.get(url, headers=authorized(http)).content == b"x"


def test_access_rules_match_users(fal: Emulator, stranger: httpx.Client) -> None:
    rules = [{"user": "ann", "decision": "allow"}, {"user": "bob", "decision": "hide"}]
    acl = {"default": "forbid", "rules": rules}
    url = fal.store(b"x", "text/plain", lifecycle={"initial_acl": acl})
    seen = [
        stranger.get(url, headers={"authorization": f"Bearer {fal.cdn_token(user)}"}).status_code
        for user in ("ann", "bob", "eve")
    ]
    assert seen == [200, 404, 403]


@pytest.mark.parametrize(
    ("content_range", "status", "content"),
    [
        ("bytes=2-", 206, b"cdef"),
        ("bytes=2-3", 206, b"cd"),
        ("bytes=-2", 206, b"ef"),
        ("bytes=4-99", 206, b"ef"),
        ("bytes=6-", 416, b""),
        ("bytes=-", 200, b"abcdef"),
        ("bytes=0-1,3-4", 200, b"abcdef"),
        ("bytes=3-2", 200, b"abcdef"),
        ("bytes=0-" + "9" * 30, 206, b"abcdef"),
        ("bytes=" + "9" * 30 + "-", 416, b""),
        ("bytes=-0", 416, b""),
        ("lines=1-2", 200, b"abcdef"),
    ],
)
def test_range_requests_work(
    fal: Emulator, http: httpx.Client, content_range: str, status: int, content: bytes
) -> None:
    url = fal.store(b"abcdef", "text/plain")
    response = http.get(url, headers={"range": content_range})
    assert (response.status_code, response.content) == (status, content)
    if status == 206:
        start = b"abcdef".index(content)
        assert response.headers["content-range"] == f"bytes {start}-{start + len(content) - 1}/6"


def test_range_of_changed_file_returns_all(fal: Emulator, http: httpx.Client) -> None:
    url = fal.store(b"abcdef", "text/plain")
    etag = http.head(url).headers["etag"]
    for condition, status in ((etag, 206), ('"other"', 200)):
        response = http.get(url, headers={"range": "bytes=1-", "if-range": condition})
        assert response.status_code == status


def test_unknown_file_returns_404(fal: Emulator, http: httpx.Client) -> None:
    assert http.get("/cdn/files/b/0123/none.png").status_code == 404
    assert http.delete("/cdn/files/upload").status_code == 404
    assert http.put("/cdn/presigned/0123").status_code in {403, 404}
    fal.store(b"x", "text/plain")
    fal.reset()
    assert fal.files == {}


def test_faults_apply_to_parts_and_downloads(fal: Emulator, http: httpx.Client) -> None:
    url = fal.store(b"abcdef", "text/plain")
    fal.fail(None, Fault(route="download", cut=3))
    with pytest.raises(httpx.RemoteProtocolError):
        http.get(url)
    assert http.get(url).content == b"abcdef"
    fal.fail(None, Fault(route="part", status=503, when=lambda call: call.path.endswith("/2")))
    path, _, query = initiate(http, "initiate-multipart")["upload_url"].partition("?")
    del http.headers["authorization"]
    seen = [http.put(f"{path}/{number}?{query}", content=b"x").status_code for number in (1, 2, 2)]
    assert seen == [200, 503, 200]


def test_slow_cdn_sends_small_chunks(http: httpx.Client) -> None:
    content = bytes(200_000)
    with Emulator(bandwidth=20e6) as fal, make_client(fal) as client:
        assert client.get(fal.store(content, "video/mp4")).content == content


def test_official_client_uploads_files(
    fal: Emulator, official: fal_client.SyncClient, tmp_path: Path
) -> None:
    url = official.upload(b"hello", "text/plain", file_name="a.txt")
    assert (fal.files[url].content, fal.files[url].file_name) == (b"hello", "a.txt")
    content = bytes(range(250))
    url = official.upload(content, "video/mp4")
    assert fal.files[url].content == content
    path = tmp_path / "large.png"
    path.write_bytes(content)
    url = official.upload_file(path)
    stored = fal.files[url]
    assert (stored.content, stored.file_name, stored.parts) == (content, "large.png", 7)
    url = official.upload_image(Image.new("RGB", (2, 2)))
    assert fal.files[url].content.startswith(b"\xff\xd8")


def test_official_client_sets_file_lifetime(fal: Emulator, official: fal_client.SyncClient) -> None:
    acl = StorageACL(default="hide", rules=[StorageACLRule("ann", "allow")])
    settings = StorageSettings(expires_in="1h", initial_acl=acl)
    url = official.upload(b"x", "text/plain", lifecycle=settings)
    assert fal.files[url].lifecycle == {
        "expiration_duration_seconds": 3600,
        "initial_acl": {"default": "hide", "rules": [{"user": "ann", "decision": "allow"}]},
    }


def test_official_client_leaks_its_key(fal: Emulator, official: fal_client.SyncClient) -> None:
    fal.fail(None, Fault(route="upload", status=400))
    url = official.upload(b"hello", "text/plain")
    assert fal.files[url].content == b"hello"
    assert [call.route for call in fal.requests if call.warnings] == ["put"]
    assert fal.requests[-1].headers["authorization"] == f"Key {fal.key}"


def test_official_async_client_uploads_files(
    fal: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rebase(fal, monkeypatch)
    monkeypatch.setattr(fal_client.client, "MULTIPART_THRESHOLD", 100)
    monkeypatch.setattr(fal_client.client, "MULTIPART_CHUNK_SIZE", 40)
    path = tmp_path / "large.png"
    path.write_bytes(bytes(range(250)))

    async def uploads() -> list[str]:
        client = fal_client.AsyncClient(key=fal.key)
        return [await client.upload(b"small", "text/plain"), await client.upload_file(path)]

    urls = asyncio.run(asyncio.wait_for(uploads(), 10))
    assert [fal.files[url].content for url in urls] == [b"small", bytes(range(250))]


async def test_files_outlive_a_reset_for_their_urls(fal: Emulator, client: AsyncClient) -> None:
    fal.register("acme/echo", lambda arguments: arguments)
    (first,) = (await client.run("acme/echo", {"image": Upload(b"cat", "image/png")})).values()
    fal.reset()
    assert not fal.files
    (again,) = (await client.run("acme/echo", {"image": Upload(b"cat", "image/png")})).values()
    assert await File(url=again).read() == b"cat"
    assert again == first  # the client uploads no content twice
