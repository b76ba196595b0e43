//! Pages of lists: keyset tokens, opaque, signed, and bound to what was asked.
//!
//! A list asks for one row more than it shows; the surplus row says that there is a next page.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{Error, Result},
    secret::Keys,
};

/// Rows on a page when the caller does not say.
pub const DEFAULT: i32 = 50;
/// The most rows on a page.
pub const MAX: i32 = 500;
const MAC_LENGTH: usize = 32;

/// One page of a list whose rows are ordered by `K`.
#[derive(Debug)]
pub struct Page<K> {
    size: usize,
    /// The last row of the page before.
    pub after: Option<K>,
    /// What the token is bound to: the list and its filter.
    binding: Vec<u8>,
}

impl<K: Serialize + DeserializeOwned> Page<K> {
    /// Reads size and token; `binding` is the list's name and everything that filters or orders it.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a negative size, or a token that is not of this list and filter.
    pub fn read(
        keys: &Keys,
        binding: &impl Serialize,
        page_size: i32,
        page_token: &str,
    ) -> Result<Self> {
        let size = match page_size {
            ..0 => return Err(Error::invalid("page_size", "it must not be negative")),
            0 => DEFAULT,
            size => size.min(MAX),
        };
        let binding = serde_json::to_vec(binding).map_err(Error::internal)?;
        let after = match page_token {
            "" => None,
            token => Some(open(keys, &binding, token).ok_or_else(|| {
                Error::invalid(
                    "page_token",
                    "it does not belong to this list with these filters; start without a token",
                )
            })?),
        };
        Ok(Self { size: usize::try_from(size).map_err(Error::internal)?, after, binding })
    }

    /// The most rows that it shows.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many rows to ask the database for.
    #[must_use]
    pub fn limit(&self) -> i64 {
        i64::try_from(self.size).unwrap_or(i64::MAX - 1) + 1
    }

    /// Takes the surplus row off and returns the token of the next page, or an empty one.
    ///
    /// # Errors
    /// When a key cannot be written down.
    pub fn finish<T>(
        &self,
        keys: &Keys,
        rows: &mut Vec<T>,
        key: impl Fn(&T) -> K,
    ) -> Result<String> {
        if rows.len() <= self.size {
            return Ok(String::new());
        }
        rows.truncate(self.size);
        rows.last().map_or(Ok(String::new()), |last| self.token(keys, &key(last)))
    }

    /// The token of the page after a key.
    ///
    /// # Errors
    /// When the key cannot be written down.
    pub fn token(&self, keys: &Keys, last: &K) -> Result<String> {
        let mut token = serde_json::to_vec(last).map_err(Error::internal)?;
        let tag = keys.digest("page", &[&self.binding, &[0], &token]);
        token.extend_from_slice(&tag);
        Ok(BASE64.encode(token))
    }
}

fn open<K: DeserializeOwned>(keys: &Keys, binding: &[u8], token: &str) -> Option<K> {
    let bytes = BASE64.decode(token).ok()?;
    let (key, tag) = bytes.split_at_checked(bytes.len().checked_sub(MAC_LENGTH)?)?;
    // A page token opens nothing: whoever holds one is authorised anew with every call.
    (keys.digest("page", &[binding, &[0], key]) == tag).then(|| serde_json::from_slice(key).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_continues_its_own_list_and_no_other() {
        let keys = Keys::parse(&Keys::generate().unwrap()).unwrap();
        let page = Page::<String>::read(&keys, &("roles", "acme"), 2, "").unwrap();
        let mut rows: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
        let token = page.finish(&keys, &mut rows, Clone::clone).unwrap();
        assert_eq!(rows, ["a", "b"]);
        let next = Page::<String>::read(&keys, &("roles", "acme"), 9, &token).unwrap();
        assert_eq!(next.after.as_deref(), Some("b"));
        assert!(Page::<String>::read(&keys, &("roles", "other"), 2, &token).is_err());
        assert!(Page::<String>::read(&keys, &("roles", "acme"), 2, &token[1..]).is_err());
        assert!(Page::<String>::read(&keys, &("roles", "acme"), -1, "").is_err());
    }
}
