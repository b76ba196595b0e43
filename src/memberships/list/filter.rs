//! The text of a filter, a part of AIP-160: comparisons of fields with values, joined by `AND`.

use crate::error::{Error, Result};

/// One comparison, such as `department = "Sales"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    pub field: String,
    pub before: bool,
    pub value: String,
}

/// Reads a filter; an empty one has no terms.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `filter`, saying what stands where it should not.
pub fn parse(text: &str) -> Result<Vec<Term>> {
    let mut words = Words(text.chars().peekable());
    let mut terms: Vec<Term> = Vec::new();
    let Some(mut field) = words.next().transpose()? else { return Ok(terms) };
    loop {
        let before = match words.next().transpose()?.as_ref() {
            Some(Word::Sign('=')) => false,
            Some(Word::Sign('<')) => true,
            _ => return Err(wrong(format!("after {field} comes `=` or `<`; {FIELDS}"))),
        };
        let Some(Word::Quoted(value) | Word::Bare(value)) = words.next().transpose()? else {
            return Err(wrong(format!("{field} needs a value, such as `\"Sales\"`")));
        };
        let Word::Bare(name) = field else {
            return Err(wrong(format!("{field} is no field; {FIELDS}")));
        };
        if terms.iter().any(|term| term.field == name) {
            return Err(wrong(format!("`{name}` stands in it twice")));
        }
        terms.push(Term { field: name, before, value });
        match words.next().transpose()? {
            None => return Ok(terms),
            Some(Word::Bare(and)) if and == "AND" => {}
            Some(other) => return Err(wrong(format!("terms are joined by `AND`, not by {other}"))),
        }
        field = words.next().transpose()?.ok_or_else(|| wrong("it ends with `AND`".to_owned()))?;
    }
}

/// What can be compared.
pub const FIELDS: &str = "it can compare `status`, `kind`, `role`, `workspace`, `department` and \
                          `external_id` by `=`, and `last_sign_in_time` by `<`, and has no `NOT`, \
                          no `OR` and no brackets";

pub fn wrong(what: String) -> Error {
    Error::invalid("filter", what)
}

enum Word {
    Bare(String),
    Quoted(String),
    Sign(char),
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bare(text) => write!(f, "`{text}`"),
            Self::Quoted(text) => write!(f, "`\"{text}\"`"),
            Self::Sign(sign) => write!(f, "`{sign}`"),
        }
    }
}

struct Words<'a>(std::iter::Peekable<std::str::Chars<'a>>);

impl Iterator for Words<'_> {
    type Item = Result<Word>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.0.next_if(|c| c.is_whitespace()).is_some() {}
        let first = self.0.next()?;
        if first == '"' {
            return Some(self.quoted());
        }
        let is_word = |c: &char| c.is_alphanumeric() || "._-:+".contains(*c);
        if !is_word(&first) {
            return Some(Ok(Word::Sign(first)));
        }
        let mut word = first.to_string();
        while let Some(c) = self.0.next_if(is_word) {
            word.push(c);
        }
        Some(Ok(Word::Bare(word)))
    }
}

impl Words<'_> {
    fn quoted(&mut self) -> Result<Word> {
        let mut text = String::new();
        loop {
            match self.0.next() {
                Some('"') => return Ok(Word::Quoted(text)),
                Some('\\') => text.extend(self.0.next()),
                Some(c) => text.push(c),
                None => return Err(wrong("a text lacks its closing `\"`".to_owned())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_are_joined_by_and() {
        let text = r#"status = SUSPENDED AND department="R\"&\"D" AND last_sign_in_time < 2026-01-01T00:00:00Z"#;
        let terms = parse(text).unwrap();
        let told: Vec<_> =
            terms.iter().map(|t| (t.field.as_str(), t.before, t.value.as_str())).collect();
        let expected = [
            ("status", false, "SUSPENDED"),
            ("department", false, "R\"&\"D"),
            ("last_sign_in_time", true, "2026-01-01T00:00:00Z"),
        ];
        assert_eq!(told, expected);
        assert_eq!(parse("  ").unwrap(), []);
    }

    #[test]
    fn what_is_no_filter_is_refused_with_the_place() {
        for (text, part) in [
            ("status", "after `status`"),
            ("status =", "needs a value"),
            ("status = A OR kind = B", "not by `OR`"),
            ("status = A AND", "ends with `AND`"),
            ("status = A AND status = B", "twice"),
            ("\"status\" = A", "is no field"),
            ("status = \"A", "closing"),
            ("(status = A)", "after `(`"),
            ("status > A", "after `status`"),
        ] {
            let Err(Error::Invalid(wrong)) = parse(text) else { panic!("{text} was read") };
            assert!(wrong[0].description.contains(part), "{text}: {}", wrong[0].description);
        }
    }
}
