//! Content negotiation: what the client sends and what it takes.

/// Whether `Accept` values take this media type (RFC 9110, section 12.5.1; weights are ignored
/// except for `q=0`).
pub fn accepts<'a>(mut values: impl Iterator<Item = &'a [u8]>, wanted: &str) -> bool {
    values.any(|value| value.split(|byte| *byte == b',').any(|range| takes(range, wanted)))
}

fn takes(range: &[u8], wanted: &str) -> bool {
    let mut parts = range.split(|byte| *byte == b';');
    let media = parts.next().unwrap_or_default().trim_ascii();
    if parts.any(|part| matches!(part.trim_ascii(), b"q=0" | b"q=0.0" | b"q=0.00" | b"q=0.000")) {
        return false;
    }
    let main = wanted.split('/').next().unwrap_or_default();
    let is_range = media.split_last_chunk::<2>().is_some_and(|(start, end)| {
        end == b"/*" && (start == b"*" || start.eq_ignore_ascii_case(main.as_bytes()))
    });
    is_range || media.eq_ignore_ascii_case(wanted.as_bytes())
}

/// Whether a `Content-Type` is this media type, whatever its parameters.
pub fn is_type(value: &[u8], wanted: &str) -> bool {
    let media = value.split(|byte| *byte == b';').next().unwrap_or_default();
    media.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_weights() {
        let check = |value: &str, json: bool, events: bool| {
            let values = || [value.as_bytes()].into_iter();
            assert_eq!(accepts(values(), "application/json"), json, "{value}");
            assert_eq!(accepts(values(), "text/event-stream"), events, "{value}");
        };
        check("application/json, text/event-stream", true, true);
        check("Application/JSON;q=0.5,text/*", true, true);
        check("*/*", true, true);
        check("application/json", true, false);
        check("text/event-stream;q=0, application/*", true, false);
        check("application/jsonx, text", false, false);
        check("", false, false);
    }

    #[test]
    fn parameters_do_not_matter() {
        assert!(is_type(b"application/json; charset=utf-8", "application/json"));
        assert!(!is_type(b"application/json-rpc", "application/json"));
    }
}
