//! What the macro was called with: `<runtime crate> ; "path" [, readable_by_others] [, seed = "text"]`.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use syn::parse::{ParseStream, Parser as _};
use syn::{LitStr, Token};

use crate::refusal::Refusal;
use crate::{Kind, suspicion};

const OPTIONS: &str = "the options are `readable_by_others` and `seed = \"text\"`";

pub(crate) struct Call {
    /// The path of `netchan-embed` as the calling crate knows it.
    pub(crate) runtime: TokenStream,
    /// As written.
    pub(crate) path: String,
    pub(crate) readable_by_others: bool,
    /// For reproducible builds.
    pub(crate) seed: Option<String>,
    span: Span,
    /// A token of the runtime crate's macro.
    elsewhere: Span,
}

impl Call {
    pub(crate) fn parse(input: TokenStream, kind: &Kind) -> Result<Self, Refusal> {
        let elsewhere = input.clone().into_iter().next().map_or_else(Span::call_site, |token| token.span());
        let is_separator =
            |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ';');
        let mut tokens = input.into_iter();
        let runtime = tokens.by_ref().take_while(|token| !is_separator(token)).collect();
        let arguments: TokenStream = tokens.collect();
        let span = arguments.clone().into_iter().next().map_or_else(Span::call_site, |token| token.span());
        // Of whatever stands there instead of a path, the compiler must not show the line.
        let refused =
            |message: &str| Refusal::hidden(&format!("{}: {message}", kind.macro_name), span, elsewhere);
        let (path, options) = path_first.parse2(arguments).map_err(|_| {
            refused(
                "the argument is the path of a file, as a string in quotes. Neither a key or ticket itself, nor an \
                 environment variable, nor another macro's output is taken: Cargo and the compiler store source text, \
                 environment and logs under target/",
            )
        })?;
        let mut call = Self { runtime, path, readable_by_others: false, seed: None, span, elsewhere };
        if suspicion::is_content(&call.path) {
            return Err(refused(
                "this is the content of a key or ticket, and the argument is the path of a file that holds it. What stands in \
                 source code is stored in version control, under target/ and in logs; if it stood there, replace the key",
            ));
        }
        options_after.parse2(options).map_err(|_| ()).and_then(|options| call.take(options)).map_err(
            |()| refused(&format!("unknown, repeated or malformed option after the path; {OPTIONS}")),
        )?;
        Ok(call)
    }

    fn take(&mut self, options: Vec<(Ident, Option<LitStr>)>) -> Result<(), ()> {
        for (name, value) in options {
            match (name.to_string().as_str(), value) {
                ("readable_by_others", None) if !self.readable_by_others => self.readable_by_others = true,
                ("seed", Some(seed)) if self.seed.is_none() => self.seed = Some(seed.value()),
                _ => return Err(()),
            }
        }
        Ok(())
    }

    /// For what may be shown together with the line of the call.
    pub(crate) fn refuse(&self, message: String) -> Refusal {
        Refusal::new(message, self.span)
    }

    /// For what may not.
    pub(crate) fn refuse_hidden(&self, message: &str) -> Refusal {
        Refusal::hidden(message, self.span, self.elsewhere)
    }
}

fn path_first(input: ParseStream<'_>) -> syn::Result<(String, TokenStream)> {
    let path: LitStr = input.parse()?;
    if !path.suffix().is_empty() {
        return Err(input.error("a suffix"));
    }
    Ok((path.value(), input.parse()?))
}

/// Each with the comma before it.
fn options_after(input: ParseStream<'_>) -> syn::Result<Vec<(Ident, Option<LitStr>)>> {
    let mut options = Vec::new();
    while !input.is_empty() {
        input.parse::<Token![,]>()?;
        // The comma at the end.
        if input.is_empty() {
            break;
        }
        let name = input.parse()?;
        let value = match input.parse::<Option<Token![=]>>()? {
            Some(_) => Some(input.parse()?),
            None => None,
        };
        options.push((name, value));
    }
    Ok(options)
}
