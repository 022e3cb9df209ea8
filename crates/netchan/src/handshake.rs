//! Driving a handshake over a link.

use std::io;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use netchan_proto::crypto::{
    Accepted, Established, GateTime, Handshake, HandshakeError, PeerHello, ProvenResume, RefusalCode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::hold::Hold;
use crate::system::unix_seconds;
use crate::transport::{BoxFuture, Link, LinkReader, LinkWriter};

/// Name and version of this software, for people at the other end.
pub(crate) const AGENT: &str = concat!("netchan/", env!("CARGO_PKG_VERSION"));

/// What a server says to a client that has proven its key.
pub(crate) enum Verdict {
    /// With the proof, when a session is to go on.
    Accept(Accepted, Option<ProvenResume>),
    Refuse(RefusalCode, String),
}

/// Why a handshake did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeFailure {
    #[error(transparent)]
    Protocol(#[from] HandshakeError),
    #[error(transparent)]
    Link(#[from] io::Error),
    #[error("refused: {0}")]
    Refused(String),
    #[error("not finished within {0:?}")]
    Timeout(Duration),
    /// The client left when it had seen this server's key, before it said who it is.
    #[error("the client left at this server's key")]
    AtOurKey,
}

/// A link whose handshake is done.
pub(crate) struct Joined {
    pub(crate) established: Established,
    pub(crate) link: (LinkReader, LinkWriter),
    /// Bytes that arrived behind the handshake.
    pub(crate) early: Vec<u8>,
}

/// Both clocks of a gate. The steady one counts from when this process first looked at it.
fn gate_time() -> GateTime {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    GateTime { unix_seconds: unix_seconds(), steady_seconds: BEGUN.elapsed().as_secs() }
}

/// Where a handshake has leave to do what is costly.
pub(crate) trait Places: Sync {
    /// Waits for a place, which is held until what is returned is dropped.
    fn enter(&self) -> BoxFuture<'_, Hold>;
}

/// A client's: it does one at a time.
pub(crate) struct Anywhere;

impl Places for Anywhere {
    fn enter(&self) -> BoxFuture<'_, Hold> {
        Box::pin(async { Box::new(()) as Hold })
    }
}

/// Runs a handshake to its end, within one deadline for all of it (`PORT-1`). At a server it waits at the gate until it has one of `places`.
pub(crate) async fn run(
    handshake: &mut dyn Handshake,
    link: Box<dyn Link>,
    deadline: Duration,
    places: &dyn Places,
    judge: impl FnMut(&PeerHello) -> Verdict + Send,
) -> Result<Joined, HandshakeFailure> {
    let (mut reader, mut writer) = link.split();
    let joined = exchange(handshake, &mut reader, &mut writer, places, judge);
    let (established, early) =
        tokio::time::timeout(deadline, joined).await.map_err(|_| HandshakeFailure::Timeout(deadline))??;
    Ok(Joined { established, link: (reader, writer), early })
}

async fn exchange(
    handshake: &mut dyn Handshake,
    reader: &mut LinkReader,
    writer: &mut LinkWriter,
    places: &dyn Places,
    mut judge: impl FnMut(&PeerHello) -> Verdict + Send,
) -> Result<(Established, Vec<u8>), HandshakeFailure> {
    let mut input = Vec::new();
    let mut refusal = None;
    let mut place = None;
    let mut at_our_key = false;
    loop {
        let mut wrote = false;
        while let Some(output) = handshake.poll_output() {
            writer.write_all(&output).await?;
            wrote = true;
        }
        if wrote {
            writer.flush().await?;
        }
        if let Some(reason) = refusal {
            writer.shutdown().await?;
            return Err(HandshakeFailure::Refused(reason));
        }
        if let Some(established) = handshake.poll_established() {
            drop(place);
            return Ok((established, input));
        }
        if let Some(hello) = handshake.poll_hello() {
            at_our_key = false;
            match judge(&hello) {
                Verdict::Accept(accepted, proof) => handshake.accept(accepted, proof)?,
                Verdict::Refuse(code, reason) => {
                    handshake.refuse(code, &reason)?;
                    refusal = Some(reason);
                }
            }
            continue;
        }
        if handshake.awaits_gate() {
            // `PORT-4`: a stranger has it for as long as a few hashes take.
            place = Some(places.enter().await);
            handshake.check_gate(gate_time())?;
            at_our_key = true;
            continue;
        }
        let consumed = handshake.handle_input(&input)?;
        input.drain(..consumed);
        if consumed > 0 || handshake.awaits_gate() {
            continue;
        }
        let mut buffer = [0; 4_096];
        match reader.read(&mut buffer).await {
            Ok(bytes @ 1..) => input.extend_from_slice(&buffer[..bytes]),
            _ if at_our_key => return Err(HandshakeFailure::AtOurKey),
            Ok(_) => return Err(handshake.handle_end().into()),
            Err(error) => return Err(error.into()),
        }
    }
}
