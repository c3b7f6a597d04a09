"""Options that several scripts have."""

import argparse
from dataclasses import fields, replace
from typing import Any, TypeVar

from benchmarks.relay.contest import CARRIERS, PEERS

Plan = TypeVar("Plan", bound=Any)


def add_contenders(options: argparse.ArgumentParser) -> None:
    """Add the choice of what is measured."""
    options.add_argument(
        "--servers", nargs="*", choices=CARRIERS, default=["uvicorn"], help="that carry the relay"
    )
    options.add_argument(
        "--peers", nargs="*", choices=PEERS, default=list(PEERS), help="that stand beside it, alone"
    )


def changed(plan: Plan, arguments: argparse.Namespace) -> Plan:
    """Return the plan with what was said on the command line."""
    said = {
        field.name: value
        for field in fields(plan)
        if (value := getattr(arguments, field.name, None)) is not None
    }
    return replace(plan, **said)
