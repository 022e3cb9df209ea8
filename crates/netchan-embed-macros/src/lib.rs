//! The macros of `netchan-embed`, where they are documented. Use them through that crate: a program's code calls
//! `netchan_embed::embed_key!`, which hands on its own path before a semicolon.
//!
//! Everything happens while the compiler runs: read the file (`file`), check its format (`key_file`, `ticket_file`), split
//! it into masked shares (`plan`), write them as functions (`emit`). What the file holds goes nowhere else: not into a
//! constant, a message or a file under `target/`.

mod call;
mod chance;
mod emit;
mod file;
mod key_file;
mod plan;
mod refusal;
mod suspicion;
mod ticket_file;

use proc_macro2::TokenStream;

use crate::call::Call;
use crate::chance::Chance;
use crate::plan::Plan;
use crate::refusal::Refusal;

/// See `netchan_embed::embed_key!`.
#[proc_macro]
pub fn embed_key(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expand(input.into(), &KEY).unwrap_or_else(Refusal::into_tokens).into()
}

/// See `netchan_embed::embed_ticket!`.
#[proc_macro]
pub fn embed_ticket(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expand(input.into(), &TICKET).unwrap_or_else(Refusal::into_tokens).into()
}

/// What can be embedded.
struct Kind {
    macro_name: &'static str,
    /// The type in the runtime crate.
    value: &'static str,
    /// Where the file comes from, for whoever has none.
    how_to_make: &'static str,
    parse: fn(&[u8]) -> Result<Payload, String>,
}

/// What is embedded.
struct Payload {
    bytes: zeroize::Zeroizing<Vec<u8>>,
    /// Whether whoever reads it can do harm, so that the file has to be private.
    is_secret: bool,
}

const KEY: Kind = Kind {
    macro_name: "embed_key!",
    value: "EmbeddedKey",
    how_to_make: "`netchan keygen",
    parse: key_file::parse,
};

const TICKET: Kind = Kind {
    macro_name: "embed_ticket!",
    value: "EmbeddedTicket",
    how_to_make: "the ticket that the server prints, alone in a file that others cannot read, such as `umask 077; cat >",
    parse: ticket_file::parse,
};

fn expand(input: TokenStream, kind: &Kind) -> Result<TokenStream, Refusal> {
    let call = Call::parse(input, kind)?;
    let path = file::resolve(&call)?;
    let file = file::read(&path, &call, kind)?;
    let at = |reason: String| call.refuse(format!("{}: {reason}", path.display()));
    let payload = (kind.parse)(&file.bytes).map_err(at)?;
    if payload.is_secret && !call.readable_by_others {
        file.check_private().map_err(at)?;
    }
    let chance = match &call.seed {
        Some(seed) => Ok(Chance::derived(&payload.bytes, seed, &call.path)),
        None => Chance::system(),
    };
    let plan = Plan::new(&payload.bytes, &mut chance.map_err(at)?);
    Ok(emit::emit(&call.runtime, kind.value, &plan))
}

#[cfg(test)]
mod tests;
