//! The planted bugs, one after the other: a checker that cannot fail proves nothing.

/// Placeholder.
pub fn report(_: u64, _: bool) -> bool {
    false
}
