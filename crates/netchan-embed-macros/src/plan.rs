//! How a payload is taken apart (`STORE-4`): which mask goes into which function, in which order the functions run.
//!
//! Invariant: after all steps in order, and then all swaps, the words are the payload's. A word's masks but the last are random
//! and independent, and each is combined by an operation that can be undone, so any of them short of all say nothing about it.

use zeroize::Zeroizing;

use crate::chance::Chance;

/// Functions that each word passes through. Four were asked for; one more costs little.
pub(crate) const SHARES: usize = 5;
const _: () = assert!(SHARES >= 4);

/// Functions of the same shape that work on nothing: at least, and so many more at most.
const DECOYS_MIN: usize = 3;
const DECOYS_MORE_MAX: usize = 3;

/// Longer payloads have more functions for each share, so that frames stay small enough to be wiped, and compilation quick.
pub(crate) const FUNCTION_WORDS_MAX: usize = 32;

pub(crate) struct Plan {
    pub(crate) words: usize,
    /// The payload's; the words after them are padding.
    pub(crate) bytes: usize,
    /// In the order in which they run.
    pub(crate) steps: Vec<Step>,
    /// What brings the words into their order at last.
    pub(crate) swaps: Vec<(usize, usize)>,
    /// The order in which the functions stand in the source: indices of steps.
    pub(crate) layout: Vec<usize>,
}

/// One function.
pub(crate) struct Step {
    pub(crate) is_decoy: bool,
    pub(crate) ops: Vec<Op>,
}

/// `word = mix(word.rotate_left(turn), mask)`.
pub(crate) struct Op {
    pub(crate) place: usize,
    pub(crate) turn: u32,
    pub(crate) mix: Mix,
    pub(crate) mask: u64,
}

#[derive(Clone, Copy)]
pub(crate) enum Mix {
    /// `word + mask`
    Add,
    /// `word ^ mask`
    Xor,
    /// `mask - word`
    From,
}

impl Op {
    fn draw(place: usize, chance: &mut Chance) -> Self {
        let mix = [Mix::Add, Mix::Xor, Mix::From][chance.below(3)];
        let turn = if chance.below(2) == 0 { 0 } else { 1 + chance.below(63) as u32 };
        Self { place, turn, mix, mask: chance.u64() }
    }

    fn apply(&self, word: u64) -> u64 {
        let word = word.rotate_left(self.turn);
        match self.mix {
            Mix::Add => word.wrapping_add(self.mask),
            Mix::Xor => word ^ self.mask,
            Mix::From => self.mask.wrapping_sub(word),
        }
    }

    /// The mask that turns `word` into `wanted`.
    fn solve(&mut self, word: u64, wanted: u64) {
        let word = word.rotate_left(self.turn);
        self.mask = match self.mix {
            Mix::Add => wanted.wrapping_sub(word),
            Mix::Xor => wanted ^ word,
            Mix::From => wanted.wrapping_add(word),
        };
    }
}

impl Plan {
    pub(crate) fn new(payload: &[u8], chance: &mut Chance) -> Self {
        let words = words_of(payload, chance);
        let count = words.len();
        // Word `i` is put together at `places[i]`.
        let mut places: Vec<usize> = (0..count).collect();
        chance.shuffle(&mut places);
        let mut wanted = Zeroizing::new(vec![0; count]);
        for (word, &place) in words.iter().zip(&places) {
            wanted[place] = *word;
        }
        let mut steps = draw_steps(count, chance);
        chance.shuffle(&mut steps);
        solve(&mut steps, &wanted);
        let mut layout: Vec<usize> = (0..steps.len()).collect();
        chance.shuffle(&mut layout);
        Self { words: count, bytes: payload.len(), steps, swaps: swaps_from(&places), layout }
    }

    #[cfg(test)]
    pub(crate) fn run(&self) -> Vec<u8> {
        let mut words = vec![0; self.words];
        for op in self.steps.iter().filter(|step| !step.is_decoy).flat_map(|step| &step.ops) {
            words[op.place] = op.apply(words[op.place]);
        }
        self.swaps.iter().for_each(|&(a, b)| words.swap(a, b));
        words.iter().flat_map(|word| word.to_le_bytes()).take(self.bytes).collect()
    }
}

/// Filled up with random bytes.
fn words_of(payload: &[u8], chance: &mut Chance) -> Zeroizing<Vec<u64>> {
    let mut words = Zeroizing::new(Vec::with_capacity(payload.len().div_ceil(8)));
    for chunk in payload.chunks(8) {
        let mut bytes = Zeroizing::new(chance.u64().to_le_bytes());
        bytes[..chunk.len()].copy_from_slice(chunk);
        words.push(u64::from_le_bytes(*bytes));
    }
    words
}

/// Every share in functions of its own, and decoys as long as those.
fn draw_steps(words: usize, chance: &mut Chance) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut draw = |is_decoy, places: &[usize], chance: &mut Chance| {
        let ops = places.iter().map(|&place| Op::draw(place, chance)).collect();
        steps.push(Step { is_decoy, ops });
    };
    let mut places: Vec<usize> = (0..words).collect();
    for _ in 0..SHARES {
        chance.shuffle(&mut places);
        places.chunks(FUNCTION_WORDS_MAX).for_each(|part| draw(false, part, chance));
    }
    for _ in 0..DECOYS_MIN + chance.below(DECOYS_MORE_MAX + 1) {
        chance.shuffle(&mut places);
        draw(true, &places[..words.min(FUNCTION_WORDS_MAX)], chance);
    }
    steps
}

/// Chooses the last mask of every word so that the word comes out.
fn solve(steps: &mut [Step], wanted: &[u64]) {
    let mut words = Zeroizing::new(vec![0; wanted.len()]);
    let mut left = vec![SHARES; wanted.len()];
    for op in steps.iter_mut().filter(|step| !step.is_decoy).flat_map(|step| &mut step.ops) {
        left[op.place] -= 1;
        if left[op.place] == 0 {
            op.solve(words[op.place], wanted[op.place]);
        }
        words[op.place] = op.apply(words[op.place]);
    }
    assert!(*words == wanted, "the shares make the payload");
}

fn swaps_from(places: &[usize]) -> Vec<(usize, usize)> {
    let mut held = vec![0; places.len()];
    for (word, &place) in places.iter().enumerate() {
        held[place] = word;
    }
    let mut swaps = Vec::new();
    for place in 0..held.len() {
        while held[place] != place {
            let home = held[place];
            swaps.push((place, home));
            held.swap(place, home);
        }
    }
    swaps
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn plan(length: usize, seed: &str) -> (Vec<u8>, Plan) {
        let mut payload = vec![0; length];
        getrandom::fill(&mut payload).expect("random bytes");
        let plan = Plan::new(&payload, &mut Chance::derived(&payload, seed, "path"));
        (payload, plan)
    }

    #[test]
    fn the_shares_make_the_payload_at_every_length() {
        for length in (1..=100).chain([255, 256, 257, 2_047, 2_048]) {
            let (payload, plan) = plan(length, "");
            assert_eq!(plan.run(), payload, "{length} bytes");
            assert!(plan.steps.iter().all(|step| (1..=FUNCTION_WORDS_MAX).contains(&step.ops.len())));
        }
    }

    #[test]
    fn every_word_passes_through_a_function_of_each_share_and_there_are_decoys() {
        let (_, plan) = plan(96, "");
        for place in 0..plan.words {
            let shares = plan
                .steps
                .iter()
                .filter(|step| !step.is_decoy && step.ops.iter().filter(|op| op.place == place).count() == 1);
            assert_eq!(shares.count(), SHARES);
        }
        assert!(plan.steps.iter().filter(|step| step.is_decoy).count() >= DECOYS_MIN);
    }

    #[test]
    fn no_mask_is_a_word_of_the_payload_and_none_is_there_twice() {
        let (payload, plan) = plan(1_024, "");
        let mut masks = HashSet::new();
        for op in plan.steps.iter().flat_map(|step| &step.ops) {
            assert!(masks.insert(op.mask));
            assert!(!payload.windows(8).any(|window| window == op.mask.to_le_bytes()));
        }
    }
}
