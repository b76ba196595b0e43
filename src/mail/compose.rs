//! Letters as RFC 5322 text.

use lettre::{
    Address, Message,
    message::{
        Body, Mailbox, MultiPart, SinglePart,
        header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue},
    },
};

use super::Letter;
use crate::{
    error::{Error, Result},
    text::Email,
};

/// The letter as RFC 5322 text. Encoding names and subject is lettre's: nothing in them ends a header.
pub(super) fn compose(
    letter: &Letter,
    from: &Mailbox,
    encode: fn(&str) -> Body,
) -> Result<Message> {
    let named = |name: &str| Some(one_line(name)).filter(|name| !name.is_empty());
    let sender = named(&letter.sender_name).or_else(|| from.name.clone());
    let automatic = HeaderValue::new(
        HeaderName::new_from_ascii_str("Auto-Submitted"),
        "auto-generated".to_owned(),
    );
    let part = |kind, text| SinglePart::builder().header(kind).body(encode(text));
    let text = part(ContentType::TEXT_PLAIN, &letter.text);
    let html = part(ContentType::TEXT_HTML, &letter.html);
    let mut message = Message::builder();
    if let Some(reply_to) = &letter.reply_to {
        message = message.reply_to(Mailbox::new(None, address(reply_to)?));
    }
    message
        .from(Mailbox::new(sender, from.email.clone()))
        .to(Mailbox::new(named(&letter.name), address(&letter.to)?))
        .subject(one_line(&letter.subject))
        .date(letter.date.into())
        .message_id(Some(format!("<{}@{}>", letter.id, from.email.domain())))
        .raw_header(automatic)
        .multipart(MultiPart::alternative().singlepart(text).singlepart(html))
        .map_err(Error::internal)
}

/// With its domain in ASCII, as every server can send it on.
fn address(email: &Email) -> Result<Address> {
    let (local, _) = email.as_str().rsplit_once('@').unwrap_or_default();
    Address::new(local, email.domain()).map_err(Error::internal)
}

/// As mail servers need it: no long lines, and only ASCII.
pub(super) fn for_transport(text: &str) -> Body {
    Body::new(text.to_owned())
}

/// So that a person who opens the file can copy the link.
pub(super) fn as_written(text: &str) -> Body {
    let text = text.replace('\n', "\r\n").into_bytes();
    Body::dangerous_pre_encoded(text, ContentTransferEncoding::Binary)
}

/// Texts are checked where they come in; of those that are not, lettre would panic.
fn one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Time;

    fn composed(name: &str, subject: &str) -> String {
        let letter = Letter {
            id: uuid::Uuid::from_u128(7).into(),
            sender_name: name.to_owned(),
            reply_to: Some(Email::parse("reply_to", "office@acme.example").unwrap()),
            to: Email::parse("to", "ana@bücher.example").unwrap(),
            name: name.to_owned(),
            subject: subject.to_owned(),
            text: "text".to_owned(),
            html: "<p>html</p>".to_owned(),
            date: Time::default(),
        };
        let from: Mailbox = "Rolecall <no-reply@rolecall.example>".parse().unwrap();
        let message = compose(&letter, &from, for_transport).unwrap();
        String::from_utf8(message.formatted()).unwrap()
    }

    #[test]
    fn a_letter_is_the_same_however_often_it_is_sent_and_holds_no_header_of_others() {
        let text = composed("Ana\r\nBcc: x@y.fr", "Été\r\nBcc: x@y.fr");
        let head = text.split("\r\n\r\n").next().unwrap();
        assert!(
            head.contains("Message-ID: <mail_00000000000000000000000000000007@rolecall.example>")
        );
        assert!(head.contains("Auto-Submitted: auto-generated"));
        assert!(head.contains("<ana@xn--bcher-kva.example>"), "{head}");
        assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
    }

    #[test]
    fn names_in_any_script_and_of_any_length_can_be_written() {
        let long = "Ñandú 佐藤 ".repeat(25);
        for name in ["O'Brien \\\"x\\\", <y@z.fr>; (a)", "Зоя", "ﻣﺤﻤﺪ", "👩‍👩‍👧", "a,b:c@d", &long]
        {
            let head = composed(name, name);
            assert!(head.lines().all(|line| line.len() < 1000), "{head}");
            assert_eq!(head.matches("\nTo: ").count(), 1, "{head}");
        }
    }
}
