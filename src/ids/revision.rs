//! Revisions: the number of a change, with the history that it belongs to.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

const PREFIX: &str = "rev_";
const BYTES: usize = 16;
/// Of the bytes in base64.
const DIGITS: usize = 22;

/// A state of an installation: everything up to a change. Later states are greater.
///
/// Changes are numbered without gaps. When the database loses some, in a failover or because an older
/// one was restored, another epoch begins, and those numbers are given again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    pub installation: u32,
    pub epoch: u32,
    pub number: u64,
}

/// The text is no revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the `revision` of an answer")]
pub struct MalformedRevision;

impl Revision {
    /// Another state of the same history.
    #[must_use]
    pub const fn at(self, number: u64) -> Self {
        Self { number, ..self }
    }

    /// As answers have it: opaque to callers, and 26 bytes long.
    #[must_use]
    pub fn text(self) -> String {
        let mut bytes = [0; BYTES];
        bytes[..4].copy_from_slice(&self.installation.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[8..].copy_from_slice(&self.number.to_be_bytes());
        let mut digits = [0; DIGITS];
        let mut text = String::with_capacity(PREFIX.len() + DIGITS);
        text.push_str(PREFIX);
        if URL_SAFE_NO_PAD.encode_slice(bytes, &mut digits).is_ok() {
            text.push_str(str::from_utf8(&digits).unwrap_or_default());
        }
        text
    }
}

impl FromStr for Revision {
    type Err = MalformedRevision;

    fn from_str(text: &str) -> Result<Self, MalformedRevision> {
        let digits = text.strip_prefix(PREFIX).ok_or(MalformedRevision)?;
        let bytes = URL_SAFE_NO_PAD.decode(digits).map_err(|_| MalformedRevision)?;
        let bytes: [u8; BYTES] = bytes.try_into().map_err(|_| MalformedRevision)?;
        let [a, b, c, d, e, f, g, h, number @ ..] = bytes;
        let number = u64::from_be_bytes(number);
        // The database counts in signed numbers.
        if i64::try_from(number).is_err() {
            return Err(MalformedRevision);
        }
        Ok(Self {
            installation: u32::from_be_bytes([a, b, c, d]),
            epoch: u32::from_be_bytes([e, f, g, h]),
            number,
        })
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of epoch {}", self.number, self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_what_was_written() {
        let revision = Revision { installation: u32::MAX, epoch: 7, number: 1 << 40 };
        let text = revision.text();
        assert_eq!((text.len(), text.parse()), (26, Ok(revision)));
    }

    #[test]
    fn one_form_only() {
        let text = Revision { installation: 1, epoch: 2, number: 3 }.text();
        for wrong in [
            "",
            "rev_",
            "rev_3",
            "3",
            &text[1..],
            &text[..25],
            &format!("{text}="),
            &format!("{text}A"),
            &text.replace("rev_", "REV_"),
            &format!(" {text}"),
            // The last digit has four bits to spare, and a number with the highest bit is none.
            &format!("{}x", &text[..25]),
            &Revision { number: u64::MAX, ..Revision::default() }.text(),
        ] {
            assert_eq!(wrong.parse::<Revision>(), Err(MalformedRevision), "{wrong}");
        }
    }

    #[test]
    fn a_later_epoch_is_later_whatever_its_numbers() {
        let before = Revision { installation: 1, epoch: 1, number: 100 };
        assert!(before < Revision { epoch: 2, number: 5, ..before });
        assert!(before < before.at(101));
    }
}
