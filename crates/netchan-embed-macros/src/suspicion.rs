//! Whether what stands in the place of a path is a key.

/// What no path to a key file looks like, and keys and tickets do.
pub(crate) fn is_content(text: &str) -> bool {
    let marks = ["netchan://", "netchan identity", "-----BEGIN"];
    marks.iter().any(|mark| text.contains(mark)) || text.contains(char::is_control)
}

/// Characters of a secret of 16 bytes, the least that anyone uses, in base64 without padding.
const BASE64_CHARS_MIN: usize = 22;
/// The same in hexadecimal.
const HEX_CHARS_MIN: usize = 32;
/// 32 bytes in base64 are 43 characters; paths that long have an extension or are rare.
const LONG_CHARS_MIN: usize = 40;

/// Whether this could be a key, an access secret or a ticket's code. Asked only where there is no file of that name, so that a
/// wrong yes costs a detail in a message, and a wrong no would print a key.
pub(crate) fn may_be_secret(text: &str) -> bool {
    let hexadecimal = |c: char| c.is_ascii_hexdigit();
    let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '-' | '_' | '=');
    runs(text, hexadecimal).any(|run| run.len() >= HEX_CHARS_MIN)
        || runs(text, base64).any(|run| {
            let is_mixed = run.bytes().any(|byte| byte.is_ascii_uppercase())
                && run.bytes().any(|byte| byte.is_ascii_lowercase());
            is_mixed && (run.len() >= LONG_CHARS_MIN || run.len() >= BASE64_CHARS_MIN && is_restless(run))
        })
}

fn runs(text: &str, belongs: impl Fn(char) -> bool) -> impl Iterator<Item = &str> {
    text.split(move |c| !belongs(c)).filter(|run| !run.is_empty())
}

/// Whether neighbours are of different kinds about as often as in random text, where two in three are; in names it is one in
/// four.
fn is_restless(run: &str) -> bool {
    let kind = |byte: u8| match byte {
        b'a'..=b'z' => 0,
        b'A'..=b'Z' => 1,
        b'0'..=b'9' => 2,
        _ => 3,
    };
    let changes = run.as_bytes().windows(2).filter(|pair| kind(pair[0]) != kind(pair[1])).count();
    changes * 100 >= run.len() * 42
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    #[test]
    fn keys_are_suspicious_in_every_spelling() {
        let mut bytes = [0; 69];
        for round in 0..500 {
            getrandom::fill(&mut bytes).expect("random bytes");
            let key = &bytes[..32];
            let hexadecimal: String = key[..16].iter().map(|byte| format!("{byte:02x}")).collect();
            for text in [STANDARD.encode(key), URL_SAFE_NO_PAD.encode(bytes), hexadecimal] {
                assert!(may_be_secret(&text), "round {round}: {text}");
            }
        }
        assert!(is_content("netchan identity 1\nkey x"));
        assert!(is_content("netchan://host:7000#AQ"));
    }

    #[test]
    fn paths_are_not() {
        for path in [
            "keys/worker.key",
            "keys/worker-7",
            "../../Deployment/Keys/worker7.ticket",
            "/home/someone/projects/netchan/examples/keys/worker",
            "C:\\Users\\Someone\\Keys\\Worker7.key",
        ] {
            assert!(!is_content(path) && !may_be_secret(path), "{path}");
        }
    }
}
