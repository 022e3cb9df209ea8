//! Policy files.

/// The bytes are a policy file.
///
/// # Panics
/// When a file is accepted that does not keep what it promises.
pub fn policy(data: &[u8]) {
    let Ok(_text) = std::str::from_utf8(data) else { return };
}
