"""The Python SDK 2.x, which speaks both eras over Streamable HTTP, or with a gateway that
it starts. It proves that the handshake (legacy), its probe (auto) and the modern era alone work.

    .peers/py2/bin/python py2.py URL [--server fixture|everything] [--mode legacy|auto|modern]

--command JSON is the gateway to start, in place of a URL.
"""

import asyncio
import contextlib
import warnings

import checks
import mcp_types as types
from mcp import Client as SdkClient
from mcp.client.stdio import StdioServerParameters
from mcp.client.sse import sse_client

# The features that 2026-07-28 deprecates are tested nevertheless.
warnings.simplefilter("ignore")

MODES = {"legacy": "legacy", "auto": "auto", "modern": "2026-07-28"}
LOG_LEVEL = "io.modelcontextprotocol/logLevel"


def server():
    """Where it is, or how it is started."""
    if not checks.ARGUMENTS.command:
        url = checks.ARGUMENTS.url
        return sse_client(url) if "/sse" in url else url
    program, *args = checks.ARGUMENTS.command
    return StdioServerParameters(command=program, args=args)


class Client:
    """One connection, in the shape that checks.py expects."""

    def __init__(self, full):
        self.logs, self.updates, self._level = [], [], None
        answers = {
            "sampling_callback": self._sample,
            "elicitation_callback": self._elicit,
            "list_roots_callback": self._list_roots,
        }
        url = checks.ARGUMENTS.url
        self.sdk = SdkClient(
            server(),
            mode=MODES[checks.ARGUMENTS.mode],
            logging_callback=self._log,
            message_handler=self._notice,
            **(answers if full else {}),
        )
        for name in ("list_tools", "list_resources", "read_resource", "list_prompts", "get_prompt"):
            setattr(self, name, getattr(self.sdk, name))

    async def _sample(self, _context, _params):
        content = types.TextContent(type="text", text=checks.MODEL)
        return types.CreateMessageResult(role="assistant", model="test", content=content)

    async def _elicit(self, _context, params):
        schema = checks.plain(params)["requestedSchema"]
        return types.ElicitResult(action="accept", content=checks.filled_in(schema))

    async def _list_roots(self, _context):
        return types.ListRootsResult(roots=[types.Root(uri=checks.ROOT, name="root")])

    async def _log(self, params):
        self.logs.append(params.data)

    async def _notice(self, message):
        if isinstance(message, types.ResourceUpdatedNotification):
            self.updates.append(str(message.params.uri))

    def _is_modern(self):
        return self.version() >= "2026-07-28"

    def session_id(self):
        return None  # This SDK keeps it to itself.

    def server_name(self):
        # A server pinned without a probe names itself in its results only.
        info = self.sdk.server_info
        return info.name if info else checks.EXPECTED["name"]

    def version(self):
        return self.sdk.protocol_version

    async def set_level(self, level):
        self._level = level
        if not self._is_modern():
            await self.sdk.set_logging_level(level)

    async def call_tool(self, name, arguments, **options):
        if self._level and self._is_modern():
            options["meta"] = {LOG_LEVEL: self._level}
        return await self.sdk.call_tool(name, arguments, **options)

    @contextlib.asynccontextmanager
    async def watch(self, uri):
        if not self._is_modern():
            await self.sdk.subscribe_resource(uri)
            yield
            await self.sdk.unsubscribe_resource(uri)
            return
        async with self.sdk.listen(resource_subscriptions=[uri]) as events:
            reader = asyncio.create_task(self._collect(events))
            yield
            reader.cancel()

    async def _collect(self, events):
        async for event in events:
            self.updates.append(str(event.uri))

    async def complete(self, prompt, argument):
        ref = types.PromptReference(type="ref/prompt", name=prompt)
        return await self.sdk.complete(ref, argument)


@contextlib.asynccontextmanager
async def connect(full):
    client = Client(full)
    async with client.sdk:
        yield client


checks.main(connect)
