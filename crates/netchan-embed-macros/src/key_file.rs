//! The identity file, as `netchan keygen` writes it:
//!
//! ```text
//! netchan identity 1
//! # comments and empty lines are free
//! key <32-byte Ed25519 seed, base64>
//! access <32-byte access secret, base64>
//! access <an older one that is still valid, and so on>
//! check <first 8 bytes of SHA-256 over "netchan identity 1", seed and secrets, base64>
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::Payload;

const HEADER_PREFIX: &str = "netchan identity ";
const VERSION: &str = "1";
const SECRET_BYTES: usize = 32;
const CHECK_BYTES: usize = 8;

/// Each costs code, and a rotation needs two.
const ACCESS_SECRETS_MAX: usize = 15;

/// Seed and access secrets, one after the other.
pub(crate) fn parse(file: &[u8]) -> Result<Payload, String> {
    let damaged = |reason: &str| {
        format!("the key file is damaged: {reason}; restore it, or make a new key with `netchan keygen`")
    };
    if file.starts_with(b"netchan://") {
        return Err("this is a ticket, not a key file; embed it with `embed_ticket!`".to_owned());
    }
    let Some(text) = std::str::from_utf8(file).ok().filter(|text| text.starts_with(HEADER_PREFIX)) else {
        return Err("this is not a key file of netchan; make one with `netchan keygen`".to_owned());
    };
    let mut lines =
        text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#')).peekable();
    if lines.next().and_then(|line| line.strip_prefix(HEADER_PREFIX)) != Some(VERSION) {
        return Err(format!(
            "the key file is of another version than {VERSION}; use a netchan-embed as new as the netchan that made it"
        ));
    }
    // Reserved once: a buffer that grows leaves copies of the secrets behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity((1 + ACCESS_SECRETS_MAX) * SECRET_BYTES));
    let seed = lines.next().and_then(|line| decode(line.strip_prefix("key ")?));
    bytes.extend_from_slice(&seed.ok_or_else(|| damaged("the key line is missing or mistyped"))?[..]);
    let mut count = 0;
    while let Some(secret) = lines.peek().and_then(|line| line.strip_prefix("access ")) {
        count += 1;
        if count > ACCESS_SECRETS_MAX {
            return Err(format!(
                "there are more than {ACCESS_SECRETS_MAX} access secrets, more than any rotation needs; retire old ones"
            ));
        }
        let secret = decode(secret).ok_or_else(|| damaged("an access line is mistyped"))?;
        bytes.extend_from_slice(&secret[..]);
        lines.next();
    }
    if count == 0 {
        return Err(damaged("the access line is missing or mistyped"));
    }
    let check = lines.next().and_then(|line| STANDARD.decode(line.strip_prefix("check ")?).ok());
    match check {
        None => Err(damaged("the check line is missing or mistyped")),
        Some(check) if check != check_of(&bytes) => Err(damaged("the check does not match the secrets")),
        Some(_) if lines.next().is_some() => Err(damaged("there is more after the check line")),
        Some(_) => Ok(Payload { bytes, is_secret: true }),
    }
}

fn decode(text: &str) -> Option<Zeroizing<[u8; SECRET_BYTES]>> {
    let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
    // Decoded into a longer buffer, since the decoder's estimate of what it needs is generous.
    let mut buffer = Zeroizing::new([0; 48]);
    let length = STANDARD.decode_slice(text, buffer.as_mut()).ok()?;
    (length == bytes.len()).then(|| bytes.copy_from_slice(&buffer[..length]))?;
    Some(bytes)
}

fn check_of(secrets: &[u8]) -> [u8; CHECK_BYTES] {
    let digest =
        Sha256::new().chain_update(HEADER_PREFIX).chain_update(VERSION).chain_update(secrets).finalize();
    *digest.first_chunk().expect("a digest is longer than a check")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn file_of(seed: &[u8], access: &[[u8; 32]]) -> String {
        let secrets = [seed, access.as_flattened()].concat();
        let mut text = format!("netchan identity 1\n# Private.\n\nkey {}\n", STANDARD.encode(seed));
        for secret in access {
            text += &format!("access {}\n", STANDARD.encode(secret));
        }
        text + &format!("check {}\n", STANDARD.encode(check_of(&secrets)))
    }

    fn error_of(text: &str) -> String {
        parse(text.as_bytes()).err().unwrap_or_else(|| panic!("taken: {text}"))
    }

    #[test]
    fn seed_and_every_access_secret_are_read_in_order() {
        for count in [1, 2, ACCESS_SECRETS_MAX] {
            let access: Vec<_> = (0..count).map(|index| [index as u8; 32]).collect();
            let payload = parse(file_of(&[200; 32], &access).as_bytes()).expect("a good file");
            assert_eq!(*payload.bytes, [&[200; 32], access.as_flattened()].concat());
            assert!(payload.is_secret);
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_never_quoted() {
        let good = file_of(&[1; 32], &[[2; 32], [3; 32]]);
        let (two, three) = (STANDARD.encode([2; 32]), STANDARD.encode([3; 32]));
        let changed = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            good.replace(from, to)
        };
        for (text, reason) in [
            ("ssh-ed25519 AAAA".to_owned(), "not a key file"),
            ("netchan://host:1#AQ".to_owned(), "embed_ticket!"),
            (changed("identity 1", "identity 2"), "another version"),
            (changed("key ", "kee "), "the key line"),
            (changed(&format!("access {two}\naccess {three}\n"), ""), "the access line"),
            (changed(&three, "AwMD"), "an access line is mistyped"),
            (changed(&two, &three), "does not match"),
            (changed("check ", "chek "), "the check line"),
            (good.clone() + "more\n", "more after"),
            (file_of(&[1; 32], &[[2; 32]; ACCESS_SECRETS_MAX + 1]), "more than 15 access secrets"),
        ] {
            let error = error_of(&text);
            assert!(error.contains(reason), "{error}");
            assert!(!error.contains("AwMD") && !error.contains("AgIC") && !error.contains("AQEB"), "{error}");
        }
    }
}
