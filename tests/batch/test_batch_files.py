"""Files of batches: inputs, rows of the output, and files of the results."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from fal_async import AsyncClient, InvalidRequestError, Journal, StorageSettings, Upload
from fal_async.emulator import AppError, Fault

if TYPE_CHECKING:
    from pathlib import Path

    from fal_async.batch import BatchSummary, Job
    from fal_async.emulator import Emulator, RecordedRequest

ECHO = "acme/echo"
PICTURE = "acme/picture"


def echo(arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def run(client: AsyncClient, application: str, inputs: Any, **options: Any) -> BatchSummary:
    async with client.batch(application, inputs, **options) as batch:
        return await batch.run()


@pytest.fixture(autouse=True)
def registered(fal: Emulator) -> None:
    fal.register(ECHO, echo)


@pytest.fixture
def pictures(fal: Emulator, client: AsyncClient) -> None:
    """An app whose outputs have two files."""

    @fal.endpoint(PICTURE)
    async def picture(arguments: dict[str, Any]) -> dict[str, Any]:
        data = f"picture {arguments['n']}".encode()
        url = fal.store(data, "image/png", "a.png")
        return {"images": [{"url": url, "content_type": "image/png"}] * 2}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
async def test_rows_of_a_file_are_read(client: AsyncClient, tmp_path: Path, suffix: str) -> None:
    path, output = tmp_path / f"in{suffix}", tmp_path / "out.jsonl"
    if suffix == ".csv":
        path.write_text("name,text\na,hello\nb,world\n")
    else:
        path.write_text('{"name":"a","text":"hello"}\n\n{"name":"b","text":"world"}\n')
    await run(client, ECHO, path, output=output, arguments={"prompt": "text"}, ordered=True)
    rows = sorted(written(output), key=lambda row: row["index"])
    assert [row["output"] for row in rows] == [{"prompt": "hello"}, {"prompt": "world"}]


async def test_wrong_line_is_named_before_a_submit(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"n":1}\n{"n":2}\n{"n":\n')
    with pytest.raises(InvalidRequestError, match="line 3, is not JSON"):
        await run(client, ECHO, path)
    assert fal.count("submit") == 0


@pytest.mark.parametrize("name", ["in.txt", "missing.jsonl"])
async def test_unreadable_inputs_are_refused(
    client: AsyncClient, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InvalidRequestError, match="inputs"):
        await run(client, ECHO, tmp_path / name)


async def test_row_is_written_once(fal: Emulator, client: AsyncClient, tmp_path: Path) -> None:
    output, journal = tmp_path / "out.jsonl", tmp_path / "journal.db"
    for count in (5, 9, 9):
        inputs = [{"n": n} for n in range(count)]
        await run(client, ECHO, inputs, output=output, journal=journal)
    rows = written(output)
    assert Counter(row["output"]["n"] for row in rows) == Counter(range(9))
    assert {"index", "key", "ok", "output", "request_id", "seconds", "attempts"} <= set(rows[0])


@pytest.mark.parametrize("size", [1, 1_100_000])
@pytest.mark.parametrize("is_iterated", [False, True])
async def test_rows_of_an_ordered_batch_are_ordered(
    fal: Emulator, client: AsyncClient, tmp_path: Path, size: int, is_iterated: bool
) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/first")
    async def first(arguments: dict[str, Any]) -> dict[str, Any]:
        if arguments["n"] == 0:
            await gate.wait()
        elif arguments["n"] == 2:
            gate.open()
        return {**arguments, "text": "a" * size}

    output = tmp_path / "out.jsonl"
    inputs = [{"n": n} for n in range(4)]
    async with client.batch("acme/first", inputs, output=output, ordered=True) as batch:
        if is_iterated:
            jobs = [job async for job in batch]
            assert [job.output["n"] for job in jobs] == [0, 1, 2, 3]
        else:
            await batch.run()
    rows = written(output)
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    assert [(row["output"]["n"], len(row["output"]["text"])) for row in rows] == [
        (n, size) for n in range(4)
    ]


async def test_torn_row_is_cut_off(fal: Emulator, client: AsyncClient, tmp_path: Path) -> None:
    output, journal = tmp_path / "out.jsonl", tmp_path / "journal.db"
    inputs = [{"n": n} for n in range(5)]
    await run(client, ECHO, inputs, output=output, journal=journal)
    with output.open("a") as file:
        file.write('{"index":5,"key":"torn')
    await run(client, ECHO, [*inputs, {"n": 5}], output=output, journal=journal)
    assert Counter(row["output"]["n"] for row in written(output)) == Counter(range(6))
    assert fal.counters(ECHO).executions == 6


async def test_removed_output_is_written_again(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    output, journal = tmp_path / "out.jsonl", tmp_path / "journal.db"
    inputs = [{"n": n} for n in range(5)]
    await run(client, ECHO, inputs, output=output, journal=journal)
    output.unlink()
    await run(client, ECHO, inputs, output=output, journal=journal)
    assert Counter(row["output"]["n"] for row in written(output)) == Counter(range(5))
    assert fal.counters(ECHO).executions == 5


async def test_row_of_forgotten_input_is_replaced(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    is_broken = True

    @fal.endpoint("acme/broken")
    def broken(arguments: dict[str, Any]) -> dict[str, Any]:
        if is_broken and arguments["n"] == 2:
            raise AppError(422, "no")
        return arguments

    output, journal = tmp_path / "out.jsonl", tmp_path / "journal.db"
    inputs = [{"n": n} for n in range(4)]
    await run(client, "acme/broken", inputs, output=output, journal=journal)
    assert sorted(row["ok"] for row in written(output)) == [False, True, True, True]
    with Journal(journal) as opened:
        opened.forget(*[entry.key for entry in opened.entries("failed")])
    is_broken = False
    await run(client, "acme/broken", inputs, output=output, journal=journal)
    assert Counter(row["output"]["n"] for row in written(output)) == Counter(range(4))
    assert fal.counters("acme/broken").executions == 5


async def test_unsure_row_is_replaced(fal: Emulator, client: AsyncClient, tmp_path: Path) -> None:
    output, journal = tmp_path / "out.jsonl", tmp_path / "journal.db"
    inputs = [{"n": n} for n in range(4)]
    options: dict[str, Any] = {"output": output, "journal": journal}
    fal.fail(ECHO, Fault(route="submit", drop_response=True, times=1))
    summary = await run(client, ECHO, inputs, unsure="report", **options)
    assert (summary.ok, summary.unsure) == (3, 1)
    summary = await run(client, ECHO, inputs, **options)
    assert (summary.ok, summary.unsure) == (4, 0)
    assert Counter(row["output"]["n"] for row in written(output)) == Counter(range(4))
    assert fal.counters(ECHO).executions == 4


@pytest.mark.parametrize(
    "content",
    [
        "a thesis without a last line break",
        "a thesis\n",
        '{"a":1}\n',
        '{"index":0,"key":"a"}',
        "[1]\n",
        "\0\1\0",
        '{"index":0,"key":"a","ok":true,"request_id":"b"}\n',
        '{"index":0,"key":"a","ok":true,"request_id":"b"}\n' * 100,
    ],
)
@pytest.mark.parametrize("is_known", [True, False])
async def test_output_of_others_is_kept(
    fal: Emulator, client: AsyncClient, tmp_path: Path, content: str, is_known: bool
) -> None:
    output, journal = tmp_path / "out.jsonl", tmp_path / "journal.db"
    inputs = [{"n": n} for n in range(5)]
    if is_known:
        await run(client, ECHO, inputs, output=output, journal=journal)
    output.write_text(content)
    submitted = fal.count("submit")
    with pytest.raises(InvalidRequestError, match="use another output, or remove the file"):
        await run(client, ECHO, inputs, output=output, journal=journal)
    assert output.read_text() == content
    assert fal.count("submit") == submitted


async def test_output_of_another_journal_is_kept(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    inputs = [{"n": n} for n in range(5)]
    for name in "ab":
        output, journal = tmp_path / f"{name}.jsonl", tmp_path / f"{name}.db"
        await run(client, ECHO, inputs, output=output, journal=journal)
    before = (tmp_path / "a.jsonl").read_bytes()
    with pytest.raises(InvalidRequestError, match="not of the journal"):
        await run(client, ECHO, inputs, output=tmp_path / "a.jsonl", journal=tmp_path / "b.db")
    assert (tmp_path / "a.jsonl").read_bytes() == before


async def test_moved_output_is_continued(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    output, journal = tmp_path / "out.jsonl", tmp_path / "journal.db"
    inputs = [{"n": n} for n in range(5)]
    await run(client, ECHO, inputs[:4], output=output, journal=journal)
    output.rename(tmp_path / "moved.jsonl")
    await run(client, ECHO, inputs, output=tmp_path / "moved.jsonl", journal=journal)
    await run(client, ECHO, inputs, output=output, journal=journal)
    for path in (output, tmp_path / "moved.jsonl"):
        assert Counter(row["output"]["n"] for row in written(path)) == Counter(range(5))
    assert fal.counters(ECHO).executions == 5


@pytest.mark.parametrize("removed", [1, 20, 150, 300, 100_000])
async def test_truncated_output_is_continued(
    fal: Emulator, client: AsyncClient, tmp_path: Path, removed: int
) -> None:
    output, journal = tmp_path / "out.jsonl", tmp_path / "journal.db"
    inputs = [{"n": n, "text": "x" * 70_000 * (n == 2)} for n in range(5)]
    await run(client, ECHO, inputs, output=output, journal=journal)
    content = output.read_bytes()
    output.write_bytes(content[: max(0, len(content) - removed)])
    await run(client, ECHO, inputs, output=output, journal=journal)
    assert Counter(row["output"]["n"] for row in written(output)) == Counter(range(5))
    output.write_bytes(b"".join(sorted(output.read_bytes().splitlines(keepends=True))[1:]))
    await run(client, ECHO, inputs, output=output, journal=journal)
    assert Counter(row["output"]["n"] for row in written(output)) == Counter(range(5))
    assert fal.counters(ECHO).executions == 5


async def test_output_of_forgotten_inputs_is_continued(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    output, path = tmp_path / "out.jsonl", tmp_path / "journal.db"
    inputs = [{"n": n} for n in range(3)]
    await run(client, ECHO, inputs, output=output, journal=path)
    with Journal(path) as journal:
        journal.forget(*(entry.key for entry in journal.entries()))
    await run(client, ECHO, inputs, output=output, journal=path)
    assert Counter(row["output"]["n"] for row in written(output)) == Counter(range(3))
    assert fal.counters(ECHO).executions == 6


async def test_output_must_be_a_file(client: AsyncClient, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="output must be the path of a file"):
        await run(client, ECHO, [], output=tmp_path)


async def test_files_must_differ(client: AsyncClient, tmp_path: Path) -> None:
    path, link = tmp_path / "in.jsonl", tmp_path / "link.jsonl"
    path.write_text('{"n":1}\n')
    link.symlink_to(path)
    with pytest.raises(InvalidRequestError, match="are the same file"):
        client.batch(ECHO, path, output=link)
    with pytest.raises(InvalidRequestError, match="are the same file"):
        client.batch(ECHO, path, journal=link)
    with pytest.raises(InvalidRequestError, match="are the same file"):
        client.batch(ECHO, [], journal=tmp_path / "new", output=str(tmp_path / "new"))


async def test_rows_of_equal_inputs_are_kept(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    output, inputs = tmp_path / "out.jsonl", [{"n": 1}, {"n": 2}, {"n": 1}]
    options: dict[str, Any] = {"output": output, "journal": tmp_path / "journal.db"}
    fal.fail(ECHO, Fault(route="submit", drop_response=True, skip=1, times=1))
    for unsure in ("report", "look"):
        await run(client, ECHO, inputs, duplicates="once", in_flight=1, unsure=unsure, **options)
        assert sorted(row["index"] for row in written(output)) == [0, 1, 2]


async def test_output_needs_its_own_journal(client: AsyncClient, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", shared=True)
    with pytest.raises(InvalidRequestError, match="output must be None with a shared journal"):
        client.batch(ECHO, [], journal=journal, output=tmp_path / "out.jsonl")


@pytest.mark.usefixtures("pictures")
async def test_files_are_part_of_the_job(client: AsyncClient, tmp_path: Path) -> None:
    pattern = str(tmp_path / "{name}" / "{index}-{n}{ext}")
    inputs = [{"name": "a/b", "n": 7}, {"name": "c", "n": 8}]
    async with client.batch(PICTURE, inputs, save=pattern, ordered=True) as batch:
        jobs = [job async for job in batch]
    assert [path.name for path in jobs[0].files] == ["0-0.png", "0-1.png"]
    assert jobs[0].files[0].parent.name == "a_b"
    assert [path.read_text() for path in jobs[1].files] == ["picture 8"] * 2


@pytest.mark.usefixtures("pictures")
async def test_failed_download_is_made_up_for(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    fal.fail(None, Fault(route="download", status=410, times=1))

    def name(job: Job, n: int) -> Path:
        return tmp_path / f"{job.index}-{n}.png"

    options: dict[str, Any] = {
        "journal": tmp_path / "journal.db",
        "output": tmp_path / "out.jsonl",
        "save": name,
    }
    inputs = [{"n": n} for n in range(3)]
    first = await run(client, PICTURE, inputs, **options)
    assert (first.ok, first.failed) == (2, 1)
    second = await run(client, PICTURE, inputs, **options)
    assert (second.ok, second.failed) == (3, 0)
    assert fal.counters(PICTURE).executions == 3
    rows = written(tmp_path / "out.jsonl")
    assert Counter(row["index"] for row in rows) == Counter(range(3))
    assert all(len(row["files"]) == 2 for row in rows)


@pytest.mark.usefixtures("pictures")
async def test_files_are_saved_as_the_latest_run_asks(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    output, inputs = tmp_path / "out.jsonl", [{"n": n} for n in range(3)]
    options: dict[str, Any] = {"output": output, "journal": tmp_path / "journal.db"}
    await run(client, PICTURE, inputs, **options)

    async def check(pattern: str, downloads: int) -> None:
        before = fal.count("download")
        summary = await run(client, PICTURE, inputs, save=str(tmp_path / pattern), **options)
        assert summary.ok == 3
        assert fal.count("download") - before == downloads
        rows = written(output)
        assert sorted(row["index"] for row in rows) == [0, 1, 2]
        for row in rows:
            paths = [tmp_path / pattern.format(ext=".png", n=n, **row) for n in range(2)]
            assert row["files"] == list(map(str, paths))
            assert all(path.is_file() for path in paths)

    await check("a/{index}-{n}{ext}", 6)
    await check("a/{index}-{n}{ext}", 0)
    await check("b/{index}-{n}{ext}", 6)
    (tmp_path / "b" / "1-0.png").unlink()
    await check("b/{index}-{n}{ext}", 2)
    assert fal.counters(PICTURE).executions == 3


@pytest.mark.usefixtures("pictures")
async def test_expired_file_is_a_failed_download(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    options: dict[str, Any] = {"output": output, "journal": tmp_path / "journal.db"}
    await run(client, PICTURE, [{"n": 1}], save=str(tmp_path / "a{n}"), **options)
    fal.fail(None, Fault(route="download", status=404, times=2))
    summary = await run(client, PICTURE, [{"n": 1}], save=str(tmp_path / "b{n}"), **options)
    assert (summary.failed, summary.started) == (1, 0)
    (row,) = written(output)
    assert row["error"]["stage"] == "download"


async def test_row_of_a_changed_input_is_replaced(client: AsyncClient, tmp_path: Path) -> None:
    output, inputs = tmp_path / "out.jsonl", [{"id": "a", "n": 1}, {"id": "b", "n": 1}]
    options: dict[str, Any] = {"output": output, "journal": tmp_path / "journal.db", "key": "id"}
    await run(client, ECHO, inputs, **options)
    inputs[0]["n"] = 2
    await run(client, ECHO, inputs, changed="new", **options)
    assert sorted((row["key"], row["output"]["n"]) for row in written(output)) == [
        ("a", 2),
        ("b", 1),
    ]


@pytest.mark.parametrize("field", ["{missing}", "{index:%}{", "{n.missing}", "{f}"])
async def test_wrong_pattern_is_refused_before_a_submit(
    fal: Emulator, client: AsyncClient, tmp_path: Path, field: str
) -> None:
    save = str(tmp_path / f"{{index}}-{field}")
    with pytest.raises(InvalidRequestError, match=r"save must be a pattern of {name}, {index}"):
        await run(client, ECHO, [{"name": "a", "f": {"url": "data:,a"}}], save=save)
    assert fal.count("submit") == 0


async def test_file_counts_by_its_content(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    reference, journal = tmp_path / "a.png", tmp_path / "journal.db"
    reference.write_bytes(b"one")
    inputs = [{"image": reference}, {"image": Upload(b"data", "image/png")}]
    await run(client, ECHO, inputs, journal=journal)
    moved = reference.rename(tmp_path / "b.png")
    await run(client, ECHO, [{"image": moved}, inputs[1]], journal=journal)
    assert fal.counters(ECHO).executions == 2
    moved.write_bytes(b"two")
    await run(client, ECHO, [{"image": moved}], journal=journal)
    assert fal.counters(ECHO).executions == 3


async def test_reference_is_uploaded_once(
    fal: Emulator, client: AsyncClient, journal_path: str, tmp_path: Path
) -> None:
    reference = tmp_path / "a.png"
    reference.write_bytes(b"reference")
    for count in (20, 30):
        inputs = [{"image": reference, "n": n} for n in range(count)]
        await run(client, ECHO, inputs, journal=journal_path)
    assert fal.counters(ECHO).executions == 30
    assert fal.count("upload") == 1
    (url,) = fal.files
    # The check finds it missing, for everyone and for the account.
    fal.fail(None, Fault(route="download", status=404, times=2))
    async with client.batch(ECHO, [{"image": reference}], journal=journal_path) as batch:
        [job] = [job async for job in batch]
    assert fal.count("upload") == 2
    assert job.output["image"] != url


async def test_old_upload_is_repeated(fal: Emulator, client: AsyncClient, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    lifecycle = StorageSettings(expires_in=3600)
    for n, age in enumerate((0, 1700, 200)):  # reused for half of its life
        with closing(sqlite3.connect(path)) as database:
            if n:
                database.execute("UPDATE uploads SET uploaded_at = uploaded_at - ?", [age])
                database.commit()
        image = Upload(b"data", "image/png", lifecycle=lifecycle)
        await run(client, ECHO, [{"image": image, "n": n}], journal=path)
        assert fal.count("upload") == (2 if n == 2 else 1)


async def test_each_job_may_have_its_upload(fal: Emulator, client: AsyncClient) -> None:
    inputs = [{"image": Upload(b"data", "image/png"), "n": n} for n in range(5)]
    await run(client, ECHO, inputs, upload_once=False)
    assert fal.count("upload") == 5


async def test_file_of_unknown_content_needs_a_key(client: AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    with (tmp_path / "a").open("rb") as file, pytest.raises(InvalidRequestError, match="key must"):
        await run(client, ECHO, [{"image": file}])


@pytest.mark.usefixtures("pictures")
async def test_parts_of_a_killed_run_are_removed(
    fal: Emulator, client: AsyncClient, journal_path: str, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    seen: set[str] = set()

    def see_parts(_: RecordedRequest) -> bool:
        seen.update(path.name for path in folder.glob(".*.part"))
        return False

    fal.fail(None, Fault(route="download", when=see_parts))
    journals = [Journal(journal_path, shared=True) for _ in range(2)]
    with journals[0] as journal, journals[1] as other:
        with Journal(journal_path, shared=True) as killed:
            runs = [opened._run for opened in (killed, other, journal)]
        names = [run.name for run in runs if run is not None]
        parts = [f".{name}0123.part" for name in (*names[:2], "foreign")]
        for part in parts:
            (folder / part).touch()
        await run(client, PICTURE, [{"n": 1}], save=f"{folder}/{{index}}-{{n}}", journal=journal)
    assert {path.name for path in folder.iterdir()} == {*parts[1:], "0-0", "0-1"}
    own = seen - set(parts)
    assert own
    assert all(part.startswith(f".{names[2]}") for part in own)
