//! Version 1 of the TCP binary protocol on a client's connection: frames are put together, and how
//! far the conversation has come (docs/protocol.md).

use wire::Decoded;
use wire::binary::v1::{Dialect, Frame, FrameError, Header, Kind};

/// Bytes to frames.
#[derive(Debug, Default)]
pub struct FrameReader {
    /// A frame that is not complete.
    kept: Vec<u8>,
    /// What the client began with.
    dialect: Option<Dialect>,
}

/// One frame, and how many bytes of the input behind it were used.
#[derive(Debug)]
pub enum Read {
    /// A frame; its payload was copied only if it came in pieces.
    Frame(Dialect, Kind, Vec<u8>),
    /// All is read, and no frame is complete.
    More,
}

/// How far the conversation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The client has to offer versions first.
    Negotiation,
    /// The 12-byte dialect: the client has to say who it is, by `initialize` with a token.
    Authorization,
    /// Requests are served.
    Open,
}

impl FrameReader {
    /// Reads a frame of up to `len_max` bytes of payload from the front of `input`, and leaves
    /// what it has not read. After an error nothing behind it has a meaning.
    pub fn next(&mut self, input: &mut &[u8], len_max: usize) -> Result<Read, FrameError> {
        loop {
            if self.kept.is_empty() {
                return match Frame::decode(input, self.dialect)? {
                    Decoded::Item { item, used } => {
                        let (dialect, kind) = (item.dialect, item.kind);
                        check_len(item.payload.len(), len_max)?;
                        let payload = item.payload.to_vec();
                        *input = input.get(used..).unwrap_or_default();
                        self.dialect = Some(dialect);
                        Ok(Read::Frame(dialect, kind, payload))
                    }
                    Decoded::Incomplete => {
                        self.keep(input, len_max)?;
                        Ok(Read::More)
                    }
                };
            }
            let Some(wanted) = self.wanted(len_max)? else {
                // The header first, byte by byte: it is refused as early as it can be.
                let Some((byte, rest)) = input.split_first() else { return Ok(Read::More) };
                self.kept.push(*byte);
                *input = rest;
                continue;
            };
            let missing = wanted.saturating_sub(self.kept.len());
            let (part, rest) = input.split_at_checked(missing).unwrap_or((input, &[]));
            self.kept.extend_from_slice(part);
            *input = rest;
            if self.kept.len() < wanted {
                return Ok(Read::More);
            }
            let kept = std::mem::take(&mut self.kept);
            if let Decoded::Item { item, .. } = Frame::decode(&kept, self.dialect)? {
                self.dialect = Some(item.dialect);
                return Ok(Read::Frame(item.dialect, item.kind, item.payload.to_vec()));
            }
        }
    }

    /// Bytes of a frame that is not complete.
    pub fn kept_len(&self) -> usize {
        self.kept.len()
    }

    /// Bytes of the frame that is being put together, once its header is complete.
    fn wanted(&self, len_max: usize) -> Result<Option<usize>, FrameError> {
        match Header::decode(&self.kept, self.dialect)? {
            Decoded::Incomplete => Ok(None),
            Decoded::Item { item, used } => {
                let payload_len = usize::try_from(item.payload_len).unwrap_or(usize::MAX);
                check_len(payload_len, len_max)?;
                Ok(Some(used + payload_len))
            }
        }
    }

    /// Keeps the front of a frame, unless its header says already that it must be refused.
    fn keep(&mut self, input: &mut &[u8], len_max: usize) -> Result<(), FrameError> {
        if input.is_empty() {
            return Ok(());
        }
        if let Decoded::Item { item, .. } = Header::decode(input, self.dialect)? {
            check_len(usize::try_from(item.payload_len).unwrap_or(usize::MAX), len_max)?;
        }
        self.kept.extend_from_slice(input);
        *input = &[];
        Ok(())
    }
}

fn check_len(len: usize, len_max: usize) -> Result<(), FrameError> {
    match u32::try_from(len) {
        Ok(_) if len <= len_max => Ok(()),
        Ok(len) => Err(FrameError::PayloadTooLong(len)),
        Err(_) => Err(FrameError::PayloadTooLong(u32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use wire::binary::v1::write_frame;

    use super::*;

    fn read(bytes: &[u8], step: usize) -> Result<Vec<(Kind, Vec<u8>)>, FrameError> {
        let mut reader = FrameReader::default();
        let mut frames = Vec::new();
        for mut piece in bytes.chunks(step) {
            while let Read::Frame(_, kind, payload) = reader.next(&mut piece, 1000)? {
                frames.push((kind, payload));
            }
            assert!(piece.is_empty());
        }
        assert_eq!(reader.kept_len(), 0);
        Ok(frames)
    }

    #[test]
    fn frames_come_out_wherever_the_input_is_cut() {
        for dialect in [Dialect::Short, Dialect::Long] {
            let mut bytes = Vec::new();
            write_frame(&mut bytes, dialect, Kind::Request, b"{}");
            write_frame(&mut bytes, dialect, Kind::HealthCheck, b"");
            write_frame(&mut bytes, dialect, Kind::Control, &[b'x'; 300]);
            let whole = read(&bytes, bytes.len()).unwrap();
            assert_eq!(whole.len(), 3);
            for step in 1..40 {
                assert_eq!(read(&bytes, step).unwrap(), whole, "{dialect:?} {step}");
            }
        }
    }

    #[test]
    fn what_must_be_refused_is_refused_from_the_header() {
        let mut long = Vec::new();
        write_frame(&mut long, Dialect::Short, Kind::Request, &[b'x'; 1001]);
        let header = &long[..12];
        for step in [1, 5, 12] {
            assert_eq!(read(header, step), Err(FrameError::PayloadTooLong(1001)));
            assert_eq!(read(b"HTTP", step), Err(FrameError::BadMagic));
        }
        let mut mixed = Vec::new();
        write_frame(&mut mixed, Dialect::Short, Kind::Control, b"");
        write_frame(&mut mixed, Dialect::Long, Kind::Control, b"");
        assert_eq!(read(&mixed, 7), Err(FrameError::BadMagic), "nobody changes dialects");
    }
}
