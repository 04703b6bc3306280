// The checks that every TypeScript client runs; ts_v1.mjs and ts_v2.mjs say how
// their SDK does each step. What a server is expected to answer is servers.json;
// --name NAME is for a gateway that introduces itself by its own name, and
// --command JSON is for one that the client starts, in place of a URL.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { parseArgs } from "node:util";

// The SDKs live where .ci/peers put them.
export const sdk = createRequire(new URL("../../../.peers/", import.meta.url));

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    server: { type: "string", default: "fixture" },
    mode: { type: "string", default: "legacy" },
    name: { type: "string" },
    command: { type: "string" },
  },
});
export const command = values.command && JSON.parse(values.command);
export const url = command ? undefined : new URL(positionals[0] ?? process.env.URL);
export const mode = values.mode;
const servers = JSON.parse(readFileSync(new URL("servers.json", import.meta.url)));
const expected = { ...servers[servers[values.server].like], ...servers[values.server] };
expected.name = values.name ?? expected.name;

const TIMEOUT_MS = 15_000;

/** What a full client answers when the server asks. */
export const answers = {
  sampling: () => ({
    role: "assistant",
    model: "test",
    content: { type: "text", text: "The client's model" },
  }),
  elicitation: (params) => {
    const { properties, required = [] } = params.requestedSchema;
    const content = {};
    for (const name of required) {
      content[name] = { boolean: true, integer: 1, number: 1.5 }[properties[name].type] ?? "Ada";
    }
    return { action: "accept", content };
  },
  roots: () => ({ roots: [{ uri: "file:///client/root", name: "root" }] }),
};

function assert(condition, message) {
  if (!condition) throw new Error(message);
}

/** Waits for `condition`, which becomes true in the background. */
async function until(condition, what) {
  for (const end = Date.now() + TIMEOUT_MS; Date.now() < end; ) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`${what} did not happen within ${TIMEOUT_MS} ms`);
}

function textOf(result) {
  const texts = [];
  for (const part of result.content ?? result.contents ?? result.messages) {
    const inner = part.content ?? part;
    texts.push(inner.text ?? inner.resource?.text ?? "");
  }
  return texts.join("\n");
}

/** Calls `step.tool` and looks for `step.text` in what it says; `fails`: as an error. */
export async function callAndLook(client, { tool, arguments: args, text, fails = false }) {
  const result = await client.callTool(tool, args, {});
  const said = textOf(result);
  assert(Boolean(result.isError) === fails, `isError of ${tool} is ${result.isError}: ${said}`);
  assert(said.includes(text), `${tool} said: ${said}`);
}

async function echo(client, text) {
  const { tool, argument } = expected.echo;
  await callAndLook(client, { tool, arguments: { [argument]: text }, text });
}

const checks = {
  "server info": async (client) => {
    const { name } = client.serverInfo();
    assert(name === expected.name, `server is called ${name}`);
    const isModern = client.version() >= "2026-07-28";
    assert(mode === "auto" || isModern === (mode === "modern"), `speaks ${client.version()}`);
  },
  "tools for a bare client": async (_, connect) => {
    const bare = await connect(false);
    const { length } = await bare.listTools();
    await bare.close();
    assert(length === expected.tools.bare, `there are ${length} tools`);
  },
  "tools for a full client": async (client) => {
    const { length } = await client.listTools();
    assert(length === expected.tools.full, `there are ${length} tools`);
  },
  echo: (client) => echo(client, 'quotes " \\ \u2028 \u{1F980} and \n lines'),
  "echo of 256 KiB": (client) => echo(client, "0123456789abcdef".repeat(16_384)),
  calls: async (client) => {
    for (const step of expected.calls) await callAndLook(client, step);
  },
  "unknown tool": async (client) => {
    const result = await client.callTool("no_such_tool", {}, {}).catch((error) => error);
    assert(result instanceof Error || result.isError, "an unknown tool succeeded");
  },
  progress: async (client) => {
    const { tool, arguments: args, reports } = expected.progress;
    const seen = [];
    await client.callTool(tool, args, { onprogress: (it) => seen.push(it.progress) });
    // On standard streams these SDKs drop reports that arrive in one piece with the answer, also
    // without a gateway: one at least comes, and more on a busy machine. On a WebSocket they hear a
    // notification a moment later than the answer behind it, and miss the last one.
    const lost = url?.protocol === "ws:" ? 1 : 0;
    const least = command ? 1 : reports - lost;
    const isEnough = least <= seen.length && seen.length <= reports;
    assert(isEnough, `${seen.length} reports of progress, not ${reports}`);
    assert(seen.every((it, i) => i === 0 || it > seen[i - 1]), `progress fell: ${seen}`);
  },
  sampling: (client) => callAndLook(client, expected.sampling),
  elicitation: (client) => callAndLook(client, expected.elicitation),
  roots: (client) => callAndLook(client, expected.roots),
  logging: async (client) => {
    const { tool, arguments: args, lines, quiet } = expected.logging;
    // The modern era carries no log that belongs to no request.
    if (!quiet && client.version() >= "2026-07-28") return;
    client.logs.length = 0;
    if (quiet) {
      await client.setLevel("error");
      await client.callTool(tool, args, {});
      assert(client.logs.length === 0, "logged below the level that was set");
    }
    await client.setLevel("debug");
    await client.callTool(tool, args, {});
    await until(() => client.logs.length >= lines, `log of ${lines} lines`);
  },
  resources: async (client) => {
    const { least, uri, text } = expected.resources;
    const { length } = await client.listResources();
    assert(length >= least, `there are ${length} resources`);
    const read = textOf(await client.readResource(uri));
    assert(read.includes(text), `${uri} reads ${read.slice(0, 200)}`);
  },
  "unknown resource": async (client) => {
    const error = await client.readResource("test://no/such").catch((it) => it);
    assert(error instanceof Error, "an unknown resource was read");
  },
  "resource updates": async (client) => {
    const { uri, tool, arguments: args } = expected.watch;
    const stop = await client.watch(uri);
    await client.callTool(tool, args, {});
    await until(() => client.updates.includes(uri), `update of ${uri}`);
    await stop();
  },
  prompts: async (client) => {
    const { least, name, arguments: args, text } = expected.prompts;
    const { length } = await client.listPrompts();
    assert(length >= least, `there are ${length} prompts`);
    const got = textOf(await client.getPrompt(name, args));
    assert(got.includes(text), `${name} says ${got}`);
  },
  completion: async (client) => {
    const { prompt, argument: name, value, first } = expected.completion;
    const ref = { type: "ref/prompt", name: prompt };
    const { completion } = await client.complete({ ref, argument: { name, value } });
    assert(completion.values[0] === first, `completed to ${completion.values}`);
  },
  cancellation: async (client) => {
    const { tool, arguments: args, counter } = expected.cancel;
    const count = async () => (counter ? textOf(await client.callTool(counter, {}, {})) : "");
    const before = await count();
    const abort = new AbortController();
    const call = client.callTool(tool, args, { signal: abort.signal }).catch((error) => error);
    setTimeout(() => abort.abort("enough"), 300);
    assert((await call) instanceof Error, "a cancelled call succeeded");
    if (counter) await until(async () => (await count()) !== before, "cancellation at the server");
    await echo(client, "after a cancellation");
  },
  "two clients at once": async (client, connect) => {
    const other = await connect(true);
    const both = [client, other];
    const jobs = [...Array(40).keys()].map((i) => echo(both[i % 2], `client ${i % 2} call ${i}`));
    await Promise.all(jobs);
    await other.close();
  },
  "end of session": async (client) => {
    const session = client.sessionId();
    await client.close();
    if (!session) return;
    const response = await fetch(url, {
      method: "POST",
      headers: {
        accept: "application/json, text/event-stream",
        "content-type": "application/json",
        "mcp-protocol-version": "2025-11-25",
        "mcp-session-id": session,
      },
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list" }),
    });
    assert(expected.gone.includes(response.status), `an ended session got ${response.status}`);
  },
};

/** Runs all checks; `connect(full)` makes a client that can answer, or a bare one. */
export async function main(connect) {
  let name = "connection";
  try {
    const client = await connect(true);
    console.log(`ok connection, ${client.version()}`);
    for (name of Object.keys(checks)) {
      await checks[name](client, connect);
      console.log(`ok ${name}`);
    }
  } catch (error) {
    console.log(`FAILED ${name}: ${error.stack}`);
    process.exit(1);
  }
  process.exit(0);
}
