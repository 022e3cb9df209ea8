//! `netchan keygen`, `id`, `rotate` and `ticket`: identity files, and the tickets of their servers.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use netchan::address::Address;
use netchan::{Fingerprint, Identity, Ticket};
use serde_json::{Value, json};

use crate::Failure;
use crate::text::counted;

#[derive(Args, Clone, Debug)]
pub(crate) struct Keygen {
    /// Where to keep it, for this user only; what is there already is never replaced
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Id {
    /// An identity file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Rotate {
    /// The server's identity file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Leave only the current access secret: tickets with an older one are good no longer
    #[arg(long)]
    retire: bool,
    /// Replace all access secrets by a fresh one at once: no ticket given out so far is good any longer
    #[arg(long, conflicts_with = "retire")]
    at_once: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Issue {
    /// The server's identity file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where clients dial the server: HOST:PORT, or unix:///path; give several in the order to try
    #[arg(long = "address", value_name = "HOST:PORT", required = true)]
    addresses: Vec<Address>,
    /// Leave the access secret out: the ticket admits nobody by itself, and may be published
    #[arg(long)]
    pin_only: bool,
    /// Write the ticket to a new file, for this user only, rather than to standard output
    #[arg(long, value_name = "TICKETFILE")]
    to: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn keygen(options: &Keygen) -> Result<bool, Failure> {
    let file = &options.file;
    let identity = Identity::generate();
    identity.save(file).map_err(|error| match (fs::symlink_metadata(file), fs::metadata(file)) {
        (Err(_), _) => error.to_string(),
        (Ok(_), Ok(_)) => format!("nothing was made: {error}"),
        (Ok(_), Err(_)) => {
            format!("nothing was made: {} is a link that leads nowhere; give another path", file.display())
        }
    })?;
    let path = quoted(file);
    let next = [
        format!(
            "a server uses it with Identity::load, and its clients' tickets come from: netchan ticket {path} --address HOST:PORT"
        ),
        "a client gives its fingerprint to whoever writes the server's policy".to_owned(),
    ];
    tell(
        options.json,
        &described(file, &identity, &next),
        || {
            out!("{}", identity.fingerprint());
            out!(
                "made {}, for its owner only; whoever reads it can pose as its owner, so it never travels",
                file.display()
            );
        },
        &next,
    );
    Ok(true)
}

pub(crate) fn id(options: &Id) -> Result<bool, Failure> {
    let identity = Identity::load(&options.file)?;
    tell(
        options.json,
        &described(&options.file, &identity, &[]),
        || {
            out!("{}", identity.fingerprint());
            out!("{}", secrets(&identity));
        },
        &[],
    );
    Ok(true)
}

pub(crate) fn rotate(options: &Rotate) -> Result<bool, Failure> {
    let file = &options.file;
    let (identity, done) = if options.at_once {
        let identity = Identity::rotate_access_secret(file)?;
        (identity, "no ticket given out so far is good any longer, once the server goes by this file")
    } else if options.retire {
        let identity = Identity::update(file, |identity| Ok(identity.with_current_access_secret_only()))?;
        (identity, "tickets with an older one are good no longer, once the server goes by this file")
    } else {
        let identity = Identity::update(file, Identity::with_fresh_access_secret)?;
        (identity, "new tickets have the fresh one, and older tickets stay good")
    };
    let next = after_rotation(options);
    tell(
        options.json,
        &described(file, &identity, &next),
        || {
            out!("{}", identity.fingerprint());
            out!("{} now: {done}", secrets(&identity));
        },
        &next,
    );
    Ok(true)
}

fn after_rotation(options: &Rotate) -> Vec<String> {
    let path = quoted(&options.file);
    let take_up = "let the server go by the file: its program reads it again and calls Server::use_access_secrets (on SIGHUP, \
                   where it does so), or is started again"
        .to_owned();
    if options.retire {
        return vec![take_up];
    }
    let hand_out = format!("hand new tickets out: netchan ticket {path} --address HOST:PORT");
    if options.at_once {
        return vec![take_up, hand_out];
    }
    let retire = format!(
        "when every client has one: netchan rotate {path} --retire, and let the server go by the file once more"
    );
    vec![take_up, hand_out, retire]
}

pub(crate) fn ticket(options: &Issue) -> Result<bool, Failure> {
    options.addresses.iter().try_for_each(dialable)?;
    let identity = Identity::load(&options.file)?;
    let mut ticket = Ticket::new(options.addresses.clone(), &identity)?;
    if options.pin_only {
        ticket = ticket.pin_only();
    }
    let mut found = json!({
        "fingerprint": identity.fingerprint().to_string(),
        "addresses": ticket.addresses(),
        "has_secret": !options.pin_only,
    });
    match &options.to {
        Some(to) => {
            write_private(to, &format!("{ticket}\n"))?;
            found["file"] = to.display().to_string().into();
        }
        None => found["ticket"] = ticket.to_string().into(),
    }
    match (&options.to, options.json) {
        (_, true) => out!("{found}"),
        (Some(to), false) => out!("wrote {}, for its owner only", to.display()),
        (None, false) => out!("{ticket}"),
    }
    if !options.json {
        // Beside the ticket, so that the output is the ticket and nothing else.
        eprintln!("netchan: {}", meaning(&ticket, identity.fingerprint()));
    }
    Ok(true)
}

fn meaning(ticket: &Ticket, server: Fingerprint) -> String {
    if ticket.access_secret().is_some() {
        return format!(
            "whoever has this ticket may connect to the server {server}: hand it over as you would a password"
        );
    }
    format!(
        "this ticket only names the server {server}, and may be published; the server lets its holders in where its program \
         sets Config::admit_without_secret, and its policy their keys"
    )
}

/// What a server listens on is not always what a client can dial.
fn dialable(address: &Address) -> Result<(), Failure> {
    if address.ip().is_some_and(|ip| ip.is_unspecified()) {
        return Err(format!(
            "{address} is where a server listens, and nothing that a client can dial; give the server's name or its IP address"
        )
        .into());
    }
    if address.host_port().is_some_and(|(_, port)| port == 0) {
        return Err(format!(
            "{address} has no port that a client can dial; give the one the server listens on"
        )
        .into());
    }
    Ok(())
}

/// Writes a new file that others cannot read at any moment.
fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            format!(
                "{} is there already and was left alone; give another path, or remove it first",
                path.display()
            )
        }
        _ => format!("cannot make {}: {error}; check its directory, and who may write there", path.display()),
    })?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|error| {
        // Half a ticket is none.
        _ = fs::remove_file(path);
        format!("cannot write {}: {error}; check the space left", path.display()).into()
    })
}

fn described(file: &Path, identity: &Identity, next: &[String]) -> Value {
    json!({
        "file": file.display().to_string(),
        "fingerprint": identity.fingerprint().to_string(),
        "access_secrets": identity.access_secrets().len(),
        "next": next,
    })
}

fn tell(as_json: bool, found: &Value, text: impl FnOnce(), next: &[String]) {
    if as_json {
        return out!("{found}");
    }
    text();
    for step in next {
        out!("next: {step}");
    }
}

/// `1 access secret`.
pub(crate) fn secrets(identity: &Identity) -> String {
    counted(identity.access_secrets().len() as u64, "access secret")
}

/// A path as a shell takes it.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "-._/+=:@%,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_where_a_shell_would_not_leave_them_alone() {
        for (path, text) in
            [("a/b.identity", "a/b.identity"), ("my key", "'my key'"), ("it's", r"'it'\''s'"), ("", "''")]
        {
            assert_eq!(quoted(Path::new(path)), text);
        }
    }
}
