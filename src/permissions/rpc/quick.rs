//! Checks answered from memory, from the bytes of their messages to those of the answers. What is out of
//! the ordinary is answered elsewhere, by the same rules: nothing, here.

use prost::{
    Message,
    encoding::{message, string},
};

use super::{
    super::{Asked, BLOCK, MAX_ITEMS, Named, Together, What, admit, check as decide},
    wire::{Question, items, measure, text},
};
use crate::{
    activity::Activity,
    caller::Call,
    decision::{Facts, Time},
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
    let asked = question.ordinary(keys)?;
    let decided = decide(facts, call, &asked, now).ok()?.ok()?;
    asked.subject.note(activity, now);
    pb::CheckPermissionResponse::from(decided).encode(answer).ok()
}

/// Answers a BatchCheckPermissionsRequest. Its questions are about one tenant, so that most of what they
/// read is near already, and often about one subject, which is found once for all that follow.
pub fn batch(asking: &Asking<'_>, message: &[u8], answer: &mut Vec<u8>) -> Option<()> {
    let Asking { keys, activity, facts, call, now } = *asking;
    let (tenant, count) = measure(message)?;
    if !(1..=MAX_ITEMS).contains(&count) {
        return None;
    }
    let admitted = admit(facts, call, tenant, now).ok()?.ok()?;
    let mut items = items(message).peekable();
    while let Some(first) = items.next() {
        let first = first?;
        let subject = match Named::parse(keys, first.subject) {
            Ok(subject) if subject.is_address() => return None,
            Ok(subject) => subject,
            Err(malformed) => {
                message::encode(RESULTS, &pb::CheckPermissionResult::from(malformed), answer);
                continue;
            }
        };
        let found = admitted.find(&subject).ok()?;
        let is_next = |item: &Option<Question<'_>>| {
            item.as_ref().is_some_and(|item| item.subject == first.subject)
        };
        let mut next = Some(first);
        while let Some(Question { permission, resource, .. }) = next {
            let result = match What::parse(permission, resource) {
                Ok(what) => {
                    subject.note(activity, now);
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
    let mut read = 0;
    while answers.len() < enough {
        let mut end = read;
        while block.len() < BLOCK
            && let Ok(Some(message)) = unframe(&questions[end..])
            && let Some(question) = Question::read(message, None)
            && let Some(asked) = question.ordinary(keys)
        {
            end += PREFIX + message.len();
            block.push(asked);
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

impl<'a> Question<'a> {
    /// What is asked, when nothing about it is malformed and nobody has to be looked up.
    fn ordinary(&self, keys: &Keys) -> Option<Asked<'a>> {
        let Self { tenant, subject, permission, resource, .. } = *self;
        let asked = Asked::parse(keys, tenant, subject, permission, resource).ok()?;
        (!asked.subject.is_address()).then_some(asked)
    }
}
