//! The ticket's text form.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::{TICKET_ADDRESSES_MAX, TICKET_CHARS_MAX, Ticket, TicketError};
use crate::address::Address;
use crate::identity::{AccessSecret, ServerPin};

const PREFIX: &str = "netchan://";
const VERSION: u8 = 1;
const CHECK_BYTES: usize = 4;
const PIN_ONLY_BYTES: usize = 1 + 32 + CHECK_BYTES;
const FULL_BYTES: usize = PIN_ONLY_BYTES + 32;

pub(super) fn write(ticket: &Ticket) -> String {
    let mut text = PREFIX.to_owned();
    for (index, address) in ticket.addresses.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        if address.host_port().is_none() {
            text.push_str(address.scheme());
            text.push_str("://");
        }
        escape(&address.rest(), &mut text);
    }
    let mut code = Zeroizing::new(Vec::with_capacity(FULL_BYTES));
    code.push(VERSION);
    code.extend_from_slice(&ticket.server_pin.0);
    if let Some(secret) = &ticket.access_secret {
        code.extend_from_slice(secret.expose());
    }
    let check = check_of(&text, &code);
    code.extend_from_slice(&check);
    text.push('#');
    URL_SAFE_NO_PAD.encode_string(code.as_slice(), &mut text);
    text
}

pub(super) fn read(text: &str) -> Result<Ticket, TicketError> {
    if text.len() > TICKET_CHARS_MAX {
        return Err(TicketError::TooLong);
    }
    let addresses = text.strip_prefix(PREFIX).ok_or(TicketError::NotATicket)?;
    let (addresses, code) = addresses.split_once('#').ok_or(TicketError::Truncated)?;
    let code = Zeroizing::new(URL_SAFE_NO_PAD.decode(code).map_err(|error| match error {
        base64::DecodeError::InvalidLength(_) => TicketError::Truncated,
        _ => TicketError::Typo,
    })?);
    match code.first() {
        None => return Err(TicketError::Truncated),
        Some(&version) if version > VERSION => return Err(TicketError::NewerVersion { version }),
        Some(&VERSION) => {}
        Some(_) => return Err(TicketError::Typo),
    }
    if code.len() != PIN_ONLY_BYTES && code.len() != FULL_BYTES {
        return Err(TicketError::Truncated);
    }
    let (content, check) = code.split_at(code.len() - CHECK_BYTES);
    if check != check_of(&text[..PREFIX.len() + addresses.len()], content) {
        return Err(TicketError::Typo);
    }
    let (pin, secret) = content[1..].split_at(32);
    if addresses.is_empty() {
        return Err(TicketError::NoAddress);
    }
    let count = addresses.split(',').count();
    if count > TICKET_ADDRESSES_MAX {
        return Err(TicketError::TooManyAddresses { count });
    }
    let addresses = addresses
        .split(',')
        .map(|entry| Ok(Address::parse_exact(&unescape(entry).ok_or(TicketError::Typo)?)?))
        .collect::<Result<_, TicketError>>()?;
    let pin = pin.try_into().map_err(|_| TicketError::Truncated)?;
    Ticket::from_parts(addresses, ServerPin(pin), secret.try_into().ok().map(AccessSecret::new))
}

fn check_of(addresses: &str, content: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = digest::Context::new(&digest::SHA256);
    hasher.update(addresses.as_bytes());
    hasher.update(b"#");
    hasher.update(content);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hasher.finish().as_ref()[..CHECK_BYTES]);
    check
}

/// Escapes what separates the ticket's parts, and what shells and chat programs would not leave alone.
fn escape(part: &str, text: &mut String) {
    for byte in part.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b'@' | b'+' | b'=' | b'[' | b']' => {
                text.push(char::from(byte));
            }
            _ if byte.is_ascii_alphanumeric() => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
}

fn unescape(entry: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(entry.len());
    let mut parts = entry.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (code, plain) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(plain.as_bytes());
    }
    String::from_utf8(bytes).ok()
}
