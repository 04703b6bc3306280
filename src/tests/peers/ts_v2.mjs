// The TypeScript SDK v2, which speaks both eras over Streamable HTTP, or with a
// gateway that it starts. It proves that its default (legacy), its probe (auto) and the modern era alone work.
//
//   $NODE22 ts_v2.mjs URL [--server fixture|everything] [--mode legacy|auto|modern]
//   $NODE22 ts_v2.mjs --command JSON [--server fixture|everything] [--mode legacy|auto|modern]

import { answers, command, main, mode, sdk, url } from "./checks.mjs";

const { Client, StreamableHTTPClientTransport } = sdk("@modelcontextprotocol/client");
const { StdioClientTransport } = sdk("@modelcontextprotocol/client/stdio");
const LOG_LEVEL = "io.modelcontextprotocol/logLevel";

async function connect(full) {
  const client = new Client(
    { name: "ts-v2", version: "1.0.0" },
    {
      capabilities: full ? { sampling: {}, elicitation: {}, roots: {} } : {},
      versionNegotiation: { mode: mode === "modern" ? { pin: "2026-07-28" } : mode },
    },
  );
  const logs = [];
  const updates = [];
  let level;
  if (full) {
    client.setRequestHandler("sampling/createMessage", answers.sampling);
    client.setRequestHandler("elicitation/create", (it) => answers.elicitation(it.params));
    client.setRequestHandler("roots/list", answers.roots);
  }
  client.setNotificationHandler("notifications/message", (it) => {
    logs.push(it.params.data);
  });
  client.setNotificationHandler("notifications/resources/updated", (it) => {
    updates.push(it.params.uri);
  });
  const transport = command
    ? new StdioClientTransport({ command: command[0], args: command.slice(1) })
    : new StreamableHTTPClientTransport(url);
  await client.connect(transport);
  const modern = client.getProtocolEra() === "modern";
  return {
    logs,
    updates,
    version: () => client.getNegotiatedProtocolVersion(),
    serverInfo: () => client.getServerVersion(),
    sessionId: () => transport.sessionId,
    listTools: async () => (await client.listTools()).tools,
    callTool: (name, args, options) => {
      const meta = modern && level ? { _meta: { [LOG_LEVEL]: level } } : {};
      return client.callTool({ name, arguments: args, ...meta }, options);
    },
    setLevel: async (wanted) => {
      level = wanted;
      if (!modern) await client.setLoggingLevel(level);
    },
    listResources: async () => (await client.listResources()).resources,
    readResource: (uri) => client.readResource({ uri }),
    watch: async (uri) => {
      if (modern) {
        const subscription = await client.listen({ resourceSubscriptions: [uri] });
        return () => subscription.close();
      }
      await client.subscribeResource({ uri });
      return () => client.unsubscribeResource({ uri });
    },
    listPrompts: async () => (await client.listPrompts()).prompts,
    getPrompt: (name, args) => client.getPrompt({ name, arguments: args }),
    complete: (params) => client.complete(params),
    close: async () => {
      if (!modern) await transport.terminateSession?.();
      await client.close();
    },
  };
}

await main(connect);
