//! The netchan command: the main job as a demonstration, benchmarks beside their limits, and tools for policies, keys, tickets and
//! whatever keeps two ends apart.

#[macro_use]
mod text;

mod bench;
mod child;
mod demo;
mod doctor;
mod keys;
mod policy;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What ends a command early: any error, told to the user as it stands.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// The threads of every runtime that this command starts, the same for every process and every contestant.
///
/// Two, because that is what the smallest machine we judge on has, and because a netchan user has the default,
/// multi-threaded tokio runtime: a single thread would spare everybody the hand-over between threads that real programs
/// pay for.
const WORKER_THREADS: usize = 2;

#[derive(Parser)]
#[command(name = "netchan", version, about = "Go's channels over the network, encrypted")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A server hands typed tasks to worker processes, collects their results and audits every one.
    Demo(demo::Options),
    /// Measure netchan beside its limits: plain TCP, TLS, and a channel inside one process.
    Bench(bench::Options),
    /// Check a policy file, or explain what it decides.
    Policy(policy::Options),
    /// Make an identity file: a key, and the access secret of the tickets of a server that has it.
    Keygen(keys::Keygen),
    /// Print the fingerprint of an identity file, and no secret.
    Id(keys::Id),
    /// Add a fresh access secret to a server's identity file, for new tickets, while older ones stay good; or leave only the newest.
    Rotate(keys::Rotate),
    /// Print a ticket of a server, or write it to a file.
    Ticket(keys::Issue),
    /// Find out why a client and its server do not come together.
    Doctor(doctor::Options),
    /// A worker of `demo`; takes its orders from standard input.
    #[command(hide = true)]
    DemoWorker,
    /// The far side of `bench`; takes its orders from standard input.
    #[command(hide = true)]
    BenchPeer,
    /// Either side of `bench idle`; takes its orders from standard input.
    #[command(hide = true)]
    BenchIdle,
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .expect("the operating system refused the threads of the runtime");
    let outcome = runtime.block_on(async {
        match command {
            Command::Demo(options) => demo::run(options).await,
            Command::Bench(options) => bench::run(options).await,
            Command::Policy(options) => policy::run(&options),
            Command::Keygen(options) => keys::keygen(&options),
            Command::Id(options) => keys::id(&options),
            Command::Rotate(options) => keys::rotate(&options),
            Command::Ticket(options) => keys::ticket(&options),
            Command::Doctor(options) => doctor::run(options).await,
            Command::DemoWorker => demo::worker::run().await.map(|()| true),
            Command::BenchPeer => bench::peer::run().await.map(|()| true),
            Command::BenchIdle => bench::idle::end().await.map(|()| true),
        }
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("netchan: {failure}");
            if std::env::args_os().any(|argument| argument == "--json") {
                // For machines as well, whatever went wrong.
                out!("{}", serde_json::json!({ "ok": false, "error": failure.to_string() }));
            }
            ExitCode::FAILURE
        }
    }
}
