"""``python -m benchmarks``: every script, one after the other."""

import argparse
import subprocess
import sys

SCRIPTS = (
    "reload", "crash", "balance", "cost",
    "relay.reload", "relay.crash", "relay.cost", "relay.memory", "relay.flow",
    "layer.speed", "layer.volume", "layer.groups", "layer.worker",
)  # fmt: skip


def main() -> int:
    """Run all, and return how many claimed what does not hold, or failed."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run every script, or those that are named. Exits 1 if one of them does.",
    )
    options.add_argument("scripts", nargs="*", metavar="script", help=", ".join(SCRIPTS))
    options.add_argument("--quick", action="store_true", help="a try-out, no figures")
    options.add_argument("--markdown", metavar="FILE", help="append Markdown to FILE")
    arguments = options.parse_args()
    for unknown in set(arguments.scripts) - set(SCRIPTS):
        options.error(f"{unknown}: not one of {', '.join(SCRIPTS)}")
    passed = ["--quick"] if arguments.quick else []
    passed += ["--markdown", arguments.markdown] if arguments.markdown else []
    failed = []
    for script in arguments.scripts or SCRIPTS:
        print(f"== {script}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{script}", *passed]
        code = subprocess.run(command).returncode
        if code == 130:  # interrupted
            return code
        if code:
            failed.append(script)
    if failed:
        print(f"Failed, or something does not hold: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
