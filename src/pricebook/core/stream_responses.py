"""The responses of routes whose streams stay open, and how the API document describes them."""

import asyncio
from typing import Any

from fastapi import Response
from starlette.types import Receive, Scope, Send

from pricebook.core.streaming import (
    ABORT,
    PLAIN_TEXT,
    SERVER_SENT_EVENTS,
    Caller,
    Form,
    Source,
    Stream,
    Streams,
    left,
)


class OpenStream(Response):
    """The response of a route that streams; everything else about it is an ordinary route."""

    form: Form
    # Its type is in the headers, or FastAPI would describe it as plain text.
    media_type = None

    def __init__(self, streams: Streams, caller: Caller, source: Source) -> None:
        """Stream `source` to the caller."""
        self.status_code = 200
        self.background = None
        self.init_headers(
            {
                "Content-Type": self.form.media_type,
                "Cache-Control": "no-store",
                # nginx is to pass on each event as it comes.
                "X-Accel-Buffering": "no",
            }
        )
        self._streams = streams
        self._caller = caller
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream to its end."""
        head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        if scope["pricebook.exchange"].is_head:
            await send(head)
            await send({"type": "http.response.body"})
            return
        abort = scope.get(ABORT, lambda: None)
        with self._streams.open(self.form, self._caller, abort) as stream:
            async with self._source(stream) as backlog:
                # It waits far more than it works, and is counted among the streams instead.
                scope["pricebook.exchange"].step_aside()
                await send(head)
                # A task of its own: to wake this one, with all the frames below it, costs more.
                serving = asyncio.create_task(stream.serve(send, backlog))
                watching = asyncio.create_task(_end_with_client(receive, stream))
                try:
                    await serving
                finally:
                    serving.cancel()
                    watching.cancel()


class EventStream(OpenStream):
    """A stream of server-sent events."""

    form = SERVER_SENT_EVENTS


class TextStream(OpenStream):
    """A text that grows."""

    form = PLAIN_TEXT


async def _end_with_client(receive: Receive, stream: Stream) -> None:
    await left(receive)
    stream.end()


def documented(example: str, schema: str) -> dict[int | str, dict[str, Any]]:
    """Describe a stream for OpenAPI: the data is JSON, of the model named `schema` or `{}`."""
    text = {"type": "string"}
    nothing = {"type": "object", "maxProperties": 0}
    item = {
        "type": "object",
        "properties": {
            "id": text,
            "event": text,
            "data": {
                **text,
                "contentMediaType": "application/json",
                "contentSchema": {"anyOf": [{"$ref": f"#/components/schemas/{schema}"}, nothing]},
            },
            "retry": {"type": "integer", "minimum": 0},
        },
    }
    content = {"itemSchema": item, "example": example}
    return {
        200: {"description": "The stream.", "content": {SERVER_SENT_EVENTS.media_type: content}}
    }


def documented_text(example: str) -> dict[int | str, dict[str, Any]]:
    """Describe a text that grows, for OpenAPI."""
    content = {"schema": {"type": "string"}, "example": example}
    return {200: {"description": "The text.", "content": {PLAIN_TEXT.media_type: content}}}
