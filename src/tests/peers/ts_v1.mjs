// The TypeScript SDK v1, which speaks the legacy era over Streamable HTTP, over
// WebSocket or HTTP+SSE where the URL says so, or with a gateway that it starts. It
// proves that the most widespread client works, every feature that it has.
//
//   $NODE22 ts_v1.mjs URL [--server fixture|everything]
//   $NODE22 ts_v1.mjs --command JSON [--server fixture|everything]

import { answers, command, main, sdk, url } from "./checks.mjs";

const { Client } = sdk("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = sdk(
  "@modelcontextprotocol/sdk/client/streamableHttp.js",
);
const { WebSocketClientTransport } = sdk("@modelcontextprotocol/sdk/client/websocket.js");
const { StdioClientTransport } = sdk("@modelcontextprotocol/sdk/client/stdio.js");
const { SSEClientTransport } = sdk("@modelcontextprotocol/sdk/client/sse.js");
const types = sdk("@modelcontextprotocol/sdk/types.js");

function start() {
  const [program, ...args] = command;
  const transport = new StdioClientTransport({ command: program, args });
  transport.setProtocolVersion = (version) => {
    transport.protocolVersion = version;
  };
  return transport;
}

async function connect(full) {
  const capabilities = full ? { sampling: {}, elicitation: {}, roots: {} } : {};
  const client = new Client({ name: "ts-v1", version: "1.0.0" }, { capabilities });
  const logs = [];
  const updates = [];
  if (full) {
    client.setRequestHandler(types.CreateMessageRequestSchema, answers.sampling);
    client.setRequestHandler(types.ElicitRequestSchema, (it) => answers.elicitation(it.params));
    client.setRequestHandler(types.ListRootsRequestSchema, answers.roots);
  }
  client.setNotificationHandler(types.LoggingMessageNotificationSchema, (it) => {
    logs.push(it.params.data);
  });
  client.setNotificationHandler(types.ResourceUpdatedNotificationSchema, (it) => {
    updates.push(it.params.uri);
  });
  const isSocket = url?.protocol === "ws:";
  const isSse = url?.pathname.startsWith("/sse");
  const Http = isSse ? SSEClientTransport : StreamableHTTPClientTransport;
  const Transport = isSocket ? WebSocketClientTransport : Http;
  const transport = command ? start() : new Transport(url);
  // One transport knows the version, the other is told it and forgets.
  if (isSocket) transport.setProtocolVersion = (it) => (transport.protocolVersion = it);
  await client.connect(transport);
  if (isSse) {
    // This transport hands over all events of one read at once, and the SDK then forgets whom
    // progress is for before it has told it: one event at a time, as the other transport does.
    const take = transport.onmessage;
    transport.onmessage = (...message) => setImmediate(take, ...message);
  }
  return {
    logs,
    updates,
    version: () => transport.protocolVersion ?? transport._protocolVersion,
    serverInfo: () => client.getServerVersion(),
    sessionId: () => transport.sessionId,
    listTools: async () => (await client.listTools()).tools,
    callTool: (name, args, options) =>
      client.callTool({ name, arguments: args }, types.CallToolResultSchema, options),
    setLevel: (level) => client.setLoggingLevel(level),
    listResources: async () => (await client.listResources()).resources,
    readResource: (uri) => client.readResource({ uri }),
    watch: async (uri) => {
      await client.subscribeResource({ uri });
      return () => client.unsubscribeResource({ uri });
    },
    listPrompts: async () => (await client.listPrompts()).prompts,
    getPrompt: (name, args) => client.getPrompt({ name, arguments: args }),
    complete: (params) => client.complete(params),
    close: async () => {
      await transport.terminateSession?.();
      await client.close();
    },
  };
}

await main(connect);
