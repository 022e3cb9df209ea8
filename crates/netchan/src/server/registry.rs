//! What is hosted, by name; and channels that were closed, whose names are taken again, and in which something still is.

use std::collections::BTreeMap;
use std::ptr;
use std::sync::Arc;

use netchan_proto::wire::{Open, OpenFlow};

use crate::hub::Engine;

#[derive(Default)]
pub(super) struct Registry {
    now: BTreeMap<String, Arc<dyn Engine>>,
    /// Oldest first.
    former: Vec<Arc<dyn Engine>>,
}

/// Who may answer an OPEN: channels that had the name before, oldest first, and the one that has it now.
pub(super) struct Candidates {
    former: Vec<Arc<dyn Engine>>,
    now: Option<Arc<dyn Engine>>,
}

impl Registry {
    pub(super) fn get(&self, name: &str) -> Option<Arc<dyn Engine>> {
        self.now.get(name).cloned()
    }

    /// Everything in which something may be.
    pub(super) fn all(&self) -> Vec<Arc<dyn Engine>> {
        self.former.iter().chain(self.now.values()).cloned().collect()
    }

    /// What can be opened now.
    pub(super) fn current(&self) -> Vec<Arc<dyn Engine>> {
        self.now.values().cloned().collect()
    }

    pub(super) fn host(&mut self, name: &str, engine: Arc<dyn Engine>) {
        self.former.extend(self.now.insert(name.to_owned(), engine));
    }

    /// It has come to its end. Says whether it had its name until now.
    pub(super) fn forget(&mut self, engine: &dyn Engine) -> bool {
        let is_other = |known: &Arc<dyn Engine>| !ptr::addr_eq(Arc::as_ptr(known), engine);
        self.former.retain(is_other);
        let name = &*engine.spec().name;
        self.now.get(name).is_some_and(|known| !is_other(known)) && self.now.remove(name).is_some()
    }

    pub(super) fn take_all(&mut self) -> Vec<Arc<dyn Engine>> {
        let Self { now, former } = std::mem::take(self);
        former.into_iter().chain(now.into_values()).collect()
    }

    pub(super) fn candidates(&self, name: &str) -> Candidates {
        let had = |engine: &&Arc<dyn Engine>| *engine.spec().name == *name;
        Candidates { former: self.former.iter().filter(had).cloned().collect(), now: self.get(name) }
    }
}

impl Candidates {
    /// Whoever is to receive gets what waits in an earlier channel of the name first, if it is of the same type. To be called with
    /// no lock held.
    pub(super) fn answer(self, open: &Open) -> Option<Arc<dyn Engine>> {
        let left = |engine: &Arc<dyn Engine>| {
            let (spec, here) = (engine.spec(), engine.survey());
            (&*spec.label, &*spec.codec) == (&*open.label, &*open.codec)
                && spec.access.may_receive
                && !here.broadcast
                && here.depth > 0
        };
        match open.flow {
            OpenFlow::OpenerReceives => self.former.into_iter().find(left).or(self.now),
            OpenFlow::OpenerSends => self.now,
        }
    }
}
