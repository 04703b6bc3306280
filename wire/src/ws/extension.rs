//! Agreeing on compression (RFC 7692 §7.1): offers, answers, and what they come to.
//!
//! Not compression itself. An offer with anything in it that is not defined, or that we cannot
//! keep, is passed over for the next one; an answer like that is an error.

use super::frame::Role;
use crate::http1::is_token;
use alloc::string::String;
use core::fmt::Write as _;

const NAME: &[u8] = b"permessage-deflate";

/// The window of DEFLATE, and of a side that has not promised a smaller one.
const WINDOW_BITS_MAX: u8 = 15;

/// How one side compresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeflateSide {
    /// Whether it forgets everything after each message. That compresses worse, and makes an
    /// idle connection cheap.
    pub no_context_takeover: bool,
    /// It refers back by at most 2 to the power of this many bytes: 8 to 15.
    pub window_bits: u8,
}

/// How both sides compress: what is wanted, or what was agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeflateParams {
    /// How the server compresses.
    pub server: DeflateSide,
    /// How the client compresses.
    pub client: DeflateSide,
}

impl DeflateParams {
    /// Nothing is kept between messages, so that idle connections are cheap.
    pub const WITHOUT_CONTEXT: Self = Self::both(true);

    /// Everything DEFLATE can do.
    pub const WITH_CONTEXT: Self = Self::both(false);

    const fn both(no_context_takeover: bool) -> Self {
        let side = DeflateSide { no_context_takeover, window_bits: WINDOW_BITS_MAX };
        Self { server: side, client: side }
    }

    /// How the end that is `role` compresses.
    pub const fn own(&self, role: Role) -> DeflateSide {
        match role {
            Role::Server => self.server,
            Role::Client => self.client,
        }
    }

    /// How the other end compresses.
    pub const fn peer(&self, role: Role) -> DeflateSide {
        match role {
            Role::Server => self.client,
            Role::Client => self.server,
        }
    }
}

/// The parameters of one `permessage-deflate` element, as written.
#[derive(Clone, Copy, Debug, Default)]
struct Element {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    /// Some of `None` if it has no value.
    client_max_window_bits: Option<Option<u8>>,
}

/// A server's choice among the offers in the `Sec-WebSocket-Extensions` fields: what it comes to,
/// and the value of the answer's field. `None` is no compression.
pub(super) fn choose<'a>(
    values: impl Iterator<Item = &'a [u8]>,
    wanted: DeflateParams,
) -> Option<(DeflateParams, String)> {
    values.flat_map(|value| split(value, b',')).find_map(|element| {
        let offer = Element::parse(element)?;
        let params = offer.agree(wanted)?;
        Some((params, offer.answer(params)))
    })
}

/// The value of a client's `Sec-WebSocket-Extensions` field.
pub(super) fn offer(wanted: DeflateParams) -> String {
    let mut out = String::new();
    write_params(&mut out, wanted, wanted.server.window_bits < WINDOW_BITS_MAX);
    // RFC 7692 §7.1.2.2: without a value, it says that the server may name any.
    if wanted.client.window_bits == WINDOW_BITS_MAX {
        out.push_str("; client_max_window_bits");
    }
    out
}

/// What a client makes of an element of the answer to its [`offer`] of `wanted`.
pub(super) fn accept(element: &[u8], wanted: DeflateParams) -> Option<DeflateParams> {
    Element::parse(element)?.fulfil(wanted)
}

impl Element {
    fn parse(element: &[u8]) -> Option<Self> {
        let mut parts = split(element, b';');
        if !parts.next()?.eq_ignore_ascii_case(NAME) {
            return None;
        }
        let mut parsed = Self::default();
        for part in parts {
            let (name, value) = match memchr::memchr(b'=', part) {
                Some(at) => {
                    let (name, value) = part.split_at_checked(at)?;
                    (name.trim_ascii_end(), Some(unquote(value.get(1..)?.trim_ascii_start())?))
                }
                None => (part, None),
            };
            let is_new = match (name, value) {
                (b"server_no_context_takeover", None) => {
                    !core::mem::replace(&mut parsed.server_no_context_takeover, true)
                }
                (b"client_no_context_takeover", None) => {
                    !core::mem::replace(&mut parsed.client_no_context_takeover, true)
                }
                (b"server_max_window_bits", Some(value)) => {
                    parsed.server_max_window_bits.replace(window_bits(value)?).is_none()
                }
                (b"client_max_window_bits", value) => {
                    let bits = match value {
                        Some(value) => Some(window_bits(value)?),
                        None => None,
                    };
                    parsed.client_max_window_bits.replace(bits).is_none()
                }
                _ => false,
            };
            if !is_new {
                return None;
            }
        }
        Some(parsed)
    }

    /// What a server makes of this offer.
    fn agree(&self, wanted: DeflateParams) -> Option<DeflateParams> {
        let server_bits = self.server_max_window_bits.unwrap_or(WINDOW_BITS_MAX);
        let server_bits = server_bits.min(wanted.server.window_bits);
        // RFC 7692 §7.1.2.2: a client that does not mention it cannot be asked to.
        let client_bits = match self.client_max_window_bits {
            Some(bits) => bits.unwrap_or(WINDOW_BITS_MAX).min(wanted.client.window_bits),
            None => WINDOW_BITS_MAX,
        };
        Some(DeflateParams {
            server: DeflateSide {
                no_context_takeover: self.server_no_context_takeover
                    || wanted.server.no_context_takeover,
                window_bits: server_bits,
            },
            client: DeflateSide {
                no_context_takeover: self.client_no_context_takeover
                    || wanted.client.no_context_takeover,
                window_bits: client_bits,
            },
        })
    }

    /// RFC 7692 §7.1.2.1: an offer of a window is accepted by naming one, even the largest.
    fn answer(&self, params: DeflateParams) -> String {
        let mut out = String::new();
        let has_server_bits =
            self.server_max_window_bits.is_some() || params.server.window_bits < WINDOW_BITS_MAX;
        write_params(&mut out, params, has_server_bits);
        out
    }

    /// What a client makes of this answer to its offer of `wanted`.
    fn fulfil(&self, wanted: DeflateParams) -> Option<DeflateParams> {
        let server_bits = self.server_max_window_bits.unwrap_or(WINDOW_BITS_MAX);
        let is_server_kept = server_bits <= wanted.server.window_bits
            && (self.server_no_context_takeover || !wanted.server.no_context_takeover);
        let wanted_bits = wanted.client.window_bits;
        let client_bits = match self.client_max_window_bits {
            // No more than was offered.
            Some(Some(bits)) if bits <= wanted_bits => bits,
            Some(_) => return None,
            None => wanted_bits,
        };
        is_server_kept.then_some(DeflateParams {
            server: DeflateSide {
                no_context_takeover: self.server_no_context_takeover,
                window_bits: server_bits,
            },
            client: DeflateSide {
                no_context_takeover: self.client_no_context_takeover
                    || wanted.client.no_context_takeover,
                window_bits: client_bits,
            },
        })
    }
}

fn write_params(out: &mut String, params: DeflateParams, has_server_bits: bool) {
    out.push_str("permessage-deflate");
    if params.server.no_context_takeover {
        out.push_str("; server_no_context_takeover");
    }
    if params.client.no_context_takeover {
        out.push_str("; client_no_context_takeover");
    }
    // Writing to a string cannot fail.
    if has_server_bits {
        let _ = write!(out, "; server_max_window_bits={}", params.server.window_bits);
    }
    if params.client.window_bits < WINDOW_BITS_MAX {
        let _ = write!(out, "; client_max_window_bits={}", params.client.window_bits);
    }
}

/// The parts of a list, without the white space around them and without empty ones. A separator
/// inside quotes is none.
pub(super) fn split(list: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    let mut is_escaped = false;
    let parts = list.split(move |&byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            _ => {}
        }
        byte == separator && !is_quoted
    });
    parts.map(<[u8]>::trim_ascii).filter(|part| !part.is_empty())
}

/// A value, which may be quoted and then must still be a token (RFC 6455 §9.1).
fn unquote(value: &[u8]) -> Option<&[u8]> {
    let value = match value {
        [b'"', value @ .., b'"'] => value,
        _ => value,
    };
    is_token(value).then_some(value)
}

/// RFC 7692 §7.1.2: 8 to 15, without zeros in front.
const fn window_bits(value: &[u8]) -> Option<u8> {
    match *value {
        [digit @ (b'8' | b'9')] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}
