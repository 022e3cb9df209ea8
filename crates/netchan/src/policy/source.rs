//! The text of a policy file: where things stand in it, and what is wrong there.

use super::error::{PolicyError, PolicyProblem};

/// Mistakes that are told at once: a screen full. The rest is counted.
const PROBLEMS_MAX: usize = 50;

/// Characters of the file that a message quotes.
const QUOTE_CHARS_MAX: usize = 60;

/// Names that a typo is compared with; each comparison takes time by the product of both lengths.
const CANDIDATES_MAX: usize = 1_000;

/// Bytes of a name that a typo is looked for in, for the same reason.
const CANDIDATE_BYTES_MAX: usize = 64;

/// How alike two names are at least, from 0 to 1, for one to be offered in place of the other.
const LIKENESS_MIN: f64 = 0.6;

/// A text with a name, by lines.
pub(super) struct Source<'a> {
    name: &'a str,
    text: &'a str,
    /// The offsets at which lines start; the first is 0.
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(super) fn new(name: &'a str, text: &'a str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { name, text, line_starts: std::iter::once(0).chain(starts).collect() }
    }

    pub(super) fn name(&self) -> &'a str {
        self.name
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// The line of a byte of the text, from 1 on.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    fn column(&self, offset: usize) -> usize {
        let start = self.line_starts[self.line(offset) - 1];
        self.text[start..self.text.floor_char_boundary(offset)].chars().count() + 1
    }
}

/// The mistakes found so far.
pub(super) struct Problems<'a> {
    source: &'a Source<'a>,
    found: Vec<(usize, String)>,
    omitted: usize,
}

impl<'a> Problems<'a> {
    pub(super) fn new(source: &'a Source<'a>) -> Self {
        Self { source, found: Vec::new(), omitted: 0 }
    }

    /// Notes a mistake at a byte of the text; the message is made only where there is room for it.
    pub(super) fn add(&mut self, offset: usize, message: impl FnOnce() -> String) {
        if self.found.len() < PROBLEMS_MAX {
            self.found.push((offset.min(self.source.text.len()), message()));
        } else {
            self.omitted += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(super) fn into_error(mut self) -> PolicyError {
        self.found.sort_by_key(|(offset, _)| *offset);
        let problem = |(offset, message)| PolicyProblem {
            file: self.source.name.to_owned(),
            line: self.source.line(offset),
            column: self.source.column(offset),
            message,
        };
        PolicyError::Invalid {
            problems: self.found.into_iter().map(problem).collect(),
            omitted: self.omitted,
        }
    }
}

/// A text of the file within a message: in quotes, escaped, and not too long.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_CHARS_MAX) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

/// The candidate that was probably meant.
pub(super) fn nearest<'c>(wrong: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if wrong.len() > CANDIDATE_BYTES_MAX {
        return None;
    }
    let rated = candidates
        .into_iter()
        .take(CANDIDATES_MAX)
        .filter(|candidate| candidate.len() <= CANDIDATE_BYTES_MAX)
        .map(|candidate| (strsim::normalized_damerau_levenshtein(wrong, candidate), candidate));
    rated
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|best| best.1)
}

/// `, did you mean "…"?`, if anything was.
pub(super) fn did_you_mean<'c>(wrong: &str, candidates: impl IntoIterator<Item = &'c str>) -> String {
    nearest(wrong, candidates).map(|near| format!(", did you mean {near:?}?")).unwrap_or_default()
}
