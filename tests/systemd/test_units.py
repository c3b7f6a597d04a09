"""The units in contrib/, as systemd reads them."""

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from chansup.config.address import Systemd, parse
from chansup.config.schema import Rollout
from chansup.errors import ExitCode

CONTRIB = Path(__file__).parents[2] / "contrib" / "systemd"


class UnitParser(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr  # systemd minds the case


def unit(name):
    parser = UnitParser(strict=False, delimiters=["="], comment_prefixes=["#"])
    parser.read(CONTRIB / name)
    return parser


@pytest.fixture
def installed(tmp_path):
    """Copies of the units for a site that exists on this machine."""
    site = tmp_path / "site"
    (site / "venv" / "bin").mkdir(parents=True)
    program = site / "venv" / "bin" / "chansup"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    units = tmp_path / "units"
    units.mkdir()
    for name in ("chansup.service", "chansup.socket"):
        text = (CONTRIB / name).read_text()
        text = text.replace("/srv/mysite", str(site)).replace("User=mysite", "User=root")
        (units / name).write_text(text)
    return units


def analyze(*arguments):
    if shutil.which("systemd-analyze") is None:
        if os.environ.get("CI"):
            pytest.fail("systemd-analyze is missing: install systemd on the machine of the CI")
        pytest.skip("this machine has no systemd-analyze")
    environ = {**os.environ, "SYSTEMD_LOG_LEVEL": "warning", "SYSTEMD_COLORS": "0"}
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, env=environ
    )


@pytest.mark.parametrize("name", ["chansup.service", "chansup.socket"])
def test_systemd_has_nothing_to_say_against_it(installed, name):
    done = analyze("verify", "--man=no", "--recursive-errors=no", installed / name)
    complaints = [line for line in done.stderr.splitlines() if "chansup" in line]
    assert (done.returncode, complaints) == (0, [])


def test_a_wrong_line_would_be_noticed(installed):
    path = installed / "chansup.service"
    path.write_text(path.read_text().replace("KillMode=mixed", "KillMode=mixt\nWatchdog=1"))
    said = analyze("verify", "--man=no", "--recursive-errors=no", path).stderr
    assert "mixt" in said
    assert "Watchdog" in said


def test_the_service_is_hardened(installed):
    done = analyze("security", "--offline=yes", "--no-pager", installed / "chansup.service")
    if done.returncode and "unrecognized" in done.stderr:
        pytest.skip("this systemd-analyze cannot rate files (older than 250)")
    rating = re.search(r"exposure level for \S+: (\d+\.\d+)", done.stdout)
    # The copies run as root (the user of the unit does not exist here): that is worth 0.4.
    assert rating, done.stdout + done.stderr
    assert float(rating[1]) <= 3.0


def test_it_waits_longer_than_a_drain_takes():
    rollout = Rollout()
    stop = int(unit("chansup.service")["Service"]["TimeoutStopSec"])
    assert stop >= rollout.stop_timeout + rollout.shutdown_delay + 10


def test_a_reload_reports_its_outcome():
    service = unit("chansup.service")["Service"]
    assert service["Type"] == "notify"
    assert service["ExecReload"].endswith("/chansup reload")
    assert service["KillMode"] == "mixed"


def test_it_is_not_restarted_where_that_cannot_help():
    prevented = unit("chansup.service")["Service"]["RestartPreventExitStatus"].split()
    assert {int(one) for one in prevented} == {ExitCode.USAGE, ExitCode.ALREADY_RUNNING}


def test_the_socket_fits_the_address_of_the_config():
    name = unit("chansup.socket")["Socket"]["FileDescriptorName"]
    assert parse(f"systemd:{name}") == Systemd(name)
    assert f'bind = "systemd:{name}"' in (CONTRIB / "chansup.socket").read_text()


def test_the_control_socket_lies_where_systemd_makes_room():
    directory = unit("chansup.service")["Service"]["RuntimeDirectory"]
    for text in (CONTRIB / "chansup.service", CONTRIB / "README.md"):
        assert f'runtime_directory = "/run/{directory}"' in text.read_text()


def test_the_site_may_write_where_the_documentation_puts_its_data():
    paths = unit("chansup.service")["Service"]["ReadWritePaths"].split()
    guide = (CONTRIB.parents[1] / "docs/deploy-server.md").read_text()
    assert "-/srv/mysite/shared" in paths
    assert 'dead_letters = "shared/' in guide
    assert "/srv/mysite/shared/db.sqlite3" in guide
