//! The talk with an SMTP server.

use std::{io, net::SocketAddr, time::Duration};

use lettre::{
    Message,
    message::Mailbox,
    transport::smtp::{
        self,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, Tls, TlsParameters},
        commands::{Data, Mail as MailFrom, Rcpt},
        extension::{ClientId, Extension, MailBodyParameter, MailParameter},
    },
};

use super::{
    Letter, MailError, Step, TALK, Talk,
    compose::{compose, for_transport},
    talk::STEP,
};
use crate::error::Result;

const FAREWELL: Duration = Duration::from_secs(2);

pub struct Smtp {
    host: String,
    port: u16,
    tls: Tls,
    credentials: Option<Credentials>,
    from: Mailbox,
}

impl Smtp {
    pub(super) fn parse(url: &str, from: Mailbox) -> Result<Self, MailError> {
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

    pub(super) async fn send(&self, letter: &Letter, talk: &mut Talk) -> Result<()> {
        let message = compose(letter, &self.from, for_transport)?;
        if tokio::time::timeout(TALK, self.talk(&message, talk)).await.is_err() {
            talk.late();
        }
        Ok(())
    }

    async fn talk(&self, message: &Message, talk: &mut Talk) -> Option<()> {
        let mut server = self.open(talk).await?;
        let outcome = hand_over(&mut server, message, talk).await;
        // The letter is accepted or not by now; how the server takes leave does not matter.
        let _ = tokio::time::timeout(FAREWELL, server.abort()).await;
        outcome
    }

    async fn open(&self, talk: &mut Talk) -> Option<AsyncSmtpConnection> {
        let addresses = self.resolve(talk).await?;
        let hello = ClientId::default();
        let at_once = match &self.tls {
            Tls::Wrapper(parameters) => Some(parameters.clone()),
            _ => None,
        };
        let wrapped = at_once.is_some();
        let opening = AsyncSmtpConnection::connect_tokio1(
            addresses.as_slice(),
            Some(STEP),
            &hello,
            at_once,
            None,
        );
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

    /// The addresses of the server's name.
    async fn resolve(&self, talk: &mut Talk) -> Option<Vec<SocketAddr>> {
        let name = (self.host.as_str(), self.port);
        let found = tokio::time::timeout(STEP, tokio::net::lookup_host(name)).await;
        let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match found.map(Vec::from_iter) {
            Ok(addresses) if !addresses.is_empty() => {
                let listed: Vec<_> = addresses.iter().map(|a| a.ip().to_string()).collect();
                talk.told(Step::Resolve, true, listed.join(", "));
                Some(addresses)
            }
            Ok(_) => {
                talk.told(Step::Resolve, false, format!("`{}` has no address", self.host));
                None
            }
            Err(error) => {
                talk.told(Step::Resolve, false, format!("`{}`: {error}", self.host));
                None
            }
        }
    }
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
    talk.step(Step::Queued, data, words).await.map(|_| ())
}

fn words(response: &smtp::response::Response) -> String {
    let text: Vec<&str> = response.message().collect();
    format!("{} {}", response.code(), text.join(" "))
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
    use super::{super::Mail, *};

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
}
