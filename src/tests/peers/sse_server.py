"""An HTTP+SSE server on the Python SDK 1.x, for the gateway to stand before.

    .peers/py1/bin/python sse_server.py PORT
"""

import asyncio
import sys

from mcp.server.fastmcp import Context, FastMCP
from pydantic import BaseModel

server = FastMCP("py-sse", host="127.0.0.1", port=int(sys.argv[1]))


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


server.run(transport="sse")
