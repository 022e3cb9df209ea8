//! What is measured: the workloads, the contestants, and the small tools that every contestant's code uses alike.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::message::Message;

/// Messages that may be under way on the stream channel, of netchan and of the channel inside one process alike.
pub(super) const STREAM_CAPACITY: usize = 65_536;
/// The same for bulk blocks.
pub(super) const BULK_CAPACITY: usize = 64;
/// The same for pings: more than the one there ever is, so that no ping waits for credit.
pub(super) const PINGPONG_CAPACITY: usize = 16;
/// Channels in the `channels` workload.
pub(super) const CHANNELS: usize = 1000;
/// Messages that may be under way on each of them.
pub(super) const CHANNELS_CAPACITY: usize = 256;
/// Connections being set up at a time in the `connect` workload, so that neither end waits idly for the other.
pub(super) const CONNECTS_AT_ONCE: usize = 4;
/// Messages that may be under way to each worker or subscriber.
pub(super) const FAN_CAPACITY: usize = 1_024;
/// Tasks, and results, that may be under way on their channels in the `tasks` workload: at least this many.
const TASKS_CAPACITY: usize = 1_024;
/// Bytes of tasks that may be ahead on one connection: as many as fit into the buffers of its two sockets, so that two ends
/// that write first and read afterwards cannot wait for each other.
pub(super) const AHEAD_BYTES_MAX: usize = 64 * 1024;
/// How long whatever is under way may take to arrive once the time of a round is over.
pub(super) const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Workload {
    /// Small typed messages, one producer, one consumer: messages a second
    Stream,
    /// Large blocks of bytes, one producer, one consumer: MiB a second
    Bulk,
    /// One small typed message forth and back: microseconds a round trip
    Pingpong,
    /// Small typed messages over 1,000 channels of one session: messages a second
    Channels,
    /// Whole set-ups: sessions a second
    Connect,
    /// Small typed messages from one queue to many workers, each to one: messages a second
    Queue,
    /// Small typed messages to many subscribers, each to all: deliveries a second
    Broadcast,
    /// Tasks from one queue to many workers, a result committed with each acknowledgement: tasks a second
    Tasks,
    /// Many connections that do nothing: KiB for each, at the server and at the client
    Idle,
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Contestant {
    Netchan,
    /// netchan's direct channels, beside hosted ones.
    Direct,
    /// Plain TCP by tokio: the limit of what a network stream can do.
    Tcp,
    /// TLS 1.3 with AES-256-GCM by tokio-rustls: the limit with encryption.
    Tls,
    /// tokio's channel inside one process: what people use without a network.
    Mpsc,
}

impl Contestant {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Netchan => "netchan",
            Self::Direct => "direct",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Mpsc => "mpsc",
        }
    }
}

impl Workload {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Bulk => "bulk",
            Self::Pingpong => "pingpong",
            Self::Channels => "channels",
            Self::Connect => "connect",
            Self::Queue => "queue",
            Self::Broadcast => "broadcast",
            Self::Tasks => "tasks",
            Self::Idle => "idle",
        }
    }

    /// Who takes part: those whose figure says something. (The streams of TCP and TLS have no channels; in `channels`
    /// they carry the same messages over one stream.)
    pub(super) fn contestants(self, hosted: bool) -> &'static [Contestant] {
        use Contestant::{Direct, Mpsc, Netchan, Tcp, Tls};
        match (self, hosted) {
            (Self::Stream, false) => &[Netchan, Tcp, Tls, Mpsc],
            (Self::Stream, true) => &[Netchan, Direct, Tcp, Tls, Mpsc],
            (_, true) => &[Netchan, Direct, Tcp, Tls],
            (_, false) => &[Netchan, Tcp, Tls],
        }
    }

    /// Whether it can be measured over hosted channels as well as over direct ones.
    pub(super) fn can_be_hosted(self) -> bool {
        matches!(self, Self::Stream | Self::Pingpong)
    }

    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Stream | Self::Channels | Self::Queue => "messages/s",
            Self::Broadcast => "deliveries/s",
            Self::Tasks => "tasks/s",
            Self::Idle => "KiB/session",
            Self::Bulk => "MiB/s",
            Self::Pingpong => "us",
            Self::Connect => "sessions/s",
        }
    }

    /// The size of a payload if the user names none; 0 where there is none.
    pub(super) fn default_size(self) -> usize {
        match self {
            Self::Bulk => 1 << 20,
            Self::Connect | Self::Idle => 0,
            _ => Message::SMALLEST,
        }
    }

    /// Whether less is better.
    pub(super) fn is_cost(self) -> bool {
        matches!(self, Self::Pingpong | Self::Idle)
    }

    /// Whether one sends to many.
    pub(super) fn fans_out(self) -> bool {
        matches!(self, Self::Queue | Self::Broadcast)
    }

    /// How many clients there are if the user does not say.
    pub(super) fn default_ends(self) -> usize {
        match self {
            Self::Queue | Self::Tasks => 16,
            Self::Broadcast => 100,
            Self::Idle => 10_000,
            _ => 1,
        }
    }

    /// The smallest size that a payload can have; `None` if there is no payload.
    pub(super) fn smallest_size(self) -> Option<usize> {
        match self {
            Self::Bulk => Some(8),
            Self::Connect | Self::Idle => None,
            _ => Some(Message::SMALLEST),
        }
    }
}

/// One round of one contestant.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) contestant: Contestant,
    pub(super) workload: Workload,
    pub(super) size: usize,
    pub(super) seconds: f64,
    /// How many workers, subscribers or connections there are.
    pub(super) ends: usize,
    /// How many tasks each worker may have ahead of the one it is working at; `None`: one task at a time.
    pub(super) ahead: Option<usize>,
    /// netchan's channels are hosted ones, beside `direct`.
    pub(super) hosted: bool,
}

impl Job {
    /// Whether this round goes through hosted channels.
    pub(super) fn is_hosted(&self) -> bool {
        self.hosted && self.contestant == Contestant::Netchan
    }

    /// How many tasks may be with one worker at a time.
    pub(super) fn tasks_at_once(&self) -> usize {
        self.ahead.unwrap_or(1)
    }

    /// The capacity of the channel of tasks and of that of results: twice what all workers may have, so that none waits for
    /// the one who sends.
    pub(super) fn tasks_capacity(&self) -> usize {
        TASKS_CAPACITY.max(2 * self.ends * self.tasks_at_once())
    }

    /// What arrives when this many messages were sent, one to each.
    pub(super) fn expected(&self, sent: u64) -> Tally {
        Tally { count: sent, checksum: Message::checksum_of_first(self.size, sent), seconds: 0.0 }
    }

    /// What arrives when this many messages were sent to everyone.
    pub(super) fn expected_of_all(&self, sent: u64) -> Tally {
        let one = self.expected(sent);
        let ends = self.ends as u64;
        Tally { count: one.count * ends, checksum: one.checksum.wrapping_mul(ends), ..one }
    }
}

/// What the driving side knows after a round.
pub(super) enum Driven {
    /// How many messages or blocks went out, on each channel (or on the only stream).
    Sent(Vec<u64>),
    /// Each round trip's time in nanoseconds.
    Trips(Vec<u64>),
    SetUps {
        count: u64,
        seconds: f64,
    },
    /// Here are the consumers, and this is what they counted; the other side says what there was.
    Fanned(Tally),
}

/// What the consuming side knows after a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) count: u64,
    /// The wrapping sum of the checksums of everything that arrived, decoded.
    pub(super) checksum: u64,
    /// From the first arrival to the end.
    pub(super) seconds: f64,
}

/// Says when a producer's time is over, looking at the clock only now and then: a look costs as much as a message.
pub(super) struct Pace {
    until: Instant,
    stride: u32,
    left: u32,
}

impl Pace {
    /// For small messages.
    pub(super) fn of_messages(seconds: f64) -> Self {
        Self::new(seconds, 256)
    }

    /// For anything that costs far more than a look at the clock.
    pub(super) fn of_large_things(seconds: f64) -> Self {
        Self::new(seconds, 1)
    }

    fn new(seconds: f64, stride: u32) -> Self {
        Self { until: Instant::now() + Duration::from_secs_f64(seconds), stride, left: 0 }
    }

    /// Whether there is time for another.
    #[inline]
    pub(super) fn more(&mut self) -> bool {
        if self.left == 0 {
            self.left = self.stride;
            if Instant::now() >= self.until {
                self.left = 0;
                return false;
            }
        }
        self.left -= 1;
        true
    }
}

/// Counts and sums what arrives at a consumer.
#[derive(Default)]
pub(super) struct Meter {
    span: Option<(Instant, Instant)>,
    count: u64,
    checksum: u64,
}

impl Meter {
    /// Takes one arrival into account.
    #[inline]
    pub(super) fn arrive(&mut self, checksum: u64) {
        if self.count == 0 {
            let now = Instant::now();
            self.span = Some((now, now));
        }
        self.count += 1;
        self.checksum = self.checksum.wrapping_add(checksum);
    }

    /// How much has arrived.
    #[inline]
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The last has arrived.
    pub(super) fn stop(&mut self) {
        if let Some((_, last)) = &mut self.span {
            *last = Instant::now();
        }
    }

    /// Adds what another consumer has counted at the same time.
    pub(super) fn merge(&mut self, other: &Meter) {
        self.count += other.count;
        self.checksum = self.checksum.wrapping_add(other.checksum);
        self.span = match (self.span, other.span) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, other) => one.or(other),
        };
    }

    pub(super) fn tally(&self) -> Tally {
        let seconds = self.span.map_or(0.0, |(first, last)| (last - first).as_secs_f64());
        Tally { count: self.count, checksum: self.checksum, seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_ends_and_stays_ended() {
        let mut pace = Pace::of_messages(0.0);
        assert!(!pace.more());
        assert!(!pace.more());
        let mut pace = Pace::of_messages(3600.0);
        assert!((0..10_000).all(|_| pace.more()));
    }

    #[test]
    fn meters_merge_into_the_whole_span() {
        let (mut one, mut two, mut all) = (Meter::default(), Meter::default(), Meter::default());
        one.arrive(5);
        two.arrive(u64::MAX);
        std::thread::sleep(Duration::from_millis(5));
        one.stop();
        two.stop();
        all.merge(&one);
        all.merge(&two);
        let tally = all.tally();
        assert_eq!((tally.count, tally.checksum), (2, 4));
        assert!(tally.seconds >= 0.005);
    }
}
