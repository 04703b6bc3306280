"""The checks that every Python client runs; py1.py and py2.py say how their SDK
does each step. What a server is expected to answer is servers.json.
"""

import argparse
import asyncio
import json
import os
import pathlib
import sys
import time
import traceback
import urllib.error
import urllib.request

TIMEOUT_S = 15.0
ROOT = "file:///client/root"
MODEL = "The client's model"

_parser = argparse.ArgumentParser()
_parser.add_argument("url", nargs="?", default=os.environ.get("URL"))
_parser.add_argument("--server", default="fixture")
_parser.add_argument("--mode", default="legacy", choices=["legacy", "auto", "modern"])
_parser.add_argument("--name", help="of a gateway that introduces itself by its own name")
_parser.add_argument("--command", type=json.loads, help="of a gateway to start, in place of a URL")
ARGUMENTS = _parser.parse_args()
_SERVERS = pathlib.Path(__file__).with_name("servers.json")
_EXPECTED = json.loads(_SERVERS.read_text(encoding="utf-8"))
EXPECTED = _EXPECTED[ARGUMENTS.server]
EXPECTED = {**_EXPECTED.get(EXPECTED.get("like"), {}), **EXPECTED}
EXPECTED["name"] = ARGUMENTS.name or EXPECTED["name"]


def filled_in(schema):
    """An answer to an elicitation: what its schema requires."""
    values = {"boolean": True, "integer": 1, "number": 1.5}
    properties = schema["properties"]
    return {name: values.get(properties[name]["type"], "Ada") for name in schema.get("required", [])}


def check(condition, message):
    if not condition:
        raise AssertionError(message)


async def until(condition, what):
    """Waits for `condition`, which becomes true in the background."""
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        if await condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {TIMEOUT_S} s")


def plain(result):
    """A result of either SDK as the protocol's JSON."""
    return result.model_dump(mode="json", by_alias=True, exclude_none=True)


def text_of(result):
    result = plain(result)
    parts = result.get("content") or result.get("contents") or result.get("messages") or []
    inner = [part["content"] if isinstance(part.get("content"), dict) else part for part in parts]
    return "\n".join(it.get("text") or it.get("resource", {}).get("text", "") for it in inner)


async def call_and_look(client, step):
    """Calls the tool of `step` and looks for its text in what the tool says."""
    result = await client.call_tool(step["tool"], step["arguments"])
    said = text_of(result)
    check(not plain(result).get("isError"), f"{step['tool']} failed: {said}")
    check(step["text"] in said, f"{step['tool']} said: {said[:500]}")


async def echo(client, text):
    tool, argument = EXPECTED["echo"]["tool"], EXPECTED["echo"]["argument"]
    await call_and_look(client, {"tool": tool, "arguments": {argument: text}, "text": text})


async def fails(awaitable):
    try:
        result = await awaitable
    except Exception:  # noqa: BLE001 - each SDK raises its own
        return True
    return bool(plain(result).get("isError"))


async def check_server_info(client, _):
    check(client.server_name() == EXPECTED["name"], f"server is called {client.server_name()}")
    is_modern = client.version() >= "2026-07-28"
    mode = ARGUMENTS.mode
    check(mode == "auto" or is_modern == (mode == "modern"), f"speaks {client.version()}")


async def check_tools(client, connect):
    async with connect(False) as bare:
        count = len((await bare.list_tools()).tools)
    check(count == EXPECTED["tools"]["bare"], f"there are {count} tools for a bare client")
    count = len((await client.list_tools()).tools)
    # Both SDKs declare elicitation by URL with elicitation, which TypeScript's do not.
    check(count == EXPECTED["tools"]["url"], f"there are {count} tools for a full client")


async def check_calls(client, _):
    await echo(client, 'quotes " \\ \u2028 \U0001f980 and \n lines')
    await echo(client, "0123456789abcdef" * 16_384)
    for step in EXPECTED["calls"]:
        await call_and_look(client, step)
    check(await fails(client.call_tool("no_such_tool", {})), "an unknown tool succeeded")


async def check_progress(client, _):
    step, seen = EXPECTED["progress"], []

    async def report(progress, _total, _message):
        seen.append(progress)

    await client.call_tool(step["tool"], step["arguments"], progress_callback=report)
    check(len(seen) == step["reports"], f"{len(seen)} reports of progress")
    check(seen == sorted(set(seen)), f"progress fell: {seen}")


async def check_questions(client, _):
    for kind in ("sampling", "elicitation", "roots"):
        await call_and_look(client, EXPECTED[kind])


async def check_logging(client, _):
    step = EXPECTED["logging"]
    if not step["quiet"] and client.version() >= "2026-07-28":
        return  # The modern era carries no log that belongs to no request.
    client.logs.clear()
    if step["quiet"]:
        await client.set_level("error")
        await client.call_tool(step["tool"], step["arguments"])
        check(not client.logs, "logged below the level that was set")
    await client.set_level("debug")
    await client.call_tool(step["tool"], step["arguments"])

    async def has_logged():
        return len(client.logs) >= step["lines"]

    await until(has_logged, f"log of {step['lines']} lines")


async def check_resources(client, _):
    step = EXPECTED["resources"]
    count = len((await client.list_resources()).resources)
    check(count >= step["least"], f"there are {count} resources")
    read = text_of(await client.read_resource(step["uri"]))
    check(step["text"] in read, f"{step['uri']} reads {read[:200]}")
    check(await fails(client.read_resource("test://no/such")), "an unknown resource was read")


async def check_resource_updates(client, _):
    step = EXPECTED["watch"]
    async with client.watch(step["uri"]):
        await client.call_tool(step["tool"], step["arguments"])

        async def is_updated():
            return step["uri"] in client.updates

        await until(is_updated, f"update of {step['uri']}")


async def check_prompts(client, _):
    step = EXPECTED["prompts"]
    count = len((await client.list_prompts()).prompts)
    check(count >= step["least"], f"there are {count} prompts")
    got = text_of(await client.get_prompt(step["name"], step["arguments"]))
    check(step["text"] in got, f"{step['name']} says {got}")


async def check_completion(client, _):
    step = EXPECTED["completion"]
    argument = {"name": step["argument"], "value": step["value"]}
    values = plain(await client.complete(step["prompt"], argument))["completion"]["values"]
    check(values[0] == step["first"], f"completed to {values}")


async def check_cancellation(client, _):
    step = EXPECTED["cancel"]

    async def count():
        return text_of(await client.call_tool(step["counter"], {}))

    before = await count() if "counter" in step else ""
    call = client.call_tool(step["tool"], step["arguments"], read_timeout_seconds=0.5)
    check(await fails(call), "a call that timed out succeeded")

    async def is_counted():
        return await count() != before

    if "counter" in step:
        await until(is_counted, "cancellation at the server")
    await echo(client, "after a cancellation")


async def check_two_clients(client, connect):
    async with connect(True) as other:
        both = (client, other)
        jobs = (echo(both[i % 2], f"client {i % 2} call {i}") for i in range(40))
        await asyncio.gather(*jobs)


def status_of(session):
    """What the server says to a session that ended."""
    headers = {
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        "mcp-protocol-version": "2025-11-25",
        "mcp-session-id": session,
    }
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).encode()
    request = urllib.request.Request(ARGUMENTS.url, body, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=TIMEOUT_S) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


CHECKS = (
    check_server_info,
    check_tools,
    check_calls,
    check_progress,
    check_questions,
    check_logging,
    check_resources,
    check_resource_updates,
    check_prompts,
    check_completion,
    check_cancellation,
    check_two_clients,
)


async def _run(connect):
    async with connect(True) as client:
        print(f"ok connection, {client.version()}")
        for step in CHECKS:
            name = step.__name__.removeprefix("check_").replace("_", " ")
            try:
                await asyncio.wait_for(step(client, connect), 4 * TIMEOUT_S)
            except BaseException:
                print(f"FAILED {name}: {traceback.format_exc()}", flush=True)
                os._exit(1)  # An SDK's task groups may hide or hang on a failure.
            print(f"ok {name}", flush=True)
        session = client.session_id()
    if session:
        status = await asyncio.to_thread(status_of, session)
        if status not in EXPECTED["gone"]:
            print(f"FAILED end of session: an ended session got {status}")
            return 1
    print("ok end of session")
    return 0


def main(connect):
    """Runs all checks; `connect(full)` makes a client that can answer, or a bare one."""
    try:
        sys.exit(asyncio.run(_run(connect)))
    except Exception as error:  # noqa: BLE001 - each SDK raises its own
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        print(f"FAILED connection: {error!r}")
        sys.exit(1)
