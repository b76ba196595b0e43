//! Permission words, and the sets of them that roles stand for.

use std::collections::HashSet;

use super::bytes;

/// The longest permission or pattern, in bytes.
pub const MAX_PERMISSION: usize = 128;

/// Why a text is not a permission or a pattern; the message names the expected form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PermissionError {
    #[error("expected `module.action`: two or more segments of `a-z`, `0-9`, `-` and `_`")]
    Form,
    #[error("expected `module.action`, `module.*` or `*`")]
    Pattern,
    #[error("longer than {MAX_PERMISSION} bytes")]
    Length,
}

/// How many words there are between the dots; nothing when one is empty or has other characters.
fn segments(text: &str) -> Option<usize> {
    let mut rest = text.as_bytes();
    let mut count = 1;
    loop {
        let (word, after) = rest.split_at(bytes::run(rest, bytes::WORD));
        match after {
            _ if word.is_empty() => return None,
            [] => return Some(count),
            [b'.', after @ ..] => rest = after,
            _ => return None,
        }
        count += 1;
    }
}

/// A well-formed `module.action` word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission<'a>(&'a str);

impl<'a> Permission<'a> {
    /// Says that a member is an administrator of the tenant.
    pub const ADMINISTER: Permission<'static> = Permission("iam.administer");
    /// Lets a caller act on behalf of people.
    pub const ACT_AS: Permission<'static> = Permission("iam.act_as");
    /// Lets a caller invite people of the tenant's own.
    pub const INVITE: Permission<'static> = Permission("iam.members.invite.internal");
    /// Lets a caller suspend and reactivate members.
    pub const SUSPEND: Permission<'static> = Permission("iam.members.suspend");
    /// Lets a caller give and take roles.
    pub const ASSIGN: Permission<'static> = Permission("iam.roles.assign");

    /// # Errors
    /// When the text is not a permission; see [`PermissionError`].
    pub fn parse(text: &'a str) -> Result<Self, PermissionError> {
        if text.len() > MAX_PERMISSION {
            return Err(PermissionError::Length);
        }
        match segments(text) {
            Some(n) if n >= 2 => Ok(Self(text)),
            _ => Err(PermissionError::Form),
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether it belongs to our own module, `iam`.
    #[must_use]
    pub fn is_iam(self) -> bool {
        self.0.starts_with("iam.")
    }
}

/// Checks what may stand in a role: `module.action`, `module.*` or `*`.
///
/// # Errors
/// When the text is none of them.
pub fn check_pattern(text: &str) -> Result<(), PermissionError> {
    if text.len() > MAX_PERMISSION {
        return Err(PermissionError::Length);
    }
    let well_formed = match text.strip_suffix(".*") {
        Some(module) => segments(module).is_some(),
        None => text == "*" || segments(text).is_some_and(|n| n >= 2),
    };
    if well_formed { Ok(()) } else { Err(PermissionError::Pattern) }
}

/// Whether `module.action`, `module.*` or `*` matches the permission.
#[must_use]
pub fn pattern_matches(pattern: &str, permission: Permission<'_>) -> bool {
    match pattern.strip_suffix('*') {
        Some(stem) => permission.0.starts_with(stem),
        None => pattern == permission.0,
    }
}

/// What a list of patterns matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PermissionSet {
    all: bool,
    exact: HashSet<Box<str>>,
    /// Each ends with the dot: `invoices.` stands for `invoices.*`.
    prefixes: Vec<Box<str>>,
}

impl PermissionSet {
    pub fn insert(&mut self, pattern: &str) {
        if pattern == "*" {
            self.all = true;
        } else if let Some(prefix) = pattern.strip_suffix('*') {
            if !self.prefixes.iter().any(|p| &**p == prefix) {
                self.prefixes.push(prefix.into());
            }
        } else {
            self.exact.insert(pattern.into());
        }
    }

    #[must_use]
    pub fn of<S: AsRef<str>>(patterns: &[S]) -> Self {
        let mut set = Self::default();
        patterns.iter().for_each(|p| set.insert(p.as_ref()));
        set
    }

    #[must_use]
    pub fn matches(&self, permission: Permission<'_>) -> bool {
        self.all
            || self.exact.contains(permission.0)
            || self.prefixes.iter().any(|p| permission.0.starts_with(&**p))
    }

    /// Whether everything that `pattern` can match is matched here.
    #[must_use]
    pub fn covers(&self, pattern: &str) -> bool {
        if self.all {
            return true;
        }
        // `invoices.*` becomes `invoices.`, which a wider prefix starts.
        let stem = pattern.strip_suffix('*').unwrap_or(pattern);
        !stem.is_empty()
            && (self.prefixes.iter().any(|p| stem.starts_with(&**p))
                || self.exact.contains(pattern))
    }

    /// What both match.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        // Of two patterns either one covers the other, or nothing matches both.
        for (a, b) in [(self, other), (other, self)] {
            a.patterns().iter().filter(|p| b.covers(p)).for_each(|p| both.insert(p));
        }
        both
    }

    /// The patterns, sorted.
    #[must_use]
    pub fn patterns(&self) -> Vec<String> {
        let mut patterns: Vec<String> = self.exact.iter().map(ToString::to_string).collect();
        patterns.extend(self.prefixes.iter().map(|p| format!("{p}*")));
        if self.all {
            patterns.push("*".to_owned());
        }
        patterns.sort_unstable();
        patterns
    }

    pub fn extend(&mut self, other: &Self) {
        self.all |= other.all;
        self.exact.extend(other.exact.iter().cloned());
        for prefix in &other.prefixes {
            if !self.prefixes.contains(prefix) {
                self.prefixes.push(prefix.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_permission_is_two_words_or_more(text in "[a-b_.-]{0,8}[a-bA é.]{0,4}|([ab]{0,9}\\.){0,15}[ab]{0,9}") {
            let is_of_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
            let mut words = text.split('.');
            let well_formed = words.all(|word| !word.is_empty() && word.chars().all(is_of_word));
            let wanted = well_formed && text.contains('.') && text.len() <= MAX_PERMISSION;
            prop_assert_eq!(Permission::parse(&text).is_ok(), wanted);
        }
    }

    fn permission(text: &str) -> Permission<'_> {
        Permission::parse(text).unwrap()
    }

    #[test]
    fn a_module_wildcard_matches_any_depth_below_it_and_nothing_beside_it() {
        let set = PermissionSet::of(&["invoices.*", "hr.leave.read"]);
        assert!(set.matches(permission("invoices.create")));
        assert!(set.matches(permission("invoices.lines.create")));
        assert!(!set.matches(permission("invoices-old.create")));
        assert!(set.matches(permission("hr.leave.read")));
        assert!(!set.matches(permission("hr.leave.read.all")));
    }

    #[test]
    fn only_a_pattern_as_wide_covers_a_pattern() {
        let set = PermissionSet::of(&["invoices.*"]);
        assert!(set.covers("invoices.*"));
        assert!(set.covers("invoices.lines.*"));
        assert!(set.covers("invoices.create"));
        assert!(!set.covers("*"));
        assert!(!PermissionSet::of(&["invoices.create"]).covers("invoices.*"));
        assert!(PermissionSet::of(&["*"]).covers("*"));
    }

    #[test]
    fn malformed_words_are_refused() {
        for text in ["", "invoices", "Invoices.create", "invoices.", ".create", "a..b", "a.b c"] {
            assert!(Permission::parse(text).is_err(), "{text}");
        }
        for text in ["", "invoices", "*.create", "a.*.b", "**", ".*"] {
            assert!(check_pattern(text).is_err(), "{text}");
        }
        assert!(Permission::parse(&format!("a.{}", "b".repeat(MAX_PERMISSION))).is_err());
    }
}
