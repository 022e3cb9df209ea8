//! Names of types, for people and for comparison.

use std::any::type_name;

use netchan_proto::limits::TEXT_BYTES_MAX;

/// The name of `T` without module paths: what both ends compare when a channel opens.
///
/// Paths are left out because the same type often lives at different paths in a client and a server.
///
/// ```
/// use netchan::codec::type_label;
///
/// assert_eq!(type_label::<Vec<Option<std::time::Duration>>>(), "Vec<Option<Duration>>");
/// ```
#[must_use]
pub fn type_label<T: ?Sized>() -> String {
    strip_paths(type_name::<T>())
}

fn strip_paths(full: &str) -> String {
    let mut label = String::with_capacity(full.len());
    let mut rest = full;
    while let Some(at) = rest.find("::") {
        label.push_str(&rest[..at]);
        drop_segment(&mut label);
        rest = &rest[at + 2..];
    }
    label.push_str(rest);
    while label.len() > TEXT_BYTES_MAX {
        label.pop();
    }
    label
}

/// Drops one path segment from the end: an identifier, `{{closure}}`, either with generic arguments behind it.
fn drop_segment(label: &mut String) {
    if label.ends_with('>') {
        let mut depth = 0_usize;
        while let Some(c) = label.pop() {
            match c {
                // The arrow of `fn(A) -> B` closes nothing.
                '>' if label.ends_with('-') => {}
                '>' => depth += 1,
                '<' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    let kept = label.trim_end_matches(|c: char| c.is_alphanumeric() || matches!(c, '_' | '#' | '{' | '}'));
    label.truncate(kept.len());
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    struct Task;
    struct Pair<A, B>(#[allow(dead_code)] A, #[allow(dead_code)] B);

    #[test]
    fn every_segment_loses_its_path() {
        struct Local;
        assert_eq!(type_label::<u8>(), "u8");
        assert_eq!(type_label::<Task>(), "Task");
        assert_eq!(type_label::<Local>(), "Local");
        assert_eq!(type_label::<Vec<Task>>(), "Vec<Task>");
        assert_eq!(type_label::<(Task, String, ())>(), "(Task, String, ())");
        assert_eq!(type_label::<[Task; 4]>(), "[Task; 4]");
        assert_eq!(type_label::<[Task]>(), "[Task]");
        assert_eq!(type_label::<&'static str>(), "&str");
        assert_eq!(type_label::<&'static mut Task>(), "&mut Task");
        assert_eq!(
            type_label::<HashMap<String, Pair<Option<Task>, Result<Vec<u8>, Box<Task>>>>>(),
            "HashMap<String, Pair<Option<Task>, Result<Vec<u8>, Box<Task>>>>"
        );
        assert_eq!(type_label::<fn(Task) -> Option<Task>>(), "fn(Task) -> Option<Task>");
        assert!(type_label::<Box<dyn std::error::Error + Send>>().starts_with("Box<dyn Error"));
    }

    #[test]
    fn odd_paths() {
        assert_eq!(strip_paths("a::b::{{closure}}::T"), "T");
        assert_eq!(strip_paths("a::f<b::C<d::E>>::T"), "T");
        assert_eq!(strip_paths("a::f<fn(b::C) -> b::D>::T"), "T");
        assert_eq!(strip_paths("Vec<a::f<b::C>::T>"), "Vec<T>");
        assert_eq!(strip_paths("a::r#type::T"), "T");
        assert_eq!(strip_paths("::"), "");
        assert_eq!(strip_paths(">::T"), "T");
        assert_eq!(strip_paths(&"é".repeat(TEXT_BYTES_MAX)).len(), TEXT_BYTES_MAX);
    }
}
