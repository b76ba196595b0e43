//! Checks answered from memory, from the bytes of their messages to those of the answers. What is out of
//! the ordinary is answered elsewhere, by the same rules: nothing, here.

use prost::{
    Message,
    encoding::{message, string},
};

use super::{
    super::{Asked, BLOCK, MAX_ITEMS, Named, Together, What, check as decide},
    wire::{Question, items, measure, text},
};
use crate::{
    activity::Activity,
    caller::Call,
    decision::{Facts, Time},
    error::Result,
    framing::{PREFIX, frame, unframe},
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
pub type Answerer = fn(&Asking<'_>, &[u8], &mut Vec<u8>) -> Option<()>;

const RESULTS: u32 = 1;
const REVISION: u32 = 100;

/// Answers a CheckPermissionRequest.
pub fn check(asking: &Asking<'_>, message: &[u8], answer: &mut Vec<u8>) -> Option<()> {
    let Asking { keys, activity, facts, call, now } = *asking;
    let question = Question::read(message, text(message))?;
    let Question { tenant, subject, permission, resource, .. } = question;
    let asked = Asked::parse(keys, tenant, subject, permission, resource).ok()?;
    if asked.subject.is_address() {
        return None;
    }
    let decided = decide(facts, call, &asked, now).ok()?.ok()?;
    asked.subject.note(activity, now);
    pb::CheckPermissionResponse::from(decided).encode(answer).ok()
}

/// Answers a BatchCheckPermissionsRequest.
pub fn batch(asking: &Asking<'_>, message: &[u8], answer: &mut Vec<u8>) -> Option<()> {
    let Asking { keys, activity, facts, call, now } = *asking;
    let (tenant, count) = measure(message)?;
    let mut together = Together::new(facts, call, now);
    together.admit(tenant).filter(|_| (1..=MAX_ITEMS).contains(&count))?;
    let (mut items, mut before) = (items(message), None);
    let mut block = Vec::with_capacity(BLOCK);
    loop {
        let mut malformed = None;
        while block.len() < BLOCK
            && malformed.is_none()
            && let Some(item) = items.next()
        {
            malformed = item?.add_to(&mut block, keys, tenant, &mut before)?.err();
        }
        let decided = together.decide(&block, |n, decision| {
            block[n].subject.note(activity, now);
            message::encode(RESULTS, &pb::CheckPermissionResult::from(decision), answer);
        });
        let last = malformed.is_none() && block.len() < BLOCK;
        if let Some(error) = malformed.filter(|_| decided == block.len()) {
            message::encode(RESULTS, &pb::CheckPermissionResult::from(error), answer);
        } else if decided < block.len() {
            return None;
        }
        if last {
            break;
        }
        block.clear();
    }
    let revision = facts.revision.text();
    let end = pb::BatchCheckPermissionsResponse { revision, ..Default::default() };
    end.encode(answer).ok()
}

/// Appends the framed answers to framed CheckPermissionStreamRequests until there are `enough` bytes of
/// them, and tells how many bytes of questions were answered: up to one that is out of the ordinary.
pub fn stream(
    asking: &Asking<'_>,
    questions: &[u8],
    answers: &mut Vec<u8>,
    enough: usize,
) -> usize {
    let Asking { keys, activity, facts, call, now } = *asking;
    let mut together = Together::new(facts, call, now);
    let revision = facts.revision.text();
    // With the correlation ids, and where each ends.
    let (mut block, mut marks) = (Vec::with_capacity(BLOCK), Vec::with_capacity(BLOCK));
    let (mut read, mut before) = (0, None);
    while answers.len() < enough {
        let mut end = read;
        while block.len() < BLOCK
            && let Ok(Some(message)) = unframe(&questions[end..])
            && let Some(question) = Question::read(message, None)
            && let Some(Ok(())) = question.add_to(&mut block, keys, question.tenant, &mut before)
        {
            end += PREFIX + message.len();
            marks.push((question.correlation_id, end));
        }
        let decided = together.decide(&block, |n, decision| {
            let (correlation_id, end) = marks[n];
            block[n].subject.note(activity, now);
            let answer = pb::CheckPermissionStreamResponse {
                allowed: decision.allowed(),
                reason: pb::Reason::from(decision.reason).into(),
                correlation_id,
                ..Default::default()
            };
            let written = frame(answers, |answers| {
                answer.encode(answers).ok()?;
                string::encode(REVISION, &revision, answers);
                Some(())
            });
            if written.is_some() {
                read = end;
            }
        });
        if decided < BLOCK {
            break;
        }
        block.clear();
        marks.clear();
    }
    read
}

/// Whom the question before was about: mostly it is whom the next one is about, too.
type Before<'a> = Option<(&'a str, Named)>;

impl<'a> Question<'a> {
    /// Appends what is asked, or tells what is malformed; nothing when it is about an address, which is
    /// looked up.
    fn add_to(
        &self,
        block: &mut Vec<Asked<'a>>,
        keys: &Keys,
        tenant: &'a str,
        before: &mut Before<'a>,
    ) -> Option<Result<()>> {
        if before.as_ref().is_none_or(|(text, _)| *text != self.subject) {
            match Named::parse(keys, self.subject) {
                Ok(subject) => *before = Some((self.subject, subject)),
                Err(malformed) => return Some(Err(malformed)),
            }
        }
        let (_, subject) = before.as_ref().filter(|(_, subject)| !subject.is_address())?;
        Some(What::parse(self.permission, self.resource).map(|what| {
            block.push(Asked { tenant, subject: subject.clone(), what });
        }))
    }
}
