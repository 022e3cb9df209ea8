//! Clients that were stopped because they held up others, and when they may come again (`HOST-29`).

use std::collections::HashMap;

use crate::limits::{STOPPED_FORGOTTEN_MILLIS, STOPPED_KEYS_MAX, STOPPED_MILLIS_MAX, STOPPED_MILLIS_MIN};

#[derive(Clone, Copy, Debug)]
struct Fault {
    times: u32,
    until: u64,
}

/// By key of the client, in the time of the channel.
#[derive(Debug, Default)]
pub(super) struct StoppedClients {
    of: HashMap<u128, Fault>,
}

impl StoppedClients {
    /// It was stopped.
    pub(super) fn note(&mut self, client: u128, now: u64) {
        if self.of.len() >= STOPPED_KEYS_MAX && !self.of.contains_key(&client) {
            let soonest = self.of.iter().min_by_key(|(_, fault)| fault.until).map(|(client, _)| *client);
            soonest.and_then(|client| self.of.remove(&client));
        }
        let fault = self.of.entry(client).or_insert(Fault { times: 0, until: now });
        if now > fault.until.saturating_add(STOPPED_FORGOTTEN_MILLIS) {
            fault.times = 0;
        }
        let pause = (STOPPED_MILLIS_MIN << fault.times.min(20)).min(STOPPED_MILLIS_MAX);
        fault.times = fault.times.saturating_add(1);
        fault.until = now.saturating_add(pause);
    }

    /// How long it is to wait before it may come, in milliseconds.
    pub(super) fn waits(&self, client: u128, now: u64) -> Option<u64> {
        let fault = self.of.get(&client)?;
        Some(fault.until.saturating_sub(now)).filter(|left| *left > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_29_each_time_it_is_kept_out_twice_as_long() {
        let mut stopped = StoppedClients::default();
        assert_eq!(stopped.waits(1, 0), None);
        let mut now = 0;
        for expected in [5_000, 10_000, 20_000, 40_000, 60_000, 60_000] {
            stopped.note(1, now);
            assert_eq!(stopped.waits(1, now), Some(expected));
            assert_eq!(stopped.waits(2, now), None, "others are not");
            now += expected;
            assert_eq!(stopped.waits(1, now), None);
        }
        now += STOPPED_FORGOTTEN_MILLIS + 1;
        stopped.note(1, now);
        assert_eq!(stopped.waits(1, now), Some(5_000), "it was good for long");
    }

    #[test]
    fn host_29_so_many_are_remembered() {
        let mut stopped = StoppedClients::default();
        (0..3 * STOPPED_KEYS_MAX as u128).for_each(|client| stopped.note(client, client as u64));
        assert_eq!(stopped.of.len(), STOPPED_KEYS_MAX);
        assert!(stopped.waits(3 * STOPPED_KEYS_MAX as u128 - 1, 0).is_some(), "the last is");
    }
}
