"""The guard: what remains when a supervisor is killed with SIGKILL. Nothing."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from chansup.launch import guard_process
from chansup.protocol.run_mark import GUARD_PROGRAM, VARIABLE
from chansup.supervisor.process import guard as module
from chansup.supervisor.process.guard import Guard, new_run_id


def exists(pid):
    """Whether `pid` runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in b"ZX"
    except OSError:
        return False


def wait_until(question, seconds=20):
    deadline = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def until(question, seconds=20):
    async with asyncio.timeout(seconds):
        while not question():
            await asyncio.sleep(0.005)


SUPERVISOR = """
import asyncio, os, socket, subprocess, sys
from chansup.protocol.run_mark import VARIABLE
from chansup.supervisor.process.guard import Guard, new_run_id

async def main():
    run = new_run_id()
    guard = Guard(run)
    await guard.start()
    listener = socket.create_server(("127.0.0.1", 0))
    environ = {**os.environ, VARIABLE: run}
    pids = []

    def spawn(*command, **options):
        child = subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            pass_fds=[listener.fileno()], start_new_session=True, **options)
        guard.watch(child.pid)
        pids.append(child.pid)
        return child

BODY
    print(guard.pid, listener.getsockname()[1], *pids, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def supervise():
    """Start a supervisor with a body that spawns; return it, the guard, the port, all pids."""
    running = []

    def start(body):
        program = SUPERVISOR.replace("BODY", textwrap.indent(textwrap.dedent(body), "    "))
        supervisor = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
        )
        running.append(supervisor)
        assert supervisor.stdout is not None
        guard, port, *pids = map(int, supervisor.stdout.readline().split())
        assert pids
        return supervisor, guard, port, pids

    yield start
    for supervisor in running:
        with supervisor:  # which closes stdout and waits
            supervisor.kill()


# Prints its pid and that of a grandchild in a session of its own.
FORKS = "echo $$; setsid sleep 60 & echo $!; wait"


def port_is_free(port):
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
            sock.listen()
        except OSError:
            return False
    return True


def test_a_killed_supervisor_takes_everything_along(supervise):
    supervisor, guard, port, pids = supervise(f"""
        for _ in range(3):
            child = spawn("/bin/sh", "-c", "trap '' TERM HUP INT; {FORKS}")
            child.stdout.readline()
            pids.append(int(child.stdout.readline()))
    """)
    assert len(pids) == 6
    assert all(map(exists, pids))
    assert not port_is_free(port)
    supervisor.kill()
    supervisor.wait()
    wait_until(lambda: not any(map(exists, pids)), seconds=5)
    wait_until(lambda: port_is_free(port), seconds=1)
    wait_until(lambda: not exists(guard))


def test_a_program_that_overwrites_its_environment_is_found_by_its_group(supervise):
    # As setproctitle does in redis, postgres or celery.
    supervisor, _, _, pids = supervise("""
        program = (
            "import ctypes, os, time\\n"
            "if os.fork(): os.write(1, b'%d\\\\n' % os.getpid()); time.sleep(60)\\n"
            "fields = open('/proc/self/stat').read().rpartition(')')[2].split()\\n"
            "start, end = int(fields[47]), int(fields[48])\\n"
            "ctypes.memset(start, 0, end - start)\\n"
            "os.write(1, b'%d\\\\n' % os.getpid())\\n"
            "time.sleep(60)\\n"
        )
        child = spawn(sys.executable, "-c", program)
        pids.extend(int(child.stdout.readline()) for _ in range(2))
    """)
    child, grandchild = pids[0], max(pids)
    assert child != grandchild
    with open(f"/proc/{grandchild}/environ", "rb") as file:
        assert not file.read().strip(b"\0")
    supervisor.kill()
    wait_until(lambda: not any(map(exists, pids)), seconds=5)


def test_one_that_forks_as_fast_as_it_can_is_caught(supervise):
    supervisor, guard, _, pids = supervise("""
        # Ends by itself, in case that nobody else ends it.
        script = "f() { sleep 0.01; (setsid sleep 9 &); [ $1 = 0 ] || (f $(($1 - 1)) &); }"
        script += "; f 300; echo go; sleep 9"
        spawn("/bin/bash", "-c", script).stdout.readline()
    """)

    def marks() -> list[bytes]:  # none for a moment, while bash turns into sleep
        variables = Path(f"/proc/{pids[0]}/environ").read_bytes().split(b"\0")
        return [one for one in variables if one.startswith(b"CHANSUP_RUN=")]

    wait_until(marks)
    (mark,) = marks()
    supervisor.kill()
    supervisor.wait()
    wait_until(lambda: not exists(guard))
    marked = [
        int(name)
        for name in os.listdir("/proc")
        if name.isdigit() and guard_process._belongs(int(name), mark, set())
    ]
    assert marked == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_guard_ignores_the_signals_of_a_terminal_and_of_a_stop(supervise, number):
    supervisor, guard, _, pids = supervise("spawn('sleep', '60')")
    wait_until(lambda: guard_ignores(guard))
    os.kill(guard, number)
    supervisor.kill()
    wait_until(lambda: not any(map(exists, [*pids, guard])), seconds=5)


def guard_ignores(pid):
    """Whether the guard got so far as to ignore SIGTERM."""
    status = Path(f"/proc/{pid}/status").read_text()
    ignored = int(next(line for line in status.splitlines() if "SigIgn" in line).split()[1], 16)
    return bool(ignored & 1 << (signal.SIGTERM - 1))


def test_the_guard_kills_nobody_else(supervise):
    environ = {**os.environ, "CHANSUP_RUN": new_run_id()}
    with (
        subprocess.Popen(["sleep", "60"], env=environ) as other,
        subprocess.Popen(["sleep", "60"], start_new_session=True) as bystander,
    ):
        supervisor, guard, _, _ = supervise("spawn('sleep', '60')")
        supervisor.kill()
        wait_until(lambda: not exists(guard))
        assert exists(other.pid)
        assert exists(bystander.pid)
        other.kill()
        bystander.kill()


def test_a_clean_stop_sends_the_guard_away_and_kills_nothing():
    async def main():
        run = new_run_id()
        guard = Guard(run)
        await guard.start()
        pid = guard.pid
        environ = {**os.environ, VARIABLE: run}
        with subprocess.Popen(["sleep", "60"], env=environ, start_new_session=True) as child:
            guard.watch(child.pid)
            await guard.stop()
            assert guard.pid is None
            assert not exists(pid)
            assert exists(child.pid)
            child.kill()
        await guard.stop()  # again, harmless

    asyncio.run(main())


def test_a_guard_that_dies_is_replaced_and_the_new_one_knows_everything():
    async def main():
        run = new_run_id()
        guard = Guard(run)
        await guard.start()
        first = guard.pid
        assert first is not None
        with (
            subprocess.Popen(["sleep", "60"], env={**os.environ, VARIABLE: run}) as marked,
            subprocess.Popen(["sleep", "60"], start_new_session=True) as grouped,
        ):
            guard.watch(grouped.pid)
            os.kill(first, signal.SIGKILL)
            await until(lambda: guard.restarts == 1 and guard.pid not in (None, first))
            os.close(guard._pipe)  # as when the supervisor is killed
            guard._pipe = -1
            assert await asyncio.to_thread(marked.wait, 10) == -signal.SIGKILL
            assert await asyncio.to_thread(grouped.wait, 10) == -signal.SIGKILL
        await guard.stop()

    asyncio.run(main())


def test_a_group_that_is_forgotten_is_left_alone():
    async def main():
        guard = Guard(new_run_id())
        await guard.start()
        pid = guard.pid
        with subprocess.Popen(["sleep", "60"], start_new_session=True) as child:
            guard.watch(child.pid)
            guard.forget(child.pid)
            os.close(guard._pipe)
            guard._pipe = -1
            await until(lambda: not exists(pid))
            assert exists(child.pid)
            child.kill()
        await guard.stop()

    asyncio.run(main())


def test_a_number_that_became_somebody_elses_is_left_alone():
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as child:
        guard_process.kill_all(b"CHANSUP_RUN=none", {child.pid: "another time"})
        assert exists(child.pid)
        guard_process.kill_all(b"CHANSUP_RUN=none", {child.pid: guard_process._started(child.pid)})
        assert child.wait() == -signal.SIGKILL


def test_a_guard_that_cannot_start_is_tried_again(monkeypatch):
    async def main():
        executable = sys.executable
        monkeypatch.setattr(sys, "executable", "/no/such/python")
        guard = Guard(new_run_id())
        await guard.start()
        assert guard.pid is None
        monkeypatch.setattr(sys, "executable", executable)
        await until(lambda: guard.pid is not None)
        await guard.stop()

    asyncio.run(main())


def test_a_guard_that_is_stopped_does_not_stop_the_supervisor(monkeypatch):
    async def main():
        monkeypatch.setattr(module, "_PATIENCE", 0.2)
        guard = Guard(new_run_id())
        await guard.start()
        pid = guard.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        for number in range(20_000):  # more than the pipe holds
            guard.watch(10_000_000 + number)
        await guard.stop()
        assert not exists(pid)

    asyncio.run(main())


def test_the_guard_holds_nothing_of_ours():
    async def main():
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        guard = Guard(new_run_id())
        await guard.start()
        assert guard.pid is not None
        wait_until(lambda: guard_ignores(guard.pid))
        assert len(os.listdir(f"/proc/{guard.pid}/fd")) == 3
        assert os.getsid(guard.pid) == guard.pid
        environ = Path(f"/proc/{guard.pid}/environ").read_bytes()
        assert b"CHANSUP_RUN" not in environ
        assert os.readlink(f"/proc/{guard.pid}/cwd") == "/"
        os.close(reader)
        os.close(writer)
        await guard.stop()

    asyncio.run(main())


def test_nothing_leaks():
    async def cycle():
        guard = Guard(new_run_id())
        await guard.start()
        await guard.stop()

    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        asyncio.run(cycle())
    assert os.listdir("/proc/self/fd") == before


def test_the_guard_needs_only_the_standard_library():
    source = GUARD_PROGRAM.read_text()
    names = [line.split()[1] for line in source.splitlines() if line.startswith(("import", "from"))]
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names
