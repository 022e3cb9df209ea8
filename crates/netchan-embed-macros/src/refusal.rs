//! Errors of the compiler.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;

/// Why nothing is embedded. The message never holds anything that the file holds, nor what stood in the place of a path
/// and could be a key: Cargo stores what the compiler prints.
#[derive(Debug)]
pub(crate) struct Refusal {
    message: String,
    span: Span,
}

impl Refusal {
    pub(crate) fn new(message: String, span: Span) -> Self {
        Self { message, span }
    }

    /// Where the compiler may not show the line of the call, because a key could stand on it: it shows a line of `elsewhere`,
    /// and the message says where to look.
    pub(crate) fn hidden(message: &str, call: Span, elsewhere: Span) -> Self {
        let place = if proc_macro::is_available() {
            let call = call.unwrap();
            format!("{}:{}: ", call.file(), call.line())
        } else {
            String::new()
        };
        // With the call's hygiene, or the compiler would climb from the macro's line to the call's.
        Self { message: format!("{place}{message}"), span: elsewhere.resolved_at(call) }
    }

    #[cfg(test)]
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn into_tokens(self) -> TokenStream {
        let Self { message, span } = self;
        quote_spanned! { span => ::core::compile_error! { #message } }
    }
}
