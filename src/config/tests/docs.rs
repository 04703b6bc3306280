//! What the documents say is true.

use std::collections::BTreeSet;

use super::*;
use crate::config::keys::{OF_COMMAND, OF_URL, SECTIONS};

const DOCUMENT: &str = include_str!("../../../docs/configuration.md");
const EXAMPLE: &str = include_str!("../../../docs/config.example.toml");

/// The key as the document writes it.
fn documented(section: &str, key: &str) -> String {
    match section {
        "" => key.to_owned(),
        "server" => format!("servers.NAME.{key}"),
        _ => format!("{section}.{key}"),
    }
}

/// Keys that hold a section.
const TABLES: &[&str] =
    &["listen", "limits", "sessions", "log", "shutdown", "federation", "servers", "tools"];

#[test]
fn every_key_is_documented_and_every_documented_key_is_known() {
    let known: BTreeSet<String> = SECTIONS
        .iter()
        .flat_map(|(section, keys)| keys.iter().map(|key| documented(section, key)))
        .filter(|key| !TABLES.contains(&key.rsplit('.').next().unwrap_or_default()))
        .collect();
    // Rows of the tables of keys begin with a key; other tables begin with commands and values.
    let rows: BTreeSet<String> = DOCUMENT
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(key, _)| key.to_owned())
        .filter(|key| !key.contains([' ', '"']))
        .collect();
    assert_eq!(known, rows);
}

#[test]
fn every_known_key_is_read() {
    for (section, keys) in SECTIONS {
        for key in keys.iter().filter(|key| !TABLES.contains(key) && **key != "command") {
            let of =
                if OF_COMMAND.contains(key) { "command = [\"x\"]" } else { "url = \"http://x\"" };
            let of = match *key {
                "url" | "endpoints" => "",
                "balance" => "endpoints = [\"http://x\", \"http://y\"]",
                _ => of,
            };
            // No key takes a time of day.
            let text = match *section {
                "listen.unix" if *key != "path" => {
                    format!("[listen.unix]\npath = \"/s\"\n{key} = 00:00:00\n[servers.a]\n{of}")
                }
                "servers.NAME.endpoints" if *key == "url" => {
                    "[[servers.a.endpoints]]\nurl = 00:00:00".to_owned()
                }
                "servers.NAME.endpoints" => {
                    format!("[[servers.a.endpoints]]\nurl = \"http://x\"\n{key} = 00:00:00")
                }
                "" => format!("{key} = 00:00:00\n[servers.a]\n{of}"),
                "server" => format!("[servers.a]\n{of}\n{key} = 00:00:00"),
                "servers.NAME.tools" => {
                    format!("[servers.a]\n{of}\n[servers.a.tools]\n{key} = 00:00:00")
                }
                _ => format!("[{section}]\n{key} = 00:00:00\n[servers.a]\n{of}"),
            };
            let refused = load_text(&text, false, &Overrides::default()).unwrap_err();
            let [problem] = &refused.problems[..] else { panic!("{text}: {refused:?}") };
            let said = problem.key.replace("[0]", "");
            assert_eq!(said, documented(section, key).replace("NAME", "a"));
            assert!(problem.message.ends_with("not a date or time"), "{problem}");
        }
    }
    assert!(OF_COMMAND.iter().all(|key| !OF_URL.contains(key)));
}

/// The text of the first block of that language after a heading.
#[track_caller]
fn block<'a>(heading: &str, language: &str) -> &'a str {
    let (_, section) = DOCUMENT.split_once(&format!("\n## {heading}\n")).unwrap();
    let (_, rest) = section.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

#[test]
fn the_examples_are_right() {
    let outside = Outside {
        env: &|name| match name {
            "SEARCH_TOKEN" | "GITHUB_TOKEN" => Ok(SECRET.to_owned()),
            _ => Err(VarError::NotPresent),
        },
        read: &|path| match path.to_str() {
            Some("example") => Ok(EXAMPLE.to_owned()),
            Some("toml") => Ok(block("Example", "toml").to_owned()),
            Some("json") => Ok(block("Servers from a client", "json").to_owned()),
            Some("/run/secrets/weather") => Ok(SECRET.to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        },
    };
    for source in ["example", "toml"].map(|name| Source::File(name.into())) {
        assert_eq!(load(source, &Overrides::default(), &outside).unwrap().warnings, []);
    }
    let source = Source::McpJson("json".into());
    assert_eq!(load(source, &Overrides::default(), &outside).unwrap().warnings, []);
}

#[test]
fn the_example_file_shows_the_defaults() {
    // The commented keys are the defaults; they change nothing.
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix("#= ").unwrap_or(line)))
        .collect();
    let outside = Outside {
        env: &|_| Ok("x".to_owned()),
        read: &|path| {
            Ok(if path == Path::new("as it is") { EXAMPLE } else { &uncommented }.to_owned())
        },
    };
    let load = |name: &str| {
        let source = Source::File(name.into());
        format!("{:?}", load(source, &Overrides::default(), &outside).unwrap())
    };
    assert_ne!(uncommented, EXAMPLE);
    assert_eq!(load("as it is"), load("uncommented"));
}
