//! The walk over a message that fills its [`Envelope`].
//!
//! Four levels are read: the message, `params`, `params._meta`, and `result` (with its `_meta`) or
//! `error`. Everything below is stepped over by the same cursor.

use super::key::{Key, Level, Seen};
use super::{Envelope, Kind, Limits, RpcError, Span, Text};
use crate::json::Cursor;

const NOTHING: Envelope = Envelope {
    kind: Kind::Notification,
    id: None,
    method: None,
    params: None,
    name: None,
    uri: None,
    cursor: None,
    task_id: None,
    protocol_version: None,
    progress_token: None,
    notified_token: None,
    request_id: None,
    meta_version: None,
    meta_capabilities: None,
    meta_client_info: None,
    meta_log_level: None,
    subscription_id: None,
    result: None,
    error: None,
    error_code: None,
    result_version: None,
    has_line_breaks: false,
};

/// Reads one message.
pub fn scan(bytes: &[u8], limits: Limits) -> Result<Envelope, RpcError> {
    if limits.len_max < bytes.len() {
        return Err(RpcError::TooLong { len: bytes.len(), len_max: limits.len_max });
    }
    let cursor = Cursor::new(bytes, limits.depth_max)?;
    let mut scanner = Scanner { bytes, cursor, envelope: NOTHING, has_version: false };
    scanner.message()?;
    scanner.cursor.finish()?;
    if !scanner.has_version {
        return Err(RpcError::BadVersion);
    }
    let mut envelope = scanner.envelope;
    envelope.kind = classify(bytes, &envelope)?;
    envelope.has_line_breaks = scanner.cursor.has_line_breaks();
    Ok(envelope)
}

/// What a message is, by the members it has.
fn classify(bytes: &[u8], envelope: &Envelope) -> Result<Kind, RpcError> {
    let null_id = envelope.id.is_some_and(|id| id.get(bytes) == b"null");
    match (envelope.method, envelope.result, envelope.error) {
        (Some(_), None, None) if envelope.id.is_none() => Ok(Kind::Notification),
        (None, Some(_), None) if envelope.id.is_none() => Err(RpcError::ResultWithoutId),
        (Some(_), None, None) | (None, Some(_), None) if null_id => Err(RpcError::NullId),
        (Some(_), None, None) => Ok(Kind::Request),
        (None, Some(_), None) => Ok(Kind::Response),
        // Since 2025-11-25 an error need not have an id; before, peers send `null` for none.
        (None, None, Some(_)) => Ok(Kind::ErrorResponse),
        (Some(_), ..) => Err(RpcError::MethodAndAnswer),
        (None, Some(_), Some(_)) => Err(RpcError::ResultAndError),
        (None, None, None) => Err(RpcError::Shapeless),
    }
}

struct Scanner<'a> {
    bytes: &'a [u8],
    cursor: Cursor<'a>,
    envelope: Envelope,
    has_version: bool,
}

impl Scanner<'_> {
    fn message(&mut self) -> Result<(), RpcError> {
        if self.cursor.peek() != Some(b'{') {
            self.cursor.value()?;
            self.cursor.finish()?;
            return Err(RpcError::NotAnObject);
        }
        self.cursor.enter_object()?;
        let mut seen = Seen::new(Level::Message);
        while let Some(key) = self.cursor.next_key()? {
            match seen.note(key, self.bytes)? {
                Some(Key::Version) => self.version()?,
                Some(Key::Id) => self.envelope.id = Some(self.id()?),
                Some(Key::Method) => {
                    let method = self.string()?.ok_or(RpcError::BadMethod)?;
                    self.envelope.method = Some(method);
                }
                Some(Key::Params) => self.envelope.params = Some(self.params()?),
                Some(Key::Result) => self.envelope.result = Some(self.result()?),
                Some(Key::Error) => self.envelope.error = Some(self.error()?),
                _ => {
                    self.cursor.value()?;
                }
            }
        }
        Ok(())
    }

    fn version(&mut self) -> Result<(), RpcError> {
        let version = self.string()?.ok_or(RpcError::BadVersion)?;
        if !version.eq(self.bytes, "2.0") {
            return Err(RpcError::BadVersion);
        }
        self.has_version = true;
        Ok(())
    }

    fn id(&mut self) -> Result<Span, RpcError> {
        let id = self.cursor.value()?;
        let token = id.get(self.bytes);
        if is_string_or_integer(token) || token == b"null" {
            return Ok(id);
        }
        Err(RpcError::BadId)
    }

    fn params(&mut self) -> Result<Span, RpcError> {
        let Some(start) = self.enter()? else {
            self.cursor.value()?;
            return Err(RpcError::BadParams);
        };
        let mut seen = Seen::new(Level::Params);
        while let Some(key) = self.cursor.next_key()? {
            match seen.note(key, self.bytes)? {
                Some(Key::Meta) => self.meta()?,
                Some(Key::Name) => self.envelope.name = self.string()?,
                Some(Key::Uri) => self.envelope.uri = self.string()?,
                Some(Key::Cursor) => self.envelope.cursor = self.string()?,
                Some(Key::TaskId) => self.envelope.task_id = self.string()?,
                Some(Key::ProtocolVersion) => self.envelope.protocol_version = self.string()?,
                Some(Key::ProgressToken) => {
                    self.envelope.notified_token = Some(self.token("params.progressToken")?);
                }
                Some(Key::RequestId) => {
                    self.envelope.request_id = Some(self.token("params.requestId")?);
                }
                _ => {
                    self.cursor.value()?;
                }
            }
        }
        Ok(Span::new(start, self.cursor.offset()))
    }

    /// Reads `params._meta`. What is not an object has no facts, and its server will say so.
    fn meta(&mut self) -> Result<(), RpcError> {
        if self.enter()?.is_none() {
            self.cursor.value()?;
            return Ok(());
        }
        let mut seen = Seen::new(Level::Meta);
        while let Some(key) = self.cursor.next_key()? {
            match seen.note(key, self.bytes)? {
                Some(Key::ProgressToken) => {
                    self.envelope.progress_token = Some(self.token("_meta.progressToken")?);
                }
                Some(Key::MetaVersion) => {
                    // Read as absent it would make a modern message a legacy one.
                    let err = RpcError::BadMetaString(Key::MetaVersion.name());
                    self.envelope.meta_version = Some(self.string()?.ok_or(err)?);
                }
                Some(Key::MetaCapabilities) => {
                    self.envelope.meta_capabilities = Some(self.cursor.value()?);
                }
                Some(Key::MetaClientInfo) => {
                    self.envelope.meta_client_info = Some(self.cursor.value()?);
                }
                Some(Key::MetaLogLevel) => {
                    self.envelope.meta_log_level = Some(self.cursor.value()?);
                }
                Some(Key::MetaSubscription) => {
                    self.envelope.subscription_id = Some(self.cursor.value()?);
                }
                _ => {
                    self.cursor.value()?;
                }
            }
        }
        Ok(())
    }

    fn result(&mut self) -> Result<Span, RpcError> {
        let Some(start) = self.enter()? else { return Ok(self.cursor.value()?) };
        let mut seen = Seen::new(Level::Result);
        while let Some(key) = self.cursor.next_key()? {
            match seen.note(key, self.bytes)? {
                Some(Key::Meta) => self.result_meta()?,
                Some(Key::ProtocolVersion) => self.envelope.result_version = self.string()?,
                _ => {
                    self.cursor.value()?;
                }
            }
        }
        Ok(Span::new(start, self.cursor.offset()))
    }

    fn result_meta(&mut self) -> Result<(), RpcError> {
        if self.enter()?.is_none() {
            self.cursor.value()?;
            return Ok(());
        }
        let mut seen = Seen::new(Level::ResultMeta);
        while let Some(key) = self.cursor.next_key()? {
            let known = seen.note(key, self.bytes)?;
            let value = self.cursor.value()?;
            if known.is_some() {
                self.envelope.subscription_id = Some(value);
            }
        }
        Ok(())
    }

    fn error(&mut self) -> Result<Span, RpcError> {
        let Some(start) = self.enter()? else { return Ok(self.cursor.value()?) };
        let mut seen = Seen::new(Level::Error);
        while let Some(key) = self.cursor.next_key()? {
            let known = seen.note(key, self.bytes)?;
            let value = self.cursor.value()?;
            if known.is_some() {
                let digits = core::str::from_utf8(value.get(self.bytes)).ok();
                self.envelope.error_code = digits.and_then(|digits| digits.parse().ok());
            }
        }
        Ok(Span::new(start, self.cursor.offset()))
    }

    /// Goes into the object that starts here and says where it starts; stays before what is none.
    fn enter(&mut self) -> Result<Option<usize>, RpcError> {
        if self.cursor.peek() != Some(b'{') {
            return Ok(None);
        }
        let start = self.cursor.offset();
        self.cursor.enter_object()?;
        Ok(Some(start))
    }

    /// Reads a value that should be a string; steps over another.
    #[inline(always)]
    fn string(&mut self) -> Result<Option<Text>, RpcError> {
        if self.cursor.peek() == Some(b'"') {
            return Ok(Some(self.cursor.text()?));
        }
        self.cursor.value()?;
        Ok(None)
    }

    /// Reads a value that must be a string or an integer.
    fn token(&mut self, key: &'static str) -> Result<Span, RpcError> {
        let value = self.cursor.value()?;
        if is_string_or_integer(value.get(self.bytes)) {
            return Ok(value);
        }
        Err(RpcError::BadToken(key))
    }
}

/// Whether a valid token is a string, or a number with neither fraction nor exponent.
fn is_string_or_integer(token: &[u8]) -> bool {
    match token {
        [b'"', ..] => true,
        [b'-', digits @ ..] | digits => digits.iter().all(u8::is_ascii_digit),
    }
}
