//! The client's side: dials each address of a ticket and says how far it came.

use std::time::Duration;

use netchan::address::Address;
use netchan::transport::{Tcp, Transports};
use netchan::{Config, DialError, Fingerprint, Identity, Offer, Session, Ticket, dial};
use tokio::time::{Instant, timeout};

use super::explain::{self, Asking, Steps};
use super::report::{Check, Report};
use super::tap::{Notes, Seen, Tap};
use super::{Given, Options, channels};
use crate::keys::quoted;

/// Resolvers try several servers before they give up; whoever waits longer would not wait for them in earnest either.
const RESOLVE_MAX: Duration = Duration::from_secs(10);

/// How long an open of a name that is not hosted waits for the program at the server.
const OPEN_MAX: Duration = Duration::from_secs(2);

/// How long the goodbye may take.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// A session is quiet after this long at least, and after several round trips.
const QUIET_MIN: Duration = Duration::from_millis(300);
const QUIET_ROUND_TRIPS: u32 = 4;

pub(super) async fn run(options: &Options, given: Given) -> Report {
    let mut report = Report::new("client", options.json);
    report.add(about_ticket(&given));
    let identity = match &options.identity {
        Some(path) => Identity::load(path).map_err(|error| error.to_string()),
        None => Ok(Identity::generate()),
    };
    report.add(match (&identity, &options.identity) {
        (Ok(identity), Some(path)) => {
            Check::ok("identity", format!("{} of {}", identity.fingerprint(), path.display()))
        }
        (Ok(identity), None) => Check::ok(
            "identity",
            format!(
                "{}, a new key for this check; --identity FILE looks at what your own may do",
                identity.fingerprint()
            ),
        ),
        (Err(error), _) => Check::failed("identity", error.clone()),
    });
    let (Ok(ticket), Ok(identity)) = (given.ticket, identity) else { return report };
    let asking = Asking {
        fingerprint: identity.fingerprint().to_string(),
        has_secret: ticket.access_secret().is_some(),
        at_server: at_server(options, &ticket, &identity),
        clock: report.clock.clone(),
    };
    let mut is_surveyed = false;
    for address in ticket.addresses() {
        let mut steps = Steps::to(address);
        let session = reach(&mut steps, address, &ticket, &identity, &asking).await;
        steps.finish().into_iter().for_each(|check| report.add(check));
        let Some((session, round_trip)) = session else { continue };
        // The same server at each of them, and the same channels.
        let offers = if is_surveyed {
            Vec::new()
        } else {
            is_surveyed = true;
            look_around(options, &session, round_trip, &asking, &mut report).await
        };
        // Before the next, for servers that let a key have one session. Nothing was sent that could be in doubt.
        _ = session.close(CLOSE_MAX).await;
        // Declined only now, so that nobody at the server hears of it.
        drop(offers);
    }
    if !is_surveyed {
        report.add(Check::unknown("channels", "no session"));
        if let Some(name) = &options.channel {
            report.add(Check::unknown("channel", "no session").of(name));
        }
    }
    report
}

pub(super) fn about_ticket(given: &Given) -> Check {
    let ticket = match &given.ticket {
        Ok(ticket) => ticket,
        Err(error) => return Check::failed("ticket", error.to_string()),
    };
    let addresses = ticket.addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let secret =
        if ticket.access_secret().is_some() { "with an access secret" } else { "without an access secret" };
    let check = Check::ok("ticket", format!("of the server {}, {secret}, for {addresses}", pinned(ticket)));
    match &given.open_file {
        Some((path, mode)) if ticket.access_secret().is_some() => check.advise(format!(
            "chmod 600 {}: others may read the ticket there (mode {mode:04o})",
            quoted(path)
        )),
        _ => check,
    }
}

/// The server's fingerprint.
pub(super) fn pinned(ticket: &Ticket) -> String {
    Fingerprint::from(ticket.server_pin()).to_string()
}

/// What to run at the server. The ticket is a secret, and stays out of it.
fn at_server(options: &Options, ticket: &Ticket, identity: &Identity) -> Vec<String> {
    let mut command = "netchan doctor --server --identity FILE --policy FILE".to_owned();
    if options.identity.is_some() {
        command += &format!(" --peer {}", identity.fingerprint());
        if let Some(channel) = &options.channel {
            command += &format!(" --channel {}", quoted(channel.as_ref()));
        }
    }
    let listen = match ticket.addresses().first() {
        Some(address) if address.host_port().is_none() => quoted(address.to_string().as_ref()),
        Some(address) => format!("0.0.0.0:{}", address.host_port().map_or(0, |(_, port)| port)),
        None => String::new(),
    };
    vec![
        format!("at the server, with its own files, and this ticket on standard input: {command} -"),
        format!(
            "in the server's place, which names why each visitor is turned away: netchan doctor --server --identity FILE --policy \
             FILE --listen {listen}"
        ),
    ]
}

/// Goes the steps to one address as far as they lead. With the session, how long a few round trips took.
async fn reach(
    steps: &mut Steps,
    address: &Address,
    ticket: &Ticket,
    identity: &Identity,
    asking: &Asking,
) -> Option<(Session, Duration)> {
    if !resolve(steps, address).await {
        return None;
    }
    let notes = Notes::default();
    let mut config = Config::with_identity(identity.clone());
    config.transports = Transports::none().with(Tap::new(Tcp::default(), &notes));
    #[cfg(unix)]
    config.transports.add(Tap::new(netchan::transport::Unix, &notes));
    config.open_timeout = OPEN_MAX;
    // Nobody comes back for it.
    config.session_lifetime = Duration::ZERO;
    let begun = Instant::now();
    let dialed = match ticket.clone().with_addresses(vec![address.clone()]) {
        Ok(ticket) => dial(ticket, config).await,
        Err(error) => Err(DialError::Ticket(error)),
    };
    let took = begun.elapsed();
    match dialed {
        Ok(session) => {
            reached(steps, &session, &notes.read(), ticket, asking, took);
            Some((session, took))
        }
        Err(error) => {
            explain::failed(steps, &error, &notes.read(), asking);
            None
        }
    }
}

fn reached(
    steps: &mut Steps,
    session: &Session,
    seen: &Seen,
    ticket: &Ticket,
    asking: &Asking,
    took: Duration,
) {
    steps.ok(format!("{} takes connections", seen.peer.as_deref().unwrap_or("it")));
    steps.ok(explain::opened(asking));
    steps.ok(format!("the one that the ticket pins, {}", pinned(ticket)));
    steps.ok("the same");
    steps.ok(format!("the key {} may connect", asking.fingerprint));
    let millis = took.as_secs_f64() * 1e3;
    steps.ok(format!("{} and {}, set up in {millis:.1} ms", session.key_exchange(), session.cipher()));
}

/// Whether there is something to dial.
async fn resolve(steps: &mut Steps, address: &Address) -> bool {
    if let Some(path) = address.path() {
        return match std::fs::symlink_metadata(path) {
            Ok(_) => {
                steps.ok("a path of this machine");
                true
            }
            Err(error) => {
                steps.failed(format!("there is no socket {}: {error}", path.display()));
                steps.advise("start the server, on this machine, or compare the path with the one it prints");
                false
            }
        };
    }
    let Some((host, port)) = address.host_port() else {
        steps.unknown(format!(
            "{}:// leads nowhere from here: only programs that have such a transport can dial it",
            address.scheme()
        ));
        return false;
    };
    if address.ip().is_some() {
        steps.ok("a number, nothing to resolve");
        return true;
    }
    let why = match timeout(RESOLVE_MAX, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => {
            let mut numbers: Vec<_> = found.map(|socket| socket.ip().to_string()).collect();
            numbers.dedup();
            if !numbers.is_empty() {
                steps.ok(format!("{host} is {}", numbers.join(", ")));
                return true;
            }
            "it has no address".to_owned()
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {RESOLVE_MAX:?}"),
    };
    steps.failed(format!("{host} cannot be resolved: {why}"));
    steps.advise("compare the spelling, see to this machine's DNS, or use a ticket with an IP address");
    false
}

/// What the session may use. The offers are to be kept until its end.
async fn look_around(
    options: &Options,
    session: &Session,
    round_trips: Duration,
    asking: &Asking,
    report: &mut Report,
) -> Vec<Offer> {
    let quiet = QUIET_MIN.max(round_trips * QUIET_ROUND_TRIPS);
    let (found, offers, check) = channels::survey(session, quiet).await;
    report.add(check);
    found.iter().for_each(|channel| report.detail(&channel.line()));
    if let Some(name) = &options.channel {
        let checks = channels::named(session, &found, name, options.action, asking).await;
        checks.into_iter().for_each(|check| report.add(check));
    }
    report.channels = found;
    offers
}
