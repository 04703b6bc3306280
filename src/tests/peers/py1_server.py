"""A server on the Python SDK 1.x by HTTP+SSE or WebSocket, for the gateway to stand before.

    .peers/py1/bin/python py1_server.py sse|websocket PORT
"""

import asyncio
import sys

import uvicorn
from mcp.server.fastmcp import Context, FastMCP
from mcp.server.websocket import websocket_server
from pydantic import BaseModel

transport, port = sys.argv[1], int(sys.argv[2])
server = FastMCP("py1", host="127.0.0.1", port=port)


class Name(BaseModel):
    name: str


@server.tool()
def echo(text: str) -> str:
    """Returns its text."""
    return text


@server.tool()
async def progress(steps: int, context: Context) -> str:
    """Reports progress while it runs."""
    for step in range(steps):
        await context.report_progress(step + 1, steps)
    return f"Took {steps} steps."


@server.tool()
async def ask(message: str, context: Context) -> str:
    """Asks the user."""
    result = await context.elicit(message, Name)
    return f"The user is {result.data.name}."


@server.tool()
async def sleep(ms: int) -> str:
    """Answers later."""
    await asyncio.sleep(ms / 1000)
    return "slept"


async def by_websocket(scope, receive, send):
    """Serves one connection."""
    inner = server._mcp_server
    async with websocket_server(scope, receive, send) as (read, write):
        await inner.run(read, write, inner.create_initialization_options())


if transport == "websocket":
    uvicorn.run(by_websocket, host="127.0.0.1", port=port, lifespan="off")
else:
    server.run(transport="sse")
