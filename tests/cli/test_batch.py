"""The command ``batch``."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from fal_async import AsyncClient, ConnectionFailedError, Journal, RetryPolicy
from fal_async.batch.entries import Begin
from fal_async.cli import _journals
from fal_async.cli._errors import UsageError
from fal_async.cli._waits import WaitReasons
from fal_async.emulator import AppError, Fault
from tests.support.cli_runner import PROGRAM
from tests.support.http import gated_echo
from tests.support.subprocesses import started

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fal_async.emulator import Emulator, Gate
    from tests.support.cli_runner import Shell

ECHO = "acme/echo"
ENDPOINT = ("--endpoint", ECHO)


def echo(arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments


@pytest.fixture(autouse=True)
def registered(fal: Emulator) -> None:
    fal.register(ECHO, echo)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file with ten rows."""
    path = tmp_path / "in.jsonl"
    path.write_text("".join(f'{{"n":{n}}}\n' for n in range(10)))
    return path


def rows(text: str) -> list[dict[str, Any]]:
    return sorted(map(json.loads, text.splitlines()), key=lambda row: row["index"])


def test_rows_go_to_the_output(fal: Emulator, shell: Shell, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    command = ("batch", str(source), "-o", str(output), *ENDPOINT)
    assert shell(*command).exit_status == 0
    outcome = shell(*command)
    assert outcome.exit_status == 0
    assert "10 ok, 10 from earlier runs" in outcome.stderr
    assert [row["output"]["n"] for row in rows(output.read_text())] == list(range(10))
    assert (tmp_path / "out.jsonl.journal.db").exists()
    assert fal.counters(ECHO).executions == 10


def test_rows_go_to_stdout(shell: Shell, source: Path) -> None:
    outcome = shell("batch", str(source), "--no-journal", "--limit", "3", "-q", *ENDPOINT)
    assert [row["output"] for row in rows(outcome.stdout)] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert outcome.stderr == ""


def test_arguments_are_selected(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,text\na,hello\n")
    outcome = shell(
        *("batch", "in.csv", "--arguments", "prompt=text", "--set", "steps:=4", "-q", *ENDPOINT)
    )
    (row,) = rows(outcome.stdout)
    assert row["output"] == {"prompt": "hello", "steps": 4}


def test_failed_rows_are_retried_on_demand(fal: Emulator, shell: Shell, source: Path) -> None:
    is_broken = True

    @fal.endpoint("acme/broken")
    def broken(arguments: dict[str, Any]) -> dict[str, Any]:
        if is_broken and arguments["n"] == 3:
            raise AppError(422, "no")
        return arguments

    command = ("batch", str(source), "-o", "out.jsonl", "--endpoint", "acme/broken", "-q")
    assert shell(*command).exit_status == 1
    assert shell(*command).exit_status == 1
    is_broken = False
    assert shell(*command, "--retry", "failed").exit_status == 0
    assert fal.counters("acme/broken").executions == 11


def test_final_failures_are_retried_on_demand(fal: Emulator, shell: Shell, source: Path) -> None:
    is_broken = True

    @fal.endpoint("acme/broken")
    def broken(arguments: dict[str, Any]) -> dict[str, Any]:
        if is_broken and arguments["n"] in {3, 4}:
            raise AppError(422 if arguments["n"] == 3 else 500, "no")
        missing = {"url": f"{fal.hosts.cdn}/files/missing.png"}
        return {"image": missing} if arguments["n"] == 5 else arguments

    command = ("batch", str(source), "-o", "out.jsonl", "--endpoint", "acme/broken", "-q")
    options = ("--save", "{index}{ext}", "--attempts", "1")
    assert shell(*command, *options).exit_status == 1
    is_broken = False
    for retry in ("final", "failed"):  # a failed download is repeated without another job
        assert shell(*command, *options, "--retry", retry).exit_status == 1
        assert fal.count("submit") == 12
    assert shell(*command, "--retry", "none").exit_status == 2


def test_exit_statuses_name_the_cause(fal: Emulator, shell: Shell, source: Path) -> None:
    fal.fail(ECHO, Fault(route="submit", drop_response=True, times=1))
    command = ("batch", str(source), "-o", "out.jsonl", "-q", *ENDPOINT)
    assert shell(*command, "--unsure", "report").exit_status == 5
    again = ("batch", str(source), "--no-journal", "-q", *ENDPOINT)
    assert shell(*again, "--budget", "3", "--price", "1").exit_status == 3
    fal.lock()
    outcome = shell(*again)
    assert outcome.exit_status == 4
    assert "Exhausted balance" in outcome.stderr


def test_first_line_tells_what_is_left(fal: Emulator, shell: Shell, source: Path) -> None:
    command = ("batch", str(source), "-o", "out.jsonl", "--price", "0.5", *ENDPOINT)
    outcome = shell(*command, "--limit", "4")
    assert outcome.stderr.startswith("4 rows, 4 to do, about 2.00 to pay\n")
    fal.fail(ECHO, Fault(route="submit", drop_response=True, times=1))
    outcome = shell(*command, "--limit", "5", "--unsure", "report")
    assert outcome.stderr.startswith("5 rows, 4 done before, 1 to do, about 0.50 to pay\n")
    outcome = shell(*command, "--unsure", "report")
    assert outcome.stderr.startswith(
        "10 rows, 4 done before, 1 unsure, 5 to do, about 2.50 to pay\n"
    )
    assert "unsure     input 4, key " in shell("batch", "status", "out.jsonl.journal.db").stdout
    outcome = shell(*command, "--json-progress", "--unsure", "report")
    assert [json.loads(line)["total"] for line in outcome.stderr.splitlines()] == [10]


def test_first_line_counts_the_rows_of_the_input(shell: Shell, source: Path) -> None:
    command = ("batch", str(source), "-o", "out.jsonl", "--price", "0.5", "--endpoint")
    shell(*command, ECHO)
    source.write_text('{"n":20}\n{"n":9}\n{"n":21}\n{"n":21}\n')
    outcome = shell(*command, ECHO, "--duplicates", "once", "--limit", "3")
    assert outcome.stderr.startswith("3 rows, 1 done before, 2 to do, about 1.00 to pay\n")
    source.write_text('{"n":1}\n{"n":22}\n{"n":22}\n')
    outcome = shell(*command, ECHO, "--duplicates", "once")
    assert outcome.stderr.startswith("3 rows, 1 done before, 1 to do, about 0.50 to pay\n")


def test_first_line_counts_the_rows_of_the_endpoint(
    fal: Emulator, shell: Shell, source: Path
) -> None:
    fal.register("acme/other", echo)
    command = ("batch", str(source), "-o", "out.jsonl", "--endpoint")
    shell(*command, ECHO)
    assert shell(*command, "acme/other").stderr.startswith("10 rows, 10 to do")


def test_first_line_counts_rows_with_attempts_left(
    fal: Emulator, shell: Shell, source: Path
) -> None:
    @fal.endpoint("acme/broken")
    def broken(arguments: dict[str, Any]) -> dict[str, Any]:
        raise AppError(500, "no")

    command = ("batch", str(source), "--limit", "2", "-o", "out.jsonl", "--endpoint")
    shell(*command, "acme/broken", "--attempts", "1")
    assert shell(*command, "acme/broken").stderr.startswith("2 rows, 2 done before, 0 to do\n")


def test_reasons_of_waits_are_told_once(fal: Emulator, shell: Shell, source: Path) -> None:
    fal.fail(ECHO, Fault(route="submit", status=429, times=3))
    command = ("batch", str(source), "-o", "out.jsonl", *ENDPOINT)
    outcome = shell(*command)
    assert outcome.exit_status == 0
    assert outcome.stderr.count("fal_async: waiting: HTTP 429 of submit\n") == 1
    fal.fail(ECHO, Fault(route="submit", status=429, times=1))
    outcome = shell(*command, "-q", "--retry", "all")
    assert (outcome.exit_status, outcome.stderr) == (0, "")


async def test_failures_of_listings_and_connections_are_told(
    fal: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    fal.fail(None, Fault(route="requests", status=500, times=1))
    reasons = WaitReasons()
    async with AsyncClient(hooks=reasons) as client:
        assert [request async for request in client.requests.list(ECHO)] == []
    policy = RetryPolicy(attempts=2)
    async with AsyncClient(
        "key", hosts="http://127.0.0.1:9", hooks=reasons, retry=policy
    ) as client:
        for _ in range(2):
            with pytest.raises(ConnectionFailedError):
                await client.run(ECHO, {})
    listing, connection = capsys.readouterr().err.splitlines()
    assert listing == "fal_async: waiting: HTTP 500 of requests"
    assert connection.startswith("fal_async: waiting: cannot connect to 127.0.0.1:9: ")


def test_changed_price_is_told(shell: Shell, source: Path) -> None:
    command = ("batch", str(source), "-o", "out.jsonl", *ENDPOINT)
    shell(*command, "--limit", "4", "--price", "0.5")
    outcome = shell(*command, "--price", "0.25")
    assert "to pay, the price of a unit is no longer 0.5\n" in outcome.stderr
    assert "no longer" not in shell(*command, "--price", "0.250").stderr


def test_dry_run_starts_nothing(fal: Emulator, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"n":1}\n{"n":1}\n')
    outcome = shell("batch", "in.jsonl", "--dry-run", *ENDPOINT)
    assert outcome.stdout.startswith("2 rows, 1 repeat others")
    assert fal.count("submit") == 0


def test_dry_run_counts_what_is_left(fal: Emulator, shell: Shell, source: Path) -> None:
    command = ("batch", str(source), "-o", "out.jsonl", "--price", "0.5", *ENDPOINT)
    shell(*command, "--limit", "4")
    outcome = shell(*command, "--dry-run", "--budget", "5")
    assert outcome.exit_status == 0
    assert "; 4 done before, 6 to do, about 3.00 to pay\n" in outcome.stdout
    assert shell(*command, "--dry-run", "--budget", "4.9").exit_status == 3
    assert fal.count("submit") == 4


def test_dry_run_checks_what_a_run_checks(fal: Emulator, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"n":1}\n{"n":1}\n')
    command = ("batch", "in.jsonl", "-o", "out.jsonl", "--dry-run")
    for wrong in (("--duplicates", "error"), ("--key", "missing"), ("--unsure", "maybe")):
        assert shell(*command, *wrong, *ENDPOINT).exit_status == 2
    assert shell(*command, "--endpoint", "acme/missing").exit_status == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


@pytest.mark.parametrize(
    ("name", "text", "number"),
    [
        ("in.jsonl", '{"n":1}\n\n[2]\n{"n":3}\n', 3),
        ("in.jsonl", '{"n":1}\n{"n":\n{"n":3}\n', 2),
        ("in.csv", "n,text\n1,a\n2\n3,b\n", 3),
    ],
)
def test_bad_lines_are_skipped_on_demand(
    fal: Emulator, shell: Shell, tmp_path: Path, name: str, text: str, number: int
) -> None:
    (tmp_path / name).write_text(text)
    command = ("batch", name, "-o", "out.jsonl", "-q", *ENDPOINT)
    outcome = shell(*command)
    assert outcome.exit_status == 2
    assert f"{name}, line {number}, " in outcome.stderr
    assert fal.count("submit") == 0
    outcome = shell(*command, "--skip-bad-lines")
    assert outcome.exit_status == 0
    assert outcome.stderr.startswith(f"fal_async: skipped: {name}, line {number}, ")
    found = rows((tmp_path / "out.jsonl").read_text())
    assert [int(row["output"]["n"]) for row in found] == [1, 3]


def add_schema(models: dict[str, Any]) -> dict[str, Any]:
    """Add a document in the form of the platform's to a page of models."""
    size = {"type": "object", "properties": {"width": {"type": "integer"}}}
    properties = {
        "prompt": {"type": "string", "minLength": 2},
        "steps": {"type": "integer", "maximum": 8},
        "size": {"anyOf": [{"$ref": "#/components/schemas/Size"}, {"enum": ["square"]}]},
    }
    schema = {"type": "object", "properties": properties, "required": ["prompt"]}
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Input"}}}}
    models["models"][0]["openapi"] = {
        "openapi": "3.0.4",
        "components": {"schemas": {"Input": schema, "Size": size}},
        "paths": {f"/{ECHO}": {"post": {"requestBody": body}}},
    }
    return models


def test_dry_run_names_rows_that_would_be_raised(
    fal: Emulator, shell: Shell, tmp_path: Path
) -> None:
    fal.fail(None, Fault(route="models", transform=add_schema))
    (tmp_path / "in.jsonl").write_text(
        '{"prompt":"a cat","steps":"8","size":{"width":3},"other":1}\n\n'
        '{"prompt":"a cat","steps":9}\n'
        '{"size":"square"}\n'
        '{"prompt":"a fox","size":"round"}\n'
    )
    outcome = shell("batch", "in.jsonl", "--dry-run", *ENDPOINT)
    assert outcome.exit_status == 1
    assert outcome.stdout.startswith("4 rows, 0 repeat others, 3 would be refused; ")
    lines = [line.split(": ")[:2] for line in outcome.stderr.splitlines()]
    assert [(place, name.partition(".")[0]) for place, name in lines] == [
        ("in.jsonl, line 3", "steps"),
        ("in.jsonl, line 4", "prompt"),
        ("in.jsonl, line 5", "size"),
    ]
    assert fal.count("submit") == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("missing.jsonl", *ENDPOINT),
        ("in.jsonl", "--endpoint", "nonsense"),
        ("in.jsonl", "--unsure", "maybe", *ENDPOINT),
        ("in.jsonl", "--arguments", "prompt=missing", *ENDPOINT),
        ("in.jsonl", "--key", "missing", *ENDPOINT),
        ("in.jsonl", "--journal", "x.db", "--no-journal", *ENDPOINT),
        ("in.jsonl", "-o", "missing/out.jsonl", *ENDPOINT),
        ("in.jsonl", "-o", "missing/out.jsonl", "--no-journal", *ENDPOINT),
        ("in.jsonl", "-o", ".", *ENDPOINT),
        ("in.jsonl", "-o", "/dev/full", "--no-journal", *ENDPOINT),
        ("in.jsonl", "--journal", ".", *ENDPOINT),
        ("in.jsonl", "--journal", "/dev/full", *ENDPOINT),
    ],
)
@pytest.mark.usefixtures("source")
def test_wrong_usage_sends_nothing(fal: Emulator, shell: Shell, arguments: tuple[str, ...]) -> None:
    outcome = shell("batch", "-q", *arguments)
    assert outcome.exit_status == 2
    assert fal.count("submit") == 0


def make_link(kind: str, path: Path) -> Path:
    """Return another name of a file, as far as the kind asks for one."""
    link = path.with_name(f"{kind}.jsonl")
    if kind == "hard link":
        link.hardlink_to(path)
    elif kind == "symbolic link":
        link.symlink_to(path)
    return path if kind == "same" else link


@pytest.mark.parametrize("kind", ["same", "hard link", "symbolic link"])
@pytest.mark.parametrize("use", ["output", "journal"])
def test_input_is_not_overwritten(
    fal: Emulator, shell: Shell, source: Path, kind: str, use: str
) -> None:
    before, link = source.read_bytes(), make_link(kind, source)
    options = ("--journal", "other.db") if use == "output" else ("-o", "out.jsonl")
    outcome = shell("batch", str(source), f"--{use}", str(link), *options, *ENDPOINT)
    assert outcome.exit_status == 2
    assert f"the input {source} and the {use} {link} are the same file" in outcome.stderr
    assert source.read_bytes() == before
    assert not source.with_name("other.db").exists()
    assert not source.with_name("out.jsonl").exists()
    assert fal.count("submit") == 0


@pytest.mark.parametrize("kind", ["same", "hard link", "symbolic link"])
def test_journal_is_not_overwritten(shell: Shell, source: Path, tmp_path: Path, kind: str) -> None:
    journal = tmp_path / "journal.db"
    command = ("batch", str(source), "--journal", str(journal), *ENDPOINT)
    assert shell(*command).exit_status == 0
    before, output = journal.read_bytes(), str(make_link(kind, journal))
    for again in ((*command, "-o", output), ("batch", "export", str(journal), "-o", output)):
        outcome = shell(*again)
        assert outcome.exit_status == 2
        assert "are the same file" in outcome.stderr
        assert journal.read_bytes() == before


def test_new_output_is_not_the_new_journal(shell: Shell, source: Path) -> None:
    outcome = shell("batch", str(source), "-o", "new", "--journal", "./new", *ENDPOINT)
    assert (outcome.exit_status, source.with_name("new").exists()) == (2, False)


def test_output_without_its_journal_is_kept(
    fal: Emulator, shell: Shell, source: Path, tmp_path: Path
) -> None:
    command = ("batch", str(source), "-o", "out.jsonl", *ENDPOINT)
    shell(*command)
    (tmp_path / "out.jsonl.journal.db").unlink()
    before = (tmp_path / "out.jsonl").read_bytes()
    for options in ((), ("--no-journal",), ("--journal", "other.db")):
        outcome = shell(*command, *options)
        assert outcome.exit_status == 2
        assert "use another output, or remove the file" in outcome.stderr
        assert (tmp_path / "out.jsonl").read_bytes() == before
    assert fal.count("submit") == 10


@pytest.mark.usefixtures("source")
def test_missing_key_is_wrong_usage(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAL_KEY")
    outcome = shell("batch", "in.jsonl", "-o", "out.jsonl", *ENDPOINT)
    assert outcome.exit_status == 2


def test_missing_input_makes_no_journal(shell: Shell, tmp_path: Path) -> None:
    for options in ((), ("--dry-run",), ("--limit", "1")):
        outcome = shell("batch", "in.jsonl", "-o", "out.jsonl", *options, *ENDPOINT)
        assert (outcome.exit_status, list(tmp_path.glob("*.db"))) == (2, [])
        assert "cannot read the inputs in.jsonl: No such file" in outcome.stderr


def test_messages_name_options(fal: Emulator, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"n":1,"text":"a"}\n{"n":1,"text":"a"}\n')
    command = ("batch", "in.jsonl", "-o", "out.jsonl", *ENDPOINT)
    outcome = shell(*command, "--duplicates", "error")
    assert outcome.exit_status == 2
    assert "set --duplicates each for a job" in outcome.stderr
    assert fal.count("submit") == 0
    (tmp_path / "in.jsonl").write_text('{"n":1,"text":"a"}\n')
    shell(*command, "--key", "n")
    (tmp_path / "in.jsonl").write_text('{"n":1,"text":"b"}\n')
    outcome = shell(*command, "--key", "n")
    assert outcome.exit_status == 2
    assert "set --changed new to start jobs" in outcome.stderr
    with Journal("out.jsonl.journal.db"):
        outcome = shell(*command)
    assert (outcome.exit_status, "shared" in outcome.stderr) == (2, False)
    assert fal.count("submit") == 1


def test_stdout_is_a_dash(shell: Shell, source: Path, tmp_path: Path) -> None:
    outcome = shell("batch", str(source), "-o", "-", "-q", *ENDPOINT)
    assert len(rows(outcome.stdout)) == 10
    assert not (tmp_path / "-").exists()


def test_command_without_arguments_shows_its_help(shell: Shell) -> None:
    outcome = shell("batch")
    assert (outcome.exit_status, outcome.stderr) == (0, "")
    assert "batch FILE --endpoint ID" in outcome.stdout


def test_journal_is_shown_and_exported(shell: Shell, source: Path) -> None:
    shell("batch", str(source), "-o", "out.jsonl", "-q", *ENDPOINT)
    status = shell("batch", "status", "out.jsonl.journal.db")
    assert "ended      10" in status.stdout
    exported = shell("batch", "export", "out.jsonl.journal.db")
    assert [row["output"]["n"] for row in rows(exported.stdout)] == list(range(10))


def test_inputs_without_files_are_not_shown_as_saved(
    fal: Emulator, shell: Shell, source: Path
) -> None:
    @fal.endpoint("acme/images")
    def draw(arguments: dict[str, Any]) -> dict[str, Any]:
        image = {"url": "data:text/plain,hello"}
        return {"image": image} if arguments["n"] < 3 else arguments

    command = ("batch", str(source), "-o", "out.jsonl", "--endpoint", "acme/images", "-q")
    assert shell(*command, "--save", "{index}{ext}").exit_status == 0
    status = shell("batch", "status", "out.jsonl.journal.db").stdout
    assert status.splitlines()[:3] == ["ended      7", "saved      3", "attempts   10"]


@pytest.mark.skipif(os.name == "nt", reason="no permissions of folders")
def test_journal_in_a_read_only_folder_is_read(
    shell: Shell, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    journal = folder / "journal.db"
    shell("batch", str(source), "-o", "out.jsonl", "--journal", str(journal), "-q", *ENDPOINT)
    journal.chmod(0o444)
    folder.chmod(0o555)
    access: Callable[[Any, int], bool] = lambda _, mode: mode != os.W_OK  # noqa: E731 -- typed
    monkeypatch.setattr(os, "access", access)  # root may write anywhere
    content = journal.read_bytes()
    assert "ended      10" in shell("batch", "status", str(journal)).stdout
    assert len(rows(shell("batch", "export", str(journal)).stdout)) == 10
    assert (journal.read_bytes(), list(folder.iterdir())) == (content, [journal])
    folder.chmod(0o755)


def test_sorted_output_is_continued(shell: Shell, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    command = ("batch", str(source), "-o", "out.jsonl", "-q", *ENDPOINT)
    shell(*command)
    lines = output.read_text().splitlines(keepends=True)
    output.write_text("".join(lines[::-1]))
    assert shell("batch", "sort", "out.jsonl").exit_status == 0
    indices = [json.loads(line)["index"] for line in output.read_text().splitlines()]
    assert indices == list(range(10))
    source.write_text(source.read_text() + '{"n":10}\n')
    assert shell(*command).exit_status == 0
    assert [row["index"] for row in rows(output.read_text())] == list(range(11))
    output.write_bytes(b"[1]\n")
    outcome = shell("batch", "sort", "out.jsonl")
    assert (outcome.exit_status, "is not a row" in outcome.stderr) == (2, True)


async def test_output_of_a_running_batch_is_not_sorted(
    fal: Emulator, source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    gate = fal.gate()
    fal.register("acme/slow", gated_echo(gate))
    async with AsyncClient() as client:
        async with client.batch("acme/slow", source, output=output) as batch:
            with pytest.raises(UsageError, match="a batch writes it; sort it after its end"):
                _journals.sort(output)
            with pytest.raises(OSError, match="another process writes the rows"):
                async with client.batch(ECHO, source, output=output):
                    pass
            gate.open()
            await batch.run()
        assert _journals.sort(output) == 0
    assert [row["index"] for row in map(json.loads, output.read_text().splitlines())] == list(
        range(10)
    )


@pytest.mark.parametrize("command", ["status", "export", "cancel"])
def test_missing_journal_is_not_made(shell: Shell, tmp_path: Path, command: str) -> None:
    outcome = shell("batch", command, "missing.db")
    assert outcome.exit_status == 2
    assert "cannot open the journal missing.db: no such file" in outcome.stderr
    assert not (tmp_path / "missing.db").exists()


@pytest.mark.slow
def test_interrupted_batch_is_continued(fal: Emulator, shell: Shell, source: Path) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/slow")
    async def slow(arguments: dict[str, Any]) -> dict[str, Any]:
        await gate.wait()
        return arguments

    command = ("batch", str(source), "-o", "out.jsonl", "--endpoint", "acme/slow", "--grace", "0")
    environment = {**os.environ, **fal.environ}
    with started([*PROGRAM, *command], env=environment, stdout=None) as process:
        fal.wait_for(lambda: fal.counters("acme/slow").executions == 10)
        with Journal("out.jsonl.journal.db", shared=True) as journal:
            while journal.summary().states.get("running") != 10:
                pass
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    cancelled = shell("batch", "status", "out.jsonl.journal.db")
    assert "running    10" in cancelled.stdout
    gate.open()
    assert shell(*command).exit_status == 0
    assert fal.counters("acme/slow").executions == 10


@pytest.fixture
def killed(fal: Emulator, source: Path) -> Gate:
    """A batch that was killed while its ten jobs wait for this gate."""
    gate = fal.gate()

    @fal.endpoint("acme/slow")
    async def slow(arguments: dict[str, Any]) -> dict[str, Any]:
        await gate.wait()
        return arguments

    command = ("batch", str(source), "-o", "out.jsonl", "--endpoint", "acme/slow", "-q")
    environment = {**os.environ, **fal.environ}
    with started([*PROGRAM, *command], env=environment, stdout=None) as process:
        fal.wait_for(lambda: fal.counters("acme/slow").executions == 10)
        with Journal("out.jsonl.journal.db", shared=True) as journal:
            while journal.summary().states.get("running") != 10:
                pass
        process.kill()
    return gate


def test_running_jobs_are_cancelled(
    fal: Emulator, shell: Shell, source: Path, killed: Gate
) -> None:
    cancel = ("batch", "cancel", "out.jsonl.journal.db")
    assert shell(*cancel).stdout == "10 of 10 jobs cancelled\n"
    assert fal.counters("acme/slow").cancelled == 10
    assert "planned    10\n" in shell("batch", "status", "out.jsonl.journal.db").stdout
    assert shell(*cancel).stdout == "0 of 0 jobs cancelled\n"
    assert fal.count("cancel") == 10
    killed.open()
    command = ("batch", str(source), "-o", "out.jsonl", "--endpoint", "acme/slow", "-q")
    assert shell(*command).exit_status == 0
    assert fal.counters("acme/slow").executions == 20


def test_ended_jobs_are_not_cancelled(
    fal: Emulator, shell: Shell, source: Path, killed: Gate
) -> None:
    killed.open()
    fal.wait_for(lambda: fal.counters("acme/slow").completed == 10)
    for _ in range(2):
        outcome = shell("batch", "cancel", "out.jsonl.journal.db")
        assert outcome.stdout.splitlines() == [
            "0 of 10 jobs cancelled",
            "10 had already ended; continue the batch to collect them",
        ]
    command = ("batch", str(source), "-o", "out.jsonl", "--endpoint", "acme/slow", "-q")
    assert shell(*command).exit_status == 0
    assert fal.counters("acme/slow").executions == 10


def test_unknown_jobs_are_not_cancelled(fal: Emulator, shell: Shell) -> None:
    with Journal("journal.db") as journal:
        journal._opened().commit([Begin("key", ECHO, 0, b"", 1.0)])
        journal.adopt("key", "764cabcf-b745-4b3e-ae38-1200304cf45b")
    outcome = shell("batch", "cancel", "journal.db")
    assert outcome.exit_status == 1
    assert outcome.stdout == "0 of 1 jobs cancelled\n1 could not be cancelled\n"
    assert fal.count("cancel") == 1
