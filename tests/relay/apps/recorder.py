"""An ASGI app that plays scenarios and notes what it saw: its scope and every event, in order.

The header "x-case" names the scenario, up to its first dot. When the app has ended, one line of JSON
goes to the file that RECORDS names.
"""

import asyncio
import itertools
import json
import os

import scenarios
from notation import plain

CASE = b"x-case"
_records = os.open(os.environ["RECORDS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
_numbers = itertools.count()


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await scenarios.lifespan(scope, receive, send)
        return
    record = Record(scope, receive, send)
    write({"number": record.number, "case": record.case})
    try:
        await record.play()
    except BaseException as error:
        record.outcome = f"raised {kind(error)}"
        raise
    else:
        record.outcome = "returned"
    finally:
        write(record.document())


def write(document):
    os.write(_records, json.dumps(document).encode() + b"\n")


class Record:
    def __init__(self, scope, receive, send):
        self.number = next(_numbers)
        self.case = next((value.decode() for name, value in scope["headers"] if name == CASE), "")
        self.scope = scope
        self.seen = plain(dict(scope))  # before the app changes it
        self.events = []
        self.outcome = ""
        self._receive = receive
        self._send = send

    async def play(self):
        scenario = getattr(scenarios, self.case.partition(".")[0] or "plain")
        await scenario(self)

    async def receive(self):
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            raise  # by the app itself: nothing that the server did
        except BaseException as error:
            self.note("receive raised", kind(error))
            raise
        kept = self.events[-1] if self.events else None
        if message["type"] == "http.request" and kept and kept[0] == "body" and kept[2]:
            # How a body is cut into messages is a matter of time.
            kept[1] += message.get("body", b"")
            kept[2] = message.get("more_body", False)
        elif message["type"] == "http.request":
            self.events.append(["body", message.get("body", b""), message.get("more_body", False)])
        else:
            self.note("received", dict(message))
        return message

    async def send(self, message):
        try:
            await self._send(message)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.note(f"send {message.get('type')} raised", kind(error))
            raise

    def note(self, *words):
        self.events.append(list(words))

    def document(self):
        return {
            "number": self.number,
            "case": self.case,
            "scope": self.seen,
            "events": plain(self.events),
            "outcome": self.outcome,
        }


def kind(error):
    """Name an exception so that it can be compared: OSErrors say that the client is gone."""
    if isinstance(error, OSError):
        return "OSError"
    return "CancelledError" if isinstance(error, asyncio.CancelledError) else "error"
