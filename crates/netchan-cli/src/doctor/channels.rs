//! Which channels a session may use.

use std::time::Duration;

use netchan::policy::Action;
use netchan::{ChannelOptions, Offer, OfferKind, OpenError, Session};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::actions;
use super::report::Check;
use super::{Asked, explain::Asking};

/// A server that knows its channels tells of them in one go; then it is quiet.
const SURVEY_MAX: Duration = Duration::from_secs(3);

/// No program has a type of this name, so a channel that is opened with it carries nothing.
const LABEL: &str = "nothing: netchan doctor looks whether this key may open the channel";

/// A channel that the server told of.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Channel {
    pub(super) name: String,
    #[serde(rename = "type")]
    type_label: String,
    codec: String,
    /// What this client may do.
    send: bool,
    recv: bool,
    /// Whether it stands at the server for everybody; otherwise the server opened it toward this client.
    hosted: bool,
}

impl Channel {
    fn of(offer: &Offer) -> Self {
        let (send, recv, hosted) = match offer.kind() {
            OfferKind::PeerSends => (false, true, false),
            OfferKind::PeerReceives => (true, false, false),
            OfferKind::Hosted { may_receive, may_send } => (may_send, may_receive, true),
            _ => (false, false, false),
        };
        let [name, type_label, codec] = [offer.name(), offer.type_label(), offer.codec()].map(str::to_owned);
        Self { name, type_label, codec, send, recv, hosted }
    }

    fn allows(&self, action: Action) -> bool {
        match action {
            Action::Send => self.send,
            Action::Receive => self.recv,
        }
    }

    /// A line for people.
    pub(super) fn line(&self) -> String {
        let may = match (self.send, self.recv) {
            (true, true) => "send, recv",
            (true, false) => "send",
            (false, true) => "recv",
            (false, false) => "nothing that this version knows",
        };
        let opened = if self.hosted { "" } else { ", opened toward this client" };
        format!("{:20}  {may}: {} by {}{opened}", self.name, self.type_label, self.codec)
    }
}

/// What arrives on the session until it has been quiet for a while. The offers are not to be dropped before the session's end:
/// that would decline them.
pub(super) async fn survey(session: &Session, quiet: Duration) -> (Vec<Channel>, Vec<Offer>, Check) {
    let until = Instant::now() + SURVEY_MAX;
    let mut offers = Vec::new();
    let lost = loop {
        match timeout_at(until.min(Instant::now() + quiet), session.recv()).await {
            Ok(Ok(Some(offer))) => offers.push(offer),
            Ok(Ok(None)) => break Some(session.ended().await.to_string()),
            Ok(Err(lost)) => break Some(lost.to_string()),
            Err(_) => break None,
        }
    };
    let channels: Vec<_> = offers.iter().map(Channel::of).collect();
    let check = match lost {
        Some(why) => Check::failed("channels", format!("the session ended: {why}"))
            .advise("what the reason says; another program with this identity may have taken its place"),
        None if channels.is_empty() => Check::ok(
            "channels",
            "none: the server hosts nothing that this key may use; whether there is more, it does not tell",
        ),
        None => Check::ok("channels", format!("{} that this key may use", channels.len())),
    };
    (channels, offers, check)
}

/// Whether one channel may be used: what the server says to an open.
pub(super) async fn named(
    session: &Session,
    known: &[Channel],
    name: &str,
    asked: Option<Asked>,
    asking: &Asking,
) -> Vec<Check> {
    let channel = known.iter().find(|channel| channel.name == name);
    let mut wanted = actions(asked).to_vec();
    if let (Some(channel), None) = (channel, asked) {
        // What it does not do for anybody is no fault.
        wanted.retain(|action| channel.allows(*action));
    }
    let mut checks = Vec::new();
    for action in wanted {
        let options = || ChannelOptions::<()>::default().label(LABEL);
        let opened = match action {
            Action::Send => session.sender_with(name, options()).await.map(drop),
            Action::Receive => session.receiver_with(name, options()).await.map(drop),
        };
        let check = judge(opened, channel, action, asking);
        checks.push(check.of(format!("{action} {name}")));
    }
    checks
}

fn judge(opened: Result<(), OpenError>, channel: Option<&Channel>, action: Action, asking: &Asking) -> Check {
    const NAME: &str = "channel";
    let error = match opened {
        Ok(()) => return Check::ok(NAME, "the program there takes it"),
        Err(error) => error,
    };
    match &error {
        // Types are compared behind the policy.
        OpenError::TypeMismatch { theirs, .. } => match channel {
            Some(channel) if channel.allows(action) => Check::ok(NAME, format!("allowed; its values are {theirs}")),
            Some(_) => Check::failed(NAME, format!("the channel is not for that; its values are {theirs}"))
                .advise("the other direction"),
            None => Check::unknown(
                NAME,
                format!("the policy allows it, and its values are {theirs}, but the server does not tell of it"),
            )
            .advise("the other direction, if the channel is hosted there; it is right if the program there takes it as it comes"),
        },
        OpenError::Denied { .. } => {
            let seen = format!("denied to the key {}, whether there is such a channel or not", asking.fingerprint);
            let check = Check::failed(NAME, seen).advise("ask whoever runs the server for access");
            asking.at_server.iter().fold(check, |check, advice| check.advise(advice))
        }
        OpenError::NotAvailable { .. } => Check::failed(
            NAME,
            "allowed, but the server does not host it, and its program did not take it in time",
        )
        .advise("compare the name with the channels above; they differ in every letter, case and blank"),
        OpenError::Lost { end, .. } => Check::failed(NAME, format!("the session ended: {end}")),
        _ => Check::failed(NAME, error.to_string()),
    }
}
