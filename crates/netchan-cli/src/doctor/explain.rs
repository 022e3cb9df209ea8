//! What a dial that came to nothing says of each step on the way.

use std::io;

use netchan::address::Address;
use netchan::transport::TransportError;
use netchan::{DialError, RefusalCode};
use netchan_proto::crypto::HandshakeError;

use super::report::{Check, Verdict};
use super::tap::Seen;

/// The steps to a session, in order.
const STEPS: [&str; 7] = ["name", "port", "gate", "key", "version", "authorization", "session"];

const NOT_REACHED: &str = "not reached";

/// The steps toward one address. Every step gets its verdict, in order.
pub(super) struct Steps {
    address: String,
    checks: Vec<Check>,
}

impl Steps {
    pub(super) fn to(address: &Address) -> Self {
        Self { address: address.to_string(), checks: Vec::new() }
    }

    fn next(&mut self, verdict: Verdict, seen: impl Into<String>) {
        if let Some(step) = STEPS.get(self.checks.len()) {
            self.checks.push(Check::new(step, verdict, seen).of(&self.address));
        }
    }

    pub(super) fn ok(&mut self, seen: impl Into<String>) {
        self.next(Verdict::Ok, seen);
    }

    pub(super) fn failed(&mut self, seen: impl Into<String>) {
        self.next(Verdict::Failed, seen);
    }

    pub(super) fn unknown(&mut self, seen: impl Into<String>) {
        self.next(Verdict::Unknown, seen);
    }

    /// What to try, of the step before.
    pub(super) fn advise(&mut self, advice: impl Into<String>) {
        if let Some(check) = self.checks.pop() {
            self.checks.push(check.advise(advice));
        }
    }

    /// The steps up to this one cannot be judged.
    fn unknown_until(&mut self, step: &str, why: &str) {
        while STEPS.get(self.checks.len()).is_some_and(|next| *next != step) {
            self.unknown(why);
        }
    }

    /// All of them, the rest not being reached.
    pub(super) fn finish(mut self) -> Vec<Check> {
        self.unknown_until("", NOT_REACHED);
        self.checks
    }
}

/// What this client was told to be, for advice.
pub(super) struct Asking {
    pub(super) fingerprint: String,
    pub(super) has_secret: bool,
    /// What names the cause: what to try at the server.
    pub(super) at_server: Vec<String>,
    pub(super) clock: String,
}

/// Goes on with the steps behind the name, as far as the error says something of them.
pub(super) fn failed(steps: &mut Steps, error: &DialError, seen: &Seen, asking: &Asking) {
    if let DialError::Unreachable { attempts } = error {
        let reasons: Vec<_> = attempts.iter().map(|(_, error)| reason(error)).collect();
        steps.failed(reasons.join("; "));
        if let Some((_, error)) = attempts.last() {
            steps.advise(reachable(error.kind()));
        }
        return;
    }
    steps.ok(format!("{} takes connections", seen.peer.as_deref().unwrap_or("it")));
    if seen.is_answered() && !seen.is_tls_handshake() {
        steps.failed(format!("{} answers there, not a netchan server", foreign(&seen.first)));
        return steps.advise(
            "compare the port with the one that the server prints, and what stands between (proxies)",
        );
    }
    match error {
        DialError::Refused { code, reason, .. } => refused(steps, *code, reason, asking),
        #[allow(clippy::unneeded_struct_pattern, reason = "whatever else it says is in its text")]
        DialError::Handshake { error: HandshakeError::WrongPin { .. }, .. } => {
            steps.unknown("answered, but by another key, which need not have looked at the access secret");
            steps.failed(error.to_string());
            steps.advise(
                "compare the server's fingerprint (netchan id FILE there) with the ticket's; if the server has a new identity, \
                 get a new ticket; if not, somebody else answers in its place",
            );
        }
        DialError::Handshake { error: HandshakeError::Negotiation, .. } => {
            steps.ok("opened");
            steps.unknown_until("version", NOT_REACHED);
            steps.failed(error.to_string());
            steps.advise("update the older of the two");
        }
        DialError::Handshake { error: HandshakeError::Hello(_), .. } => {
            steps.ok("opened");
            steps.ok("the key that the ticket pins");
            steps.failed(error.to_string());
            steps.advise("update the older of the two");
        }
        DialError::Timeout { .. } if !seen.is_answered() => {
            steps.failed(format!("{error}; nothing came back"));
            steps.advise(
                "see whether a netchan server listens there, and not a program that waits for something else",
            );
            steps.advise(
                "see whether the machine is overloaded, and what stands between (firewalls, proxies)",
            );
            at_server(steps, asking);
        }
        _ if !seen.is_answered() => silence(steps, error, asking),
        _ => broken(steps, error, seen),
    }
}

/// By design, a stranger learns no more than that.
fn silence(steps: &mut Steps, error: &DialError, asking: &Asking) {
    if matches!(error, DialError::ClosedWithoutAnswering { .. }) {
        steps.failed(
            "closed without answering, as a server does to strangers; it does not say why, by design",
        );
    } else {
        steps.failed(error.to_string());
    }
    if asking.has_secret {
        steps.advise("a newer ticket: the access secret of this one may be wrong or retired");
    } else {
        steps.advise(
            "a newer ticket: this one has no access secret and may pin a wrong key, or the server lets nobody in without a secret \
             (Config::admit_without_secret)",
        );
    }
    steps.advise(format!(
        "the clocks: this machine's says {}; compare with date -u there; they may be two minutes apart, unless the server's \
         Limits::clock_window says otherwise",
        asking.clock
    ));
    steps.advise("the server may be overloaded or shutting down, or another program may listen there");
    at_server(steps, asking);
}

fn at_server(steps: &mut Steps, asking: &Asking) {
    asking.at_server.iter().for_each(|advice| steps.advise(advice));
}

/// The server let this client through as far as its answer.
fn refused(steps: &mut Steps, code: RefusalCode, reason: &str, asking: &Asking) {
    steps.ok(opened(asking));
    steps.ok("the key that the ticket pins");
    if code == RefusalCode::VersionUnsupported {
        steps.failed(format!("refused: {reason}"));
        return steps.advise("update the older of the two");
    }
    steps.ok("the same");
    match code {
        RefusalCode::Denied => {
            steps.failed(format!(
                "refused: {reason}; its policy does not let the key {} in",
                asking.fingerprint
            ));
            steps.advise("ask whoever runs the server to let this key in");
            return at_server(steps, asking);
        }
        RefusalCode::Other(_) => steps.unknown(NOT_REACHED),
        // The policy is asked before all that.
        _ => steps.ok(format!("the key {} may connect", asking.fingerprint)),
    }
    steps.failed(format!("refused: {code}: {reason}"));
    steps.advise(match code {
        RefusalCode::TooManySessions => "later, or raise Limits::sessions_max at the server",
        RefusalCode::ShuttingDown => "when the server is there again",
        RefusalCode::AlreadyConnected => {
            "end the other program that has this identity, or set Config::duplicate_sessions at the server"
        }
        _ => "what the reason says",
    });
}

pub(super) fn opened(asking: &Asking) -> &'static str {
    if asking.has_secret {
        "opened: the access secret is right, and the clocks are near enough"
    } else {
        "opened: the server lets in who knows its key, and the clocks are near enough"
    }
}

/// It answered, and then broke off.
fn broken(steps: &mut Steps, error: &DialError, seen: &Seen) {
    steps.ok("opened, since it answered");
    if seen.is_key_right() {
        steps.ok("the key that the ticket pins");
    }
    steps.unknown_until("session", NOT_REACHED);
    steps.failed(error.to_string());
    steps.advise("again; if it stays, see what stands between (proxies), and the server's log");
}

fn reason(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<TransportError>()) {
        Some(TransportError::Unreachable { attempts, .. }) => {
            let each = attempts.iter().map(|attempt| format!("{}: {}", attempt.address, attempt.error));
            each.collect::<Vec<_>>().join("; ")
        }
        Some(TransportError::SocketUnreachable { source, .. }) => source.to_string(),
        _ => error.to_string(),
    }
}

fn reachable(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::ConnectionRefused => {
            "start the server: the machine answers, and nothing listens there; or compare the port with the one it prints"
        }
        io::ErrorKind::TimedOut => {
            "see whether a firewall drops what is sent there, and whether the address is the server's: nothing came back"
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "see to the network, or a VPN: no way leads there from this machine"
        }
        io::ErrorKind::PermissionDenied => "as the user who runs the server: a Unix socket is for its owner",
        io::ErrorKind::NotFound => "start the server, or compare the path with the one it prints",
        _ => "see whether the server runs, its port, and firewalls",
    }
}

/// What answered, as far as its first bytes tell.
fn foreign(first: &[u8]) -> String {
    let kind = match first {
        [b'S', b'S', b'H', b'-', ..] => "an SSH server",
        [b'H', b'T', b'T', b'P', b'/', ..] => "an HTTP server",
        [0x15, 0x03, ..] => "another TLS server",
        _ => "something else",
    };
    format!("{kind} (\"{}\")", first.escape_ascii())
}

#[cfg(test)]
mod tests {
    use netchan::Identity;

    use super::*;

    fn verdicts(error: &DialError, seen: &Seen, has_secret: bool) -> Vec<(Verdict, String)> {
        let asking = Asking {
            fingerprint: Identity::generate().fingerprint().to_string(),
            has_secret,
            at_server: vec!["there".to_owned()],
            clock: "now".to_owned(),
        };
        let mut steps = Steps::to(&address());
        steps.ok("a name");
        failed(&mut steps, error, seen, &asking);
        let checks = steps.finish();
        assert!(checks.iter().map(|check| check.check).eq(STEPS));
        checks.into_iter().map(|check| (check.verdict, check.seen)).collect()
    }

    fn address() -> Address {
        "tcp://server:9876".parse().expect("an address")
    }

    fn letters(verdicts: &[(Verdict, String)]) -> String {
        let letter = |verdict: &Verdict| match verdict {
            Verdict::Ok => '+',
            Verdict::Failed => '!',
            Verdict::Unknown => '?',
        };
        verdicts.iter().map(|(verdict, _)| letter(verdict)).collect()
    }

    fn answered(first: &[u8]) -> Seen {
        Seen { first: first.to_vec(), ..Seen::default() }
    }

    #[test]
    fn every_refusal_says_how_far_it_came() {
        let refused = |code| DialError::Refused {
            address: address(),
            key: netchan::Fingerprint([0; 32]),
            code,
            reason: "why".to_owned(),
        };
        for (code, expected) in [
            (RefusalCode::VersionUnsupported, "++++!??"),
            (RefusalCode::Denied, "+++++!?"),
            (RefusalCode::TooManySessions, "++++++!"),
            (RefusalCode::ShuttingDown, "++++++!"),
            (RefusalCode::AlreadyConnected, "++++++!"),
            (RefusalCode::Other(99), "+++++?!"),
        ] {
            let found = verdicts(&refused(code), &answered(b"\x16\x03\x03"), true);
            assert_eq!(letters(&found), expected, "{code}: {found:?}");
        }
    }

    #[test]
    fn every_way_to_fail_has_its_place() {
        let handshake = |error| DialError::Handshake { address: address(), error };
        let closed = DialError::ClosedWithoutAnswering { address: address() };
        let late = DialError::Timeout { address: address(), deadline: std::time::Duration::from_secs(5) };
        let tls = answered(b"\x16\x03\x03");
        // Sent whatever the server's key is, and only if it is the right one.
        let [unchecked, checked] = [6, 300].map(|replied_bytes| Seen { replied_bytes, ..tls.clone() });
        for (error, seen, expected) in [
            (&closed, &Seen::default(), "++!????"),
            (&late, &Seen::default(), "++!????"),
            (&late, &tls, "+++???!"),
            (&closed, &tls, "+++???!"),
            (&closed, &unchecked, "+++???!"),
            (&closed, &checked, "++++??!"),
            (&handshake(HandshakeError::Truncated), &tls, "+++???!"),
            (&handshake(HandshakeError::Negotiation), &tls, "+++?!??"),
            (&handshake(HandshakeError::RecordType(83)), &answered(b"SSH-2.0-x"), "++!????"),
            (&late, &answered(b"220 mail ESMTP"), "++!????"),
        ] {
            let found = verdicts(error, seen, true);
            assert_eq!(letters(&found), expected, "{error}: {found:?}");
        }
    }

    #[test]
    fn others_that_answer_are_named() {
        let error = DialError::Handshake { address: address(), error: HandshakeError::RecordType(83) };
        for (first, name) in [
            (&b"SSH-2.0-OpenSSH_9.6\r\n"[..], "an SSH server (\"SSH-2.0-OpenSSH_9.6\\r\\n\")"),
            (b"HTTP/1.1 400 Bad Request", "an HTTP server"),
            (b"\x15\x03\x03\x00\x02\x02\x28", "another TLS server"),
            (b"\x1b[2J", "something else (\"\\x1b[2J\")"),
        ] {
            let found = verdicts(&error, &answered(first), true);
            assert!(found[2].1.contains(name), "{found:?}");
        }
    }
}
