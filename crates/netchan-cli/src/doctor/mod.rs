//! `netchan doctor`: why a client and its server do not come together.
//!
//! Each side says what it can know. A server is silent toward strangers by design, so that the client's side cannot tell a wrong
//! secret from clocks that disagree; the server's side can, and [`server`] does.

mod channels;
mod client;
mod explain;
mod report;
mod server;
mod tap;
mod visitors;

use std::fs::File;
use std::io::{BufRead as _, Read};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use netchan::Ticket;
use netchan::policy::Action;
use netchan::ticket::{TICKET_CHARS_MAX, TicketError};

use crate::Failure;

const LONG_HELP: &str = "\
Without --server, this is a client: it dials each address of the ticket in turn, says how far it comes, sets up a session and ends it
again. Where the server lets one session of a key take the place of another, that sends a program away that has its session in the
name of the same --identity.

With --server, this looks at what the server goes by, and names what a client cannot know: which access secret a ticket has, and which
rule of the policy decides. With --listen, it takes the server's place for a while and says why it turns each visitor away.

  netchan doctor --ticket-file TICKET --identity WORKER.identity --channel jobs
  netchan doctor --server --identity SERVER.identity --policy POLICY.toml - < TICKET
  netchan doctor --server --identity SERVER.identity --policy POLICY.toml --listen 0.0.0.0:9876

Exit code 0: everything is in order. 1: something failed, or is not known.";

#[derive(Args, Clone)]
#[command(after_long_help = LONG_HELP)]
pub(crate) struct Options {
    /// The ticket, which is a secret: others on this machine see what stands here, so rather give - and write it to standard
    /// input, or use --ticket-file
    #[arg(value_name = "TICKET", required_unless_present_any = ["ticket_file", "server"], conflicts_with = "ticket_file")]
    ticket: Option<String>,
    /// A file with the ticket
    #[arg(long, value_name = "FILE")]
    ticket_file: Option<PathBuf>,
    /// Who the client is [default: a new key each time]; with --server, the server's identity file
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Whether the client may use this channel. It is opened for a moment, with a type of its own, so that no value moves
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// What the client does with the channel [default: whatever it may]
    #[arg(long, requires = "channel")]
    action: Option<Asked>,
    /// Print one JSON object, and nothing else, to standard output
    #[arg(long)]
    json: bool,
    /// Look at the server's side, on its machine
    #[arg(long, requires = "identity")]
    server: bool,
    /// The server's policy file [default: none, so that ticket holders may do everything]
    #[arg(long, value_name = "FILE", requires = "server")]
    policy: Option<PathBuf>,
    /// A client, to be looked at by the policy: the fingerprint of its key, SHA256:…, or its name in the policy
    #[arg(long, value_name = "PEER", requires = "server")]
    peer: Option<String>,
    /// The client comes with a ticket that holds an access secret [default: if the TICKET given is a good one]
    #[arg(long, requires = "peer")]
    ticket_holder: bool,
    /// The server's program sets Config::admit_without_secret
    #[arg(long, requires = "server")]
    admit_without_secret: bool,
    /// Listen here in the server's place, and say what becomes of each visitor; stop the server first
    #[arg(long, value_name = "ADDRESS", requires = "server")]
    listen: Option<String>,
    /// How long to listen; Ctrl-C ends it sooner
    #[arg(long, value_name = "N", default_value_t = 30, requires = "listen", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Send,
    Recv,
}

impl From<Asked> for Action {
    fn from(asked: Asked) -> Self {
        match asked {
            Asked::Send => Self::Send,
            Asked::Recv => Self::Receive,
        }
    }
}

/// Both, unless one was asked for.
fn actions(asked: Option<Asked>) -> &'static [Action] {
    match asked {
        None => &[Action::Send, Action::Receive],
        Some(Asked::Send) => &[Action::Send],
        Some(Asked::Recv) => &[Action::Receive],
    }
}

/// A ticket as it was handed to this command.
struct Given {
    ticket: Result<Ticket, TicketError>,
    /// Its file's permissions, where they let others read it.
    open_file: Option<(PathBuf, u32)>,
}

/// `false` if something failed or is not known.
pub(crate) async fn run(options: Options) -> Result<bool, Failure> {
    if options.server && options.channel.is_some() && options.peer.is_none() {
        return Err("with --server, --channel needs --peer: whose access is it about?".into());
    }
    let given = given(&options)?;
    let report = match given {
        given if options.server => server::run(&options, given).await,
        Some(given) => client::run(&options, given).await,
        None => return Err("there is no ticket; give one, or --ticket-file, or - for standard input".into()),
    };
    Ok(report.finish())
}

fn given(options: &Options) -> Result<Option<Given>, Failure> {
    // A little more than the longest, so that what is too long is seen to be.
    let bytes_max = TICKET_CHARS_MAX as u64 + 2;
    let mut text = String::new();
    let mut open_file = None;
    match (&options.ticket, &options.ticket_file) {
        (_, Some(path)) => {
            let failed = |error| format!("cannot read the ticket in {}: {error}", path.display());
            // Before opening, which would wait for ever at a pipe.
            if !std::fs::metadata(path).map_err(failed)?.is_file() {
                return Err(format!("{} is not a file that holds a ticket", path.display()).into());
            }
            let file = File::open(path).map_err(failed)?;
            open_file = readable_by_others(&file).map(|mode| (path.clone(), mode));
            file.take(bytes_max).read_to_string(&mut text).map_err(failed)?;
        }
        (Some(ticket), None) if ticket == "-" => {
            // One line, so that whoever types it needs no end of input.
            let read = std::io::stdin().lock().take(bytes_max).read_line(&mut text);
            read.map_err(|error| format!("cannot read the ticket from standard input: {error}"))?;
        }
        (Some(ticket), None) => text.clone_from(ticket),
        (None, None) => return Ok(None),
    }
    Ok(Some(Given { ticket: text.parse(), open_file }))
}

#[cfg(unix)]
fn readable_by_others(file: &File) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;

    let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mode = metadata.permissions().mode() & 0o7777;
    (mode & 0o044 != 0).then_some(mode)
}

#[cfg(not(unix))]
fn readable_by_others(_: &File) -> Option<u32> {
    None
}
