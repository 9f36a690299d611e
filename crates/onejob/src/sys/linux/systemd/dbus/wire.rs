//! D-Bus messages as bytes: little-endian, each value aligned to its size.

use super::{Failure, Result};

// Kinds of messages, and the fields of their headers.
pub(super) const CALL: u8 = 1;
pub(super) const RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;
pub(super) const PATH: u8 = 1;
pub(super) const INTERFACE: u8 = 2;
pub(super) const MEMBER: u8 = 3;
pub(super) const ERROR_NAME: u8 = 4;
pub(super) const REPLY_SERIAL: u8 = 5;
pub(super) const DESTINATION: u8 = 6;
pub(super) const SIGNATURE: u8 = 8;

/// One that came.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) member: String,
    pub(super) error: String,
    pub(super) signature: String,
    pub(super) reply_to: u32,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// `fields` is the length of the header's array, `start` where the body begins.
    pub(super) fn parse(whole: &[u8], fields: usize, start: usize) -> Result<Message> {
        let mut message = Message {
            kind: *whole.get(1).unwrap_or(&0),
            body: whole.get(start..).unwrap_or(&[]).to_vec(),
            ..Message::default()
        };
        // Read as a whole, for alignment counts from the beginning.
        let end = 16 + fields;
        let mut reader = Reader { bytes: whole.get(..end).unwrap_or(&[]), at: 16 };
        while reader.at < end {
            reader.align(8);
            if reader.at >= end {
                break;
            }
            let code = reader.byte()?;
            match (code, reader.signature()?) {
                (_, "u") => {
                    let number = reader.u32()?;
                    if code == REPLY_SERIAL {
                        message.reply_to = number;
                    }
                }
                (_, "g") => {
                    let signature = reader.signature()?.to_owned();
                    if code == SIGNATURE {
                        message.signature = signature;
                    }
                }
                (_, "s" | "o") => {
                    let text = reader.text()?.to_owned();
                    match code {
                        MEMBER => message.member = text,
                        ERROR_NAME => message.error = text,
                        _ => {}
                    }
                }
                _ => return Err(Failure::Nonsense("an unknown header")),
            }
        }
        Ok(message)
    }

    pub(super) fn refusal(&self) -> Failure {
        // For one line of an error message.
        const MAX_CHARS: usize = 300;
        let words = match self.signature.starts_with('s') {
            true => Reader::new(&self.body).text().unwrap_or_default(),
            false => "",
        };
        let words = if words.is_empty() { &self.error } else { words };
        Failure::Refused(words.chars().take(MAX_CHARS).collect())
    }
}

/// Marshalled values: each is aligned to its size.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.align(8);
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.bytes().chain([0]));
    }

    pub(super) fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.bytes().chain([0]));
    }

    /// Its length counts from the first element, which is aligned to `to`.
    pub(super) fn array(&mut self, to: usize, fill: impl FnOnce(&mut Writer)) {
        self.u32(0);
        let length = self.0.len() - 4;
        self.align(to);
        let start = self.0.len();
        fill(self);
        let size = ((self.0.len() - start) as u32).to_le_bytes();
        self.0[length..length + 4].copy_from_slice(&size);
    }

    pub(super) fn property(
        &mut self,
        name: &str,
        signature: &str,
        value: impl FnOnce(&mut Writer),
    ) {
        self.align(8);
        self.text(name);
        self.signature(signature);
        value(self);
    }

    pub(super) fn field(&mut self, code: u8, signature: &str, value: impl FnOnce(&mut Writer)) {
        self.align(8);
        self.0.push(code);
        self.signature(signature);
        value(self);
    }
}

/// Takes marshalled values apart.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

const SHORT: Failure = Failure::Nonsense("a message that is cut off");

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    pub(super) fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.saturating_add(len)).ok_or(SHORT)?;
        self.at += len;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        self.take(1)?.first().copied().ok_or(SHORT)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.align(4);
        let bytes = self.take(4)?.try_into().map_err(|_| SHORT)?;
        Ok(u32::from_le_bytes(bytes))
    }

    pub(super) fn text(&mut self) -> Result<&'a str> {
        let len = self.u32()? as usize;
        self.words(len)
    }

    pub(super) fn signature(&mut self) -> Result<&'a str> {
        let len = self.byte()? as usize;
        self.words(len)
    }

    pub(super) fn words(&mut self, len: usize) -> Result<&'a str> {
        let text = self.take(len)?;
        self.take(1)?;
        str::from_utf8(text).map_err(|_| Failure::Nonsense("no text"))
    }
}
