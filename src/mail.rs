//! Handing a letter to the mail server, step by step, or keeping it as a file on a laptop.
//!
//! Owns how the server is reached and what it said. Knows neither the outbox nor what letters say.

use std::{
    future::Future,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use lettre::{
    Address, Message,
    message::{
        Body, Mailbox, MultiPart, SinglePart,
        header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue},
    },
    transport::smtp::{
        self,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, Tls, TlsParameters},
        commands::{Data, Mail as MailFrom, Rcpt},
        extension::{ClientId, Extension, MailBodyParameter, MailParameter},
    },
};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    decision::Time,
    error::{Error, Result},
    ids::MailId,
    text::Email,
};

/// How long one step of the talk with the server may take, and how long all of it.
const STEP: Duration = Duration::from_secs(30);
pub const TALK: Duration = Duration::from_secs(60);
const FAREWELL: Duration = Duration::from_secs(2);
/// What is kept of a server's reply, in characters.
const MAX_REPLY: usize = 500;

/// Where letters go.
pub enum Mail {
    Smtp(Box<Smtp>),
    Files(Files),
}

pub struct Smtp {
    host: String,
    port: u16,
    tls: Tls,
    credentials: Option<Credentials>,
    from: Mailbox,
}

/// A folder with one `.eml` file per letter, readable by its owner only: the letters carry links.
pub struct Files {
    folder: PathBuf,
    from: Mailbox,
}

/// Why the settings for mail are refused.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error(
        "the mail url is malformed; expected `smtp://[user:password@]host[:port][?tls=required|\
         opportunistic]`, `smtps://[user:password@]host[:port]`, or a folder"
    )]
    Url,
    #[error(
        "the mail url would send its password unencrypted; add `?tls=required` or use `smtps://`"
    )]
    PasswordUnencrypted,
    #[error(
        "the sender of mails is malformed; expected `Name <address@example.com>` or an address"
    )]
    From,
    #[error("tls cannot be set up for the mail server: {0}")]
    Tls(#[source] smtp::Error),
}

/// A letter, ready to be sent. The same id is the same letter, however often it is sent.
#[derive(Debug, Clone)]
pub struct Letter {
    pub id: MailId,
    /// Before the installation's address; empty: the installation's own.
    pub sender_name: String,
    pub reply_to: Option<Email>,
    pub to: Email,
    pub name: String,
    pub subject: String,
    pub text: String,
    pub html: String,
    pub date: Time,
}

/// A step of the talk with the server, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Connect,
    Tls,
    Authenticate,
    Sender,
    Recipient,
    Accepted,
}

/// How a step went, and what the server said to it.
#[derive(Debug, Clone)]
pub struct Told {
    pub step: Step,
    pub ok: bool,
    pub reply: String,
}

/// The steps up to the first that failed.
#[derive(Debug, Clone, Default)]
pub struct Talk {
    pub steps: Vec<Told>,
    /// The step that was begun last.
    begun: Option<Step>,
    /// The server refused this very letter, so that trying again is useless.
    pub refused: bool,
}

impl Talk {
    /// That of a letter which cannot even be written down.
    #[must_use]
    pub fn impossible() -> Self {
        Self { refused: true, ..Self::default() }
    }

    /// Whether the letter was accepted.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.steps.last().is_some_and(|told| told.ok && told.step == Step::Accepted)
    }

    /// What the server said last.
    #[must_use]
    pub fn last_reply(&self) -> &str {
        self.steps.last().map_or("", |told| told.reply.as_str())
    }

    fn told(&mut self, step: Step, ok: bool, reply: impl ToString) {
        let reply = reply.to_string();
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let reply: String = reply.trim().chars().map(printable).take(MAX_REPLY).collect();
        self.steps.push(Told { step, ok, reply });
    }

    /// Runs a step in its time and notes how it went; `None` ends the talk.
    async fn step<T>(
        &mut self,
        step: Step,
        work: impl Future<Output = Result<T, smtp::Error>>,
        reply: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        self.begun = Some(step);
        match tokio::time::timeout(STEP, work).await {
            Ok(Ok(done)) => {
                self.told(step, true, reply(&done));
                Some(done)
            }
            Ok(Err(error)) => {
                let encrypting = step == Step::Connect && is_about_tls(&error);
                if encrypting {
                    self.told(step, true, "the server answers");
                }
                let step = if encrypting { Step::Tls } else { step };
                // Before the recipient is named, a refusal is about us: settings can be mended.
                let about_letter = matches!(step, Step::Recipient | Step::Accepted);
                self.refused = about_letter && (error.is_permanent() || error.is_client());
                self.told(step, false, error);
                None
            }
            Err(_) => {
                self.told(step, false, no_answer(STEP));
                None
            }
        }
    }
}

impl Mail {
    /// Reads `smtp://…`, `smtps://…` or a folder, and the sender of every letter.
    ///
    /// # Errors
    /// When one of them is malformed, or a password would travel unencrypted beyond this machine.
    pub fn parse(url: &SecretString, from: &str) -> Result<Self, MailError> {
        let from: Mailbox = from.parse().map_err(|_| MailError::From)?;
        let url = url.expose_secret().trim();
        match url.split_once("://") {
            Some(("smtp" | "smtps", _)) => Ok(Self::Smtp(Box::new(Smtp::parse(url, from)?))),
            Some(("file", path)) if !path.is_empty() => {
                Ok(Self::Files(Files { folder: path.into(), from }))
            }
            None if !url.is_empty() => Ok(Self::Files(Files { folder: url.into(), from })),
            _ => Err(MailError::Url),
        }
    }

    /// Whether letters stay on this machine.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Smtp(_) => None,
            Self::Files(files) => Some(&files.folder),
        }
    }

    /// Sends the letter and tells how each step went.
    ///
    /// # Errors
    /// When the letter cannot be written down; what the server says is in the talk.
    pub async fn send(&self, letter: &Letter) -> Result<Talk> {
        match self {
            Self::Smtp(smtp) => {
                let message = compose(letter, &smtp.from, for_transport)?;
                let mut talk = Talk::default();
                let talking = smtp.talk(&message, &mut talk);
                let late = tokio::time::timeout(TALK, talking).await.is_err() && !talk.ok();
                if let (true, Some(step)) = (late, talk.begun) {
                    talk.told(step, false, no_answer(TALK));
                }
                Ok(talk)
            }
            Self::Files(files) => Ok(files.keep(letter).await?),
        }
    }
}

impl Smtp {
    fn parse(url: &str, from: Mailbox) -> Result<Self, MailError> {
        let uri: http::Uri = url.parse().map_err(|_| MailError::Url)?;
        let authority = uri.authority().ok_or(MailError::Url)?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() || !matches!(uri.path(), "" | "/") {
            return Err(MailError::Url);
        }
        let parameters = || TlsParameters::new(host.clone()).map_err(MailError::Tls);
        let (tls, port) = match (uri.scheme_str(), uri.query()) {
            (Some("smtps"), None) => (Tls::Wrapper(parameters()?), 465),
            (Some("smtp"), None) => (Tls::None, 25),
            (Some("smtp"), Some("tls=required")) => (Tls::Required(parameters()?), 587),
            (Some("smtp"), Some("tls=opportunistic")) => (Tls::Opportunistic(parameters()?), 25),
            _ => return Err(MailError::Url),
        };
        let credentials = match authority.as_str().rsplit_once('@') {
            None => None,
            Some((user_info, _)) => {
                let (user, password) = user_info.split_once(':').ok_or(MailError::Url)?;
                let decode = |text| percent_decode(text).ok_or(MailError::Url);
                Some(Credentials::new(decode(user)?, decode(password)?))
            }
        };
        let here = host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if credentials.is_some() && !here && matches!(tls, Tls::None | Tls::Opportunistic(_)) {
            return Err(MailError::PasswordUnencrypted);
        }
        Ok(Self { port: authority.port_u16().unwrap_or(port), host, tls, credentials, from })
    }

    async fn talk(&self, message: &Message, talk: &mut Talk) -> Option<()> {
        let mut server = self.open(talk).await?;
        let outcome = hand_over(&mut server, message, talk).await;
        // The letter is accepted or not by now; how the server takes leave does not matter.
        let _ = tokio::time::timeout(FAREWELL, server.abort()).await;
        outcome
    }

    async fn open(&self, talk: &mut Talk) -> Option<AsyncSmtpConnection> {
        let hello = ClientId::default();
        let at_once = match &self.tls {
            Tls::Wrapper(parameters) => Some(parameters.clone()),
            _ => None,
        };
        let wrapped = at_once.is_some();
        let server = (self.host.as_str(), self.port);
        let opening =
            AsyncSmtpConnection::connect_tokio1(server, Some(STEP), &hello, at_once, None);
        let reply = |_: &_| format!("{}:{} answers", self.host, self.port);
        let mut server = talk.step(Step::Connect, opening, reply).await?;
        if wrapped {
            talk.told(Step::Tls, true, "encrypted from the start");
        }
        if let Tls::Required(parameters) | Tls::Opportunistic(parameters) = &self.tls {
            if matches!(self.tls, Tls::Opportunistic(_)) && !server.can_starttls() {
                talk.told(Step::Tls, true, "not offered by the server; unencrypted");
            } else {
                let upgrade = server.starttls(parameters.clone(), &hello);
                talk.step(Step::Tls, upgrade, |()| "encrypted by STARTTLS".to_owned()).await?;
            }
        }
        if let Some(credentials) = &self.credentials {
            let login = server.auth(DEFAULT_MECHANISMS, credentials);
            talk.step(Step::Authenticate, login, words).await?;
        }
        Some(server)
    }
}

/// Also where lettre takes a handshake that failed for a connection that did.
fn is_about_tls(error: &smtp::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let io = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if io.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        source = cause.source();
    }
    error.is_tls()
}

fn no_answer(within: Duration) -> String {
    format!("no answer within {} s", within.as_secs())
}

/// Names sender and recipient and hands the letter over.
async fn hand_over(
    server: &mut AsyncSmtpConnection,
    message: &Message,
    talk: &mut Talk,
) -> Option<()> {
    let (envelope, bytes) = (message.envelope(), message.formatted());
    let mut parameters = Vec::new();
    for (needed, extension, parameter) in [
        (
            envelope.to().iter().chain(envelope.from()).any(|a| !a.user().is_ascii()),
            Extension::SmtpUtfEight,
            MailParameter::SmtpUtfEight,
        ),
        (
            !bytes.is_ascii(),
            Extension::EightBitMime,
            MailParameter::Body(MailBodyParameter::EightBitMime),
        ),
    ] {
        if needed && !server.server_info().supports_feature(extension) {
            talk.told(Step::Sender, false, format!("the server lacks {extension}, which it takes"));
            talk.refused = true;
            return None;
        }
        if needed {
            parameters.push(parameter);
        }
    }
    let sender = MailFrom::new(envelope.from().cloned(), parameters);
    talk.step(Step::Sender, server.command(sender), words).await?;
    for to in envelope.to() {
        let recipient = Rcpt::new(to.clone(), Vec::new());
        talk.step(Step::Recipient, server.command(recipient), words).await?;
    }
    let data = async {
        server.command(Data).await?;
        server.message(&bytes).await
    };
    talk.step(Step::Accepted, data, words).await.map(|_| ())
}

fn words(response: &smtp::response::Response) -> String {
    let text: Vec<&str> = response.message().collect();
    format!("{} {}", response.code(), text.join(" "))
}

impl Files {
    async fn keep(&self, letter: &Letter) -> Result<Talk> {
        let message = compose(letter, &self.from, as_written)?.formatted();
        let mut talk = Talk::default();
        let file = self.folder.join(format!("{}.eml", letter.id));
        let folder = self.folder.clone();
        let written = tokio::task::spawn_blocking(move || write(&folder, &file, &message));
        match written.await.map_err(Error::internal)? {
            Ok(()) => talk.told(Step::Accepted, true, "kept as a file"),
            Err(error) => talk.told(Step::Accepted, false, error),
        }
        Ok(talk)
    }
}

/// Whoever watches the folder sees whole letters only.
fn write(folder: &Path, file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let part = file.with_extension("part");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&part)?.write_all(bytes)?;
    std::fs::rename(&part, file)
}

/// The letter as RFC 5322 text. Encoding names and subject is lettre's: nothing in them ends a header.
fn compose(letter: &Letter, from: &Mailbox, encode: fn(&str) -> Body) -> Result<Message> {
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
fn for_transport(text: &str) -> Body {
    Body::new(text.to_owned())
}

/// So that a person who opens the file can copy the link.
fn as_written(text: &str) -> Body {
    let text = text.replace('\n', "\r\n").into_bytes();
    Body::dangerous_pre_encoded(text, ContentTransferEncoding::Binary)
}

/// Texts are checked where they come in; of those that are not, lettre would panic.
fn one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// `%40` to `@` and so on; `None` for a broken sequence.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Mail, MailError> {
        Mail::parse(&url.to_owned().into(), "Rolecall <no-reply@rolecall.example>")
    }

    fn smtp(url: &str) -> Smtp {
        match parse(url) {
            Ok(Mail::Smtp(smtp)) => *smtp,
            other => panic!("{url}: {:?}", other.err()),
        }
    }

    #[test]
    fn urls_name_server_port_and_encryption() {
        assert_eq!(smtp("smtp://localhost").port, 25);
        assert_eq!(smtp("smtps://mail.example").port, 465);
        let server = smtp("smtp://u%40x:p%3Aw@mail.example:2525?tls=required");
        assert_eq!((server.host.as_str(), server.port), ("mail.example", 2525));
        let expected = Credentials::new("u@x".to_owned(), "p:w".to_owned());
        assert_eq!(server.credentials, Some(expected));
        assert_eq!(smtp("smtp://[::1]:1025").host, "::1");
        assert!(parse("/var/mail/letters").unwrap().folder().is_some());
    }

    #[test]
    fn urls_that_cannot_work_or_leak_the_password_are_refused() {
        for url in ["", "smtp://", "http://a.b", "smtp://h?tls=maybe", "smtp://u@h?tls=required"] {
            assert!(matches!(parse(url), Err(MailError::Url)), "{url}");
        }
        for url in ["smtp://u:p@mail.example", "smtp://u:p@mail.example?tls=opportunistic"] {
            assert!(matches!(parse(url), Err(MailError::PasswordUnencrypted)), "{url}");
        }
        assert!(parse("smtp://u:p@127.0.0.1:25").is_ok());
        let from = Mail::parse(&"smtp://h".to_owned().into(), "nobody");
        assert!(matches!(from, Err(MailError::From)));
    }

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
