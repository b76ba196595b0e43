//! Resources and scopes: one syntax for where something is and where a role assignment holds.

use super::bytes::{self, ID, WIDE, WORD};

/// The longest resource, in bytes.
pub const MAX_RESOURCE: usize = 1024;
/// The most pairs of type and id in a resource.
pub const MAX_PAIRS: usize = 16;

/// What a resource in a workspace begins with.
const WORKSPACES: &str = "workspaces/";

/// Why a text is not a resource; the message names the expected form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    #[error("expected pairs of type and id such as `workspaces/paris/folders/42`, or nothing")]
    Pairs,
    #[error("a type is made of `a-z`, `0-9`, `_` and `-`, an id of letters, digits and `._~:@=+-`")]
    Characters,
    #[error("longer than {MAX_RESOURCE} bytes or {MAX_PAIRS} pairs")]
    Length,
}

/// Where something is: the tenant, a workspace, or the applications' own resources below either.
///
/// `""` is the tenant; `workspaces/paris` a workspace; `workspaces/paris/folders/42` below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource<'a> {
    /// The key of the workspace it lies in.
    pub workspace: Option<&'a str>,
    /// Pairs below the workspace, or below the tenant; empty for the workspace or tenant itself.
    pub path: &'a str,
}

impl<'a> Resource<'a> {
    pub const TENANT: Resource<'static> = Resource { workspace: None, path: "" };

    /// # Errors
    /// When the text is not a resource; see [`ResourceError`].
    pub fn parse(text: &'a str) -> Result<Self, ResourceError> {
        if text.is_empty() {
            return Ok(Self { workspace: None, path: "" });
        }
        if text.len() > MAX_RESOURCE {
            return Err(ResourceError::Length);
        }
        let all = text.as_bytes();
        let in_workspace = text.starts_with(WORKSPACES);
        // Types and ids so far, where the next begins, and the end of the first pair.
        let (mut count, mut start) = if in_workspace { (1, WORKSPACES.len()) } else { (0, 0) };
        let mut first = all.len();
        let mut id = ID;
        loop {
            let class = if count % 2 == 0 { WORD } else { id };
            let end = start + bytes::run(&all[start..], class);
            match all.get(end) {
                Some(byte) if !byte.is_ascii() && class == ID => {
                    id = ID | WIDE;
                    continue;
                }
                Some(byte) if *byte != b'/' => return Err(ResourceError::Characters),
                _ if end == start => return Err(ResourceError::Pairs),
                _ => count += 1,
            }
            if end == all.len() {
                break;
            }
            if count == 2 {
                first = end;
            }
            start = end + 1;
        }
        if count % 2 != 0 {
            return Err(ResourceError::Pairs);
        }
        if id != ID && !text.chars().all(|c| c.is_ascii() || c.is_alphanumeric()) {
            return Err(ResourceError::Characters);
        }
        if count > 2 * MAX_PAIRS {
            return Err(ResourceError::Length);
        }
        Ok(match in_workspace {
            true => Self {
                workspace: Some(&text[WORKSPACES.len()..first]),
                path: text.get(first + 1..).unwrap_or_default(),
            },
            false => Self { workspace: None, path: text },
        })
    }
}

/// Whether `path` is `scope` or lies beneath it; both are pairs.
#[must_use]
pub fn path_covers(scope: &str, path: &str) -> bool {
    match path.strip_prefix(scope) {
        Some(rest) => scope.is_empty() || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// The text of a scope, as [`Resource::parse`] reads it.
#[must_use]
pub fn scope_text(workspace: Option<&str>, path: &str) -> String {
    match (workspace, path.is_empty()) {
        (None, _) => path.to_owned(),
        (Some(key), true) => format!("workspaces/{key}"),
        (Some(key), false) => format!("workspaces/{key}/{path}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_resource_is_what_its_pairs_say(
            text in "(workspaces/)?([a-b_/-]{0,6}[A-B./é\u{2028} a/]{0,4}){0,3}|([ab]{1,2}/[ABé]{1,2}/){13,17}[ab]/b",
        ) {
            let parts: Vec<&str> = text.split('/').collect();
            let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
            let is_id = |c: char| c.is_alphanumeric() || "._~:@=+-".contains(c);
            let well_formed = parts.chunks(2).all(|pair| match pair {
                [word, id] => {
                    !word.is_empty() && word.chars().all(is_word)
                        && !id.is_empty() && id.chars().all(is_id)
                }
                _ => false,
            });
            let wanted = match (text.as_str(), parts.as_slice()) {
                ("", _) => Some((None, "")),
                _ if !well_formed || parts.len() > 2 * MAX_PAIRS => None,
                (_, ["workspaces", key]) => Some((Some(*key), "")),
                (_, ["workspaces", key, ..]) => Some((Some(*key), &text[12 + key.len()..])),
                _ => Some((None, text.as_str())),
            };
            let read = Resource::parse(&text).ok();
            prop_assert_eq!(read.map(|read| (read.workspace, read.path)), wanted);
        }
    }

    #[test]
    fn a_scope_covers_itself_and_what_is_beneath_and_never_a_name_that_starts_alike() {
        assert!(path_covers("", "folders/42"));
        assert!(path_covers("folders/42", "folders/42"));
        assert!(path_covers("folders/42", "folders/42/files/7"));
        assert!(!path_covers("folders/4", "folders/42"));
        assert!(!path_covers("folders/42/files/7", "folders/42"));
    }

    #[test]
    fn the_workspace_is_taken_from_the_first_pair_only() {
        let deep = Resource::parse("workspaces/paris/workspaces/lyon").unwrap();
        assert_eq!(deep, Resource { workspace: Some("paris"), path: "workspaces/lyon" });
        let below = Resource::parse("projects/7").unwrap();
        assert_eq!(below, Resource { workspace: None, path: "projects/7" });
        assert_eq!(scope_text(deep.workspace, deep.path), "workspaces/paris/workspaces/lyon");
    }

    #[test]
    fn malformed_resources_are_refused() {
        let pairs = |count| vec!["a/b"; count].join("/");
        assert!(Resource::parse(&pairs(MAX_PAIRS)).is_ok());
        let long = Err(ResourceError::Length);
        assert_eq!(Resource::parse(&pairs(MAX_PAIRS + 1)), long);
        assert_eq!(Resource::parse(&format!("a/{}", "b".repeat(MAX_RESOURCE - 1))), long);
        for text in ["workspaces", "/", "a/b/c", "a//b", "a/b/", "A/b", "a/b c", "a/\u{7}"] {
            assert!(Resource::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_id_may_have_letters_of_any_script_and_a_type_may_not() {
        assert!(Resource::parse("cities/Orléans").is_ok());
        for text in ["régions/1", "cities/a\u{2028}b", "cities/\u{1f600}"] {
            assert_eq!(Resource::parse(text), Err(ResourceError::Characters), "{text}");
        }
    }
}
