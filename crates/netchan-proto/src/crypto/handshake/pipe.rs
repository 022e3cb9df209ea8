//! One TLS connection, fed one record at a time.

use std::io::{Read as _, Write as _};

use rustls::{Connection, HandshakeKind, NamedGroup, ProtocolVersion};
use zeroize::Zeroizing;

use super::input::{Expected, RecordReader};
use super::{ALPN, ResumeExporter, tls};
use crate::crypto::error::HandshakeError;
use crate::crypto::identity::{SPKI_BYTES, ed25519_spki};
use crate::crypto::secret::SECRET_BYTES;
use crate::limits::CLIENT_HELLO_BYTES_MAX;

/// What the handshake agreed on, after it was checked to be what it must be.
pub(super) struct Negotiated {
    pub(super) peer_spki: [u8; SPKI_BYTES],
    pub(super) key_exchange: &'static str,
}

/// A rustls connection together with the reader of its records.
#[derive(Debug)]
pub(super) struct Pipe {
    tls: Connection,
    reader: RecordReader,
    /// Which record of the handshake comes next.
    expected: Expected,
}

impl Pipe {
    pub(super) fn new(tls: Connection, reader: RecordReader) -> Self {
        let expected = match tls {
            Connection::Client(_) => Expected::SERVER_HELLO,
            // What comes before was fed by itself.
            Connection::Server(_) => Expected::FLIGHT,
        };
        Self { tls, reader, expected }
    }

    pub(super) fn is_untouched(&self) -> bool {
        self.reader.is_untouched()
    }

    /// Takes at most one record of the TLS handshake; `true` once the handshake is complete, `None` for want of input.
    pub(super) fn handle_handshake(&mut self, input: &mut &[u8]) -> Result<Option<bool>, HandshakeError> {
        let Some(record) = self.reader.take_record(&self.expected, input)? else {
            return Ok(None);
        };
        self.expected = Expected::FLIGHT;
        self.feed(&record)?;
        Ok(Some(!self.tls.is_handshaking()))
    }

    /// Gives rustls exactly one record (`HS-6`).
    pub(super) fn feed(&mut self, record: &[u8]) -> Result<(), HandshakeError> {
        let mut rest = record;
        while !rest.is_empty() {
            if !matches!(self.tls.read_tls(&mut rest), Ok(1..)) {
                return Err(HandshakeError::UnexpectedRecord);
            }
        }
        let state = self.tls.process_new_packets().map_err(tls::explain)?;
        // A second ClientHello would come without a gate; resumption would skip the client's signature.
        if self.tls.handshake_kind().is_some_and(|kind| kind != HandshakeKind::Full) {
            return Err(HandshakeError::Negotiation);
        }
        if state.peer_has_closed() {
            return Err(HandshakeError::Truncated);
        }
        Ok(())
    }

    /// Takes the one message that may follow the handshake, alone in its record (`HS-7`).
    pub(super) fn handle_message(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, HandshakeError> {
        let Some(record) = self.reader.take_record(&Expected::MESSAGE, input)? else {
            return Ok(None);
        };
        self.feed(&record)?;
        let mut message = Vec::with_capacity(CLIENT_HELLO_BYTES_MAX);
        // A record that held something else (a ticket, a key update, nothing at all) leaves no plaintext behind.
        match self.tls.reader().take(CLIENT_HELLO_BYTES_MAX as u64).read_to_end(&mut message) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && !message.is_empty() => {
                Ok(Some(message))
            }
            _ => Err(HandshakeError::UnexpectedRecord),
        }
    }

    /// Seals one message as one record, behind whatever TLS still has to send.
    pub(super) fn send(&mut self, message: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        self.tls.writer().write_all(message).map_err(|_| HandshakeError::NotNow)?;
        Ok(self.output())
    }

    /// What TLS has to send. Not called after an error, so alerts that rustls queued stay unsent (`HS-12`).
    pub(super) fn output(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.tls.wants_write() {
            if !matches!(self.tls.write_tls(&mut out), Ok(1..)) {
                break;
            }
        }
        out
    }

    /// Checks that TLS agreed on the only things allowed (`HS-1` to `HS-5`).
    pub(super) fn negotiated(&self) -> Result<Negotiated, HandshakeError> {
        let key_exchange = match self.tls.negotiated_key_exchange_group().map(|group| group.name()) {
            Some(NamedGroup::X25519MLKEM768) => "X25519MLKEM768",
            _ => return Err(HandshakeError::Negotiation),
        };
        let peer_spki = match self.tls.peer_certificates() {
            Some([key]) => ed25519_spki(key).ok_or(HandshakeError::Negotiation)?,
            _ => return Err(HandshakeError::Negotiation),
        };
        let agreed = self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3)
            && self.tls.handshake_kind() == Some(HandshakeKind::Full)
            && self.tls.alpn_protocol() == Some(ALPN);
        if agreed { Ok(Negotiated { peer_spki, key_exchange }) } else { Err(HandshakeError::Negotiation) }
    }

    /// Whether the ClientHello just fed asked for this protocol.
    pub(super) fn has_alpn(&self) -> bool {
        self.tls.alpn_protocol() == Some(ALPN)
    }

    /// `E` (`KEY-3`).
    pub(super) fn exporter(
        &self,
        ctx: &[u8; SECRET_BYTES],
    ) -> Result<Zeroizing<[u8; SECRET_BYTES]>, HandshakeError> {
        self.export(b"EXPERIMENTAL netchan 1", Some(ctx))
    }

    /// What a resume proof is made over (`KEY-5`).
    pub(super) fn resume_exporter(&self) -> Result<ResumeExporter, HandshakeError> {
        self.export(b"EXPERIMENTAL netchan 1 resume", None).map(ResumeExporter)
    }

    fn export(
        &self,
        label: &[u8],
        ctx: Option<&[u8]>,
    ) -> Result<Zeroizing<[u8; SECRET_BYTES]>, HandshakeError> {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        self.tls.export_keying_material(&mut secret[..], label, ctx)?;
        Ok(secret)
    }
}
