from chansup.config.order import cycle, dependencies, start_order

TEXT = """
[app]
asgi = "a:b"
[interface]
after = ["workers"]
[workers.x]
command = "x"
after = ["workers"]
[programs.redis]
command = "x"
[tasks.migrate]
command = "x"
after = ["redis"]
before = ["interface", "workers"]
"""


def test_groups_stand_for_their_members(config):
    assert dependencies(config(TEXT).config) == {
        "interface": {"x", "migrate"},
        "x": {"migrate"},
        "redis": set(),
        "migrate": {"redis"},
    }


def test_start_order(config):
    loaded = config(TEXT).config
    assert start_order(loaded) == ["redis", "migrate", "x", "interface"]
    assert cycle(loaded) == []
