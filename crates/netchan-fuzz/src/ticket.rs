//! Texts that people hand over: tickets, addresses, fingerprints.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use netchan::address::Address;
use netchan::ticket::{TICKET_ADDRESSES_MAX, TICKET_CHARS_MAX, TicketError};
use netchan::{Fingerprint, Ticket};

use crate::script::Script;

/// The first byte says what the others are: a text, or the parts of a ticket whose checksum fits.
///
/// # Panics
/// When a text is accepted that does not come back as it was meant, or breaks a bound.
pub fn ticket(data: &[u8]) {
    let mut script = Script::new(data);
    let kind = script.one_of(4);
    if kind == 0 {
        return checked(&mut script);
    }
    let Ok(text) = std::str::from_utf8(script.rest()) else { return };
    match kind {
        1 => drop(parse(text)),
        2 => {
            if let Ok(address) = text.parse::<Address>() {
                let again: Address = address.to_string().parse().expect("what is written is read");
                assert_eq!(again, address);
            }
        }
        _ => {
            if let Ok(fingerprint) = text.parse::<Fingerprint>() {
                assert_eq!(fingerprint.to_string(), text);
            }
        }
    }
}

fn parse(text: &str) -> Result<Ticket, TicketError> {
    let ticket: Ticket = text.parse()?;
    assert!(text.trim().len() <= TICKET_CHARS_MAX);
    assert!((1..=TICKET_ADDRESSES_MAX).contains(&ticket.addresses().len()));
    let written = ticket.to_string();
    let again: Ticket = written.parse().expect("what is written is read");
    assert_eq!(again.to_string(), written);
    assert_eq!(again.addresses(), ticket.addresses());
    assert_eq!(again.server_pin(), ticket.server_pin());
    assert!(again.access_secret() == ticket.access_secret());
    let debug = format!("{ticket:?}");
    assert!(ticket.access_secret().is_none() || debug.contains('…'), "a secret is printed");
    Ok(ticket)
}

/// A ticket from parts that anybody could have put together: the checksum is no secret.
fn checked(script: &mut Script<'_>) {
    let (version, has_secret) = (script.byte(), script.flag());
    let mut code = vec![version];
    code.resize(if has_secret { 65 } else { 33 }, 0x5a);
    let Ok(addresses) = std::str::from_utf8(script.rest()) else { return };
    let text = format!("netchan://{addresses}");
    let check = digest(&SHA256, &[text.as_bytes(), b"#", &code].concat());
    code.extend_from_slice(&check.as_ref()[..4]);
    match parse(&format!("{text}#{}", URL_SAFE_NO_PAD.encode(code))) {
        Ok(ticket) => {
            assert_eq!((version, ticket.server_pin().0), (1, [0x5a; 32]));
            assert_eq!(ticket.access_secret().is_some(), has_secret);
        }
        // With `#` in the addresses the text has another code, and blanks at its start are cut.
        Err(TicketError::Typo | TicketError::Truncated) => {
            assert!(version == 0 || addresses.contains(['#', '%']), "the checksum fits");
        }
        Err(_) => {}
    }
}
