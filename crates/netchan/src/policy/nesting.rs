//! How deep a text nests, before it is parsed.
//!
//! The parser bounds brackets within brackets and the dots of one key, 80 each, but not their product: 80 inline tables with
//! 80 dots before each are 6,400 tables within tables, and dropping those overflows the stack of a thread.

use toml_parser::Source;
use toml_parser::lexer::TokenKind;

/// Tables and arrays within one another. A policy needs four: `peer`, a peer, its groups; some more leave the mistake in a
/// file that lacks a bracket to the parser, which says it better.
const NESTING_MAX: usize = 32;

/// Where the text goes too deep, if it does.
pub(super) fn too_deep(text: &str) -> Option<usize> {
    // The brackets that are open: what closes each, and the levels around it.
    let mut open = Vec::new();
    let mut levels = 0;
    // The dots of the last key or number at this level.
    let mut dots = 0;
    let mut after_dot = false;
    for token in Source::new(text).lex() {
        let kind = token.kind();
        match (kind, closing(kind)) {
            (TokenKind::Whitespace, _) => continue,
            (TokenKind::Dot, _) => dots += 1,
            (TokenKind::Equals, _) => {}
            (_, Some(closing)) => {
                open.push((closing, levels));
                levels += dots + 1;
                dots = 0;
            }
            _ if open.last().is_some_and(|(closing, _)| *closing == kind) => {
                levels = open.pop().map_or(0, |(_, around)| around);
                dots = 0;
            }
            _ if after_dot => {}
            _ => dots = 0,
        }
        after_dot = kind == TokenKind::Dot;
        if levels + dots > NESTING_MAX {
            return Some(token.span().start());
        }
    }
    None
}

fn closing(kind: TokenKind) -> Option<TokenKind> {
    match kind {
        TokenKind::LeftSquareBracket => Some(TokenKind::RightSquareBracket),
        TokenKind::LeftCurlyBracket => Some(TokenKind::RightCurlyBracket),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_and_dots_multiply() {
        let nested = |times: usize, open: &str| format!("a = {}", open.repeat(times));
        assert_eq!(too_deep(&nested(32, "[")), None);
        assert_eq!(too_deep(&nested(33, "[")), Some(4 + 32));
        assert_eq!(too_deep(&nested(10, "{ b.c.d = ")), None);
        assert!(too_deep(&nested(11, "{ b.c . d = ")).is_some());
        assert!(too_deep(&nested(40, "{ b } ]")).is_none(), "what is closed again does not count");
        assert!(too_deep(&nested(40, "{ b ]")).is_some(), "a bracket of the other kind closes nothing");
        assert!(too_deep(&format!("{} = 1", vec!["a"; 34].join("."))).is_some());
        assert_eq!(too_deep(&"[a.b.c]\nx.y = 1.5\n".repeat(100)), None);
        assert_eq!(too_deep(&format!("a = \"{}\" # {}", ".".repeat(100), "[".repeat(100))), None);
    }

    #[test]
    fn a_bracket_that_is_missing_is_left_to_the_parser() {
        assert_eq!(too_deep(&format!("a = [1,\n{}", "[peer.x]\ngroups = [\"a\"]\n".repeat(1_000))), None);
    }
}
