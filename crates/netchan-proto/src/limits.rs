//! Every bound has a name, and its reason stands beside it.

/// Plaintext of one record. 64 KiB is where bulk is fastest: 16 KiB pays four times the per-record cost, 256 KiB leaves
/// the L2 cache.
pub const RECORD_PLAINTEXT_BYTES_MAX: usize = 65_536;

/// The AEAD tag, the same for both ciphers.
pub const TAG_BYTES: usize = 16;

/// Length (3), channel (4) and flags (1) before the ciphertext.
pub const RECORD_HEADER_BYTES: usize = 8;

/// A whole record on the wire.
pub const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + RECORD_PLAINTEXT_BYTES_MAX + TAG_BYTES;

/// The first bytes of a connection, which look random to strangers (`GATE-1`).
pub const GATE_BYTES: usize = 56;

/// A ClientHello with one hybrid key share is about 1.4 KiB; anything over 4 KiB is not ours.
pub const CLIENT_HELLO_BYTES_MAX: usize = 4_096;

/// What a server reads from a peer it has not authenticated.
pub const UNAUTHENTICATED_BYTES_MAX: usize = 16 * 1_024;

/// Access secrets and pins that one listener tries for a gate: each costs one short HMAC, always all of them.
pub const GATE_CANDIDATES_MAX: usize = 16;

/// Gates remembered against replay: more than the 2,000 connections that a server takes in a second can bring in 240 s, so that it is
/// never full by default (`GATE-6`). Some 25 MiB then, and a few kilobytes in ordinary use.
pub const GATE_REPLAY_ENTRIES_MAX: usize = 1 << 19;

/// How far the peers' clocks may be apart, each way.
pub const GATE_CLOCK_WINDOW_SECONDS: u64 = 120;

/// A channel's name: long enough for any hierarchy, short enough that thousands of announcements stay small.
pub const NAME_BYTES_MAX: usize = 255;

/// A type label, codec name or reason, as text for people.
pub const TEXT_BYTES_MAX: usize = 1_024;

/// Channels of one session by default: each costs about a kilobyte at both ends.
pub const CHANNELS_MAX_DEFAULT: usize = 65_536;

/// Channels opened by the peer that nobody has answered yet, by default: each holds its OPEN and nothing else.
pub const OFFERS_PENDING_MAX_DEFAULT: usize = 1_024;

/// Hosted channels announced to one peer at a time: as many as it could open; the name and type of each are kept at both ends.
pub const ANNOUNCED_MAX: usize = CHANNELS_MAX_DEFAULT;

/// Hosted channels that are no more, of which a peer is told again on each new link: enough for a peer that was away
/// while many came and went, and a few hundred kilobytes at most.
pub const UNHOSTED_MAX: usize = 1_024;

/// Capacity of one channel, in items: sequence arithmetic stays far from overflow.
pub const CAPACITY_ITEMS_MAX: u64 = 1 << 32;

/// The byte window a channel starts with.
pub const WINDOW_BYTES_INITIAL: u64 = 512 * 1_024;

/// The byte window a busy channel grows to: enough for 10 Gbit/s over 6 ms, and what one slow reader can pin.
pub const WINDOW_BYTES_MAX_DEFAULT: u64 = 8 * 1_024 * 1_024;

/// One message by default; larger ones are refused at the sender with the value.
pub const MESSAGE_BYTES_MAX_DEFAULT: usize = 64 * 1_024 * 1_024;

/// A message above this is kept as one piece and cut into records; below it shares a batch with its neighbours.
pub const BATCHED_ITEM_BYTES_MAX: usize = 16 * 1_024;

/// A batch is closed once it holds this much; with one more item it still fits a record.
pub const BATCH_BYTES: usize = 44 * 1_024;

/// Sealed bytes waiting for the link: two records keep the socket busy while the next is sealed.
pub const WRITE_BUFFER_BYTES: usize = 2 * RECORD_BYTES_MAX;

/// Control frames that may wait for a peer that asks without reading the answers (`SESS-13`): a few megabytes.
pub const BACKLOG_FRAMES_MAX: usize = 1 << 17;

/// Rekey a channel after this many bytes, far inside AES-GCM's bounds.
pub const REKEY_BYTES: u64 = 4 << 30;

/// Rekey a channel after this many records.
pub const REKEY_RECORDS: u64 = 1 << 22;

/// Rekey a channel that is in use after this long, in milliseconds: bounds what one stolen key opens.
pub const REKEY_MILLIS: u64 = 10 * 60 * 1_000;

/// Bytes in the log of a broadcast by default: what slow subscribers can pin together, however many they are.
pub const LOG_BYTES_MAX_DEFAULT: u64 = 64 * 1_024 * 1_024;

/// Values of one channel that wait to be tried again. They need no credit, so nothing else bounds what holders that come and
/// go put off; one more is tried again at once.
pub const DELAYED_ITEMS_MAX: usize = 65_536;

/// What holders of one client may have put off of that, on one channel: a quarter, so that others can put off too.
pub const DELAYED_ITEMS_PER_KEY_MAX: u64 = DELAYED_ITEMS_MAX as u64 / 4;

/// Assigned values that a broadcast keeps for those who come later, by default: each is sent to every one of them.
pub const ASSIGNED_ITEMS_MAX_DEFAULT: usize = 65_536;

/// Bytes of assigned values that a broadcast keeps by default.
pub const ASSIGNED_BYTES_MAX_DEFAULT: u64 = 64 * 1_024 * 1_024;

/// Waiting `recv`s of one receiver: each may cost a place in the line, so a peer that asks forever is stopped at a few
/// megabytes. A shell with more waiters lets them wait on its side.
pub const DEMAND_UNITS_MAX: u64 = 65_536;

/// Values that may be sent ahead to one receiver: as many as small ones it takes in about a millisecond.
pub const AHEAD_ITEMS_MAX: u64 = 4_096;

/// A receiver is alone when no other has asked for so long: what is sent ahead to one of several would only be called back.
pub const ALONE_AFTER_MILLIS: u64 = 100;

/// A value that a receiver has had for so long, while others wait and nothing is left, is asked back: a program takes what it
/// waits for at once, unless it is stuck.
pub const CALL_BACK_AFTER_MILLIS: u64 = 1_000;

/// A value may take so long on its way that it comes at this rate at least, in bytes for each millisecond: about a megabit in a second.
pub const TRANSFER_BYTES_PER_MILLI_MIN: u64 = 128;

/// A peer that has not answered a call back or a recall for so long while others wait: no program is asked for that, so it is long
/// for a peer that is there, and short beside the time after which one that is not is found out.
/// After that it is asked for a sign of life, and has as long again until that has come.
pub const STALLED_AFTER_MILLIS: u64 = 1_000;

/// A sender that has used nothing of its credit for so long while others wait: a program may take a moment with a permit.
pub const UNUSED_AFTER_MILLIS: u64 = 2_000;

/// Places that a sender gets at once when it comes, if so few are free: dividing them would save nobody a round trip.
pub const WELCOME_WHOLE_ITEMS: u64 = 8;

/// Places that a sender gets at most when it comes: a burst of small values goes out before it has to ask.
pub const WELCOME_ITEMS_MAX: u64 = 64;

/// Bytes of the values in one queue by default, as in the log of a broadcast; then senders wait. One value more may come from
/// each sender that holds credit.
pub const QUEUE_BYTES_MAX_DEFAULT: u64 = 64 * 1_024 * 1_024;

/// How long a value rests that was refused once; doubled with each attempt, so that one that nobody can do does not keep a
/// fleet busy.
pub const RETRY_DELAY_MILLIS_MIN: u64 = 50;

/// The longest such rest: a fault of some minutes is over soon after its cause is.
pub const RETRY_DELAY_MILLIS_MAX: u64 = 30_000;

/// In how many attempts a value must be acknowledged unless the channel says otherwise: with the rests between them, some
/// three minutes of trying.
pub const ATTEMPTS_MAX_DEFAULT: u32 = 16;

/// The longest time for which a value can be put off, or kept, at once: a week. It is memory that nobody pays credit for.
pub const DELAY_MILLIS_MAX: u64 = 7 * 24 * 3_600 * 1_000;

/// Receivers that one key may have on one hosted channel: each costs a place in its lists.
pub const SUBSCRIPTIONS_PER_KEY_MAX: usize = 1_024;

/// For how long a client that was stopped because it held up others is not let in again, the first time; twice as long each
/// further time, so that what it does to others stays a small part of the time: with one place in a channel that is three seconds each time.
pub const STOPPED_MILLIS_MIN: u64 = 5_000;

/// The longest such time: many programs may share a key, and one of them may only have been stuck.
pub const STOPPED_MILLIS_MAX: u64 = 60_000;

/// After so long without another fault, none counts any more.
pub const STOPPED_FORGOTTEN_MILLIS: u64 = 600_000;

/// Clients that one channel remembers as stopped: some kilobytes. One more, and the one that may come back soonest is forgotten.
pub const STOPPED_KEYS_MAX: usize = 1_024;

/// How long a value rests that is too long for the one receiver that waits: another may come that takes it.
pub const PASSED_OVER_MILLIS: u64 = 1_000;
