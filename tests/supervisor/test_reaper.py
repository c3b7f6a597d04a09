"""The reaper, as a real subreaper with real orphans."""

import json
import os
import subprocess
import sys
import textwrap

# Being a subreaper and waiting for any child cannot be undone or shared with the test run itself,
# so each test is a program of its own.
PRELUDE = """
import asyncio, json, os, signal, subprocess, sys, time
from chansup.supervisor.process import reaper
from chansup.supervisor.process.reaper import Reaper, _Scan, become_subreaper

assert become_subreaper()

def descendants():
    return _Scan().descendants()[0]

def orphan(seconds=0, setsid=False):
    "Start a grandchild whose parent ends at once; return the pids of both."
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        if grandchild == 0:
            if setsid: os.setsid()
            os.close(reader); os.close(writer)
            if seconds: time.sleep(seconds)
            os._exit(7)
        os.write(writer, str(grandchild).encode())
        os._exit(0)
    os.close(writer)
    pid = int(os.read(reader, 20)); os.close(reader)
    return child, pid

async def until(question, timeout=10):
    async with asyncio.timeout(timeout):
        while not question():
            await asyncio.sleep(0.005)

def exists(pid):
    return os.path.exists(f"/proc/{pid}")

def say(**facts):
    print(json.dumps(facts))
"""


def run(body):
    program = PRELUDE + "async def main():\n" + textwrap.indent(textwrap.dedent(body), "    ")
    program += "\nasyncio.run(main())\n"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_strangers_are_reaped():
    said = run("""
        one = Reaper(lambda pid: False)
        one.start(asyncio.get_running_loop())
        pids = [pid for _ in range(5) for pid in orphan(0.05)]
        await until(lambda: one.reaped == 10)
        say(left=[pid for pid in pids if exists(pid)])
    """)
    assert said == {"left": []}


def test_strangers_from_before_the_start_are_reaped():
    said = run("""
        pids = orphan()
        await until(lambda: all(open(f"/proc/{pid}/stat").read().split()[2] == "Z" for pid in pids))
        one = Reaper(lambda pid: False)
        one.start(asyncio.get_running_loop())
        say(reaped=one.reaped)
    """)
    assert said == {"reaped": 2}


def test_the_end_of_a_known_child_is_never_taken():
    said = run("""
        children = {}
        codes = []
        told = set()
        one = Reaper(children.__contains__, told.add)
        one.start(asyncio.get_running_loop())
        for code in range(1, 21):
            child = subprocess.Popen(["/bin/sh", "-c", f"exit {code}"])
            children[child.pid] = child
            orphan()
        await until(lambda: one.reaped == 40)  # though known zombies stood in the way
        for child in children.values():
            codes.append(child.wait())
        say(codes=codes, told=bool(told) and told <= set(children))
    """)
    assert said == {"codes": list(range(1, 21)), "told": True}


def test_who_waits_is_told_and_can_reap_at_once():
    said = run("""
        codes = {}
        known = set()
        def take(pid):
            known.discard(pid)
            codes[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        one = Reaper(known.__contains__, take)
        one.start(asyncio.get_running_loop())
        for code in (3, 4):
            known.add(os.posix_spawn("/bin/sh", ["sh", "-c", f"exit {code}"], {}))
        await until(lambda: len(codes) == 2)
        say(codes=sorted(codes.values()))
    """)
    assert said == {"codes": [3, 4]}


def test_a_zombie_that_nobody_takes_is_not_spun_on():
    said = run("""
        told = []
        one = Reaper(lambda pid: pid == child.pid, told.append)
        child = subprocess.Popen(["/bin/true"])
        one.start(asyncio.get_running_loop())
        await until(lambda: told)
        began, turns = time.process_time(), 0
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            await asyncio.sleep(0.1)
        say(cheap=time.process_time() - began < 0.2, told=len(told), code=child.wait())
    """)
    assert said["cheap"]
    assert said["code"] == 0
    assert 2 <= said["told"] <= 5


def test_the_sweep_leaves_nobody():
    said = run("""
        script = "trap '' TERM; (setsid sleep 60 & setsid sh -c 'sleep 60; :' & wait) & sleep 60"
        child = subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True)
        orphan(60, setsid=True)
        one = Reaper(lambda pid: pid == child.pid)
        one.start(asyncio.get_running_loop())
        await until(lambda: len(descendants()) >= 6)
        left = await one.sweep(asyncio.get_running_loop().time() + 5)
        say(left=left, now=descendants(), code=child.wait())
    """)
    assert said == {"left": [], "now": [], "code": -9}


def test_the_sweep_keeps_up_with_those_who_fork():
    said = run("""
        # Ends by itself, in case that nobody else ends it.
        script = "fork() { sleep 0.02; [ $1 = 0 ] || (fork $(($1 - 1))) & sleep 9 & }; fork 300"
        child = subprocess.Popen(["/bin/bash", "-c", script], start_new_session=True)
        one = Reaper(lambda pid: pid == child.pid)
        one.start(asyncio.get_running_loop())
        await until(lambda: len(descendants()) >= 8)
        say(left=await one.sweep(asyncio.get_running_loop().time() + 10), now=descendants())
    """)
    assert said == {"left": [], "now": []}


def test_the_sweep_spares_the_guard():
    said = run("""
        guard = subprocess.Popen(["/bin/sh", "-c", "sleep 60 & wait"])
        one = Reaper(lambda pid: pid == guard.pid, spare=lambda: {guard.pid})
        one.start(asyncio.get_running_loop())
        orphan(60)
        await until(lambda: len(descendants()) == 3)
        left = await one.sweep(asyncio.get_running_loop().time() + 5)
        spared = len(descendants())
        await Reaper(lambda pid: pid == guard.pid).sweep(asyncio.get_running_loop().time() + 5)
        say(left=left, spared=spared, now=descendants(), code=guard.wait())
    """)
    assert said == {"left": [], "spared": 2, "now": [], "code": -9}


def test_the_sweep_reaps_without_a_signal_handler():
    said = run("""
        one = Reaper(lambda pid: False)
        orphan(60)
        left = await one.sweep(asyncio.get_running_loop().time() + 5)
        say(left=left, reaped=one.reaped)
    """)
    assert said == {"left": [], "reaped": 2}


def test_a_zombie_is_reason_to_look_again():
    # It may have forked one that was not yet there when the list of processes was read.
    said = run("""
        child = subprocess.Popen(["/bin/sleep", "60"])
        really, looks = reaper._processes, []
        def first_the_parent_only(but=()):
            looks.append(1)
            if len(looks) == 1:
                return iter([(os.getpid(), 1, "R"), (4_999_999, os.getpid(), "Z")])
            return really(but)
        reaper._processes = first_the_parent_only
        left = await Reaper(lambda pid: True).sweep(asyncio.get_running_loop().time() + 5)
        say(left=left, code=child.wait(1))
    """)
    assert said == {"left": [], "code": -9}


def test_the_sweep_gives_up_in_time():
    said = run("""
        reaper._kill = lambda pid: None  # as if stuck in the kernel
        child = subprocess.Popen(["/bin/sleep", "60"])
        one = Reaper(lambda pid: True)
        left = await one.sweep(asyncio.get_running_loop().time() + 0.05)
        child.kill()
        say(left=left == [child.pid])
    """)
    assert said == {"left": True}


def test_who_is_no_descendant_is_not_killed():
    with subprocess.Popen(["sleep", "60"]) as bystander:
        run(f"""
            reaper._kill({bystander.pid})
            reaper._kill({os.getpid()})
            reaper._kill(2**22 - 1)
            say()
        """)
        assert bystander.poll() is None
        bystander.kill()


def test_names_with_parentheses_are_no_trap(tmp_path):
    program = tmp_path / "a) Z 1 ("
    program.symlink_to("/bin/sleep")
    said = run(f"""
        child = subprocess.Popen([{str(program)!r}, "60"])
        await until(lambda: "Z 1" in open(f"/proc/{{child.pid}}/comm").read())
        found = descendants() == [child.pid]
        child.kill()
        say(found=found)
    """)
    assert said == {"found": True}
