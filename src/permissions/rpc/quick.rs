//! Checks answered from memory, from the bytes of their messages to those of the answers. What is out of
//! the ordinary is answered elsewhere, by the same rules: nothing, here.

use prost::{
    Message,
    encoding::{message, string},
};

use super::{
    super::{Admitted, Asked, MAX_ITEMS, Named, What, admit, check as decide},
    wire::{Question, items, measure, text},
};
use crate::{
    activity::Activity,
    caller::Call,
    decision::{Facts, TenantNotLoaded, Time},
    error::Result,
    framing::frame,
    proto as pb,
    secret::Keys,
};

/// Who asks, and what answers.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    pub keys: &'a Keys,
    pub activity: &'a Activity,
    pub facts: &'a Facts,
    pub call: &'a Call,
    pub now: Time,
}

/// Appends the answer to the encoded question, or gives up.
pub type Answerer = fn(&Asking<'_>, &[u8], &mut Vec<u8>) -> Result<Option<()>, TenantNotLoaded>;

const RESULTS: u32 = 1;
const REVISION: u32 = 100;

/// Answers a CheckPermissionRequest.
///
/// # Errors
/// When the facts of a tenant are not loaded.
pub fn check(
    asking: &Asking<'_>,
    message: &[u8],
    answer: &mut Vec<u8>,
) -> Result<Option<()>, TenantNotLoaded> {
    let Some(question) = Question::read(message, text(message)) else { return Ok(None) };
    let Question { tenant, subject, permission, resource, .. } = question;
    let asked = Asked::parse(asking.keys, tenant, subject, permission, resource);
    let Ok(asked) = asked else { return Ok(None) };
    if asked.subject.is_address() {
        return Ok(None);
    }
    let Ok(decided) = decide(asking.facts, asking.call, &asked, asking.now)? else {
        return Ok(None);
    };
    asked.subject.note(asking.activity, asking.now);
    Ok(pb::CheckPermissionResponse::from(decided).encode(answer).ok())
}
/// Answers a BatchCheckPermissionsRequest.
///
/// # Errors
/// When the facts of a tenant are not loaded.
pub fn batch(
    asking: &Asking<'_>,
    message: &[u8],
    answer: &mut Vec<u8>,
) -> Result<Option<()>, TenantNotLoaded> {
    let Some((tenant, count)) = measure(message) else { return Ok(None) };
    if !(1..=MAX_ITEMS).contains(&count) {
        return Ok(None);
    }
    let Asking { facts, call, now, .. } = *asking;
    let Ok(admitted) = admit(facts, call, tenant, now)? else { return Ok(None) };
    let mut items = items(message).peekable();
    while let Some(first) = items.next() {
        let Some(first) = first else { return Ok(None) };
        let subject = match Named::parse(asking.keys, first.subject) {
            Ok(subject) if subject.is_address() => return Ok(None),
            Ok(subject) => subject,
            Err(malformed) => {
                message::encode(RESULTS, &pb::CheckPermissionResult::from(malformed), answer);
                continue;
            }
        };
        let found = admitted.find(&subject)?;
        // Many in a row are often about the same subject.
        let is_next = |item: &Option<Question<'_>>| {
            item.as_ref().is_some_and(|item| item.subject == first.subject)
        };
        let mut next = Some(first);
        while let Some(Question { permission, resource, .. }) = next {
            let result = match What::parse(permission, resource) {
                Ok(what) => {
                    subject.note(asking.activity, now);
                    found.decide(what).into()
                }
                Err(malformed) => pb::CheckPermissionResult::from(malformed),
            };
            message::encode(RESULTS, &result, answer);
            next = items.next_if(is_next).flatten();
        }
    }
    let revision = facts.revision.text();
    let end = pb::BatchCheckPermissionsResponse { revision, ..Default::default() };
    Ok(end.encode(answer).ok())
}

/// Answers CheckPermissionStreamRequests, one after the other.
pub struct Run<'a> {
    asking: Asking<'a>,
    /// What all answers say.
    revision: String,
    /// The last tenant that was asked about: mostly it is that of the next question, too.
    admitted: Option<(&'a str, Admitted<'a>)>,
}

impl<'a> Run<'a> {
    #[must_use]
    pub fn new(asking: Asking<'a>) -> Self {
        Self { revision: asking.facts.revision.text(), asking, admitted: None }
    }

    /// Appends the framed answer to the next question, or gives up.
    ///
    /// # Errors
    /// When the facts of a tenant are not loaded.
    pub fn answer(
        &mut self,
        message: &'a [u8],
        answers: &mut Vec<u8>,
    ) -> Result<Option<()>, TenantNotLoaded> {
        let Asking { keys, activity, facts, call, now } = self.asking;
        let Some(question) = Question::read(message, None) else { return Ok(None) };
        let Question { tenant, subject, permission, resource, correlation_id } = question;
        let Ok(subject) = Named::parse(keys, subject) else { return Ok(None) };
        let Ok(what) = What::parse(permission, resource) else { return Ok(None) };
        if subject.is_address() {
            return Ok(None);
        }
        let admitted = match self.admitted {
            Some((known, admitted)) if known == tenant => admitted,
            _ => match admit(facts, call, tenant, now)? {
                Ok(admitted) => self.admitted.insert((tenant, admitted)).1,
                Err(_) => return Ok(None),
            },
        };
        let decision = admitted.find(&subject)?.decide(what);
        subject.note(activity, now);
        let answer = pb::CheckPermissionStreamResponse {
            allowed: decision.allowed(),
            reason: pb::Reason::from(decision.reason).into(),
            correlation_id,
            ..Default::default()
        };
        Ok(frame(answers, |answers| {
            answer.encode(answers).ok()?;
            string::encode(REVISION, &self.revision, answers);
            Some(())
        }))
    }
}
