// Calls tools of any server and looks for a text in what each says, with the
// TypeScript SDK v2, which probes for the modern era and falls back.
//
//   $NODE22 calls.mjs URL '[{"tool": "…", "arguments": {}, "text": "…"}, …]'
//
// With "fails": true, a step is expected to fail.

import { callAndLook, sdk, url } from "./checks.mjs";

const { Client, StreamableHTTPClientTransport } = sdk("@modelcontextprotocol/client");

const client = new Client(
  { name: "calls", version: "1.0.0" },
  { versionNegotiation: { mode: "auto" } },
);
try {
  await client.connect(new StreamableHTTPClientTransport(url));
  console.log(`connected, ${client.getNegotiatedProtocolVersion()}`);
  const shaped = { callTool: (name, args) => client.callTool({ name, arguments: args }) };
  for (const step of JSON.parse(process.argv[3])) {
    await callAndLook(shaped, step);
    console.log(`ok ${step.tool}`);
  }
  await client.close();
} catch (error) {
  console.log(`FAILED ${error.stack}`);
  process.exit(1);
}
process.exit(0);
