//! Letters: written down, and handed to the mail server step by step, or kept as files on a laptop.
//!
//! Owns how the server is reached and what it said, and how letters are worded. Does not know the outbox.

mod compose;
mod files;
mod smtp;
mod talk;
mod templates;

use std::path::{Path, PathBuf};

use lettre::{message::Mailbox, transport::smtp::Error as SmtpError};
use secrecy::{ExposeSecret, SecretString};

use self::{files::Files, smtp::Smtp};
pub use self::{
    talk::{Step, TALK, Talk, Told},
    templates::{Templates, TemplatesError, Wording},
};
use crate::{decision::Time, error::Result, ids::MailId, text::Email};

/// Where letters go.
pub enum Mail {
    Smtp(Box<Smtp>),
    Files(Files),
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
    Tls(#[source] SmtpError),
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

impl Mail {
    /// Reads `smtp://…`, `smtps://…` or a folder, and the sender of every letter.
    ///
    /// # Errors
    /// When one of them is malformed, or a password would travel unencrypted beyond this machine.
    pub fn parse(url: &SecretString, from: &str) -> Result<Self, MailError> {
        let from: Mailbox = from.parse().map_err(|_| MailError::From)?;
        let url = url.expose_secret().trim();
        let folder = |path: &str| Self::Files(Files::new(PathBuf::from(path), from.clone()));
        match url.split_once("://") {
            Some(("smtp" | "smtps", _)) => {
                Ok(Self::Smtp(Box::new(Smtp::parse(url, from.clone())?)))
            }
            Some(("file", path)) if !path.is_empty() => Ok(folder(path)),
            None if !url.is_empty() => Ok(folder(url)),
            _ => Err(MailError::Url),
        }
    }

    /// Where letters stay, if they stay on this machine.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Smtp(_) => None,
            Self::Files(files) => Some(files.folder()),
        }
    }

    /// Sends the letter; the talk tells how each step went.
    ///
    /// # Errors
    /// When the letter cannot be written down.
    pub async fn send(&self, letter: &Letter, talk: &mut Talk) -> Result<()> {
        match self {
            Self::Smtp(smtp) => smtp.send(letter, talk).await,
            Self::Files(files) => files.keep(letter, talk).await,
        }
    }
}
