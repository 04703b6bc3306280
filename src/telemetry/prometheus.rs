//! The Prometheus text format, version 0.0.4.

use std::fmt::Write as _;

/// What the answer's `Content-Type` is.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of metrics being written.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

/// What a metric is called and means. Names are literals of ours: they are not escaped.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its exported name.
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// One sentence.
    pub help: &'static str,
}

impl Page {
    /// Adds a metric that has one value.
    pub fn add(&mut self, metric: Metric, value: u64) {
        self.add_labelled(metric, &[], value);
    }

    /// Adds a metric that has one value, with labels. Label values may be any text.
    pub fn add_labelled(&mut self, metric: Metric, labels: &[(&'static str, &str)], value: u64) {
        let Metric { name, kind, help } = metric;
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        push_escaped(&mut self.text, help.trim(), Place::Help);
        self.push(format_args!("\n# TYPE {name} {kind}\n{name}"));
        for (index, (label, text)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            self.push(format_args!("{before}{label}=\""));
            push_escaped(&mut self.text, text, Place::Label);
            self.text.push('"');
        }
        let after = if labels.is_empty() { "" } else { "}" };
        self.push(format_args!("{after} {value}\n"));
    }

    /// The whole page.
    pub fn into_text(self) -> String {
        self.text
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing into a string cannot fail.
        self.text.write_fmt(text).unwrap_or_default();
    }
}

/// Where text stands: quotes are escaped in label values only.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Help,
    Label,
}

fn push_escaped(out: &mut String, text: &str, place: Place) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if place == Place::Label => out.push_str("\\\""),
            _ => out.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"# HELP mcp_things_total Things, with a \\ and\na "line".
# TYPE mcp_things_total counter
mcp_things_total 18446744073709551615
# HELP mcp_build_info The build.
# TYPE mcp_build_info gauge
mcp_build_info{version="1.0",engine="a\"b\\c\nd"} 1
"#;

    #[test]
    fn the_page_is_what_the_format_says() {
        let mut page = Page::default();
        let help = " Things, with a \\ and\na \"line\".";
        let things = Metric { name: "mcp_things_total", kind: "counter", help };
        page.add(things, u64::MAX);
        let build = Metric { name: "mcp_build_info", kind: "gauge", help: "The build." };
        page.add_labelled(build, &[("version", "1.0"), ("engine", "a\"b\\c\nd")], 1);
        assert_eq!(page.into_text(), PAGE);
    }

    #[test]
    fn every_counter_has_a_name_of_its_own() {
        let counters = crate::telemetry::counters::Counters::default();
        let mut names: Vec<_> = counters.list().iter().map(|row| row.0).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
