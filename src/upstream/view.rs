//! Many servers as one: who belongs to it, and what their tools and prompts are called there.
//!
//! A name is made from the server's name, a separator and the server's own name for the thing, so
//! it does not depend on which other servers there are. Clients may refuse names of more than 64
//! characters; a longer one is cut and ends in a number that is made from the whole of it.

use std::time::Duration;

use crate::upstream::catalog::ServerId;

/// The longest name that all clients take, in characters.
const NAME_LEN_MAX: usize = 64;

/// Characters of a shortened name that its number takes, the `_` before it included.
const MARK_LEN: usize = 9;

/// Servers that clients see as one.
#[derive(Clone, Debug)]
pub struct View {
    /// The servers, in the order in which their tools are listed.
    pub members: Vec<Member>,
    /// What stands between the name of a server and that of its tool.
    pub separator: String,
    /// How long all wait for one that has not answered.
    pub timeout: Duration,
    /// Entries on one page of a list.
    pub page_len: usize,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Member {
    /// The server.
    pub server: ServerId,
    /// Its name, which its tools are prefixed with; none if they are not.
    pub prefix: Option<String>,
    /// Its name, for headings, and for names that somebody else has already.
    pub name: String,
    /// Which of its tools there are, and as what.
    pub rules: Rules,
}

/// What becomes of a server's tools.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Patterns of the tools that there are; none: all.
    pub allow: Option<Vec<String>>,
    /// Patterns of tools that there are not, whatever `allow` says.
    pub deny: Vec<String>,
    /// Other names for tools: the server's, and the client's.
    pub rename: Vec<(String, String)>,
    /// Other descriptions, by the server's name for the tool.
    pub descriptions: Vec<(String, String)>,
}

impl Rules {
    /// Whether they change nothing.
    pub fn is_empty(&self) -> bool {
        self.allow.is_none()
            && self.deny.is_empty()
            && self.rename.is_empty()
            && self.descriptions.is_empty()
    }

    /// Whether there is a tool of this name (the server's).
    pub fn admits(&self, tool: &str) -> bool {
        let is_any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, tool));
        self.allow.as_deref().is_none_or(is_any) && !is_any(&self.deny)
    }

    /// What a tool is called, by the server's name for it.
    pub fn renamed<'a>(&'a self, tool: &'a str) -> &'a str {
        self.rename.iter().find(|(from, _)| from == tool).map_or(tool, |(_, to)| to)
    }

    /// The server's name of a tool, by what clients call it. None: there is no such tool.
    pub fn original<'a>(&'a self, tool: &'a str) -> Option<&'a str> {
        let named = self.rename.iter().find(|(_, to)| to == tool).map(|(from, _)| from.as_str());
        let is_gone = || self.rename.iter().any(|(from, _)| from == tool);
        let original = match named {
            Some(original) => original,
            None if is_gone() => return None,
            None => tool,
        };
        self.admits(original).then_some(original)
    }

    /// The description that a tool gets in place of its own, by the server's name for it.
    pub fn description(&self, tool: &str) -> Option<&str> {
        self.descriptions.iter().find(|(name, _)| name == tool).map(|(_, text)| text.as_str())
    }
}

impl View {
    /// What a member's tool or prompt is called by clients. `name`: what its rules call it.
    pub fn exposed(&self, member: &Member, name: &str) -> String {
        match &member.prefix {
            Some(prefix) => shorten(format!("{prefix}{}{name}", self.separator)),
            None => shorten(name.to_owned()),
        }
    }

    /// The same with the server's name before it, whatever is configured.
    pub fn prefixed(&self, member: &Member, name: &str) -> String {
        shorten(format!("{}{}{name}", member.name, self.separator))
    }

    /// The member that a name belongs to by its prefix, and the rest of the name. Of two that fit
    /// (`a` and `a__b`), the longer prefix is meant.
    pub fn by_prefix<'n>(&self, name: &'n str) -> Option<(usize, &'n str)> {
        let rest = |member: &Member| {
            let rest = name.strip_prefix(member.prefix.as_deref()?)?;
            rest.strip_prefix(&*self.separator)
        };
        let fits = self.members.iter().enumerate();
        let fits = fits.filter_map(|(index, member)| Some((index, rest(member)?)));
        fits.min_by_key(|(_, rest)| rest.len())
    }

    /// Whether more than one member has a prefix that fits the name.
    pub fn is_ambiguous(&self, name: &str) -> bool {
        let fits = |member: &&Member| {
            let rest = member.prefix.as_deref().and_then(|prefix| name.strip_prefix(prefix));
            rest.is_some_and(|rest| rest.starts_with(&*self.separator))
        };
        1 < self.members.iter().filter(fits).count()
    }
}

/// A name that clients take.
pub fn shorten(name: String) -> String {
    if name.chars().count() <= NAME_LEN_MAX {
        return name;
    }
    let kept: String = name.chars().take(NAME_LEN_MAX - MARK_LEN).collect();
    // FNV-1a: the same today and tomorrow, on every machine.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{kept}_{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff))
}

/// Whether a name may have been shortened: it does not say then what it was before.
pub fn is_shortened(name: &str) -> bool {
    let is_mark = |mark: &str| {
        mark.strip_prefix('_').is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let mark = name.len().checked_sub(MARK_LEN).and_then(|at| name.get(at..));
    name.chars().count() == NAME_LEN_MAX && mark.is_some_and(is_mark)
}

/// Whether a text fits a pattern, in which `*` is any number of characters and `?` is one.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    // A character is its first byte and those that continue it.
    let is_inside = |at: usize| text.get(at).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000);
    let behind = |at: usize| (at + 1..).find(|at| !is_inside(*at)).unwrap_or(at + 1);
    let (mut at, mut from) = (0, 0);
    // Where to go on if the last `*` has to take one character more.
    let mut back = None;
    while let Some(&byte) = text.get(from) {
        match pattern.get(at) {
            Some(b'*') => {
                back = Some((at + 1, from));
                at += 1;
            }
            Some(b'?') => (at, from) = (at + 1, behind(from)),
            Some(&wanted) if wanted == byte => (at, from) = (at + 1, from + 1),
            _ => {
                let Some((star, taken)) = back else { return false };
                back = Some((star, behind(taken)));
                (at, from) = (star, behind(taken));
            }
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(names: &[(&str, bool)]) -> View {
        let member = |(index, (name, is_prefixed)): (usize, &(&str, bool))| Member {
            server: ServerId(u16::try_from(index).unwrap()),
            prefix: is_prefixed.then(|| (*name).to_owned()),
            name: (*name).to_owned(),
            rules: Rules::default(),
        };
        View {
            members: names.iter().enumerate().map(member).collect(),
            separator: "__".to_owned(),
            timeout: Duration::from_secs(1),
            page_len: 100,
        }
    }

    #[test]
    fn names_lead_back_to_their_servers() {
        let view = view(&[("a", true), ("a__b", true), ("c", false)]);
        assert_eq!(view.exposed(&view.members[0], "x"), "a__x");
        assert_eq!(view.by_prefix("a__x"), Some((0, "x")));
        assert_eq!(view.by_prefix("a__b__x"), Some((1, "x")));
        assert_eq!(view.exposed(&view.members[2], "x"), "x");
        assert_eq!(view.prefixed(&view.members[2], "x"), "c__x");
        assert_eq!(view.by_prefix("c__x"), None, "it has no prefix");
        assert_eq!(view.by_prefix("a__"), Some((0, "")));
        assert_eq!(view.by_prefix("a_x"), None);
    }

    #[test]
    fn long_names_are_shortened_alike_every_time() {
        let view = view(&[("server", true)]);
        let short = view.exposed(&view.members[0], &"t".repeat(56));
        assert_eq!(short.len(), 64);
        assert!(!is_shortened(&short), "it fits as it is");
        let long = view.exposed(&view.members[0], &"t".repeat(57));
        let other = view.exposed(&view.members[0], &format!("{}u", "t".repeat(56)));
        assert_eq!((long.len(), other.len()), (64, 64));
        assert_ne!(long, other, "the number is made from the whole name");
        assert!(is_shortened(&long) && is_shortened(&other));
        assert_eq!(long, format!("server__{}_a007609a", "t".repeat(47)), "for ever");
        let wide = shorten("ü".repeat(65));
        assert_eq!(wide.chars().count(), 64);
    }

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("read_*", "read_file", true),
            ("read_*", "read_", true),
            ("read_*", "write_file", false),
            ("*_file", "read_file", true),
            ("*_file", "read_files", false),
            ("r?ad", "read", true),
            ("r?ad", "rad", false),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("**x**", "yxy", true),
            ("?ber*", "\u{fc}ber alles", true),
            ("*?", "\u{fc}", true),
            ("??", "\u{fc}", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_hidden_cannot_be_named() {
        let rules = Rules {
            allow: Some(vec!["read_*".to_owned(), "list".to_owned()]),
            deny: vec!["read_secret".to_owned()],
            rename: vec![("list".to_owned(), "ls".to_owned())],
            descriptions: Vec::new(),
        };
        assert_eq!(rules.original("read_file"), Some("read_file"));
        assert_eq!(rules.original("read_secret"), None);
        assert_eq!(rules.original("write"), None);
        assert_eq!(rules.original("ls"), Some("list"));
        assert_eq!(rules.original("list"), None, "it is called otherwise now");
        assert_eq!(rules.renamed("list"), "ls");
    }
}
