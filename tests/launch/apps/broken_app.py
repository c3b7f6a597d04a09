"""An app that fails when it is imported."""


def fail():
    raise RuntimeError("the settings are wrong")


fail()
