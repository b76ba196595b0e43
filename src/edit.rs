//! What update RPCs have in common: field masks and etags.

use prost_types::FieldMask;

use crate::error::{Error, Result};

/// Which fields an update changes.
#[derive(Debug, Clone)]
pub struct Mask(Option<Vec<String>>);

impl Mask {
    /// # Errors
    /// `INVALID_ARGUMENT` for a path that is not one of `allowed`. `profile` allows `profile.phone`.
    pub fn read(mask: Option<FieldMask>, allowed: &[&str]) -> Result<Self> {
        let paths = mask.map(|m| m.paths).unwrap_or_default();
        if let Some(unknown) = paths.iter().find(|path| !allowed.contains(&path.as_str())) {
            let wanted =
                format!("`{unknown}` cannot be changed; it can name {}", allowed.join(", "));
            return Err(Error::invalid("update_mask", wanted));
        }
        Ok(Self((!paths.is_empty()).then_some(paths)))
    }

    /// The value, when the mask names its field, or when there is no mask and the value is not empty.
    pub fn pick<T: Default + PartialEq>(&self, field: &str, value: T) -> Option<T> {
        match &self.0 {
            Some(paths) => {
                let named = paths.iter().any(|path| {
                    path == field
                        || field
                            .strip_prefix(path.as_str())
                            .is_some_and(|rest| rest.starts_with('.'))
                });
                named.then_some(value)
            }
            None => (value != T::default()).then_some(value),
        }
    }
}

/// How a version is written in answers.
#[must_use]
pub fn etag(version: i64) -> String {
    format!("v{version}")
}

/// # Errors
/// `ABORTED` when the caller's version is not the current one; empty means any.
pub fn check_etag(given: &str, version: i64) -> Result<()> {
    if given.is_empty() || given == etag(version) { Ok(()) } else { Err(Error::stale_etag()) }
}
