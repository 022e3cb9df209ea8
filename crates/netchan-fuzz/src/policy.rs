//! Policy files: a mistake has its place, what no rule allows is denied, and a rule that denies everything does.

use std::time::{Duration, SystemTime};

use netchan::Fingerprint;
use netchan::policy::{
    Action, Decision, Pattern, Policy, PolicyError, PolicyFile, PolicyPeer, PolicyRequest,
};

const NAME: &str = "policy.toml";

/// A rule that denies everything to everybody, wherever it stands.
const DENY_ALL: &str = "\n[[rule]]\nwho = \"everyone\"\nchannel = \">\"\ndeny = [\"send\", \"recv\"]\n";

/// A key that the seeds name, and one that nobody names.
const KEYS: [&str; 2] = [
    "SHA256:sfgVV1DbkhmXojgpTyRfP+UKeikfICiSm3YCMr4fNmA",
    "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
];

const CHANNELS: [&str; 6] = ["jobs.build", "jobs.deploy", "progress.a.b", "news", "a..*", ""];

/// The bytes are a policy file; their first line is tried as a pattern too.
///
/// # Panics
/// When a mistake has no place in the text, or a policy decides otherwise than its rules say.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    pattern(text.lines().next().unwrap_or_default());
    let policy = match PolicyFile::parse(text, NAME) {
        Ok(policy) => policy,
        Err(error) => return has_places(text, &error),
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    assert!(policy.next_change(now).is_none_or(|next| next > now));
    let decisions = decide(&policy, now);
    if policy.rules() == 0 {
        assert!(decisions.iter().all(|decision| !decision.is_allowed()), "allowed by no rule");
    }
    // A comment changes nothing, and a rule that denies everything everything; unless the rules are in an inline array.
    let commented = PolicyFile::parse(&format!("{text}\n# the end"), NAME).expect("a comment is no mistake");
    let outcomes =
        |decisions: &[Decision]| -> Vec<bool> { decisions.iter().map(Decision::is_allowed).collect() };
    assert_eq!(outcomes(&decide(&commented, now)), outcomes(&decisions));
    if let Ok(denying) = PolicyFile::parse(&format!("{text}{DENY_ALL}"), NAME) {
        let opens = decide(&denying, now).into_iter().filter(|decision| decision.is_allowed());
        // Those of connecting: a rule may still allow something that is denied.
        assert!(opens.count() <= 2 * KEYS.len() * 2, "something is allowed that is denied");
    }
}

/// What every peer may do: connect and resume first, then everything else.
fn decide(policy: &PolicyFile, now: SystemTime) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for key in KEYS {
        let key: Fingerprint = key.parse().expect("a fingerprint");
        for has_secret in [false, true] {
            let peer = PolicyPeer::new(key, has_secret);
            let connect = policy.check(&peer, &PolicyRequest::Connect, now);
            let resume = policy.check(&peer, &PolicyRequest::Resume, now);
            assert_eq!(connect.is_allowed(), resume.is_allowed());
            for channel in CHANNELS {
                for action in [Action::Send, Action::Receive] {
                    let decision = policy.check(&peer, &PolicyRequest::Open { channel, action }, now);
                    assert!(!decision.why().is_empty());
                    assert!(
                        connect.is_allowed() || !decision.is_allowed(),
                        "who may not come in may do something"
                    );
                    for bound in decision.bounds() {
                        assert!(bound.max_open > 0 && bound.id < policy.rules() as u64);
                    }
                    decisions.push(decision);
                }
            }
            decisions.extend([connect, resume]);
        }
    }
    decisions
}

/// Every mistake is at a place that the text has, and said in one line.
fn has_places(text: &str, error: &PolicyError) {
    assert!(!error.problems().is_empty(), "{error}");
    let lines: Vec<&str> = text.split('\n').collect();
    for problem in error.problems() {
        assert_eq!(problem.file, NAME);
        let line = lines.get(problem.line - 1).expect("a line of the text");
        assert!((1..=line.chars().count() + 1).contains(&problem.column), "{problem} in {line:?}");
        assert!(!problem.message.is_empty() && !problem.message.contains('\n'), "{problem}");
    }
}

fn pattern(text: &str) {
    let Ok(pattern) = text.parse::<Pattern>() else { return };
    assert_eq!(pattern.to_string(), text);
    assert_eq!(text.parse::<Pattern>().as_ref(), Ok(&pattern));
    // Wildcards match themselves, as they match any token.
    assert!(pattern.matches(text));
    assert!(!pattern.matches(&format!("{text}.")) || text.ends_with('>'));
}
