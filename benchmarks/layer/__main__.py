"""``python -m benchmarks.layer speed|volume|groups|worker``: one script."""

import importlib
import sys

SCRIPTS = ("speed", "volume", "groups", "worker")


def main() -> int:
    """Run the script that is named, with the rest of the arguments."""
    if len(sys.argv) < 2 or sys.argv[1] not in SCRIPTS:
        print(f"usage: python -m benchmarks.layer {{{'|'.join(SCRIPTS)}}} [--help]")
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 2
    script = importlib.import_module(f"benchmarks.layer.{sys.argv.pop(1)}")
    return int(script.main())


if __name__ == "__main__":
    sys.exit(main())
