//! The planted bugs, one after the other: a checker that cannot fail proves nothing.

use netchan_proto::planted::{Mutant, plant};
use serde_json::json;

use crate::campaign;

/// The first of so many seeds that catches a bug, and what was found then.
#[must_use]
pub fn catch(mutant: Mutant, seeds: u64) -> Option<(u64, String)> {
    let total = campaign::run(seeds, true, || plant(Some(mutant)), || ());
    let (seed, findings) = total.failed.into_iter().next()?;
    Some((seed, findings.notes.into_iter().next().unwrap_or_default()))
}

/// Plants each bug in turn and prints a table. False if one survives.
#[must_use]
pub fn report(seeds: u64, json: bool) -> bool {
    let mut survivors = 0;
    let mut rows = Vec::new();
    println!("{:<28} {:>6}  found", "planted bug", "seed");
    for mutant in Mutant::ALL {
        let name = format!("{mutant:?}");
        match catch(mutant, seeds) {
            Some((seed, note)) => {
                let note: String = note.chars().take(100).collect();
                println!("{name:<28} {seed:>6}  {note}");
                rows.push(json!({ "planted": name, "seed": seed, "found": note }));
            }
            None => {
                survivors += 1;
                println!("{name:<28} {:>6}  SURVIVES {seeds} seeds", "-");
                rows.push(json!({ "planted": name, "seed": null }));
            }
        }
    }
    if json {
        println!("{}", json!({ "planted": rows, "survivors": survivors, "ok": survivors == 0 }));
    }
    println!("planted {} caught {}", Mutant::ALL.len(), Mutant::ALL.len() - survivors);
    survivors == 0
}
