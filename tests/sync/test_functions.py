"""Module-level functions in processes of their own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.subprocesses import printed_lines

if TYPE_CHECKING:
    from fal_async.emulator import Emulator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks and signals of POSIX")


@pytest.fixture(autouse=True)
def endpoints(fal: Emulator) -> None:
    fal.register("acme/echo", lambda arguments: arguments)


@pytest.mark.slow
def test_import_starts_no_thread(fal: Emulator) -> None:
    assert printed_lines("""
def opened():
    return threading.enumerate(), os.path.exists("/proc") and os.listdir("/proc/self/fd")

before = opened()
import fal_async.sync
say(opened() == before)
""") == ["True"]
    assert not fal.requests


@pytest.mark.slow
def test_official_code_needs_one_import(fal: Emulator) -> None:
    assert printed_lines(
        """
import fal_async.sync as fal_client

say(fal_client.run("acme/echo", {"n": 1}))
handle = fal_client.submit("acme/echo", arguments={"n": 2})
for event in handle.iter_events(with_logs=True):
    if isinstance(event, fal_client.Completed):
        say("completed", event.logs)
say(handle.get())
say(fal_client.subscribe("acme/echo", {"n": 3}, on_queue_update=lambda update: None))
say(fal_client.status("acme/echo", handle.request_id).__class__.__name__)
say(fal_client.result("acme/echo", handle.request_id))
say(fal_client.cancel("acme/echo", handle.request_id))

async def main():
    say(await fal_client.run_async("acme/echo", {"n": 4}))

anyio.run(main)
""",
        **fal.environ,
    ) == [
        "{'n': 1}",
        "completed []",
        "{'n': 2}",
        "{'n': 3}",
        "Completed",
        "{'n': 2}",
        "ALREADY_COMPLETED",
        "{'n': 4}",
    ]


@pytest.mark.slow
def test_fifty_threads_share_one_client(fal: Emulator) -> None:
    assert printed_lines(
        """
import fal_async.sync as fal_client

together = threading.Barrier(50)
results = []

def call(number):
    together.wait()
    results.append(fal_client.run("acme/echo", {"n": number})["n"])

threads = [threading.Thread(target=call, args=(number,)) for number in range(50)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
say(sorted(results) == list(range(50)))
say([thread.name for thread in threading.enumerate()].count("fal-portal"))
""",
        **fal.environ,
    ) == ["True", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("end", ["os._exit(0)", "sys.exit(0)"])
def test_forked_child_has_own_connections(fal: Emulator, end: str) -> None:
    assert printed_lines(
        f"""
import fal_async.sync as fal_client

say(fal_client.run("acme/echo", {{"who": "parent"}}))
handle = fal_client.submit("acme/echo", {{"who": "handle"}})
child = os.fork()
if not child:
    say(fal_client.run("acme/echo", {{"who": "child"}}))
    say(handle.get())
    {end}
say(os.waitpid(child, 0)[1])
say(fal_client.run("acme/echo", {{"who": "parent"}}), handle.get())
""",
        **fal.environ,
    ) == [
        "{'who': 'parent'}",
        "{'who': 'child'}",
        "{'who': 'handle'}",
        "0",
        "{'who': 'parent'} {'who': 'handle'}",
    ]


@pytest.mark.slow
def test_forked_processes_get_own_responses(fal: Emulator) -> None:
    assert printed_lines(
        """
import fal_async.sync as fal_client

def talk(name):
    for number in range(20):
        arguments = {"who": name, "number": number}
        assert fal_client.run("acme/echo", arguments) == arguments

talk("parent")
children = []
for number in range(4):
    child = os.fork()
    if not child:
        talk(f"child {number}")
        os._exit(0)
    children.append(child)
talk("parent")
say([os.waitpid(child, 0)[1] for child in children])
""",
        **fal.environ,
    ) == ["[0, 0, 0, 0]"]


@pytest.mark.slow
def test_forking_server_opens_connections(fal: Emulator) -> None:
    assert printed_lines(
        """
import socket, socketserver
import fal_async.sync as fal_client

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        who = self.rfile.readline().decode().strip()
        self.wfile.write(str(fal_client.subscribe("acme/echo", {"who": who})).encode())

class Server(socketserver.ForkingTCPServer):
    block_on_close = True

fal_client.run("acme/echo", {"who": "parent"})
with Server(("127.0.0.1", 0), Handler) as server:
    answering = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    answering.start()
    calls = [socket.create_connection(server.server_address) for _ in range(4)]
    for number, call in enumerate(calls):
        call.sendall(b"child %d\\n" % number)
    for call in calls:
        with call, call.makefile() as answer:
            say(answer.read())
    server.shutdown()
    answering.join()
say(fal_client.run("acme/echo", {"who": "parent"}))
""",
        **fal.environ,
    ) == [*(f"{{'who': 'child {number}'}}" for number in range(4)), "{'who': 'parent'}"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_process_pool_makes_calls(fal: Emulator, method: str) -> None:
    assert printed_lines(
        f"""
import multiprocessing
import fal_async.sync as fal_client

if __name__ == "__main__":
    fal_client.run("acme/echo", {{}})
    calls = [("acme/echo", {{"n": number}}) for number in range(4)]
    quiet = logging.getLogger("asyncio").setLevel, (logging.ERROR,)
    with multiprocessing.get_context("{method}").Pool(2, *quiet) as pool:
        say(pool.starmap(fal_client.run, calls))
        pool.close()
        pool.join()
""",
        **fal.environ,
    ) == ["[{'n': 0}, {'n': 1}, {'n': 2}, {'n': 3}]"]


@pytest.mark.slow
def test_pickled_handle_in_other_process(fal: Emulator) -> None:
    assert printed_lines(
        """
import pickle, subprocess
import fal_async.sync as fal_client

data = pickle.dumps(fal_client.submit("acme/echo", {"n": 1}))
assert os.environ["FAL_KEY"].encode() not in data
script = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()).get())"
done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, check=True)
say(done.stdout.decode().strip())
""",
        **fal.environ,
    ) == ["{'n': 1}"]
