//! What servers tell on their own: `subscriptions/listen` of the modern era, and what a legacy
//! session has in its place (basic/patterns/subscriptions).

use bytes::Bytes;
use wire::json;

use super::object::{edit, edit_meta, member, object};
use crate::federation::combine::has_capability;
use crate::federation::value::{find, find_path, text_of, token};
use crate::limits;

/// What a subscription of a modern client lets through (basic/patterns/subscriptions).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Whether it is told that lists of tools, prompts, resources have changed.
    lists: [bool; 3],
    /// The resources whose changes it is told.
    pub uris: Vec<String>,
}

/// The lists that may change: member of the filter, capability, notification.
const CHANGES: [(&str, &str, &str); 3] = [
    ("toolsListChanged", "tools", "notifications/tools/list_changed"),
    ("promptsListChanged", "prompts", "notifications/prompts/list_changed"),
    ("resourcesListChanged", "resources", "notifications/resources/list_changed"),
];

/// What of a subscription can be honoured: `filter` is the raw `params.notifications` of
/// `subscriptions/listen`, `capabilities` are those of the legacy server (Acknowledgment: what it
/// does not support is left out). The same holds for URIs beyond
/// [`limits::SESSION_SETUP_MAX`]: a server that starts anew is to be told of all of them.
pub fn changed(filter: &[u8], capabilities: &[u8]) -> Filter {
    let lists = CHANGES.map(|(key, capability, _)| {
        member(filter, key) == Some(b"true")
            && has_capability(capabilities, &[capability, "listChanged"])
    });
    let list = member(filter, "resourceSubscriptions");
    let list = list.filter(|_| has_capability(capabilities, &["resources", "subscribe"]));
    let list = list.unwrap_or(b"[]");
    let spans = json::elements(list, limits::DEPTH_MAX).flatten();
    let uris = spans.filter_map(|span| text_of(span.get(list)));
    Filter { lists, uris: uris.take(limits::SESSION_SETUP_MAX).collect() }
}

impl Filter {
    /// It as raw JSON: `params.notifications` of the acknowledgement.
    pub fn json(&self) -> Vec<u8> {
        filter_json(self.lists, &self.uris)
    }

    /// Whether a notification of the server is for this subscription.
    pub fn lets_through(&self, notification: &[u8]) -> bool {
        let method = find(notification, "method").and_then(|span| text_of(span.get(notification)));
        let Some(method) = method else { return false };
        if method == "notifications/resources/updated" {
            let uri = find_path(notification, &["params", "uri"]);
            let uri = uri.and_then(|span| text_of(span.get(notification)));
            return uri.is_some_and(|uri| self.uris.iter().any(|whole| is_in(&uri, whole)));
        }
        CHANGES.iter().zip(self.lists).any(|((.., name), is_on)| is_on && method == *name)
    }
}

/// A filter as raw JSON.
fn filter_json(lists: [bool; 3], uris: &[String]) -> Vec<u8> {
    let on = CHANGES.iter().zip(lists).filter(|(_, is_on)| *is_on);
    let mut members: Vec<(&str, &[u8])> = on.map(|((key, ..), _)| (*key, &b"true"[..])).collect();
    let uris: Vec<Vec<u8>> = uris.iter().map(|uri| token(uri)).collect();
    let list = [b"[", uris.join(&b',').as_slice(), b"]"].concat();
    if !uris.is_empty() {
        members.push(("resourceSubscriptions", &list));
    }
    object(&members)
}

/// Whether a URI is this one, or of something in it: the server may tell of a part of what was
/// subscribed to (schema, `ResourceUpdatedNotification`).
fn is_in(uri: &str, whole: &str) -> bool {
    uri.strip_prefix(whole).is_some_and(|rest| {
        rest.is_empty() || whole.ends_with('/') || rest.starts_with(['/', '?', '#'])
    })
}

/// The first message of a subscription (basic/patterns/subscriptions, Acknowledgment). `id` is
/// that of the `subscriptions/listen`, as raw JSON.
pub fn acknowledged(id: &[u8], filter: &Filter) -> Vec<u8> {
    let meta = object(&[("io.modelcontextprotocol/subscriptionId", id)]);
    let params = object(&[("_meta", &meta), ("notifications", &filter.json())]);
    object(&[
        ("jsonrpc", b"\"2.0\""),
        ("method", b"\"notifications/subscriptions/acknowledged\""),
        ("params", &params),
    ])
}

/// A legacy notification as one of the subscription that `subscriptions/listen` with this id (raw
/// JSON) has opened.
pub fn subscribed(notification: &[u8], id: &[u8]) -> Vec<u8> {
    let params = member(notification, "params").unwrap_or(b"{}");
    let set: [(&str, &[u8]); 1] = [("io.modelcontextprotocol/subscriptionId", id)];
    let params = edit_meta(params, |_| false, |_| false, &set);
    edit(notification, |_| false, &[("params", &params)])
}

/// The `result` that ends a subscription in good order (schema, `SubscriptionsListenResult`).
pub fn ended(id: &[u8]) -> Vec<u8> {
    let meta = object(&[("io.modelcontextprotocol/subscriptionId", id)]);
    object(&[("resultType", b"\"complete\""), ("_meta", &meta)])
}

/// A `subscriptions/listen` with this id (raw JSON) for all that a server with these capabilities
/// can tell, and for these resources (basic/patterns/subscriptions). None: there is nothing.
pub fn listen(id: &[u8], meta: &[u8], capabilities: &[u8], uris: &[String]) -> Option<Bytes> {
    let lists = CHANGES
        .map(|(_, capability, _)| has_capability(capabilities, &[capability, "listChanged"]));
    let can_subscribe = has_capability(capabilities, &["resources", "subscribe"]);
    let uris = if can_subscribe { uris } else { &[] };
    if uris.is_empty() && !lists.contains(&true) {
        return None;
    }
    let params = object(&[("_meta", meta), ("notifications", &filter_json(lists, uris))]);
    let members: [(&str, &[u8]); 4] = [
        ("jsonrpc", b"\"2.0\""),
        ("id", id),
        ("method", b"\"subscriptions/listen\""),
        ("params", &params),
    ];
    Some(object(&members).into())
}

/// A notification of a subscription as a legacy one.
pub fn plain(notification: &[u8]) -> Vec<u8> {
    let Some(params) = member(notification, "params") else { return notification.to_vec() };
    let is_dropped = |key: &[u8]| key == b"io.modelcontextprotocol/subscriptionId";
    let params = edit_meta(params, |_| false, is_dropped, &[]);
    edit(notification, |_| false, &[("params", &params)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: impl Into<Vec<u8>>) -> String {
        String::from_utf8(bytes.into()).unwrap()
    }

    #[test]
    fn subscriptions_are_told_what_they_asked_for() {
        let wanted = r#"{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":false,"taskIds":["t"],"resourceSubscriptions":["a:b",1,"d:/"]}"#;
        let capabilities = r#"{"tools":{"listChanged":true},"prompts":{},"resources":{"subscribe":true,"listChanged":true}}"#;
        let filter = changed(wanted.as_bytes(), capabilities.as_bytes());
        let honoured = r#"{"toolsListChanged":true,"resourceSubscriptions":["a:b","d:/"]}"#;
        assert_eq!(text(filter.json()), honoured);
        assert_eq!(filter.uris, ["a:b", "d:/"]);
        let lets = |method: &str, uri: &str| {
            let text =
                format!(r#"{{"method":"notifications/{method}","params":{{"uri":"{uri}"}}}}"#);
            filter.lets_through(text.as_bytes())
        };
        assert!(lets("tools/list_changed", ""));
        assert!(!lets("prompts/list_changed", "") && !lets("resources/list_changed", ""));
        assert!(lets("resources/updated", "a:b") && lets("resources/updated", "a:b/c"));
        assert!(lets("resources/updated", "d:/e") && !lets("resources/updated", "a:bc"));
        assert!(!lets("message", "a:b") && !lets("progress", "a:b"));
        let none = changed(wanted.as_bytes(), br#"{"resources":{"listChanged":true}}"#);
        assert_eq!((none, &*text(Filter::default().json())), (Filter::default(), "{}"));
    }

    #[test]
    fn subscriptions_are_bounded() {
        let uris: Vec<String> =
            (0..=limits::SESSION_SETUP_MAX).map(|n| format!("\"a:{n}\"")).collect();
        let wanted = format!(r#"{{"resourceSubscriptions":[{}]}}"#, uris.join(","));
        let filter = changed(wanted.as_bytes(), br#"{"resources":{"subscribe":true}}"#);
        assert_eq!(filter.uris.len(), limits::SESSION_SETUP_MAX);
    }

    #[test]
    fn the_end_of_a_subscription_names_it() {
        let wanted =
            r#"{"resultType":"complete","_meta":{"io.modelcontextprotocol/subscriptionId":1}}"#;
        assert_eq!(text(ended(b"1")), wanted);
    }

    #[test]
    fn notifications_say_which_subscription_they_are_for() {
        let filter = changed(br#"{"toolsListChanged":true}"#, br#"{"tools":{"listChanged":true}}"#);
        let wanted = r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":"1"},"notifications":{"toolsListChanged":true}}}"#;
        assert_eq!(text(acknowledged(b"\"1\"", &filter)), wanted);
        let bare = br#"{"jsonrpc":"2.0","method":"n"}"#;
        let wanted = r#"{"jsonrpc":"2.0","method":"n","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":1}}}"#;
        assert_eq!(text(subscribed(bare, b"1")), wanted);
        let full = br#"{"params":{"uri":"\u0061","_meta":{"a":1}},"method":"n"}"#;
        let wanted = r#"{"params":{"uri":"\u0061","_meta":{"a":1,"io.modelcontextprotocol/subscriptionId":1}},"method":"n"}"#;
        assert_eq!(text(subscribed(full, b"1")), wanted);
    }

    #[test]
    fn a_server_is_asked_to_tell_what_it_can_tell() {
        let listen = |capabilities: &str, uris: &[String]| {
            listen(b"\"l\"", b"{\"k\":1}", capabilities.as_bytes(), uris).map(text)
        };
        let uris = ["a:b".to_owned()];
        assert_eq!(listen(r#"{"tools":{},"resources":{}}"#, &uris), None);
        let all = r#"{"tools":{"listChanged":true},"prompts":{"listChanged":false},"resources":{"subscribe":true}}"#;
        let wanted = |notifications: &str| {
            Some(format!(
                r#"{{"jsonrpc":"2.0","id":"l","method":"subscriptions/listen","params":{{"_meta":{{"k":1}},"notifications":{notifications}}}}}"#
            ))
        };
        assert_eq!(listen(all, &[]), wanted(r#"{"toolsListChanged":true}"#));
        let both = r#"{"toolsListChanged":true,"resourceSubscriptions":["a:b"]}"#;
        assert_eq!(listen(all, &uris), wanted(both));
    }

    #[test]
    fn notifications_lose_their_subscription() {
        let bare = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
        assert_eq!(text(plain(bare.as_bytes())), bare);
        let notification = br#"{"method":"n","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":1},"uri":"\u0061"}}"#;
        assert_eq!(text(plain(notification)), r#"{"method":"n","params":{"uri":"\u0061"}}"#);
        let notification = br#"{"params":{"_meta":{"a":1,"io.modelcontextprotocol/subscriptionId":"x"}},"method":"n"}"#;
        assert_eq!(text(plain(notification)), r#"{"params":{"_meta":{"a":1}},"method":"n"}"#);
    }
}
