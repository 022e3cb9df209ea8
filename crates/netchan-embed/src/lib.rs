//! Keys and tickets inside a program, where scanners do not find them.
//!
//! A worker that carries its key, or a client that carries its ticket, needs no file beside it:
//!
//! ```
//! use netchan_embed::{EmbeddedKey, EmbeddedTicket};
//!
//! // These samples are known to everyone, so they may be readable by others. A real key's file has mode 0600.
//! static KEY: EmbeddedKey = netchan_embed::embed_key!("sample/worker.key", readable_by_others);
//! static TICKET: EmbeddedTicket = netchan_embed::embed_ticket!("sample/server.ticket", readable_by_others);
//!
//! assert_eq!(KEY.with_seed(|seed| seed.len()), 32);
//! assert!(TICKET.with_text(|text| text.starts_with("netchan://")));
//! ```
//!
//! # What is promised
//!
//! The key's bytes stand nowhere in the program, nor in `target/`, in the build's output or in its environment: not raw, not
//! reversed, not in hexadecimal or base64, and not in parts of 8 bytes. So **it stops scans for strings, patterns and entropy,
//! and casual disassembly. It does not stop someone who can run or debug the program**: the program itself puts the key
//! together, and whoever controls it can wait for that. What limits the damage then is not in this crate: forward secrecy,
//! narrow rights for the embedded identity, and revoking it. Embed a key of little privilege, never a server's only one.
//!
//! # How
//!
//! At compile time the macro reads the file and splits what it says into five shares. Each is a function that is never
//! inlined, with its part as immediates of the code, behind a barrier that the optimiser does not see through. Operations,
//! order and places are drawn anew in every build, and a few functions of the same shape work on nothing. At run time the
//! shares are put together in [`Locked`] memory, for as long as a closure runs; then that is wiped, and what was on the stack
//! before the closure ran.
//!
//! # The file
//!
//! The argument is a path, relative to the directory of the `Cargo.toml` of the crate that is compiled. It is never the key
//! itself nor an environment variable: Cargo and the compiler keep source text, environment and logs. Options follow it:
//!
//! - `readable_by_others`: the file may be readable by others than its owner. For samples. Without it that is an error.
//! - `seed = "text"`: a reproducible build. The masks then follow from the seed, the path as written and the secret itself, so
//!   that the same input gives the same program, and seed and path alone tell nothing.
//!
//! A macro cannot tell Cargo which files it read. For a build after every change of the key, the crate needs a `build.rs`
//! (Cargo stores the path, not the content):
//!
//! ```
//! // In its `main`:
//! println!("cargo::rerun-if-changed=keys/worker.key");
//! ```
//!
//! Keep key files out of version control and of what `cargo package` packs.

mod embedded;
#[allow(unsafe_code, reason = "locked memory comes from the system; this crate exists for it")]
mod locked;

pub use embedded::{EmbeddedKey, EmbeddedTicket};
pub use locked::Locked;

#[doc(hidden)]
pub mod __private {
    pub use netchan_embed_macros::{embed_key, embed_ticket};
}

/// Embeds the identity in a key file, as `netchan keygen` makes it: an [`EmbeddedKey`], a constant expression.
///
/// `embed_key!("path" [, readable_by_others] [, seed = "text"])`; see [the crate](crate) for path and options.
///
/// ```
/// use netchan_embed::{EmbeddedKey, embed_key};
///
/// const KEY: EmbeddedKey = embed_key!("sample/worker.key", readable_by_others, seed = "netchan 0.1.0");
/// assert_eq!(KEY.with_access_secrets(|secrets| secrets.len()), 2);
/// ```
///
/// # Errors
///
/// The compiler says what is wrong with call or file, and shows nothing of the content.
///
/// ```compile_fail
/// netchan_embed::embed_key!(env!("WORKER_KEY"));
/// ```
#[macro_export]
macro_rules! embed_key {
    ($($arguments:tt)*) => { $crate::__private::embed_key!($crate ; $($arguments)*) };
}

/// Embeds the ticket in a file, which holds its text alone: an [`EmbeddedTicket`], a constant expression.
///
/// `embed_ticket!("path" [, readable_by_others] [, seed = "text"])`; see [the crate](crate) for path and options. A ticket
/// without an access secret is public, so its file may be readable by others in any case. Addresses are masked as well.
///
/// ```
/// let ticket = netchan_embed::embed_ticket!("sample/server.ticket", readable_by_others);
/// println!("{ticket:?}"); // Shows nothing of it.
/// ```
///
/// # Errors
///
/// The compiler says what is wrong with call or file, and shows nothing of the content.
#[macro_export]
macro_rules! embed_ticket {
    ($($arguments:tt)*) => { $crate::__private::embed_ticket!($crate ; $($arguments)*) };
}
