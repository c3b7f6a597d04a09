"""What a channel worker says when it can never work, and when it may later."""

import json
from pathlib import Path

import pytest

from tests.running import running
from tests.worker import project

pytestmark = pytest.mark.slow  # the interpreter makes no difference

HUB = {"default": {"BACKEND": "chansup.layer.ChannelLayer"}}
CONFIGURED = 'CHANNEL_LAYERS = {"default": {"BACKEND": "chansup.layer.ChannelLayer"}}'


@pytest.mark.parametrize(
    ("keys", "layers", "words"),
    [
        ('channels = ["thumbnial"]', HUB, 'has no "thumbnial": did you mean "thumbnails"?'),
        ('only_channels = ["x*"]', HUB, 'workers.x.only_channels: "x*" fits no channel'),
        ('channels = ["mail"]', {}, f"no channel layer is configured: set {CONFIGURED} in mysite."),
        ('channels = ["mail"]\nlayer = "jobs"', HUB, 'CHANNEL_LAYERS in mysite.settings has no "j'),
        ('channels = ["mail"]', {"default": {"BACKEND": "no.Layer"}}, "the channel layer cannot"),
        ('channels = ["mail"]', {"default": {**HUB["default"], "CONFIG": {"x": 1}}}, "'x'"),
        ('channels = ["mail"]\nredeliver = true',
         {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
         "redeliver needs chansup's own channel layer, and this one is channels.layers.InMemory"),
    ],
)  # fmt: skip
def test_what_can_never_work(tmp_path: Path, keys: str, layers: dict, words: str) -> None:
    project.write(tmp_path, {})
    config = f"{project.CONFIG}[workers.x]\n{keys}\n"
    with running(tmp_path, config, {"LAYERS": json.dumps(layers)}) as run:
        run.wait_for(lambda: run.slots()["x.0"]["state"] == "FAILED")
        lines = [line for line in run.output().splitlines() if line.startswith("x.0 | ")]
        assert len(lines) == 1
        assert words in lines[0]


@pytest.mark.thorough
def test_an_app_that_cannot_be_imported_is_tried_again(tmp_path: Path) -> None:
    site = project.write(tmp_path, HUB["default"])
    consumers = tmp_path / "work/consumers.py"
    right = consumers.read_text()
    consumers.write_text("import no_such_module\n")
    config = project.CONFIG + '[workers.x]\nchannels = ["mail"]\n'
    with running(tmp_path, config, site.environment) as run:
        run.wait_for_output("No module named 'no_such_module'")
        consumers.write_text(right)
        run.wait_until_ready()
        site.environment["CHANSUP_CONFIG"] = str(run.config)
        site.send("mail", {"number": 1})
        run.wait_for(lambda: site.journal() == [1])
