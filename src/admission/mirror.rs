//! The headers that repeat the body (2026-07-28, basic/transports/streamable-http): checked here,
//! so that whoever decides by the header decides by what the server will read.

use std::borrow::Cow;

use wire::http1::{Headers, write_header};
use wire::rpc::{Envelope, Kind};

use crate::refusal::Refusal;

/// What Base64 stands between in a header.
const PREFIX: &[u8] = b"=?base64?";
/// See [`PREFIX`].
const SUFFIX: &[u8] = b"?=";

/// The digits of Base64 (RFC 4648, section 4).
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Checks `MCP-Protocol-Version`, `Mcp-Method` and `Mcp-Name` against the body of a modern POST.
pub fn check(headers: &Headers<'_, '_>, bytes: &[u8], envelope: &Envelope) -> Result<(), Refusal> {
    let version = envelope.meta_version.map(|version| version.decode(bytes));
    let header = single(headers, "mcp-protocol-version")?;
    match (&version, header) {
        (None, _) => return Err(Refusal::Metadata),
        (Some(version), Some(header)) if **version == *header => {}
        (Some(_), _) => return Err(Refusal::HeaderMismatch),
    }
    if envelope.kind != Kind::Request {
        return Ok(());
    }
    let method = envelope.method.map(|method| method.decode(bytes)).unwrap_or_default();
    if single(headers, "mcp-method")?.is_none_or(|header| header != &*method) {
        return Err(Refusal::HeaderMismatch);
    }
    let name = match &*method {
        b"tools/call" | b"prompts/get" => envelope.name,
        b"resources/read" => envelope.uri,
        b"tasks/get" | b"tasks/update" | b"tasks/cancel" => envelope.task_id,
        _ => return Ok(()),
    };
    let header = single(headers, "mcp-name")?.map(decode).transpose()?;
    match (name.map(|name| name.decode(bytes)), header) {
        (Some(name), Some(header)) if name == header => Ok(()),
        // Without a name the server refuses the parameters; there is nothing to compare.
        (None, None) => Ok(()),
        _ => Err(Refusal::HeaderMismatch),
    }
}

/// Appends the header lines that repeat a modern message, for a client that sent none.
pub fn write(out: &mut Vec<u8>, bytes: &[u8], envelope: &Envelope) {
    let version = envelope.meta_version.map(|text| text.decode(bytes)).unwrap_or_default();
    write_header(out, "mcp-protocol-version", &encode(&version));
    let method = envelope.method.map(|text| text.decode(bytes)).unwrap_or_default();
    write_header(out, "mcp-method", &encode(&method));
    let name = match &*method {
        b"tools/call" | b"prompts/get" => envelope.name,
        b"resources/read" => envelope.uri,
        b"tasks/get" | b"tasks/update" | b"tasks/cancel" => envelope.task_id,
        _ => None,
    };
    if let Some(name) = name {
        write_header(out, "mcp-name", &encode(&name.decode(bytes)));
    }
}

/// A value as it may stand in a header: as it is, or in Base64 if that would change it.
pub(super) fn encode(value: &[u8]) -> Cow<'_, [u8]> {
    let is_visible = |byte: &u8| matches!(byte, 0x21..=0x7e);
    let is_inner = |byte: &u8| matches!(byte, b' ' | b'\t');
    let is_plain = value.first().is_some_and(is_visible)
        && value.last().is_some_and(is_visible)
        && value.iter().all(|byte| is_visible(byte) || is_inner(byte))
        && !value.starts_with(PREFIX);
    if is_plain {
        return Cow::Borrowed(value);
    }
    let mut text = PREFIX.to_vec();
    for part in value.chunks(3) {
        let bits = part.iter().fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte));
        let bits = bits << (8 * (3 - part.len()));
        for place in 0..4 {
            let index = (bits >> (18 - 6 * place)) & 63;
            let digit = usize::try_from(index).ok().and_then(|index| DIGITS.get(index));
            text.push(if place <= part.len() { digit.copied().unwrap_or(b'=') } else { b'=' });
        }
    }
    text.extend_from_slice(SUFFIX);
    Cow::Owned(text)
}

/// The value of a header that may stand once.
pub(super) fn single<'a>(
    headers: &Headers<'_, 'a>,
    name: &str,
) -> Result<Option<&'a [u8]>, Refusal> {
    let mut values = headers.get_all(name);
    let first = values.next();
    if values.next().is_some() { Err(Refusal::HeaderMismatch) } else { Ok(first) }
}

/// The same in header lines as they are written.
pub(super) fn single_line<'a>(lines: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, Refusal> {
    let value = |line: &'a [u8]| {
        let (field, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b": ")?.trim_ascii_end();
        field.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
    };
    let mut values = lines.split(|byte| *byte == b'\n').filter_map(value);
    let first = values.next();
    if values.next().is_some() { Err(Refusal::HeaderMismatch) } else { Ok(first) }
}

/// A header value as it stands in the body: `=?base64?…?=` is decoded, anything else is literal.
pub(super) fn decode(value: &[u8]) -> Result<Cow<'_, [u8]>, Refusal> {
    let inner = value.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
    let Some(inner) = inner else { return Ok(Cow::Borrowed(value)) };
    decode_base64(inner).map(Cow::Owned).ok_or(Refusal::HeaderMismatch)
}

/// Decodes base64 (RFC 4648, section 4, with padding, without anything else).
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let digits = text.get(..text.len() - padding).filter(|_| padding <= 2)?;
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = ((bits << 6) | u32::from(value)) & 0xff_ffff;
        count += 6;
        if 8 <= count {
            count -= 8;
            out.push(u8::try_from((bits >> count) & 0xff).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use wire::http1::{HeaderSlots, Limits, request};

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (value, header) in [
            ("echo", "echo"),
            ("two words", "two words"),
            (" edge", "=?base64?IGVkZ2U=?="),
            ("", "=?base64??="),
            ("=?base64?x?=", "=?base64?PT9iYXNlNjQ/eD89?="),
            ("grüße", "=?base64?Z3LDvMOfZQ==?="),
            ("a\nb", "=?base64?YQpi?="),
        ] {
            let written = encode(value.as_bytes());
            assert_eq!(written, header.as_bytes());
            assert_eq!(decode(&written), Ok(Cow::Borrowed(value.as_bytes())));
        }
    }

    #[test]
    fn base64_is_strict() {
        assert_eq!(decode_base64(b"SGVsbG8=").as_deref(), Some(&b"Hello"[..]));
        assert_eq!(decode_base64(b"").as_deref(), Some(&b""[..]));
        for bad in ["SGVsbG8", "SGVs bG8=", "SGVsbG8_", "====", "S==="] {
            assert_eq!(decode_base64(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn headers_must_repeat_the_body() {
        let version = "MCP-Protocol-Version: 2026-07-28\r\n";
        let call = format!("{version}Mcp-Method: tools/call\r\n");
        check_call(&format!("{call}Mcp-Name: e\u{301}"), Err(Refusal::HeaderMismatch));
        check_call(&format!("{call}Mcp-Name:  echo "), Ok(()));
        check_call(&format!("{call}Mcp-Name: =?base64?ZWNobw==?="), Ok(()));
        check_call(&format!("{call}Mcp-Name: =?BASE64?ZWNobw==?="), Err(Refusal::HeaderMismatch));
        check_call(&format!("{call}Mcp-Name: =?base64?ZWNobw?="), Err(Refusal::HeaderMismatch));
        check_call(&format!("{call}Mcp-Name: Echo"), Err(Refusal::HeaderMismatch));
        check_call(&format!("{call}X: y"), Err(Refusal::HeaderMismatch));
        check_call(&format!("{version}Mcp-Name: echo"), Err(Refusal::HeaderMismatch));
        check_call(
            "MCP-Protocol-Version: 2025-11-25\r\nMcp-Method: tools/call\r\nMcp-Name: echo",
            Err(Refusal::HeaderMismatch),
        );
        check_call(
            &format!("{call}Mcp-Name: echo\r\nMcp-Name: echo"),
            Err(Refusal::HeaderMismatch),
        );
    }

    #[track_caller]
    fn check_call(headers: &str, expected: Result<(), Refusal>) {
        let body = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo",
            "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        let limits = wire::rpc::Limits { depth_max: 9, len_max: 999 };
        let envelope = wire::rpc::scan(body, limits).unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n");
        let mut slots = HeaderSlots::new();
        let limits = Limits { head_len_max: 999, target_len_max: 99 };
        match request(head.as_bytes(), &mut slots, limits) {
            Ok(wire::Decoded::Item { item, .. }) => {
                assert_eq!(check(&item.headers, body, &envelope), expected, "{headers}");
            }
            _ => assert_eq!(expected, Err(Refusal::HeaderMismatch), "{headers}"),
        }
    }
}
