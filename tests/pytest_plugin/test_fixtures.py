"""The fixtures, as tests of users see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.pytest_plugin.conftest import Project

pytestmark = pytest.mark.slow


def test_environment_is_set_for_all_clients(project: Project) -> None:
    project.write(
        test_clients="""
        import os

        import fal_async.sync
        import pytest
        from fal_async.sync import SyncClient

        def echo(arguments):
            return arguments

        def ask():  # the code under test
            with SyncClient() as client:
                return client.run("acme/echo", {"a": 1})

        @pytest.mark.parametrize("number", range(2))
        def test_clients(fal, sync_fal_client, number):
            fal.register("acme/echo", echo)
            assert ask() == {"a": 1}
            assert fal_async.sync.run("acme/echo", {"a": 1}) == {"a": 1}
            assert fal_async.sync.sync_client.run("acme/echo", {"a": 1}) == {"a": 1}
            assert sync_fal_client.run("acme/echo", {"a": 1}) == {"a": 1}
            assert fal.counters("acme/echo").executions == 4
            assert "FAL_KEY_ID" not in os.environ

        def test_environment_is_restored():
            assert "FAL_KEY" not in os.environ
            assert os.environ["FAL_KEY_ID"] == "mine"
        """
    )
    run = project.run(FAL_KEY_ID="mine", FAL_KEY_SECRET="real")
    assert (run.exit_status, run.outcomes) == (0, {"passed": 3}), run.output


def test_state_is_fresh_for_each_test(project: Project) -> None:
    project.write(
        conftest="""
        import pytest

        @pytest.fixture(scope="session")
        def fal_session(fal_session):
            fal_session.register("acme/shared", lambda arguments: arguments)
            return fal_session
        """,
        test_state="""
        import pytest

        @pytest.mark.parametrize("number", range(2))
        @pytest.mark.fal(concurrency=1)
        def test_state(fal, sync_fal_client, number):
            assert fal.endpoints == ["acme/shared"]
            assert fal.requests == []
            assert fal.counters("acme/shared").executions == 0
            gate = fal.gate()
            fal.register("acme/waits", lambda arguments: gate.wait_sync())
            fal.accept_key("another:key")
            fal.lock()
            fal.unlock()
            sync_fal_client.submit("acme/waits", {})
            sync_fal_client.submit("acme/waits", {})
            sync_fal_client.submit("acme/shared", {})
            fal.wait_for(lambda: fal.counters("acme/waits").running == 1)
            assert fal.counters("acme/shared").queued == 1

        def test_settings_are_restored(fal, sync_fal_client):
            fal.register("acme/app", lambda arguments: arguments)
            with pytest.raises(Exception, match="401"):
                sync_fal_client.with_options(key="another:key").run("acme/app", {})
            assert fal._platform.settings.concurrency is None
        """,
    )
    run = project.run()
    assert (run.exit_status, run.outcomes) == (0, {"passed": 3}), run.output


def test_more_emulators_can_be_made(project: Project) -> None:
    project.write(
        test_more="""
        from fal_async.sync import SyncClient

        def test_more(fal, make_fal):
            other = make_fal(key="other:key", concurrency=3)
            other.register("acme/app", lambda arguments: {"from": "other"})
            assert other.url != fal.url
            with SyncClient(other.key, hosts=other.hosts) as client:
                assert client.run("acme/app", {}) == {"from": "other"}
            assert fal.requests == []
        """
    )
    run = project.run()
    assert (run.exit_status, run.outcomes) == (0, {"passed": 1}), run.output


def test_unexpected_endpoint_fails_the_test(project: Project) -> None:
    project.write(
        test_unexpected="""
        import contextlib
        import fal_async
        import pytest

        def call(client):
            with contextlib.suppress(fal_async.NotFoundError):
                client.run("acme/forgotten", {})

        def test_call(fal, sync_fal_client):
            fal.register("acme/app", lambda arguments: arguments)
            call(sync_fal_client)

        @pytest.mark.fal(allow_unexpected=True)
        def test_accepted(sync_fal_client):
            call(sync_fal_client)
        """
    )
    run = project.run()
    assert run.outcomes == {"passed": 2, "error": 1}, run.output
    assert "  run acme/forgotten (1)\nregistered: acme/app." in run.output
    project.configure("fal_allow_unexpected = true\n")
    assert project.run().outcomes == {"passed": 2}


def test_wrong_marker_is_an_error(project: Project) -> None:
    project.write(
        test_marker="""
        import pytest

        @pytest.mark.fal(speling=1)
        def test_marker(fal): ...
        """
    )
    run = project.run("--strict-markers")
    assert run.outcomes == {"error": 1}
    assert "the marker fal is not valid: a setting must be one of" in run.output
    assert "concurrency" in run.output
    assert "got speling" in run.output


def test_nothing_is_loaded_before_its_use(project: Project) -> None:
    project.write(
        test_loaded="""
        import sys

        HEAVY = {"anyio", "fal_async._client", "fal_async.emulator", "httpx", "pydantic", "uvicorn"}

        def test_loaded():
            assert not HEAVY & sys.modules.keys()
        """
    )
    run = project.run()
    assert (run.exit_status, run.outcomes) == (0, {"passed": 1}), run.output


def test_recording_uses_the_key_of_the_user(project: Project) -> None:
    project.write(
        test_recording="""
        from pathlib import Path

        import pytest
        from fal_async.pytest_plugin import RealHostError

        PATH = Path("cassettes/app.json")

        def test_record(fal, make_fal, sync_fal_client):
            platform = make_fal(key="real:key")
            platform.register("acme/app", lambda arguments: {"a": 1})
            fal.record(PATH, hosts=platform.hosts)
            assert sync_fal_client.subscribe("acme/app", {}) == {"a": 1}

        def test_replay(fal, sync_fal_client):
            fal.replay(PATH, pace=0)
            assert sync_fal_client.subscribe("acme/app", {}) == {"a": 1}

        def test_real_platform_must_be_allowed(fal):
            with pytest.raises(RealHostError, match="--fal-allow-hosts=fal.run"):
                fal.record("other.json")

        def test_missing_response(fal, sync_fal_client):
            fal.replay(PATH)
            with pytest.raises(Exception, match="was never recorded in cassettes/app.json"):
                sync_fal_client.run("acme/other", {})
        """
    )
    run = project.run(FAL_KEY="real:key")
    assert run.outcomes == {"passed": 4, "error": 1}, run.output
    assert "run acme/other (1)" in run.output
    assert "real:key" not in (project.path / "cassettes" / "app.json").read_text()
