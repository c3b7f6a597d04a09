import os

import chat


def site(request) -> dict:
    """For every template: which code, in which process, made this page."""
    return {"version": chat.VERSION, "pid": os.getpid()}
