"""Where the relay's time goes: cProfile in the interface process and in the app worker, under load.

It costs a multiple of what it measures, most of all where calls are short: good for finding what is
called too often, not for shares. Ends with the functions of each process, the most expensive first.
"""

import argparse
import asyncio
import os
import pstats
import sys
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks.contenders import REPOSITORY, Relay, Site
from benchmarks.relay import volley
from benchmarks.relay.contest import CARRIERS
from benchmarks.wrk import CLIENTS, requests_per_second

MODULE = "benchmarks.relay.profile"
DIRECTORY = "BENCHMARK_PROFILE_DIRECTORY"
# Found by every interpreter when it starts; only what has a slot is profiled.
HOOK = f"""\
import atexit, cProfile, os, sys
if "--slot" in sys.orig_argv and {DIRECTORY!r} in os.environ:
    profile = cProfile.Profile()
    name = sys.orig_argv[sys.orig_argv.index("--slot") + 1]
    def keep():
        profile.disable()
        profile.dump_stats(os.path.join(os.environ[{DIRECTORY!r}], name))
    atexit.register(keep)
    profile.enable()
"""


async def profile(load: str, server: str, clients: int, seconds: float, lines: int) -> None:
    """Load the site, and print the profiles."""
    with tempfile.TemporaryDirectory(prefix="profile-") as root:
        site = Site(Path(root), 1, 0)
        site.releases.deploy("1")
        hooks, kept = Path(root) / "hooks", Path(root) / "profiles"
        for directory in (hooks, kept):
            directory.mkdir()
        (hooks / "sitecustomize.py").write_text(HOOK)
        contender = Relay(server, site)
        contender.environment |= {
            "PYTHONPATH": os.pathsep.join([str(hooks), str(REPOSITORY)]),
            DIRECTORY: str(kept),
        }
        async with contender:
            if load == "http":
                rate, _ = await requests_per_second(contender.address, seconds, clients)
            else:
                rate = (await volley.messages(contender.address, clients, seconds)).rate
        report.progress(f"{rate:,.0f} per second, while it was watched")
        for file in sorted(kept.iterdir()):
            print(f"== {file.name}")
            pstats.Stats(str(file)).strip_dirs().sort_stats("tottime").print_stats(lines)


def main() -> int:
    """Run from the command line."""
    options = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    options.add_argument("load", choices=["http", "websocket"])
    options.add_argument("--server", choices=CARRIERS, default="uvicorn")
    options.add_argument("--clients", type=int, default=CLIENTS)
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--lines", type=int, default=40, help="functions of each process")
    asyncio.run(profile(**vars(options.parse_args())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
