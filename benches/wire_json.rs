//! How fast messages are read: validation alone, the envelope, and a rewrite of the id.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use wire::json;
use wire::rpc::{self, Limits};

const LIMITS: Limits = Limits { depth_max: 128, len_max: 1 << 20 };

/// A `tools/call` of 196 bytes, in the key order that most clients use.
fn small() -> String {
    let mut text = String::from(concat!(
        r#"{"jsonrpc":"2.0","id":17,"method":"tools/call","params":{"name":"get_weather","#,
        r#""arguments":{"city":"Amsterdam","days":3,"units":"metric"},"#,
        r#""_meta":{"progressToken":"p-17","traceparent":""#,
    ));
    while text.len() + 4 < 196 {
        text.push('0');
    }
    text.push_str("\"}}}");
    text
}

/// A modern `tools/call` with the full `_meta`, 1.8 KB.
fn medium() -> String {
    let mut text = String::from(concat!(
        r#"{"method":"tools/call","params":{"_meta":{"#,
        r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
        r#""io.modelcontextprotocol/clientCapabilities":{"sampling":{},"#,
        r#""elicitation":{"form":{}}},"#,
        r#""io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1.0.0"}},"#,
        r#""name":"search","arguments":{"filters":["#,
    ));
    while text.len() < 1600 {
        text.push_str(r#"{"field":"created_at","op":">=","value":1712345678.25,"not":false},"#);
    }
    text.push_str(r#"null],"query":"line one\nline two \"quoted\" \u00e9"#);
    while text.len() + 27 < 1800 {
        text.push('x');
    }
    text.push_str("\"}},\"jsonrpc\":\"2.0\",\"id\":4}");
    text
}

/// The answer to `tools/list`, 50 KB of prose and schemas.
fn large() -> String {
    let mut text = String::from(r#"{"result":{"tools":["#);
    while text.len() < 50_000 {
        text.push_str(concat!(
            r#"{"name":"create_issue","description":"Creates an issue in a repository. The title "#,
            r#"is required; labels must exist. Returns the issue's number and address.","#,
            r#""inputSchema":{"type":"object","properties":{"owner":{"type":"string"},"#,
            r#""repo":{"type":"string"},"title":{"type":"string","maxLength":256},"body":"#,
            r#"{"type":"string","description":"Markdown, in the \"GitHub\" flavour"}},"#,
            r#""required":["owner","repo","title"],"additionalProperties":false}},"#,
        ));
    }
    text.push_str(r#"{"name":"last"}]},"jsonrpc":"2.0","id":"a-1"}"#);
    text
}

fn read(c: &mut Criterion) {
    for (size, text) in [("196B", small()), ("1.8KB", medium()), ("50KB", large())] {
        let bytes = text.as_bytes();
        let mut group = c.benchmark_group(size);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("validate", |b| b.iter(|| json::validate(black_box(bytes), 128)));
        group.bench_function("scan", |b| b.iter(|| rpc::scan(black_box(bytes), LIMITS)));
        let id = rpc::scan(bytes, LIMITS).ok().and_then(|envelope| envelope.id);
        let Some(id) = id else { unreachable!("the message has an id") };
        let mut out = Vec::with_capacity(bytes.len() * 2);
        group.bench_function("splice", |b| {
            b.iter(|| {
                out.clear();
                rpc::splice(&mut out, black_box(bytes), &[(id, b"\"id-of-the-gateway\"")]);
                out.len()
            });
        });
        group.finish();
    }
}

criterion_group!(benches, read);
criterion_main!(benches);
