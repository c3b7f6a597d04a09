import presence
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, StreamingResponse
from sse_starlette.sse import EventSourceResponse

app = FastAPI()


@app.get("/fastapi/events")
async def events():
    return StreamingResponse(presence.news(), media_type="text/event-stream")


@app.get("/fastapi/ticks")
async def ticks():
    return StreamingResponse(presence.ticks(), media_type="text/event-stream")


@app.get("/fastapi/sse/events")
async def sse_events():
    return EventSourceResponse(presence.news())


@app.get("/fastapi/sse/ticks")
async def sse_ticks():
    return EventSourceResponse(presence.ticks())


@app.post("/fastapi/reads")
async def reads(document: dict):
    return len(document)


@app.get("/fastapi/count", response_class=PlainTextResponse)
@app.get("/fastapi/sse/count", response_class=PlainTextResponse)
async def count():
    return presence.count()
