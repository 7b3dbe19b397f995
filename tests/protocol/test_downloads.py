"""Downloads as values: response metadata, ranges, URLs and safe file names."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_async import InvalidRequestError, InvalidResponseError
from fal_async._protocol.downloads import (
    FileVersion,
    decode_data_url,
    download,
    file_name,
    find_file_objects,
    normalize_url,
    resolve_redirect,
    size_from_unsatisfied_range,
    suggested_name,
)
from fal_async._protocol.operation import Credential
from fal_async._protocol.uploads import FileMetadata

ETAG = '"a"'


@pytest.mark.parametrize(
    ("status", "headers", "version"),
    [
        (200, {"content-length": "7", "etag": ETAG}, FileVersion(7, ETAG, 0)),
        (200, {"etag": 'W/"a"'}, FileVersion(None, None, 0)),
        (203, {"content-length": "7"}, FileVersion(7, None, 0)),
        (200, {"content-length": "7", "content-encoding": "identity"}, FileVersion(7, None, 0)),
        (200, {"content-encoding": "gzip", "etag": ETAG}, FileVersion(None, None, 0)),
        (200, {"content-encoding": "deflate", "content-length": "7"}, FileVersion(None, None, 0)),
        (206, {"content-range": "bytes 3-6/7", "etag": ETAG}, FileVersion(7, ETAG, 3)),
        (206, {"content-range": "Bytes 0-6/*"}, FileVersion(None, None, 0)),
    ],
)
def test_response_metadata_is_parsed(
    status: int, headers: dict[str, str], version: FileVersion
) -> None:
    assert FileVersion.of(status, headers) == version


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (204, {}),
        (206, {}),
        (206, {"content-range": "bytes */7"}),
        (206, {"content-range": "lines 3-6/7"}),
        (206, {"content-range": f"bytes 0-6/{'9' * 5000}"}),
        (206, {"content-range": "bytes 0-6/7", "content-encoding": "gzip"}),
        (200, {"content-encoding": "br"}),
    ],
)
def test_invalid_responses_are_refused(status: int, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidResponseError):
        FileVersion.of(status, headers)


def test_versions_are_compared_by_validators() -> None:
    version = FileVersion(7, ETAG, 0)
    assert FileVersion(7, ETAG, 3).matches(version)
    assert FileVersion(None, ETAG, 3).matches(version)
    assert not FileVersion(8, ETAG, 3).matches(version)
    assert not FileVersion(7, '"b"', 3).matches(version)
    assert not FileVersion(7, None, 3).matches(version)


def test_size_is_parsed_from_unsatisfied_range() -> None:
    assert size_from_unsatisfied_range({"content-range": "bytes */7"}) == 7
    assert size_from_unsatisfied_range({"content-range": "bytes */*"}) is None
    assert size_from_unsatisfied_range({}) is None


def test_resume_request_requires_an_etag() -> None:
    def headers_for(start: int, etag: str | None) -> dict[str, str]:
        operation = download("https://a/b", Credential.NONE, start=start, etag=etag)
        assert (operation.request.method, operation.credential) == ("GET", Credential.NONE)
        return {name: operation.request.headers[name] for name in ("range", "if-range")
                if name in operation.request.headers}  # fmt: skip

    assert headers_for(0, ETAG) == {}
    assert headers_for(5, None) == {}
    assert headers_for(5, ETAG) == {"range": "bytes=5-", "if-range": ETAG}


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://b/c", "https://b/c"),
        ("/c", "https://a/c"),
        ("c?d", "https://a/x/c?d"),
        ("//b/c", "https://b/c"),
        ("/caf\xc3\xa9 1.png", "https://a/caf%C3%A9%201.png"),  # UTF-8, as headers are read
        ("/caf\xe9.png", "https://a/caf%E9.png"),
        ("/caf%C3%A9.png", "https://a/caf%C3%A9.png"),
    ],
)
def test_redirect_target_is_resolved(location: str, target: str) -> None:
    assert resolve_redirect("https://a/x/y", location) == target


@pytest.mark.parametrize(
    "location",
    ["http://a/b", "file:///etc/passwd", "ftp://a", "https://u@a/", "https://[", "data:,a"],
)
def test_invalid_redirects_are_refused(location: str) -> None:
    with pytest.raises(InvalidResponseError, match="redirect"):
        resolve_redirect("https://a/x/y", location)
    assert resolve_redirect("http://a/x", "http://b/") == "http://b/"


def test_urls_are_normalized() -> None:
    assert normalize_url(" https://a/b c.png\n") == "https://a/b%20c.png"
    assert normalize_url("data:text/plain,a b ") == "data:text/plain,a b "
    wrong: Any
    for wrong in (7, None, b"https://a"):
        with pytest.raises(InvalidRequestError):
            normalize_url(wrong)


@pytest.mark.parametrize(
    ("named", "name"),
    [
        ("a.png", "a.png"),
        ("../../a.png", "a.png"),
        ("/etc/passwd", "passwd"),
        ("C:\\x\\a.png", "a.png"),
        (".bashrc", "_bashrc"),
        ("a\x00b\n.png", "a_b_.png"),
        ("a\u202egnp.exe", "a_gnp.exe"),
        ("a?b*.png", "a_b_.png"),
        ("con", "_con"),
        ("NUL.tar.gz", "_NUL.tar.gz"),
        ("console.png", "console.png"),
        ("COM1.png", "_COM1.png"),
        ("lpt³", "_lpt³"),
        ("CONOUT$.txt", "_CONOUT$.txt"),
        ("übel näme.png", "übel näme.png"),
        ("%C3%BCbel n%C3%A4me.png", "übel näme.png"),
        ("%e6%97%a5%E6%9C%AC.png", "日本.png"),
        ("100%25.png", "100%25.png"),
        ("%FC%ZZ%C3.png", "%FC%ZZ%C3.png"),
        ("%2e%2e%2fa.png", "%2e%2e%2fa.png"),
        ("%E2%80%AEgnp.exe", "_gnp.exe"),
        ("\ud800.png", "_.png"),
        ("a. ", "a_"),
        ("", "b.mp4"),
        ("..", "b.mp4"),
        ("\x00", "b.mp4"),
        ("a/", "b.mp4"),
        (None, "b.mp4"),
    ],
)
def test_file_names_are_safe(named: str | None, name: str) -> None:
    assert file_name("https://v3.fal.media/a/b.mp4?c", named, ".bin") == name


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://a/b%2Fc.png", "c.png"),
        ("https://a/%2e%2e%2fb", "b"),
        ("https://a/..", "file.bin"),
        ("https://a/b/", "file.bin"),
        ("https://a/%C3%BCbel%20n%C3%A4me.png", "übel näme.png"),
        ("https://a/%25C3%25BCbel%20n%25C3%25A4me.png", "übel näme.png"),
        ("https://a/%FCbel.png", "übel.png"),
        ("https://a/übel.png", "übel.png"),
        ("https://a/100%25.png", "100%.png"),
        ("https://a", "file.bin"),
        ("data:text/plain,/a.txt", "file.bin"),
    ],
)
def test_names_are_derived_from_urls(url: str, name: str) -> None:
    assert file_name(url, None, ".bin") == name


@pytest.mark.parametrize("named", ["日本" * 100 + ".png", "a" * 300 + ".png", "a." + "b" * 300])
def test_names_fit_into_file_systems(named: str) -> None:
    name = file_name("", named, "")
    assert 190 < len(name.encode()) < 230
    assert name.endswith(".png") == named.endswith(".png")


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("", None),
        ("inline", None),
        ("attachment; filename=a.png", "a.png"),
        ('attachment; filename="a b.png"', "a b.png"),
        ('ATTACHMENT; FileName="a;b.png"; size=3', "a;b.png"),
        ("attachment; filename*=UTF-8''%C3%BCbel%20n%C3%A4me.png", "übel näme.png"),
        ("attachment; filename=\"ubel.png\"; filename*=utf-8'de'%C3%BCbel.png", "übel.png"),
        ("attachment; filename*=iso-8859-1''%FCbel.png; filename=ubel.png", "übel.png"),
        ("attachment; filename*=nonsense''%FCbel.png", "übel.png"),
        ('attachment; filename="übel.png"'.encode().decode("latin-1"), "übel.png"),
        ('attachment; filename="\xfcbel.png"', "übel.png"),
        ("attachment; filename*0=a; filename*1=b.png", "ab.png"),
        ("attachment; filename=", ""),
    ],
)
def test_suggested_names_are_parsed(disposition: str, name: str | None) -> None:
    assert suggested_name({"content-disposition": disposition}) == name


@given(st.text(st.characters(max_codepoint=255)) | st.text("filename*=0'%UTF-8\"; \\"))
def test_any_suggestion_is_a_safe_name_or_none(parameters: str) -> None:
    for disposition in (parameters, f"attachment; {parameters}", f"a; filename*={parameters}"):
        name = suggested_name({"content-disposition": disposition})
        assert file_name("", name, ".bin")


@given(st.text())
def test_encoded_and_plain_names_are_equivalent(name: str) -> None:
    try:
        header = FileMetadata(content_type="a/b", file_name=name).headers.get("x-fal-file-name")
    except InvalidRequestError:
        return
    if name.isprintable() and not {"%", " "} & {*name} and header is not None:
        assert file_name("", header, ".bin") == file_name("", name, ".bin")
        assert file_name(f"https://a/{quote(header, safe='')}", None, "") == (
            file_name(f"https://a/{quote(name, safe='')}", None, "")
        )


def test_files_are_found_at_any_depth() -> None:
    output: Any = {"url": "https://a/b"}
    for _ in range(5000):
        output = {"a": [output]}
    assert list(find_file_objects(output)) == [{"url": "https://a/b"}]
    several = [{"url": "https://a/1", "of": {"url": "https://a/2"}}, [{"url": "https://a/3"}]]
    assert [found["url"][-1] for found in find_file_objects(several)] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("url", "kind", "content"),
    [
        ("data:image/png;base64,aGk=", "image/png", b"hi"),
        ("data:;base64,%61Gk%3D", "text/plain", b"hi"),
        ("data:;base64;x=y,aG\nk", "text/plain", b"hi"),
        ("data:;base64,-_-_", "text/plain", b"\xfb\xff\xbf"),
        ("data:image/svg+xml;utf8,<svg>#a</svg>", "image/svg+xml", b"<svg>#a</svg>"),
        ("data:,a+b%20é", "text/plain", "a+b é".encode()),
    ],
)
def test_data_urls_are_decoded(url: str, kind: str, content: bytes) -> None:
    assert decode_data_url(url) == (kind, content)


@pytest.mark.parametrize(
    "url", ["data:text/plain", "data:,\ud800", "data:;base64,%", "data:;base64,\ud800"]
)
def test_invalid_data_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidResponseError):
        decode_data_url(url)
