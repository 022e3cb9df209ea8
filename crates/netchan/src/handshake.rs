//! Driving a handshake over a link.

use std::io;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use netchan_proto::crypto::{
    Accepted, Established, GateTime, Handshake, HandshakeError, PeerHello, ProvenResume, RefusalCode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::session::Hold;
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

pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Both clocks of a gate. The steady one counts from when this process first looked at it.
fn gate_time() -> GateTime {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    GateTime { unix_seconds: unix_seconds(), steady_seconds: BEGUN.elapsed().as_secs() }
}

/// Random bytes from the system.
///
/// # Panics
/// When the system has none: nothing can be secret then.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random number generator works");
    bytes
}

pub(crate) fn has_aes_hardware() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
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
