//! Every ceiling of an end, by name, with its reason.

use std::net::IpAddr;
use std::time::Duration;

use netchan_proto::limits;

use crate::codec::{DECODE_DEPTH_MAX, DECODE_EMPTY_ELEMENTS_MAX, DecodeContext, EncodeContext};

/// What an end lets others make it hold, do and wait for.
///
/// Each may be raised or lowered alone; what is over one is refused, and the refusal names the field, to both ends where the
/// other has proven who it is. A stranger gets silence. What the protocol itself fixes is not here: 16 KiB of handshake, 4 KiB of
/// ClientHello, 56 bytes of gate (SPEC section 13).
///
/// ```
/// let mut config = netchan::Config::default();
/// config.limits.sessions_max = 100;
/// config.limits.half_open_exempt.push("10.0.0.7".parse()?); // a proxy, behind which everybody is
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// From connecting to the end of the handshake, in all and not for each read. Default 5 s: a handshake takes milliseconds, and
    /// a stranger holds a place for so long at most; raise it for very slow links.
    pub handshake_timeout: Duration,
    /// How far the peers' clocks may be apart. Default 120 s; more makes the memory of gates ([`gates_max`](Self::gates_max)) fill
    /// sooner. `None` does not look, and leaves a replayed first flight to be answered.
    pub clock_window: Option<Duration>,
    /// Gates remembered against replay, for twice the clock window. Default 524,288, some 25 MiB if it comes to that: more than
    /// [`accepts_per_second`](Self::accepts_per_second) lets in meanwhile, so raise both together. Beyond it the oldest are forgotten,
    /// those first whose clients did not go on to prove their keys, and nobody is refused: a recording of a forgotten one would draw
    /// a single answer ([`ServerStats::gates_forgotten`](crate::ServerStats::gates_forgotten)).
    pub gates_max: usize,
    /// Connections that have not come to the end of their handshake. Default 1,024: some 8 KiB each. From half of this on, each new
    /// one makes it more likely that one of them is dropped, drawn by lot among those that have been here for a quarter of a second (less where
    /// fewer may be here) and have not said what they want, as every honest client does at once. While there are none, others wait in
    /// the kernel's queue.
    pub half_open_max: usize,
    /// The same for one IP address (IPv6: one /64). Default 256: a fleet behind one address that starts at once fits.
    pub half_open_per_address_max: usize,
    /// Addresses that [`half_open_per_address_max`](Self::half_open_per_address_max) does not hold for: NAT gateways, proxies, one's
    /// own load tests. Default: none.
    pub half_open_exempt: Vec<IpAddr>,
    /// Handshakes under way whose gate has been opened. Default 256: each takes some hundred microseconds of one core and some 30
    /// KiB; others wait, within their own deadline. Never more than half of those that may be half-open.
    pub handshakes_max: usize,
    /// Connections a server takes from the system in a second, on average. Default 2,000, as many as two cores can bring through a
    /// handshake: each costs some ten microseconds even if it is a stranger's, and beyond this they wait in the kernel's queue and
    /// leave the processor to the sessions.
    pub accepts_per_second: u32,
    /// Connections of a server, half-open ones included. Default: what the process may have of file descriptors, less a reserve of a
    /// quarter, 256 at most, for everything else that it does; 2 at least.
    pub connections_max: Option<usize>,
    /// Sessions of a server that have a connection. Default 16,384. More than `connections_max` less an eighth never are: a client that
    /// is one too many is to be told so. Sessions that wait for a connection count for a quarter of them at most, which is kept for them
    /// to come back to.
    pub sessions_max: usize,
    /// Sessions without a connection that a server keeps, for each client key, and of those that have not been confirmed yet as many.
    /// Default 1,024, a sixteenth of [`suspended_max`](Self::suspended_max): many programs may share a key. One more, and the oldest of
    /// that key is given up.
    pub suspended_per_identity_max: usize,
    /// The same over all keys. Default 16,384, as many as there may be: a server whose own network fails loses none. They hold no
    /// connection, only memory. One more, and the oldest of the key that has most is given up.
    pub suspended_max: usize,
    /// Channels of one session. Default 65,536: each costs about a kilobyte at both ends.
    pub channels_max: usize,
    /// Channels that the peer of one session opens in a second, on average, once it has opened
    /// [`opens_at_once_max`](Self::opens_at_once_max). Default 500: each costs some ten microseconds of one core, so that a peer that
    /// opens and closes without end has a hundredth of it. More are refused; and no more than four times as many are read, so that
    /// beyond it the connection is slower.
    pub opens_per_second: u32,
    /// Channels that the peer of one session may open, as when it begins, before [`opens_per_second`](Self::opens_per_second) holds.
    /// Default 16,384: more than a program needs that opens a channel for everything it serves. A sixteenth of them is read at once,
    /// the rest at four times the rate.
    pub opens_at_once_max: u32,
    /// Channels that the peer opened and nobody has answered yet. Default 1,024.
    pub offers_pending_max: usize,
    /// The same over all sessions of a server. Default 16,384: some kilobytes each.
    pub offers_total_max: usize,
    /// The longest message, encoded. Default 64 MiB. Both ends have one, and the smaller holds.
    pub message_bytes_max: usize,
    /// The byte window each channel starts with. Default 512 KiB; less saves memory with many channels, more saves round trips on
    /// long fast links.
    pub window_bytes: u64,
    /// What the byte window of a busy channel grows to. Default 8 MiB: what one slow reader can pin, beside one message.
    pub window_bytes_max: u64,
    /// Bytes of values that one session makes this end keep: that have arrived on its channels and that nobody has taken, be it that
    /// they wait in a hosted queue. Default 256 MiB. However many channels there are, their byte windows fit in, so only many messages that
    /// are longer than those reach it: the channel that brings one more is closed with code 12, which its sender is told. Twice
    /// [`message_bytes_max`](Self::message_bytes_max) at least.
    pub kept_bytes_per_session_max: u64,
    /// The same over all sessions of one client key. Default 1 GiB: many programs may share a key.
    pub kept_bytes_per_identity_max: u64,
    /// The same over all sessions of a server. Default 4 GiB. Beyond it, only keys that keep more than their part of that are stopped:
    /// all there are have the same part.
    pub kept_bytes_max: u64,
    /// How long a connection may take nothing of what is to be written to it. Default 30 s: netchan's other end always reads, however
    /// slow its program is, so one that does not is stuck or hostile. The connection is given up; the session waits for another.
    pub write_stall_max: Duration,
    /// How deep a value may nest that [`Postcard`](crate::codec::Postcard) decodes. Default 128: every level costs stack.
    pub decode_depth_max: usize,
    /// Elements without bytes of their own, such as `()`, in one message. Default 65,536: eight bytes could claim 2^64 of them.
    pub decode_empty_elements_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            clock_window: Some(Duration::from_secs(limits::GATE_CLOCK_WINDOW_SECONDS)),
            gates_max: limits::GATE_REPLAY_ENTRIES_MAX,
            half_open_max: 1_024,
            half_open_per_address_max: 256,
            half_open_exempt: Vec::new(),
            handshakes_max: 256,
            accepts_per_second: 2_000,
            connections_max: None,
            sessions_max: 16_384,
            suspended_per_identity_max: 1_024,
            suspended_max: 16_384,
            channels_max: limits::CHANNELS_MAX_DEFAULT,
            opens_per_second: 500,
            opens_at_once_max: 16_384,
            offers_pending_max: limits::OFFERS_PENDING_MAX_DEFAULT,
            offers_total_max: 16_384,
            message_bytes_max: limits::MESSAGE_BYTES_MAX_DEFAULT,
            window_bytes: limits::WINDOW_BYTES_INITIAL,
            window_bytes_max: limits::WINDOW_BYTES_MAX_DEFAULT,
            kept_bytes_per_session_max: 256 << 20,
            kept_bytes_per_identity_max: 1 << 30,
            kept_bytes_max: 4 << 30,
            write_stall_max: Duration::from_secs(30),
            decode_depth_max: DECODE_DEPTH_MAX,
            decode_empty_elements_max: DECODE_EMPTY_ELEMENTS_MAX,
        }
    }
}

/// What a message may demand of whoever decodes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DecodeLimits {
    depth_max: usize,
    empty_elements_max: usize,
}

impl DecodeLimits {
    pub(crate) const fn of(self, bytes_max: usize) -> MessageLimits {
        MessageLimits { bytes_max, decode: self }
    }
}

/// What holds for the messages of a channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageLimits {
    pub(crate) bytes_max: usize,
    decode: DecodeLimits,
}

impl MessageLimits {
    pub(crate) fn encoding<'a>(&self, channel: &'a str) -> EncodeContext<'a> {
        EncodeContext::new(channel, self.bytes_max)
    }

    pub(crate) fn decoding<'a>(&self, channel: &'a str) -> DecodeContext<'a> {
        DecodeContext::new(channel, self.bytes_max)
            .with_depth_max(self.decode.depth_max)
            .with_empty_elements_max(self.decode.empty_elements_max)
    }
}

/// What a process may have of file descriptors where that cannot be told.
const DESCRIPTORS_UNKNOWN: usize = 1_024;

/// Kept for what a process opens beside connections: at most this, at least a quarter of all.
const DESCRIPTORS_RESERVE_MAX: usize = 256;

impl Limits {
    /// Connections that a server of this process may have at once: [`connections_max`](Self::connections_max), as far as file
    /// descriptors go (the soft limit, `ulimit -n`).
    #[must_use]
    pub fn effective_connections_max(&self) -> usize {
        let descriptors = descriptors_max();
        let room = descriptors - (descriptors / 4).min(DESCRIPTORS_RESERVE_MAX);
        // Asked for or not: beyond the descriptors there are none.
        self.connections_max.map_or(room, |max| max.min(descriptors)).max(2)
    }

    pub(crate) const fn decode(&self) -> DecodeLimits {
        DecodeLimits { depth_max: self.decode_depth_max, empty_elements_max: self.decode_empty_elements_max }
    }

    /// Sessions that a server of this process may have at once: [`sessions_max`](Self::sessions_max), and fewer than
    /// [`effective_connections_max`](Self::effective_connections_max) by an eighth, so that there is room for one that is told of it.
    #[must_use]
    pub fn effective_sessions_max(&self) -> usize {
        let connections = self.effective_connections_max();
        self.sessions_max.min(connections - (connections / 8).max(1))
    }
}

/// File descriptors that this process may have.
#[cfg(unix)]
fn descriptors_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    // Without a limit, memory is the only one.
    limit.current.map_or(usize::MAX / 2, |max| usize::try_from(max).unwrap_or(DESCRIPTORS_UNKNOWN))
}

#[cfg(not(unix))]
fn descriptors_max() -> usize {
    DESCRIPTORS_UNKNOWN * 16
}
