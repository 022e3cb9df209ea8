//! Runs the simulation: many seeds, one seed, or the planted bugs.

use std::process::ExitCode;

use clap::Parser;
use netchan_sim::campaign::{self, Total};
use netchan_sim::context::KINDS;
use netchan_sim::world;
use serde_json::json;

#[derive(Parser)]
#[command(name = "netchan-sim", about = "netchan's protocol over a network that fails, judged by an auditor")]
struct Arguments {
    /// Run this many seeds
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Run one seed, and tell what happens
    #[arg(long, value_name = "SEED", conflicts_with = "planted")]
    seed: Option<u64>,
    /// Plant each known bug in turn, and show the seed that catches it
    #[arg(long)]
    planted: bool,
    /// Print the figures as one JSON object on the last line
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // What panics is reported as a finding, with its seed.
    std::panic::set_hook(Box::new(|_| ()));
    let good = match arguments {
        Arguments { seed: Some(seed), json, .. } => one(seed, json),
        Arguments { planted: true, seeds, json, .. } => netchan_sim::planting::report(seeds.min(1_000), json),
        Arguments { seeds, json, .. } => many(seeds, json),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(seed: u64, json: bool) -> bool {
    _ = std::panic::take_hook();
    let outcome = world::run(seed, true);
    let again = world::run(seed, false);
    println!("seed {seed}: trace {:016x}", outcome.hash);
    for kind in KINDS.iter().filter(|kind| outcome.counts.get(kind) > 0) {
        println!("{kind:<20} {:>8}", outcome.counts.get(kind));
    }
    for note in &outcome.findings.notes {
        println!("found: {note}");
    }
    let same = outcome.hash == again.hash;
    if !same {
        println!("found: the same seed took another course: {:016x}", again.hash);
    }
    let good = outcome.findings.clean() && same;
    if json {
        println!("{}", json!({ "seed": seed, "trace": format!("{:016x}", outcome.hash), "ok": good }));
    }
    good
}

fn many(seeds: u64, json: bool) -> bool {
    let total = campaign::run(seeds, false, || (), || ());
    let mut good = total.failed.is_empty();
    for (seed, findings) in total.failed.iter().take(10) {
        println!("seed {seed} failed: {}", findings.notes.join("; "));
        println!("  replay it: cargo run --release -p netchan-sim -- --seed {seed}");
    }
    if total.failed.len() > 10 {
        println!("and {} more", total.failed.len() - 10);
    }
    for kind in KINDS {
        let count = total.counts.get(kind);
        println!("{kind:<20} {count:>10}");
        if count == 0 {
            println!("  none: these seeds show nothing about {kind}");
            good = false;
        }
    }
    if total.findings.wrong > 0 {
        println!("other faults         {:>10}", total.findings.wrong);
    }
    if json {
        println!("{}", figures(&total, good));
    }
    let found = &total.findings;
    println!(
        "seeds {} lost {} duplicated {} reordered {} stuck {}",
        total.seeds, found.lost, found.duplicated, found.reordered, found.stuck
    );
    good
}

fn figures(total: &Total, ok: bool) -> serde_json::Value {
    let counts: serde_json::Map<_, _> =
        KINDS.iter().map(|kind| ((*kind).to_owned(), json!(total.counts.get(kind)))).collect();
    json!({
        "seeds": total.seeds,
        "lost": total.findings.lost,
        "duplicated": total.findings.duplicated,
        "reordered": total.findings.reordered,
        "stuck": total.findings.stuck,
        "wrong": total.findings.wrong,
        "failed_seeds": total.failed.iter().map(|(seed, _)| seed).collect::<Vec<_>>(),
        "counts": counts,
        "ok": ok,
    })
}
