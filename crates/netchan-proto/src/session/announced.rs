//! What this end has announced, so that it can be said again on a new link.

use std::collections::{BTreeMap, VecDeque};

use crate::limits::UNHOSTED_MAX;
use crate::wire::Announce;

/// The newest word about each hosted channel. Of those that are hosted no longer the latest are kept: a peer that was away
/// when one ended is told so.
#[derive(Debug, Default)]
pub(super) struct Announced {
    by_name: BTreeMap<String, Announce>,
    /// Names of channels that are hosted no longer, oldest first; some may be hosted again.
    unhosted: VecDeque<String>,
}

impl Announced {
    /// Whether this is news to a peer that has heard everything so far.
    pub(super) fn note(&mut self, announce: Announce) -> bool {
        if announce.hosted {
            let before = self.by_name.insert(announce.name.clone(), announce.clone());
            return before.as_ref() != Some(&announce);
        }
        let name = announce.name.clone();
        if self.by_name.get(&name).is_none_or(|known| !known.hosted) {
            // It has not heard of it, or knows.
            return false;
        }
        self.by_name.insert(name.clone(), announce);
        self.unhosted.push_back(name);
        while self.unhosted.len() > UNHOSTED_MAX {
            if let Some(oldest) = self.unhosted.pop_front()
                && self.by_name.get(&oldest).is_some_and(|known| !known.hosted)
            {
                self.by_name.remove(&oldest);
            }
        }
        true
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Announce> {
        self.by_name.values()
    }
}
