//! `netchan bench`: netchan beside its limits, all measured in the same run, in turns.
//!
//! Two processes on loopback: this one drives, the peer consumes or echoes, and rates are those at the consumer, from the
//! first arrival to the last. Everything that arrives goes into a checksum that the driving side verifies afterwards, so
//! no contestant can gain by leaving work out.

mod framed;
mod hosted;
pub(crate) mod idle;
mod job;
mod message;
mod mpsc;
mod netchan;
pub(crate) mod peer;
mod report;
mod tasks;
mod tls;
mod wire;

use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::Failure;
use crate::child::Subprocess;
use job::{AHEAD_BYTES_MAX, Contestant, Driven, Job, Tally, Workload};
use message::Message;
use peer::{News, Order};
use report::{Report, Rounds, percentile};
use tls::Identity;

/// How often each contestant has its turn, unless told otherwise.
const ROUNDS_DEFAULT: usize = 5;
/// How much longer than its time a round may take before it counts as hung.
const ROUND_SLACK: Duration = Duration::from_secs(30);

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// What to measure
    workload: Workload,
    /// The size of a message or block in bytes [default: 64; bulk: 1 MiB]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=(16 << 20)))]
    size: Option<u32>,
    /// How long each contestant runs in each round
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    seconds: f64,
    /// How often each contestant has its turn [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: Option<u32>,
    /// For `stream` and `pingpong`: netchan over channels that the server hosts, with direct ones beside them
    #[arg(long)]
    hosted: bool,
    /// How many workers take from the queue, or do the tasks [default: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    workers: Option<u32>,
    /// How many tasks each worker may have ahead of the one it is working at [default: one task at a time]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    ahead: Option<u32>,
    /// How many subscribers the broadcast has [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    subscribers: Option<u32>,
    /// How many connections are idle [default: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_000))]
    connections: Option<u32>,
    /// Run only this contestant, for a profile
    #[arg(long, value_name = "CONTESTANT", hide = true)]
    only: Option<String>,
    /// Print the figures as one JSON object on the last line
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().map_err(|e| e.to_string())?;
    if (0.01..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("must be from 0.01 to 3600".into()) }
}

impl Options {
    /// How many clients there are, if the workload can have that many.
    fn checked_ends(&self) -> Result<usize, Failure> {
        let given: [(&[Workload], _, _); 3] = [
            (&[Workload::Queue, Workload::Tasks], "workers", self.workers),
            (&[Workload::Broadcast], "subscribers", self.subscribers),
            (&[Workload::Idle], "connections", self.connections),
        ];
        for (of, name, ends) in given {
            match ends {
                Some(ends) if of.contains(&self.workload) => return Ok(ends as usize),
                Some(_) => return Err(self.not_for(name, of)),
                None => {}
            }
        }
        Ok(self.workload.default_ends())
    }

    /// How many tasks are ahead of each worker, if the workload has tasks and their bytes fit.
    fn checked_ahead(&self, size: usize) -> Result<Option<usize>, Failure> {
        let Some(ahead) = self.ahead.map(|ahead| ahead as usize) else { return Ok(None) };
        if self.workload != Workload::Tasks {
            return Err(self.not_for("ahead", &[Workload::Tasks]));
        }
        if ahead * size > AHEAD_BYTES_MAX {
            return Err(format!(
                "--ahead {ahead} of {size} bytes each is too much: at most {AHEAD_BYTES_MAX} bytes can be ahead"
            )
            .into());
        }
        Ok(Some(ahead))
    }

    /// Whether netchan's channels are hosted ones, if they can be.
    fn checked_hosted(&self) -> Result<bool, Failure> {
        if self.hosted && !self.workload.can_be_hosted() {
            return Err(self.not_for("hosted", &[Workload::Stream, Workload::Pingpong]));
        }
        Ok(self.hosted)
    }

    /// How often each contestant has its turn, if the workload has turns.
    fn checked_rounds(&self) -> Result<usize, Failure> {
        match self.rounds {
            Some(_) if self.workload == Workload::Idle => {
                Err("`idle` has no rounds, so it has no --rounds".into())
            }
            Some(rounds) => Ok(rounds as usize),
            None => Ok(ROUNDS_DEFAULT),
        }
    }

    fn not_for(&self, option: &str, of: &[Workload]) -> Failure {
        let of: Vec<_> = of.iter().map(|workload| format!("`{}`", workload.name())).collect();
        format!("--{option} is for {}, not for `{}`", of.join(" and "), self.workload.name()).into()
    }

    /// The size to use, if the workload can have it.
    fn checked_size(&self) -> Result<usize, Failure> {
        let Some(size) = self.size.map(|size| size as usize) else { return Ok(self.workload.default_size()) };
        let name = self.workload.name();
        match self.workload.smallest_size() {
            None => Err(format!("`{name}` sends nothing, so it has no --size").into()),
            Some(smallest) if size < smallest => Err(format!(
                "--size {size} is too small: the messages of `{name}` have at least {smallest} bytes"
            )
            .into()),
            Some(_) => Ok(size),
        }
    }
}

/// Runs the bench; `true` unless something failed, which is an error here and never a slow figure.
pub(crate) async fn run(options: Options) -> Result<bool, Failure> {
    let (workload, size, seconds) = (options.workload, options.checked_size()?, options.seconds);
    let (ends, rounds) = (options.checked_ends()?, options.checked_rounds()?);
    let (ahead, hosted) = (options.checked_ahead(size)?, options.checked_hosted()?);
    if workload == Workload::Idle {
        return idle::run(ends, options.json).await;
    }
    let mut far_side = FarSide { peer: Subprocess::start("bench-peer")?, identity: Identity::generate()? };
    let chosen =
        |contestant: &&Contestant| options.only.as_ref().is_none_or(|only| only == contestant.name());
    let mut contestants: Vec<Rounds> =
        workload.contestants(hosted).iter().filter(chosen).map(|&c| Rounds::new(c)).collect();

    let bar = progress(rounds * contestants.len());
    for round in 1..=rounds {
        for figures in &mut contestants {
            let contestant = figures.contestant;
            bar.set_message(format!("round {round} of {rounds}: {}", contestant.name()));
            let job = Job { contestant, workload, size, seconds, ends, ahead, hosted };
            let limit = Duration::from_secs_f64(seconds) + ROUND_SLACK;
            let outcome = tokio::time::timeout(limit, far_side.measure(job)).await;
            let sample =
                outcome.unwrap_or_else(|_| Err(format!("not done after {} s", limit.as_secs()).into()));
            let sample = sample.map_err(|e| format!("{}, round {round}: {e}", contestant.name()))?;
            figures.figures.push(sample.figure);
            figures.tails.extend(sample.tail);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();

    let report = Report { workload, size, seconds, ends, ahead, hosted, contestants };
    print!("{}", report.table());
    if options.json {
        println!("{}", report.json());
    }
    Ok(true)
}

/// A bar on standard error, if that is a terminal.
fn progress(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("[{bar:40}] {msg}").expect("a constant template");
    ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::stderr()).with_style(style)
}

/// What one round says.
struct Sample {
    figure: f64,
    tail: Option<f64>,
}

/// The peer process, and who we are to it.
struct FarSide {
    peer: Subprocess,
    identity: Identity,
}

impl FarSide {
    /// One round of one contestant.
    async fn measure(&mut self, job: Job) -> Result<Sample, Failure> {
        let (driven, tally) = if job.contestant == Contestant::Mpsc {
            mpsc::stream(job).await?
        } else {
            self.drive(job).await?
        };
        sample(&job, &driven, &tally)
    }

    async fn drive(&mut self, job: Job) -> Result<(Driven, Tally), Failure> {
        self.peer.tell(&Order::Serve { job, key: self.identity.public_key().to_vec() }).await?;
        let (address, key) = match self.hear().await? {
            News::Listening { address, key } => (address, key),
            _ => return Err("the peer is out of step".into()),
        };
        // In a task, as a program's work is, and not in the thread that started everything.
        let driving = match job.contestant {
            Contestant::Netchan | Contestant::Direct => tokio::spawn(netchan::drive(address, job)),
            Contestant::Tls => tokio::spawn(wire::drive(address, self.identity.connector(key)?, job)),
            Contestant::Tcp | Contestant::Mpsc => tokio::spawn(wire::drive(address, wire::Plain, job)),
        };
        let driven = driving.await??;
        self.peer.tell(&Order::Finish).await?;
        match self.hear().await? {
            News::Served(tally) => Ok((driven, tally)),
            _ => Err("the peer is out of step".into()),
        }
    }

    async fn hear(&mut self) -> Result<News, Failure> {
        match self.peer.hear().await? {
            Some(News::Failed(why)) => Err(format!("the peer failed: {why}").into()),
            Some(news) => Ok(news),
            None => Err("the peer ended early".into()),
        }
    }
}

/// Checks that everything sent arrived as it was sent, and makes the figure of it.
fn sample(job: &Job, driven: &Driven, tally: &Tally) -> Result<Sample, Failure> {
    match driven {
        Driven::Sent(counts) => {
            let (sent, checksum) = (counts.iter().sum::<u64>(), expected_checksum(job, counts));
            if (tally.count, tally.checksum) != (sent, checksum) {
                return Err(
                    format!("{sent} sent, but {} arrived or their checksum is wrong", tally.count).into()
                );
            }
            // The first arrival started the clock, so it is not one of those that were counted by it.
            let rate = sent.saturating_sub(1) as f64 / tally.seconds;
            if sent < 2 || !rate.is_finite() {
                return Err("too little arrived to measure: give it more --seconds".into());
            }
            let per_arrival =
                if job.workload == Workload::Bulk { job.size as f64 / f64::from(1 << 20) } else { 1.0 };
            Ok(Sample { figure: rate * per_arrival, tail: None })
        }
        Driven::Trips(trips) => {
            let count = trips.len() as u64;
            if (tally.count, tally.checksum) != (count, Message::checksum_of_first(job.size, count)) {
                return Err(
                    format!("{count} sent, but {} arrived or their checksum is wrong", tally.count).into()
                );
            }
            let mut sorted = trips.clone();
            sorted.sort_unstable();
            let microseconds = |part| percentile(&sorted, part).map(|nanos| nanos as f64 / 1000.0);
            let figure = microseconds(0.50).ok_or("no round trip was made: give it more --seconds")?;
            Ok(Sample { figure, tail: microseconds(0.99) })
        }
        Driven::Fanned(counted) => {
            if (counted.count, counted.checksum) != (tally.count, tally.checksum) {
                let (sent, arrived) = (tally.count, counted.count);
                return Err(
                    format!("{sent} should arrive, but {arrived} did or their checksum is wrong").into()
                );
            }
            let rate = counted.count.saturating_sub(1) as f64 / counted.seconds;
            if counted.count < 2 || !rate.is_finite() {
                return Err("too little arrived to measure: give it more --seconds".into());
            }
            Ok(Sample { figure: rate, tail: None })
        }
        Driven::SetUps { count, seconds } => Ok(Sample { figure: *count as f64 / seconds, tail: None }),
    }
}

/// What the consumer's checksum must be when `counts` messages or blocks went out on each channel.
fn expected_checksum(job: &Job, counts: &[u64]) -> u64 {
    if job.workload == Workload::Bulk {
        let each = message::block_checksum(&message::block(job.size));
        return counts.iter().fold(0, |sum: u64, &count| sum.wrapping_add(each.wrapping_mul(count)));
    }
    let of_first = if job.workload == Workload::Tasks {
        Message::checksum_of_results
    } else {
        Message::checksum_of_first
    };
    let of_channel = |&count: &u64| of_first(job.size, count);
    counts.iter().map(of_channel).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(workload: Workload, size: usize) -> Job {
        Job { contestant: Contestant::Tcp, workload, size, seconds: 1.0, ends: 1, ahead: None, hosted: false }
    }

    fn options(workload: Workload, size: Option<u32>) -> Options {
        Options {
            workload,
            size,
            seconds: 1.0,
            rounds: None,
            hosted: false,
            workers: None,
            ahead: None,
            subscribers: None,
            connections: None,
            only: None,
            json: false,
        }
    }

    #[test]
    fn each_workload_has_its_own_number_of_clients() {
        let queue = |workers| Options { workers, ..options(Workload::Queue, None) };
        assert_eq!(queue(None).checked_ends().unwrap(), 16);
        assert_eq!(queue(Some(3)).checked_ends().unwrap(), 3);
        let mistaken = Options { workers: Some(3), ..options(Workload::Broadcast, None) };
        assert!(mistaken.checked_ends().is_err());
        let tasks = Options { workers: Some(3), ..options(Workload::Tasks, None) };
        assert_eq!(tasks.checked_ends().unwrap(), 3);
    }

    #[test]
    fn what_is_ahead_fits_between_two_sockets() {
        let tasks = |ahead| Options { ahead, ..options(Workload::Tasks, None) };
        assert_eq!(tasks(None).checked_ahead(64).unwrap(), None);
        assert_eq!(tasks(Some(1_024)).checked_ahead(64).unwrap(), Some(1_024));
        assert!(tasks(Some(1_024)).checked_ahead(65).is_err());
        assert!(Options { ahead: Some(2), ..options(Workload::Queue, None) }.checked_ahead(64).is_err());
    }

    #[test]
    fn tasks_are_checked_by_their_results() {
        let job = job(Workload::Tasks, 64);
        let good = Tally { count: 3, checksum: Message::checksum_of_results(64, 3), seconds: 1.0 };
        assert_eq!(sample(&job, &Driven::Sent(vec![3]), &good).unwrap().figure, 2.0);
        let unworked = Tally { checksum: Message::checksum_of_first(64, 3), ..good };
        assert!(sample(&job, &Driven::Sent(vec![3]), &unworked).is_err());
    }

    #[test]
    fn a_rate_leaves_out_the_arrival_that_started_the_clock() {
        let job = job(Workload::Stream, 64);
        let tally = Tally { count: 11, checksum: Message::checksum_of_first(64, 11), seconds: 2.0 };
        assert_eq!(sample(&job, &Driven::Sent(vec![11]), &tally).unwrap().figure, 5.0);
    }

    #[test]
    fn what_did_not_arrive_as_sent_is_an_error() {
        let job = job(Workload::Channels, 64);
        let checksum = Message::checksum_of_first(64, 3).wrapping_add(Message::checksum_of_first(64, 4));
        let good = Tally { count: 7, checksum, seconds: 1.0 };
        assert!(sample(&job, &Driven::Sent(vec![3, 4]), &good).is_ok());
        for bad in [Tally { count: 6, ..good }, Tally { checksum: checksum ^ 1, ..good }] {
            assert!(sample(&job, &Driven::Sent(vec![3, 4]), &bad).is_err());
        }
    }

    #[test]
    fn bulk_is_in_mebibytes() {
        let job = job(Workload::Bulk, 1 << 19);
        let tally = Tally { count: 3, checksum: expected_checksum(&job, &[3]), seconds: 1.0 };
        assert_eq!(sample(&job, &Driven::Sent(vec![3]), &tally).unwrap().figure, 1.0);
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        let with = |workload, size| options(workload, size).checked_size();
        assert_eq!(with(Workload::Bulk, None).unwrap(), 1 << 20);
        assert_eq!(with(Workload::Stream, Some(100)).unwrap(), 100);
        assert!(with(Workload::Stream, Some(63)).is_err());
        assert!(with(Workload::Connect, Some(64)).is_err());
    }
}
