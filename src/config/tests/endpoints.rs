//! Servers with several endpoints.

use super::*;
use crate::upstream::catalog::{Balance, EndpointId, Endpoints};

#[track_caller]
fn endpoints(text: &str) -> Endpoints {
    let config = config(&format!("[servers.a]\n{text}\n"));
    target(&config, 0).endpoints().unwrap().clone()
}

#[test]
fn several_urls_share_what_is_configured_once() {
    let text = "endpoints = [\"http://a:81/x\", { url = \"https://b/mcp\" }]\n\
                headers = { X = \"s3cr3t\" }\nconnections = 7";
    let all = endpoints(text);
    assert_eq!((all.count(), &all.balance), (2, &Balance::RoundRobin));
    let (first, second) = (&all.first, all.get(EndpointId(1)).unwrap());
    assert_eq!((first.tls, &*first.authority, &*first.target), (false, "a:81", "/x"));
    assert_eq!((second.tls, &*second.authority, &*second.target), (true, "b", "/mcp"));
    assert_eq!((first.conns_max, second.conns_max), (7, 7));
    assert_eq!(second.headers.first().unwrap().1.reveal(), "s3cr3t");
    assert!(all.get(EndpointId(2)).is_none());
    let sockets =
        config("[servers.a]\nendpoints = [\"ws://a/\", \"wss://b/\"]\nisolation = \"shared\"");
    assert!(matches!(target(&sockets, 0), Target::WebSocket(all) if all.count() == 2));
    let one = endpoints("url = \"http://a/\"");
    assert_eq!((one.count(), one.balance), (1, Balance::RoundRobin));
}

#[test]
fn how_they_share_the_work_may_follow_from_their_weights() {
    let of = |more: &str| {
        let list = "{ url = \"http://a/\", weight = 3 }, \"http://b/\"";
        endpoints(&format!("endpoints = [{list}]\n{more}")).balance
    };
    assert_eq!(of(""), Balance::Weighted(vec![3, 1]));
    assert_eq!(of("balance = \"weighted\""), Balance::Weighted(vec![3, 1]));
    let of = |name: &str| {
        let list = "\"http://a/\", \"http://b/\"";
        endpoints(&format!("endpoints = [{list}]\nbalance = \"{name}\"")).balance
    };
    assert_eq!(of("round_robin"), Balance::RoundRobin);
    assert_eq!(of("least_in_flight"), Balance::LeastInFlight);
    assert_eq!(of("weighted"), Balance::Weighted(vec![1, 1]));
    assert_eq!(of("consistent_hash"), Balance::ConsistentHash);
}

#[test]
fn check_shows_where_they_are_and_no_secret() {
    let config = config(
        "[servers.a]\nendpoints = [{ url = \"https://a/p4th?q3ry\", weight = 3 }, \
         \"http://127.0.0.1:81/mcp\"]\nheaders.X-Key = \"s3cr3t\"\n",
    );
    let shown = config.to_string();
    for piece in [
        "  endpoints            https://a/… (weight 3)\n",
        "  endpoints            http://127.0.0.1:81/mcp (weight 1)\n",
        "  balance              weighted\n  headers              X-Key\n",
    ] {
        assert!(shown.contains(piece), "{piece} in:\n{shown}");
    }
    assert!(!["p4th", "q3ry", "s3cr3t"].iter().any(|secret| shown.contains(secret)), "{shown}");
}

#[test]
fn what_is_wrong_with_endpoints() {
    check(
        r#"
        > [servers.a]
        > endpoints = []
        2:13: servers.a.endpoints: must be from 1 to 64 endpoints
        > [servers.a]
        > endpoints = "http://a"
        2:13: servers.a.endpoints: must be a list of URLs, such as ["https://a/mcp"
        > [servers.a]
        > endpoints = ["http://a", 1, "b"]
        2:26: servers.a.endpoints[1]: must be a URL, or a table such as
        2:29: servers.a.endpoints[2]: must be a URL
        > [servers.a]
        > endpoints = [{ url = "http://a", weigth = 1 }, { weight = 1 }]
        2:34: servers.a.endpoints[0].weigth: unknown key; did you mean `weight`?
        2:48: servers.a.endpoints[1]: has no `url`
        > [servers.a]
        > endpoints = [{ url = "http://a", weight = 0 }]
        2:43: servers.a.endpoints[0].weight: must be a whole number from 1 to 1000
        > [servers.a]
        > endpoints = ["http://a", "ws://b", "https://c"]
        2:26: servers.a.endpoints[1]: must be of the same kind as the first
        > [servers.a]
        > endpoints = ["http://a", "http://A:80/"]
        2:26: servers.a.endpoints[1]: is there twice
        > [servers.a]
        > endpoints = [{ url = "http://a", weight = 2 }, "http://b"]
        > balance = "round_robin"
        3:11: servers.a.balance: must be "weighted", or absent
        > [servers.a]
        > endpoints = ["http://a"]
        > balance = "random"
        3:11: servers.a.balance: must be "round_robin", "least_in_flight", "weighted" or
        > [servers.a]
        > url = "http://a"
        > balance = "round_robin"
        3:1: servers.a.balance: is only for servers with `endpoints`; remove it
        > [servers.a]
        > url = "http://a"
        > endpoints = ["http://b"]
        1:1: servers.a: has both `url` and `endpoints`; a server has exactly one
        > [servers.a]
        > command = ["x"]
        > endpoints = ["http://b"]
        1:1: servers.a: has both `command` and `endpoints`
        > [servers.a]
        > command = ["x"]
        > balance = "weighted"
        3:1: servers.a.balance: is only for servers with a `url`
        > [servers.a]
        > endpoint = ["http://b"]
        2:1: servers.a.endpoint: unknown key; did you mean `endpoints`?
        > [servers.a]
        > endpoints = ["http://a"]
        > stop_grace = "1s"
        3:1: servers.a.stop_grace: is only for servers with a `command`
        > [servers.a]
        > endpoints = ["http://127.0.0.1/", "http://b/"]
        > headers = { Authorization = "x" }
        w: 2:35: servers.a.endpoints[1]: sends Authorization in the clear, over http
        "#,
    );
}
