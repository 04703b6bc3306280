//! The keys that are read, where each is read, and the refusal of a second one.

use super::{RpcError, Text};

/// A key that is read at some level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Version,
    Id,
    Method,
    Params,
    Result,
    Error,
    Meta,
    Name,
    Uri,
    Cursor,
    /// Not read here, but by every server.
    Arguments,
    TaskId,
    ProtocolVersion,
    ProgressToken,
    RequestId,
    MetaVersion,
    MetaCapabilities,
    MetaClientInfo,
    MetaLogLevel,
    MetaSubscription,
    Code,
}

/// An object whose keys are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Message,
    Params,
    /// `params._meta`.
    Meta,
    Result,
    /// `result._meta`.
    ResultMeta,
    Error,
}

/// The known keys that an object has shown so far.
#[derive(Debug)]
pub(super) struct Seen {
    level: Level,
    /// A bit for each key that stood there exactly.
    exact: u32,
    /// A bit for each key that stood there in another letter case.
    folded: u32,
}

impl Key {
    /// The key as it must be spelled.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Version => "jsonrpc",
            Self::Id => "id",
            Self::Method => "method",
            Self::Params => "params",
            Self::Result => "result",
            Self::Error => "error",
            Self::Meta => "_meta",
            Self::Name => "name",
            Self::Uri => "uri",
            Self::Cursor => "cursor",
            Self::Arguments => "arguments",
            Self::TaskId => "taskId",
            Self::ProtocolVersion => "protocolVersion",
            Self::ProgressToken => "progressToken",
            Self::RequestId => "requestId",
            Self::MetaVersion => "io.modelcontextprotocol/protocolVersion",
            Self::MetaCapabilities => "io.modelcontextprotocol/clientCapabilities",
            Self::MetaClientInfo => "io.modelcontextprotocol/clientInfo",
            Self::MetaLogLevel => "io.modelcontextprotocol/logLevel",
            Self::MetaSubscription => "io.modelcontextprotocol/subscriptionId",
            Self::Code => "code",
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl Level {
    /// The key that is spelled so and read here. Spelled out once more, because a match against
    /// constants costs a few instructions and a search through [`Key::name`] does not.
    #[inline(always)]
    pub(super) const fn find(self, spelling: &[u8]) -> Option<Key> {
        let key = match (self, spelling) {
            (Self::Message, b"jsonrpc") => Key::Version,
            (Self::Message, b"id") => Key::Id,
            (Self::Message, b"method") => Key::Method,
            (Self::Message, b"params") => Key::Params,
            (Self::Message, b"result") => Key::Result,
            (Self::Message, b"error") => Key::Error,
            (Self::Params | Self::Result, b"_meta") => Key::Meta,
            (Self::Params, b"name") => Key::Name,
            (Self::Params, b"uri") => Key::Uri,
            (Self::Params, b"cursor") => Key::Cursor,
            (Self::Params, b"arguments") => Key::Arguments,
            (Self::Params, b"taskId") => Key::TaskId,
            (Self::Params | Self::Result, b"protocolVersion") => Key::ProtocolVersion,
            (Self::Params | Self::Meta, b"progressToken") => Key::ProgressToken,
            (Self::Params, b"requestId") => Key::RequestId,
            (Self::Meta, b"io.modelcontextprotocol/protocolVersion") => Key::MetaVersion,
            (Self::Meta, b"io.modelcontextprotocol/clientCapabilities") => Key::MetaCapabilities,
            (Self::Meta, b"io.modelcontextprotocol/clientInfo") => Key::MetaClientInfo,
            (Self::Meta, b"io.modelcontextprotocol/logLevel") => Key::MetaLogLevel,
            (Self::Meta | Self::ResultMeta, b"io.modelcontextprotocol/subscriptionId") => {
                Key::MetaSubscription
            }
            (Self::Error, b"code") => Key::Code,
            _ => return None,
        };
        Some(key)
    }

    /// The keys that must not stand here in another letter case, at least not beside themselves:
    /// Go reads these levels into structs, whose fields match keys in any case.
    pub(super) const fn folding(self) -> &'static [Key] {
        match self {
            Self::Message => {
                &[Key::Version, Key::Id, Key::Method, Key::Params, Key::Result, Key::Error]
            }
            Self::Params => &[
                Key::Meta,
                Key::Name,
                Key::Uri,
                Key::Cursor,
                Key::Arguments,
                Key::TaskId,
                Key::ProtocolVersion,
                Key::ProgressToken,
                Key::RequestId,
            ],
            Self::Meta | Self::Result | Self::ResultMeta | Self::Error => &[],
        }
    }
}

impl Seen {
    pub(super) const fn new(level: Level) -> Self {
        Self { level, exact: 0, folded: 0 }
    }

    /// Takes note of a key; the known one that it is.
    #[inline(always)]
    pub(super) fn note(&mut self, key: Text, bytes: &[u8]) -> Result<Option<Key>, RpcError> {
        if key.has_escapes {
            return self.note_spelling(&key.decode(bytes));
        }
        self.note_spelling(key.inner.get(bytes))
    }

    #[inline(always)]
    fn note_spelling(&mut self, spelling: &[u8]) -> Result<Option<Key>, RpcError> {
        let Some(key) = self.level.find(spelling) else {
            self.fold(spelling)?;
            return Ok(None);
        };
        if self.exact & key.bit() != 0 {
            return Err(RpcError::DuplicateKey(key.name()));
        }
        if self.folded & key.bit() != 0 {
            return Err(RpcError::CaseVariant(key.name()));
        }
        self.exact |= key.bit();
        Ok(Some(key))
    }

    /// Takes note of a key that is not a known one.
    fn fold(&mut self, spelling: &[u8]) -> Result<(), RpcError> {
        let mut known = self.level.folding().iter();
        let Some(key) = known.find(|key| looks_like(spelling, key.name())) else { return Ok(()) };
        let beside_itself = (self.exact | self.folded) & key.bit() != 0;
        if self.level == Level::Message || beside_itself {
            return Err(RpcError::CaseVariant(key.name()));
        }
        self.folded |= key.bit();
        Ok(())
    }
}

/// Whether Go's `encoding/json` takes `key` for `name`: it compares under Unicode simple folding,
/// where two letters outside ASCII fold into it.
pub(crate) fn looks_like(key: &[u8], name: &str) -> bool {
    if key.len() == name.len() {
        return key.eq_ignore_ascii_case(name.as_bytes());
    }
    // Those two letters take two and three bytes.
    if key.len() < name.len() || name.len() * 3 < key.len() || key.is_ascii() {
        return false;
    }
    let fold = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        _ => letter.to_ascii_lowercase(),
    };
    let Ok(key) = core::str::from_utf8(key) else { return false };
    key.chars().map(fold).eq(name.chars().map(fold))
}
