//! Patterns of channel names.

use std::fmt;
use std::str::FromStr;

use netchan_proto::limits::NAME_BYTES_MAX;

/// Bytes of a pattern: as long as a name can be.
pub const PATTERN_BYTES_MAX: usize = NAME_BYTES_MAX;

/// Which channels a rule is about, in the grammar of NATS subjects.
///
/// Tokens are what stands between dots. In a pattern `*` is exactly one token, whatever it is, and `>`, which only comes last,
/// is all that follow, one or more. Every other token matches itself, byte for byte: case counts, nothing is normalised.
///
/// A name may have empty tokens (`a..b` has three) and tokens that read `*`; wildcards match those as any other. A
/// pattern cannot spell them out: empty tokens, and wildcards beside other characters, are refused as the typos they mostly
/// are.
///
/// ```
/// use netchan::policy::Pattern;
///
/// let pattern: Pattern = "jobs.*.urgent".parse()?;
/// assert!(pattern.matches("jobs.build.urgent"));
/// assert!(!pattern.matches("jobs.urgent") && !pattern.matches("Jobs.build.urgent"));
///
/// let below: Pattern = "jobs.>".parse()?;
/// assert!(below.matches("jobs.build.urgent") && !below.matches("jobs"));
/// # Ok::<(), netchan::policy::PatternError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    tokens: Box<[Token]>,
    /// Whether it ends in `>`, which is not among the tokens.
    rest: bool,
}

#[derive(Clone, PartialEq, Eq)]
enum Token {
    Literal(Box<str>),
    Any,
}

impl Pattern {
    /// Whether the pattern matches a name, in time proportional to the name.
    ///
    /// Any text will do, also one that no channel can have as its name.
    // POL-6
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let mut names = name.split('.');
        let matched = self.tokens.iter().all(|token| match (token, names.next()) {
            (Token::Literal(literal), Some(name)) => **literal == *name,
            (Token::Any, Some(_)) => true,
            (_, None) => false,
        });
        matched && names.next().is_some() == self.rest
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        if let Some((at, _)) = text.char_indices().find(|(_, c)| c.is_control()) {
            return Err(PatternError::Control { at });
        }
        let mut tokens = Vec::new();
        let mut rest = false;
        let mut at = 0;
        for token in text.split('.') {
            if rest {
                return Err(PatternError::RestNotLast { at: at - 2 });
            }
            match token {
                "" => return Err(PatternError::EmptyToken { at }),
                "*" => tokens.push(Token::Any),
                ">" => rest = true,
                _ => {
                    if let Some(inside) = token.find(['*', '>']) {
                        return Err(PatternError::Wildcard { at: at + inside });
                    }
                    tokens.push(Token::Literal(token.into()));
                }
            }
            at += token.len() + 1;
        }
        Ok(Self { tokens: tokens.into(), rest })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = self.tokens.iter().map(|token| match token {
            Token::Literal(literal) => literal,
            Token::Any => "*",
        });
        for (at, token) in tokens.chain(self.rest.then_some(">")).enumerate() {
            write!(f, "{}{token}", if at == 0 { "" } else { "." })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({self})")
    }
}

/// Why a text is no pattern. Places are byte offsets in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// There is nothing.
    #[error("the pattern is empty; write a channel's name, or \">\" for every channel")]
    Empty,
    /// It is too long.
    #[error(
        "the pattern is longer than {PATTERN_BYTES_MAX} bytes, and so than any channel's name; shorten it"
    )]
    TooLong,
    /// A token is empty.
    #[error("an empty token: a dot at an end, or two in a row; take the dot away, or write * for a token")]
    EmptyToken {
        /// Where it would stand.
        at: usize,
    },
    /// A wildcard stands beside other characters.
    #[error("a wildcard is a token of its own: write \"jobs.*\" or \"jobs.>\", not \"jobs*\"")]
    Wildcard {
        /// Where it is.
        at: usize,
    },
    /// More follows after `>`.
    #[error("> stands for all that follows, so it comes last; write * for a single token")]
    RestNotLast {
        /// Where the `>` is.
        at: usize,
    },
    /// It has a control character.
    #[error("a control character, which no channel's name has; take it away")]
    Control {
        /// Where it is.
        at: usize,
    },
}

impl PatternError {
    /// Where in the pattern it is, in bytes.
    #[must_use]
    pub fn offset(&self) -> usize {
        match *self {
            Self::Empty | Self::TooLong => 0,
            Self::EmptyToken { at }
            | Self::Wildcard { at }
            | Self::RestNotLast { at }
            | Self::Control { at } => at,
        }
    }
}
