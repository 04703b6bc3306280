//! Objects with some of their members changed. All other members keep their bytes.

use wire::json;
use wire::rpc::{Envelope, splice};

use crate::federation::value::{find, token};
use crate::limits;

/// What keys of the protocol itself begin with in a `_meta`.
const PREFIX: &[u8] = b"io.modelcontextprotocol/";

/// The object without the members that are dropped, and with others set: each in its place, if the
/// object has it, and else at the end. What is no object counts as an empty one.
pub(super) fn edit(
    object: &[u8],
    is_dropped: impl Fn(&[u8]) -> bool,
    set: &[(&str, &[u8])],
) -> Vec<u8> {
    let added: usize = set.iter().map(|(key, value)| key.len() + value.len() + 4).sum();
    let mut out = Vec::with_capacity(object.len() + added + 2);
    out.push(b'{');
    let Ok(entries) = json::entries(object, limits::DEPTH_MAX) else {
        write_members(&mut out, set);
        out.push(b'}');
        return out;
    };
    let mut rest = set.to_vec();
    let mut is_first = true;
    let mut at = memchr::memchr(b'{', object).map_or(0, |at| at + 1);
    for (key, value) in entries {
        let name = key.decode(object);
        let (from, start) = (at, key.token().start as usize);
        at = value.end as usize;
        let place = rest.iter().position(|(key, _)| key.as_bytes() == &*name);
        let new = place.map(|place| rest.remove(place).1);
        // A key that was set already stands here a second time.
        let is_double = new.is_none() && set.iter().any(|(key, _)| key.as_bytes() == &*name);
        if is_double || new.is_none() && is_dropped(&name) {
            continue;
        }
        let blanks = object.get(from..start).unwrap_or_default();
        if is_first {
            out.extend(blanks.iter().filter(|byte| **byte != b','));
        } else {
            out.extend_from_slice(blanks);
        }
        is_first = false;
        out.extend_from_slice(object.get(start..value.start as usize).unwrap_or_default());
        out.extend_from_slice(new.unwrap_or_else(|| value.get(object)));
    }
    if !is_first && !rest.is_empty() {
        out.push(b',');
    }
    write_members(&mut out, &rest);
    out.extend_from_slice(object.get(at..).unwrap_or_default());
    out
}

/// Appends members.
fn write_members(out: &mut Vec<u8>, members: &[(&str, &[u8])]) {
    for (index, (key, value)) in members.iter().enumerate() {
        if index != 0 {
            out.push(b',');
        }
        out.extend_from_slice(&token(key));
        out.push(b':');
        out.extend_from_slice(value);
    }
}

/// An object of these members.
pub(super) fn object(members: &[(&str, &[u8])]) -> Vec<u8> {
    edit(b"{}", |_| false, members)
}

/// Whether an object has no members.
pub(super) fn is_empty(object: &[u8]) -> bool {
    json::entries(object, limits::DEPTH_MAX).is_ok_and(|entries| entries.is_empty())
}

/// The value of a member of an object, as raw JSON.
pub(super) fn member<'a>(object: &'a [u8], key: &str) -> Option<&'a [u8]> {
    find(object, key).map(|span| span.get(object))
}

/// Whether a key of a `_meta` is one of the protocol's own.
pub(super) fn is_protocols(key: &[u8]) -> bool {
    key.starts_with(PREFIX)
}

/// The object with its `_meta` changed; one that is left empty is left out.
pub(super) fn edit_meta(
    object: &[u8],
    is_dropped: impl Fn(&[u8]) -> bool,
    is_dropped_meta: impl Fn(&[u8]) -> bool,
    set_meta: &[(&str, &[u8])],
) -> Vec<u8> {
    let old = member(object, "_meta");
    if old.is_none() && set_meta.is_empty() {
        return edit(object, is_dropped, &[]);
    }
    let new = edit(old.unwrap_or(b"{}"), is_dropped_meta, set_meta);
    if is_empty(&new) {
        return edit(object, |key| key == b"_meta" || is_dropped(key), &[]);
    }
    edit(object, is_dropped, &[("_meta", &new)])
}

/// The message with other `params`.
pub(super) fn with_params(bytes: &[u8], envelope: &Envelope, params: &[u8]) -> Vec<u8> {
    let Some(span) = envelope.params else {
        return edit(bytes, |_| false, &[("params", params)]);
    };
    let mut out = Vec::new();
    splice(&mut out, bytes, &[(span, params)]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(object: &str, dropped: &[&str], set: &[(&str, &str)], wanted: &str) {
        let set: Vec<(&str, &[u8])> = set.iter().map(|(key, it)| (*key, it.as_bytes())).collect();
        let is_dropped = |key: &[u8]| dropped.iter().any(|other| other.as_bytes() == key);
        let out = edit(object.as_bytes(), is_dropped, &set);
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }

    #[test]
    fn members_are_dropped_and_the_rest_keeps_its_bytes() {
        let object = "{ \"a\" : 1e0 ,\n \"b\":[ 2 ],\"\\u0063\":\"\\/\" }";
        check(object, &[], &[], object);
        check(object, &["a"], &[], "{ \n \"b\":[ 2 ],\"\\u0063\":\"\\/\" }");
        check(object, &["b"], &[], "{ \"a\" : 1e0,\"\\u0063\":\"\\/\" }");
        check(object, &["c"], &[], "{ \"a\" : 1e0 ,\n \"b\":[ 2 ] }");
        check(object, &["a", "b", "c"], &[], "{ }");
    }

    #[test]
    fn members_are_set_where_they_are_or_at_the_end() {
        check("{\"a\":1,\"b\":2}", &[], &[("a", "3")], "{\"a\":3,\"b\":2}");
        check("{\"a\":1,\"b\":2}", &["a"], &[("c", "3")], "{\"b\":2,\"c\":3}");
        check("{\"a\":1,\"b\":2}", &["a"], &[("a", "3")], "{\"a\":3,\"b\":2}");
        check("{\"a\":1,\"\\u0061\":2}", &[], &[("a", "3")], "{\"a\":3}");
        check("{\"a\":1}", &["a"], &[("b", "2"), ("c", "3")], "{\"b\":2,\"c\":3}");
        check("{ }", &[], &[("b", "2")], "{\"b\":2 }");
    }

    #[test]
    fn what_is_no_object_is_an_empty_one() {
        check("[1]", &[], &[("a", "1")], "{\"a\":1}");
        check("null", &[], &[], "{}");
        check("{\"a\":", &[], &[], "{}");
    }
}
