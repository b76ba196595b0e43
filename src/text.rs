//! Texts that people type, checked: names, addresses, phones, languages, metadata.

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use chrono::{DateTime, Datelike, Utc};
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;
use unicode_script::{Script, UnicodeScript};
use unicode_security::{MixedScript, mixed_script::AugmentedScriptSet};

use crate::error::{Error, Result};

/// The longest ordinary text, in characters.
pub const MAX_TEXT: usize = 200;

/// A text without control characters, in NFC and trimmed; may be empty.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field`.
pub fn line(field: &str, text: &str, max: usize) -> Result<String> {
    let text: String = text.trim().nfc().collect();
    if text.chars().count() > max {
        return Err(Error::invalid(field, format!("at most {max} characters")));
    }
    if is_hiding(&text) {
        return Err(Error::invalid(field, VISIBLE));
    }
    Ok(text)
}

/// Like [`line`], of ordinary length, but not empty.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field`.
pub fn required(field: &str, text: &str) -> Result<String> {
    match line(field, text, MAX_TEXT)? {
        text if text.is_empty() => Err(Error::invalid(field, "it is required")),
        text => Ok(text),
    }
}

/// Several lines; line breaks and tabs are kept.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field`.
pub fn lines(field: &str, text: &str, max: usize) -> Result<String> {
    let text: String = text.trim().replace("\r\n", "\n").nfc().collect();
    if text.chars().count() > max {
        return Err(Error::invalid(field, format!("at most {max} characters")));
    }
    if is_hiding(&text.replace(['\n', '\t'], " ")) {
        return Err(Error::invalid(field, VISIBLE));
    }
    Ok(text)
}

/// An id or a key.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field`.
pub fn parse<T: FromStr<Err: Display>>(field: &str, text: &str) -> Result<T> {
    text.parse().map_err(|error| Error::invalid(field, error))
}

const VISIBLE: &str = "no control, direction or invisible characters";

/// Whether something in a text is not to be seen.
fn is_hiding(text: &str) -> bool {
    let joins = |c: char| matches!(c, '\u{200c}' | '\u{200d}');
    let varies = |c: char| matches!(c, '\u{180b}'..='\u{180d}' | '\u{180f}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}');
    // Persian, Indian scripts and emoji show what joins and varies them; these do not.
    let plain = |c: char| {
        c.is_ascii() || matches!(c.script(), Script::Latin | Script::Greek | Script::Cyrillic)
    };
    let joined = |c: Option<char>| c.is_some_and(|c| !c.is_whitespace() && !plain(c) && !joins(c));
    let varied = |c: Option<char>| joined(c) && !c.is_some_and(varies) || is_key(c);
    text.char_indices().any(|(at, c)| {
        let (before, after) = text.split_at(at);
        let (before, after) = (before.chars().next_back(), after.chars().nth(1));
        is_unprintable(c)
            || joins(c) && !(joined(before) && joined(after))
            || varies(c) && !varied(before)
    })
}

/// What stands on a telephone, and so in emoji.
fn is_key(c: Option<char>) -> bool {
    matches!(c, Some('0'..='9' | '#' | '*'))
}

/// Control characters, those that reorder or hide text around them, and those that look like nothing.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e007f}')
}

/// A phone number in E.164 (`+33612345678`), or nothing.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field`.
pub fn phone(field: &str, text: &str) -> Result<String> {
    let text = text.trim();
    let digits = text.strip_prefix('+').unwrap_or_default();
    let well_formed = (7..=15).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit())
        && !digits.starts_with('0');
    if text.is_empty() || well_formed {
        Ok(text.to_owned())
    } else {
        Err(Error::invalid(field, "expected E.164: `+` and 7 to 15 digits, such as `+33612345678`"))
    }
}

/// `en` or `fr`; empty means `default`.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field`.
pub fn language(field: &str, text: &str, default: &str) -> Result<String> {
    match text {
        "" => Ok(default.to_owned()),
        "en" | "fr" => Ok(text.to_owned()),
        _ => Err(Error::invalid(field, "expected `en` or `fr`")),
    }
}

/// How something is called, by language; at least one.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field`.
pub fn names(field: &str, names: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    if names.is_empty() {
        return Err(Error::invalid(field, "a name in `en` or `fr` is required"));
    }
    let one = |(language, name): (String, String)| {
        let field = format!("{field}[{language}]");
        if !matches!(language.as_str(), "en" | "fr") {
            return Err(Error::invalid(field, "expected the language `en` or `fr`"));
        }
        Ok((language, required(&field, &name)?))
    };
    names.into_iter().map(one).collect()
}

/// A time as people read it, in `en` or `fr`.
#[must_use]
pub fn moment(time: DateTime<Utc>, language: &str) -> String {
    const ENGLISH: &str = "January February March April May June July August September October \
                           November December";
    const FRENCH: &str = "janvier février mars avril mai juin juillet août septembre octobre \
                          novembre décembre";
    let (months, at) = if language == "fr" { (FRENCH, "à") } else { (ENGLISH, "at") };
    let month = usize::try_from(time.month0()).ok();
    let month = month.and_then(|n| months.split_whitespace().nth(n)).unwrap_or_default();
    format!("{} {month} {} {at} {} UTC", time.day(), time.year(), time.format("%H:%M"))
}

/// Whether an address can stand in a page as it is.
#[must_use]
pub fn is_plain(link: &str) -> bool {
    link.bytes().all(|b| b.is_ascii_alphanumeric() || b":/.-_~?=".contains(&b))
}

/// The caller's own notes: at most 32, keys of at most 64 and values of at most 512 bytes.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field`.
pub fn metadata(field: &str, entries: &BTreeMap<String, String>) -> Result<()> {
    let fits = entries.len() <= 32
        && entries.iter().all(|(k, v)| !k.is_empty() && k.len() <= 64 && v.len() <= 512);
    let clean = entries.iter().all(|(k, v)| !is_hiding(k) && !is_hiding(v));
    if !fits {
        let wanted = "at most 32 entries, keys of 1 to 64 and values of at most 512 bytes";
        return Err(Error::invalid(field, wanted));
    }
    if clean { Ok(()) } else { Err(Error::invalid(field, VISIBLE)) }
}

/// An e-mail address. Two addresses are the same when their canonical forms are: the part before the
/// last `@` in NFC and lowercase, the domain in ASCII (IDNA) and lowercase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Email {
    text: String,
    canonical: String,
}

impl Email {
    /// An address that is new here, so it must not look like another: without invisible letters, each
    /// word in the letters of one alphabet, and of a domain rather than of a machine.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` naming `field`.
    pub fn enter(field: &str, text: &str) -> Result<Self> {
        let email = Self::parse(field, text)?;
        let (local, domain) = email.canonical.rsplit_once('@').unwrap_or_default();
        let (domain, readable) = idna::domain_to_unicode(domain);
        let top = domain.rsplit('.').next().unwrap_or_default();
        if readable.is_err()
            || top.bytes().all(|b| b.is_ascii_digit())
            || local.chars().any(is_unprintable)
        {
            return Err(Self::wrong(field));
        }
        let words = |part: &str| -> Vec<String> {
            part.split(|c: char| !c.is_alphanumeric()).map(str::to_owned).collect()
        };
        match words(local).into_iter().chain(words(&domain)).find(|word| !is_of_one_alphabet(word))
        {
            None => Ok(email),
            Some(word) => {
                let message = format!(
                    "`{word}` has letters of several alphabets, some of which look alike; write it in one"
                );
                Err(Error::invalid(field, message))
            }
        }
    }

    fn wrong(field: &str) -> Error {
        Error::invalid(field, "expected an address such as `maria@company.com`")
    }

    /// # Errors
    /// `INVALID_ARGUMENT` naming `field`.
    pub fn parse(field: &str, text: &str) -> Result<Self> {
        let wrong = || Self::wrong(field);
        let text: String = text.trim().nfc().collect();
        let (local, domain) = text.rsplit_once('@').ok_or_else(wrong)?;
        let plain = |c: char| {
            c.is_alphanumeric() || matches!(c, '.' | '_' | '%' | '+' | '-' | '\'' | '&' | '=' | '~')
        };
        let dots = local.starts_with('.') || local.ends_with('.') || local.contains("..");
        // A lowercase letter can be longer, or a letter and a mark.
        let lower: String = local.to_lowercase().nfc().collect();
        let fits = |local: &str| local.len() <= 64 && local.chars().all(plain);
        if local.is_empty() || dots || !fits(local) || !fits(&lower) {
            return Err(wrong());
        }
        let ascii = idna::domain_to_ascii_strict(domain).map_err(|_| wrong())?.to_lowercase();
        if !ascii.contains('.') && ascii != "localhost" {
            return Err(wrong());
        }
        let canonical = format!("{lower}@{ascii}");
        if text.len() > 254 || canonical.len() > 254 {
            return Err(wrong());
        }
        Ok(Self { text: format!("{local}@{domain}"), canonical })
    }

    /// As it was typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What it is compared by.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    #[must_use]
    pub fn domain(&self) -> &str {
        self.canonical.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

/// Whether all letters are of one script. Japanese, Korean and Chinese have several, and Latin letters
/// beside them look like none of theirs.
fn is_of_one_alphabet(word: &str) -> bool {
    let rest: String = word.chars().filter(|c| !c.is_ascii()).collect();
    let set = AugmentedScriptSet::for_str(&rest);
    word.is_single_script() || set.jpan || set.kore || set.hanb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_differ_only_in_case_or_encoding_are_one() {
        let canonical = |text: &str| Email::parse("email", text).unwrap().canonical;
        assert_eq!(canonical("Maria.Smith@Company.COM"), "maria.smith@company.com");
        assert_eq!(canonical("ana@bücher.example"), canonical("ana@xn--bcher-kva.example"));
        assert_eq!(canonical(" e\u{301}ric@a.fr "), canonical("éric@a.fr"));
    }

    #[test]
    fn a_new_address_does_not_look_like_another() {
        for text in [
            "a@1.2.3.4",
            "a@b.123",
            "kate\u{3164}@a.fr",
            "k\u{430}te@a.fr",
            "kate@p\u{430}ypal.fr",
            "kate@it-p\u{430}ypal.fr",
        ] {
            assert!(Email::enter("email", text).is_err(), "{text:?}");
            // Whoever has it goes on.
            assert!(Email::parse("email", text).is_ok(), "{text:?}");
        }
        for text in [
            "a.b-c@localhost",
            "éric@bücher.example",
            "иван.smith@it-пример.example",
            "たナカ田中@a.example",
            "info@abc日本.example",
        ] {
            assert!(Email::enter("email", text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn addresses_that_could_smuggle_something_are_refused() {
        for text in [
            "",
            "a",
            "a@",
            "@a.fr",
            "a b@c.fr",
            "a@b\r\nBcc: x@y.fr",
            "a@b",
            "a..b@c.fr",
            "a@b_c.fr",
            "<a@b.fr>",
            "a@b.fr,c@d.fr",
            "\"a\"@b.fr",
            "a@-b.fr",
            // Their lowercase form would be none.
            "\u{130}ric@a.fr",
            &format!("{}@a.fr", "\u{23a}".repeat(32)),
        ] {
            assert!(Email::parse("email", text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_in_any_script_pass_and_hidden_characters_do_not() {
        for name in [
            "Jean-Luc",
            "Ñandú",
            "佐藤",
            "O'Brien",
            "Зоя",
            "ﻣﺤﻤﺪ",
            "علی\u{200c}رضا",
            "👩\u{200d}🔬 lab",
        ] {
            assert!(required("first_name", name).is_ok(), "{name}");
        }
        for name in [
            "",
            " ",
            "a\u{0}b",
            "a\nb",
            "\u{202e}txt",
            "a\u{200b}b",
            "\u{3164}\u{2800}",
            "\u{200d}",
            "a\u{200c}",
            "a \u{200d}b",
            "a\u{200d}b",
            "\u{fe0f}",
            "a\u{fe0f}",
        ] {
            assert!(required("first_name", name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn phones_are_in_e164_or_empty() {
        for good in ["", "+14155551234", "+33612345678"] {
            assert!(phone("phone", good).is_ok(), "{good}");
        }
        for bad in ["0612345678", "+0612345678", "+33 6 12", "+1234567890123456", "=+1"] {
            assert!(phone("phone", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_told_in_the_language_of_the_reader() {
        let time = "2026-08-01T09:05:00Z".parse().unwrap();
        assert_eq!(moment(time, "en"), "1 August 2026 at 09:05 UTC");
        assert_eq!(moment(time, "fr"), "1 août 2026 à 09:05 UTC");
    }
}
