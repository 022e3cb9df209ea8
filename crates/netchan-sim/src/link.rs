//! One end's half of a connection once its handshake is done, and the clock that tells whether the peer is still there.

use netchan_proto::crypto::{Established, RekeyLimits};
use netchan_proto::session::{Fault, LinkControlKeys, ReadHalf, WriteHalf};
use rand::rngs::StdRng;

use crate::end::End;
use crate::wire::{At, Read, Wire};

/// After so much silence the peer is asked for a sign of life.
pub const PING_AFTER_MILLIS: u64 = 3_000;
/// After so much silence the link is given up.
pub const DEAD_AFTER_MILLIS: u64 = 10_000;

/// A link, at one end.
pub struct Link {
    /// Which connection.
    pub wire: u64,
    write: WriteHalf,
    read: ReadHalf,
    heard: u64,
    pinged: bool,
}

/// Why a link is not used any more.
#[derive(Debug)]
pub enum Gone {
    /// The connection ended.
    End,
    /// Nothing was heard for too long.
    Silent,
    /// What came was not the peer's, or broke the protocol: never so among honest peers.
    Fault(Fault),
}

/// The parts of a handshake's result, for those who must look at one before they use the other.
pub struct Parts {
    /// For the control object.
    pub control: LinkControlKeys,
    /// For the link.
    pub halves: (WriteHalf, ReadHalf),
    /// For the record of the session's links.
    pub secret: netchan_proto::crypto::ResumeSecret,
}

impl Parts {
    /// Takes a handshake's result apart. `early` arrived behind it.
    #[must_use]
    pub fn new(established: Established, early: &[u8], rekey: RekeyLimits) -> Self {
        let secret = established.keys.resume_secret.clone();
        let (control, mut sealer, opener) = LinkControlKeys::split(established.keys);
        sealer.set_rekey_limits(rekey);
        Self { control, halves: (WriteHalf::new(sealer), ReadHalf::new(opener, early)), secret }
    }
}

impl Link {
    /// A link on this connection.
    #[must_use]
    pub fn new(wire: u64, (write, read): (WriteHalf, ReadHalf), now: u64) -> Self {
        Self { wire, write, read, heard: now, pinged: false }
    }

    /// Opens what came before the link was read.
    ///
    /// # Errors
    /// [`Gone::Fault`].
    pub fn begin(&mut self, end: &End) -> Result<(), Gone> {
        self.read.process(end).map(|_| ()).map_err(Gone::Fault)
    }

    /// Reads what has come.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn read(
        &mut self,
        end: &End,
        wire: &mut Wire,
        at: At,
        now: u64,
        rng: &mut StdRng,
    ) -> Result<bool, Gone> {
        let mut moved = false;
        loop {
            match wire.read(at, self.read.space(), now, rng) {
                Read::End => return Err(Gone::End),
                Read::Bytes(0) => break,
                Read::Bytes(count) => {
                    moved = true;
                    self.heard = now;
                    self.pinged = false;
                    self.read.filled(count);
                    self.read.process(end).map_err(Gone::Fault)?;
                }
            }
        }
        let silent = now - self.heard;
        if silent >= DEAD_AFTER_MILLIS {
            return Err(Gone::Silent);
        }
        if silent >= PING_AFTER_MILLIS && !self.pinged {
            self.pinged = true;
            end.control.borrow_mut().ping(now);
        }
        Ok(moved)
    }

    /// Writes what there is to say. Says whether there was anything.
    pub fn write(&mut self, end: &End, wire: &mut Wire, at: At, now: u64, rng: &mut StdRng) -> bool {
        end.mark_ready();
        let mut wrote = false;
        loop {
            self.write.fill(end, now).expect("no run comes near to the limits of a link");
            let len = self.write.output().len();
            if len == 0 {
                return wrote;
            }
            let room = wire.room(at, len, now);
            wire.write(at, &self.write.output()[..room], now, rng);
            self.write.consume(room);
            wrote |= room > 0;
            if room < len {
                return wrote;
            }
        }
    }
}
