import presence
from quart import Quart, make_response, request

app = Quart(__name__)


async def streamed(events):
    response = await make_response(events, {"Content-Type": "text/event-stream"})
    response.timeout = None  # type: ignore[union-attr]
    return response


@app.get("/quart/events")
async def events():
    return await streamed(presence.news())


@app.get("/quart/ticks")
async def ticks():
    return await streamed(presence.ticks())


@app.post("/quart/reads")
async def reads():
    return str(len(await request.get_data()))


@app.get("/quart/count")
async def count():
    return presence.count()
