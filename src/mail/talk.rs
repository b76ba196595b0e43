//! The talk with a mail server: which steps it had, how each went, and what the server said.

use std::{future::Future, time::Duration};

use lettre::transport::smtp;
use tokio::sync::mpsc;

/// How long one step may take, and how long all of them.
pub(super) const STEP: Duration = Duration::from_secs(30);
pub const TALK: Duration = Duration::from_secs(60);
/// What is kept of a server's reply, in characters.
const MAX_REPLY: usize = 500;

/// A step of the talk with the server, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Resolve,
    Connect,
    Tls,
    Authenticate,
    Sender,
    Recipient,
    Queued,
}

/// How a step went, and what the server said to it.
#[derive(Debug, Clone)]
pub struct Told {
    pub step: Step,
    pub ok: bool,
    pub reply: String,
}

/// The steps up to the first that failed.
#[derive(Debug, Default)]
pub struct Talk {
    steps: Vec<Told>,
    /// The step that was begun last.
    begun: Option<Step>,
    /// Hears of each step as it ends.
    listener: Option<mpsc::UnboundedSender<Told>>,
    /// The server refused this very letter, so that trying again is useless.
    pub refused: bool,
}

impl Talk {
    /// That of a letter which cannot even be written down.
    #[must_use]
    pub fn impossible() -> Self {
        Self { refused: true, ..Self::default() }
    }

    /// One whose steps are heard as they end.
    #[must_use]
    pub fn heard(listener: mpsc::UnboundedSender<Told>) -> Self {
        Self { listener: Some(listener), ..Self::default() }
    }

    /// Whether the letter was accepted.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.steps.last().is_some_and(|told| told.ok && told.step == Step::Queued)
    }

    /// What the server said last.
    #[must_use]
    pub fn last_reply(&self) -> &str {
        self.steps.last().map_or("", |told| told.reply.as_str())
    }

    pub(super) fn told(&mut self, step: Step, ok: bool, reply: impl ToString) {
        let reply = reply.to_string();
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let reply: String = reply.trim().chars().map(printable).take(MAX_REPLY).collect();
        let told = Told { step, ok, reply };
        if let Some(listener) = &self.listener {
            // Whoever listened may have left; the letter goes on.
            let _ = listener.send(told.clone());
        }
        self.steps.push(told);
    }

    /// Notes that the whole talk took too long, in the step that was begun last.
    pub(super) fn late(&mut self) {
        if let (false, Some(step)) = (self.ok(), self.begun) {
            self.told(step, false, no_answer(TALK));
        }
    }

    /// Runs a step in its time and notes how it went; `None` ends the talk.
    pub(super) async fn step<T>(
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
                let about_letter = matches!(step, Step::Recipient | Step::Queued);
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
