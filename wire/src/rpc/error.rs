//! Why a document is not a message, and the JSON-RPC code that says so.

use crate::json::JsonError;
use core::fmt;

/// Why bytes are not a message. None of them says anything about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RpcError {
    /// Not JSON, or nested too deeply.
    Json(JsonError),
    /// Longer than the reader's limit.
    TooLong {
        /// Bytes in the document.
        len: usize,
        /// Bytes allowed.
        len_max: usize,
    },
    /// JSON, but no object.
    NotAnObject,
    /// An array with nothing in it.
    EmptyBatch,
    /// A key that is read stands twice in its object.
    DuplicateKey(&'static str),
    /// A key differs from this one only in letter case, where some servers would read it.
    CaseVariant(&'static str),
    /// No `jsonrpc`, or not the string `2.0`.
    BadVersion,
    /// The id is no string and no integer.
    BadId,
    /// The id is `null` in something other than an error response.
    NullId,
    /// A result without an id.
    ResultWithoutId,
    /// The method is not a string.
    BadMethod,
    /// `params` is not an object.
    BadParams,
    /// A result and an error.
    ResultAndError,
    /// A method, and a result or an error.
    MethodAndAnswer,
    /// No method, no result and no error.
    Shapeless,
    /// This member of `params` or its `_meta` is no string and no integer.
    BadToken(&'static str),
    /// This member of `params._meta` is not a string.
    BadMetaString(&'static str),
}

impl RpcError {
    /// The JSON-RPC error code for the answer.
    pub const fn code(self) -> i32 {
        match self {
            Self::Json(_) | Self::TooLong { .. } => -32700,
            Self::NotAnObject
            | Self::EmptyBatch
            | Self::DuplicateKey(_)
            | Self::CaseVariant(_)
            | Self::BadVersion
            | Self::BadId
            | Self::NullId
            | Self::ResultWithoutId
            | Self::BadMethod
            | Self::ResultAndError
            | Self::MethodAndAnswer
            | Self::Shapeless => -32600,
            Self::BadParams | Self::BadToken(_) | Self::BadMetaString(_) => -32602,
        }
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fixed = match self {
            Self::Json(err) => return write!(f, "send valid JSON: {err}"),
            Self::TooLong { len, len_max } => {
                return write!(f, "send at most {len_max} bytes; this message has {len}");
            }
            Self::DuplicateKey(key) => return write!(f, "send the key `{key}` only once"),
            Self::CaseVariant(key) => {
                return write!(f, "spell the key `{key}` exactly so, and send it once");
            }
            Self::BadToken(key) => return write!(f, "make `{key}` a string or an integer"),
            Self::BadMetaString(key) => return write!(f, "make `_meta[\"{key}\"]` a string"),
            Self::NotAnObject => "send a JSON object",
            Self::EmptyBatch => "put at least one message into the batch",
            Self::BadVersion => "set `jsonrpc` to the string \"2.0\"",
            Self::BadId => "make `id` a string or an integer",
            Self::NullId => "give `id` a string or an integer; `null` is for error responses only",
            Self::ResultWithoutId => "repeat the request's `id` beside `result`",
            Self::BadMethod => "make `method` a string",
            Self::BadParams => "make `params` an object, or leave it out",
            Self::ResultAndError => "send `result` or `error`, not both",
            Self::MethodAndAnswer => "send `method`, or `result` or `error`, not both",
            Self::Shapeless => "send `method`, `result` or `error`",
        };
        f.write_str(fixed)
    }
}

impl core::error::Error for RpcError {}

impl From<JsonError> for RpcError {
    fn from(err: JsonError) -> Self {
        Self::Json(err)
    }
}
