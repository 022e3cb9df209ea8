//! A ticket in a file: `netchan://<addresses>#<code>`, with white space around it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::Payload;

const PREFIX: &str = "netchan://";
const VERSION: u8 = 1;
const CHECK_BYTES: usize = 4;
/// Version, the server's public key, check.
const PIN_ONLY_BYTES: usize = 1 + 32 + CHECK_BYTES;
/// With the access secret.
const FULL_BYTES: usize = PIN_ONLY_BYTES + 32;

/// Each 8 bytes cost an instruction or two in every share. A ticket with the most addresses that are tried fits if they are
/// of usual length.
pub(crate) const TICKET_BYTES_MAX: usize = 2_048;

/// The ticket's text.
pub(crate) fn parse(file: &[u8]) -> Result<Payload, String> {
    if file.starts_with(b"netchan identity ") {
        return Err("this is a key file, not a ticket; embed it with `embed_key!`".to_owned());
    }
    let text = std::str::from_utf8(file).map_or("", str::trim);
    let Some(addresses) = text.strip_prefix(PREFIX) else {
        return Err(
            "this is not a ticket of netchan; the file holds the `netchan://…` that the server prints, and \
                    nothing else"
                .to_owned(),
        );
    };
    if text.len() > TICKET_BYTES_MAX {
        return Err(format!(
            "the ticket is longer than {TICKET_BYTES_MAX} bytes; make one with fewer addresses"
        ));
    }
    let truncated = || "the ticket is cut short; copy it again, whole, from the server".to_owned();
    let mistyped = || "the ticket has a typing error; copy it again from the server".to_owned();
    let (addresses, code) = addresses.split_once('#').ok_or_else(truncated)?;
    let code = Zeroizing::new(URL_SAFE_NO_PAD.decode(code).map_err(|_| mistyped())?);
    match code.first() {
        None => return Err(truncated()),
        Some(&VERSION) => {}
        Some(&version) if version > VERSION => {
            return Err(
                "the ticket is of a newer version; use a netchan-embed as new as the server".to_owned()
            );
        }
        Some(_) => return Err(mistyped()),
    }
    if code.len() != PIN_ONLY_BYTES && code.len() != FULL_BYTES {
        return Err(truncated());
    }
    let (content, check) = code.split_at(code.len() - CHECK_BYTES);
    if check != check_of(&text[..PREFIX.len() + addresses.len()], content) {
        return Err(mistyped());
    }
    if addresses.is_empty() {
        return Err("the ticket names no address to dial".to_owned());
    }
    Ok(Payload { bytes: Zeroizing::new(text.as_bytes().to_vec()), is_secret: code.len() == FULL_BYTES })
}

fn check_of(addresses: &str, content: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::new().chain_update(addresses).chain_update("#").chain_update(content).finalize();
    *digest.first_chunk().expect("a digest is longer than a check")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn ticket_of(addresses: &str, secrets: &[u8]) -> String {
        let start = format!("netchan://{addresses}");
        let content = [&[VERSION], secrets].concat();
        let code = [&content[..], &check_of(&start, &content)].concat();
        format!("{start}#{}", URL_SAFE_NO_PAD.encode(code))
    }

    #[test]
    fn a_ticket_is_taken_as_it_is_without_the_space_around_it() {
        for (secrets, is_secret) in [(&[7; 32][..], false), (&[7; 64], true)] {
            let text = ticket_of("host:7000,tcp://[::1]:7000", secrets);
            let payload = parse(format!("  {text}\r\n\n").as_bytes()).expect("a good ticket");
            assert_eq!(*payload.bytes, text.as_bytes());
            assert_eq!(payload.is_secret, is_secret);
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_never_quoted() {
        let good = ticket_of("host:7000", &[7; 64]);
        let long = format!("{}:7000", "h".repeat(TICKET_BYTES_MAX));
        for (text, reason) in [
            ("https://host:7000".to_owned(), "not a ticket"),
            ("netchan identity 1\nkey".to_owned(), "embed_key!"),
            (good.replace('#', ""), "cut short"),
            (good[..good.len() - 8].to_owned(), "cut short"),
            (good.replace("host", "hose"), "typing error"),
            (good.replace("BwcH", "BwcI"), "typing error"),
            (good.replace("#AQ", "#Ag"), "newer version"),
            (ticket_of("", &[7; 64]), "no address"),
            (ticket_of(&long, &[7; 64]), "longer than 2048"),
        ] {
            let error = parse(text.as_bytes()).err().unwrap_or_else(|| panic!("taken: {text}"));
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains("BwcH") && !error.contains("host:"), "{error}");
        }
    }
}
