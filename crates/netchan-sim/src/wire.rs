//! Connections: bytes in order, both ways, that come late, in pieces, in one direction only, or not at all.

use std::collections::VecDeque;

use rand::Rng;
use rand::rngs::StdRng;

/// The end that dialed, or the end that listened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The client.
    Client,
    /// The server.
    Server,
}

impl At {
    const fn index(self) -> usize {
        match self {
            Self::Client => 0,
            Self::Server => 1,
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    /// When which part of them is there.
    due: VecDeque<(u64, usize)>,
    delivered: u64,
    /// The connection is cut when so many bytes have been delivered.
    cut_at: Option<u64>,
    /// Nothing more is delivered, and nobody is told.
    stalled: bool,
    sent: u64,
}

/// One connection.
#[derive(Debug)]
pub struct Wire {
    /// What is on its way to the client, and to the server.
    pipes: [Pipe; 2],
    /// Which ends have closed it.
    closed: [bool; 2],
    cut: bool,
    delay_millis_max: u64,
    /// Reads return a part of what is there.
    slices: bool,
    /// Writes take a part of what is to be written, if it is sliced.
    narrow: bool,
}

/// What a read finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes; 0 when there are none now.
    Bytes(usize),
    /// The connection is gone.
    End,
}

impl Wire {
    /// A connection in good order.
    #[must_use]
    pub fn new(rng: &mut StdRng) -> Self {
        Self {
            pipes: [Pipe::default(), Pipe::default()],
            closed: [false; 2],
            cut: false,
            delay_millis_max: if rng.random_bool(0.3) { rng.random_range(1..40) } else { 0 },
            slices: rng.random_bool(0.3),
            narrow: false,
        }
    }

    /// Whether this connection delays what it carries.
    #[must_use]
    pub const fn delays(&self) -> bool {
        self.delay_millis_max > 0
    }

    /// Whether it carries bytes in pieces.
    #[must_use]
    pub const fn slices(&self) -> bool {
        self.slices
    }

    /// If it slices, it also takes only a part of what is written now and then.
    pub const fn set_narrow(&mut self, narrow: bool) {
        self.narrow = narrow;
    }

    /// How much of `len` bytes it takes from that end now.
    #[must_use]
    pub fn room(&self, at: At, len: usize, now: u64) -> usize {
        if !(self.narrow && self.slices) {
            return len;
        }
        // No dice: the course of a run depends on its seed, and on the time.
        match (self.pipes[1 - at.index()].sent + now) % 5 {
            0 => 0,
            1 => len / 2,
            _ => len,
        }
    }

    /// Whether nobody needs it any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.closed == [true; 2]
    }

    /// Is to be cut when so many more bytes have reached that end.
    pub fn cut_after(&mut self, to: At, bytes: u64) {
        let pipe = &mut self.pipes[to.index()];
        pipe.cut_at = Some(pipe.delivered + bytes);
    }

    /// Breaks at once.
    pub fn cut_now(&mut self) {
        self.cut = true;
    }

    /// Nothing reaches that end any more, and nobody is told.
    pub fn stall(&mut self, to: At) {
        self.pipes[to.index()].stalled = true;
    }

    /// Whether it has been cut.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.cut
    }

    /// Whether a direction delivers nothing.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.pipes.iter().any(|pipe| pipe.stalled)
    }

    /// Bytes handed over in both directions.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.pipes.iter().map(|pipe| pipe.sent).sum()
    }

    /// That end has closed its socket.
    pub fn close(&mut self, at: At) {
        self.closed[at.index()] = true;
    }

    /// Sends from that end.
    pub fn write(&mut self, from: At, bytes: &[u8], now: u64, rng: &mut StdRng) {
        let to = match from {
            At::Client => At::Server,
            At::Server => At::Client,
        };
        if self.cut || self.closed[to.index()] || bytes.is_empty() {
            return;
        }
        let delay = if self.delay_millis_max > 0 { rng.random_range(0..=self.delay_millis_max) } else { 0 };
        let pipe = &mut self.pipes[to.index()];
        let at = pipe.due.back().map_or(0, |(at, _)| *at).max(now + delay);
        pipe.sent += bytes.len() as u64;
        pipe.bytes.extend(bytes);
        pipe.due.push_back((at, bytes.len()));
    }

    /// Reads at that end into `space`.
    pub fn read(&mut self, at: At, space: &mut [u8], now: u64, rng: &mut StdRng) -> Read {
        let peer_closed = self.closed[1 - at.index()];
        let pipe = &mut self.pipes[at.index()];
        if self.cut {
            return Read::End;
        }
        if pipe.cut_at.is_some_and(|cut_at| pipe.delivered >= cut_at) {
            self.cut = true;
            return Read::End;
        }
        if pipe.stalled {
            return Read::Bytes(0);
        }
        let due: usize = pipe.due.iter().take_while(|(at, _)| *at <= now).map(|(_, len)| len).sum();
        let left = pipe.cut_at.map_or(usize::MAX, |cut_at| (cut_at - pipe.delivered) as usize);
        let mut count = due.min(space.len()).min(left);
        if count == 0 {
            return if peer_closed && pipe.bytes.is_empty() { Read::End } else { Read::Bytes(0) };
        }
        if self.slices {
            count = rng.random_range(1..=count);
        }
        for (to, byte) in space.iter_mut().zip(pipe.bytes.drain(..count)) {
            *to = byte;
        }
        pipe.delivered += count as u64;
        let mut rest = count;
        while rest > 0
            && let Some((_, len)) = pipe.due.front_mut()
        {
            let part = rest.min(*len);
            *len -= part;
            rest -= part;
            if *len == 0 {
                pipe.due.pop_front();
            }
        }
        Read::Bytes(count)
    }
}
