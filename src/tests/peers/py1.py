"""The Python SDK 1.x, which speaks the legacy era over Streamable HTTP, over WebSocket or
HTTP+SSE where the URL says so, or with a gateway that it starts. It proves that this
client works, every feature that it has.

    .peers/py1/bin/python py1.py URL [--server fixture|everything]
    .peers/py1/bin/python py1.py --command JSON [--server fixture|everything]
"""

import contextlib
import datetime

import checks
from mcp import ClientSession, McpError, StdioServerParameters, types
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client


class Client:
    """One session, in the shape that checks.py expects."""

    def __init__(self):
        self.logs, self.updates = [], []

    async def start(self, stack, full):
        url = checks.ARGUMENTS.url
        if checks.ARGUMENTS.command:
            program, *args = checks.ARGUMENTS.command
            streams = stdio_client(StdioServerParameters(command=program, args=args))
            read, write = await stack.enter_async_context(streams)
            self.session_id = lambda: None
        elif url.startswith("ws:"):
            # Only here: it needs a package of its own.
            from mcp.client.websocket import websocket_client

            read, write = await stack.enter_async_context(websocket_client(url))
            self.session_id = lambda: None
        elif "/sse" in url:
            read, write = await stack.enter_async_context(sse_client(url))
            self.session_id = lambda: None
        else:
            streams = streamable_http_client(url)
            read, write, self.session_id = await stack.enter_async_context(streams)
        answers = {
            "sampling_callback": self._sample,
            "elicitation_callback": self._elicit,
            "list_roots_callback": self._list_roots,
        }
        session = ClientSession(
            read,
            write,
            logging_callback=self._log,
            message_handler=self._notice,
            **(answers if full else {}),
        )
        self._session = await stack.enter_async_context(session)
        self._initialized = await self._session.initialize()
        for name in ("list_tools", "list_resources", "read_resource", "list_prompts", "get_prompt"):
            setattr(self, name, getattr(self._session, name))
        self.set_level = self._session.set_logging_level

    async def _sample(self, _context, _params):
        content = types.TextContent(type="text", text=checks.MODEL)
        return types.CreateMessageResult(role="assistant", model="test", content=content)

    async def _elicit(self, _context, params):
        content = checks.filled_in(params.requestedSchema)
        return types.ElicitResult(action="accept", content=content)

    async def _list_roots(self, _context):
        return types.ListRootsResult(roots=[types.Root(uri=checks.ROOT, name="root")])

    async def _log(self, params):
        self.logs.append(params.data)

    async def _notice(self, message):
        if isinstance(getattr(message, "root", None), types.ResourceUpdatedNotification):
            self.updates.append(str(message.root.params.uri))

    def server_name(self):
        return self._initialized.serverInfo.name

    def version(self):
        return self._initialized.protocolVersion

    async def call_tool(self, name, arguments, read_timeout_seconds=None, **options):
        if not read_timeout_seconds:
            return await self._session.call_tool(name, arguments, **options)
        time = datetime.timedelta(seconds=read_timeout_seconds)
        request = self._session._request_id
        try:
            return await self._session.call_tool(name, arguments, time, **options)
        except McpError:
            # A timeout of this SDK tells the server nothing: cancel by hand.
            params = types.CancelledNotificationParams(requestId=request, reason="timeout")
            notice = types.CancelledNotification(params=params)
            await self._session.send_notification(types.ClientNotification(notice))
            raise

    @contextlib.asynccontextmanager
    async def watch(self, uri):
        await self._session.subscribe_resource(uri)
        yield
        await self._session.unsubscribe_resource(uri)

    async def complete(self, prompt, argument):
        ref = types.PromptReference(type="ref/prompt", name=prompt)
        return await self._session.complete(ref, argument)


@contextlib.asynccontextmanager
async def connect(full):
    async with contextlib.AsyncExitStack() as stack:
        client = Client()
        await client.start(stack, full)
        yield client


checks.main(connect)
