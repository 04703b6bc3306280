//! Why bytes are not a message head, and what to answer.
//!
//! Not the text of a response: the caller writes that, and closes the connection after it.

use core::fmt;

/// Why bytes are not a head. The connection cannot be used again.
///
/// When the bytes came from an upstream, only the sentence is of use: the answer is 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// The request line is not `method SP target SP version`.
    BadRequestLine,
    /// The status line is not `version SP status [SP reason]`, or the status is not 100 to 599.
    BadStatusLine,
    /// A line does not end in exactly CR LF, or there are empty lines in front of the head.
    BadLineEnd,
    /// A field name is empty, is not a token, or has white space around it.
    BadHeaderName,
    /// A field value has a control byte in it.
    BadHeaderValue,
    /// The target is neither a path, nor an `http(s)://` URI, nor `*` for OPTIONS.
    BadTarget,
    /// `Host` is missing, repeated, malformed, or not what an absolute target says.
    BadHost,
    /// `Content-Length` is repeated or is not one decimal number.
    BadContentLength,
    /// `Transfer-Encoding` is repeated, malformed, or in a version that does not have it.
    BadTransferEncoding,
    /// `Content-Length` and `Transfer-Encoding` are both there.
    TwoLengths,
    /// A transfer coding other than `chunked`.
    UnknownTransferCoding,
    /// An expectation other than `100-continue`.
    UnknownExpectation,
    /// The target is longer than [`Limits::target_len_max`](super::Limits::target_len_max).
    TargetTooLong,
    /// The head is longer than [`Limits::head_len_max`](super::Limits::head_len_max).
    HeadTooLong,
    /// There are more than [`HEADERS_MAX`](super::HEADERS_MAX) fields.
    TooManyHeaders,
    /// A well-formed version other than HTTP/1.0 and HTTP/1.1.
    UnsupportedVersion,
}

impl HeadError {
    /// The status of the answer to a client that sent this.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequestLine
            | Self::BadStatusLine
            | Self::BadLineEnd
            | Self::BadHeaderName
            | Self::BadHeaderValue
            | Self::BadTarget
            | Self::BadHost
            | Self::BadContentLength
            | Self::BadTransferEncoding
            | Self::TwoLengths => 400,
            Self::TargetTooLong => 414,
            Self::UnknownExpectation => 417,
            Self::HeadTooLong | Self::TooManyHeaders => 431,
            Self::UnknownTransferCoding => 501,
            Self::UnsupportedVersion => 505,
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadRequestLine => {
                "send a request line of a method, a target and a version, one space between each"
            }
            Self::BadStatusLine => {
                "send a status line of a version, a status from 100 to 599 and a reason"
            }
            Self::BadLineEnd => "end every line with CR LF, and put no empty line before a head",
            Self::BadHeaderName => {
                "send field names that are tokens, without space before them or before the colon"
            }
            Self::BadHeaderValue => "send field values without control characters",
            Self::BadTarget => {
                "send a target that is a path in printable ASCII, or an absolute http URI"
            }
            Self::BadHost => "send exactly one Host field, and the same host as in the target",
            Self::BadContentLength => "send at most one Content-Length, a plain decimal number",
            Self::BadTransferEncoding => {
                "send at most one Transfer-Encoding, only chunked, and only in HTTP/1.1"
            }
            Self::TwoLengths => "send Content-Length or Transfer-Encoding, not both",
            Self::UnknownTransferCoding => "send no transfer coding but chunked",
            Self::UnknownExpectation => "send no expectation but 100-continue",
            Self::TargetTooLong => "send a shorter request target",
            Self::HeadTooLong => "send fewer or shorter header fields",
            Self::TooManyHeaders => "send fewer header fields; 100 is the most",
            Self::UnsupportedVersion => "use HTTP/1.1",
        })
    }
}

impl core::error::Error for HeadError {}
