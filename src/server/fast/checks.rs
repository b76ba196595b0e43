//! The messages of CheckPermission and BatchCheckPermissions, read where they lie and written once. What
//! is out of the ordinary gives nothing: the router reads it again and says what is wrong.

use prost::{
    Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, message, skip_field},
};

use crate::{
    activity::Activity,
    caller::Call,
    decision::{Facts, TenantNotLoaded, Time},
    permissions::{self, Asked, Named, What},
    proto as pb,
    secret::Keys,
};

/// Who asks, and what answers.
pub struct Asking<'a> {
    pub keys: &'a Keys,
    pub activity: &'a Activity,
    pub facts: &'a Facts,
    pub call: &'a Call,
    pub now: Time,
}

/// Appends the answer to the encoded question, or gives up.
pub type Answerer = fn(&Asking<'_>, &[u8], &mut Vec<u8>) -> Result<Option<()>, TenantNotLoaded>;

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
    let Ok(asked) = question.parse(asking.keys, question.tenant) else { return Ok(None) };
    if asked.subject.is_address() {
        return Ok(None);
    }
    let Ok(decided) = permissions::check(asking.facts, asking.call, &asked, asking.now)? else {
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
    if !(1..=permissions::MAX_ITEMS).contains(&count) {
        return Ok(None);
    }
    let Asking { facts, call, now, .. } = *asking;
    let Ok(admitted) = permissions::admit(facts, call, tenant, now)? else { return Ok(None) };
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

/// Whoever asks for another than the usual one takes the router.
const CONSISTENCY: u32 = 15;
const ITEMS: u32 = 2;
const RESULTS: u32 = 1;

/// The tenant of a batch and the number of its items.
fn measure(message: &[u8]) -> Option<(&str, usize)> {
    let (mut tenant, mut items) = ("", 0);
    for field in Fields(message) {
        match field? {
            (1, text) => tenant = std::str::from_utf8(text).ok()?,
            (ITEMS, _) => items += 1,
            (CONSISTENCY, _) => return None,
            _ => {}
        }
    }
    Some((tenant, items))
}

/// The items of a batch; nothing for one that is malformed.
fn items(message: &[u8]) -> impl Iterator<Item = Option<Question<'_>>> {
    let whole = text(message);
    let mut fields = Fields(message);
    std::iter::from_fn(move || {
        loop {
            let Some((tag, item)) = fields.next()? else { return Some(None) };
            if tag == ITEMS {
                let end = message.len() - fields.0.len();
                let part = whole.and_then(|whole| whole.get(end - item.len()..end));
                return Some(Question::read(item, part.or_else(|| text(item))));
            }
        }
    })
}

/// Mostly all of a message is text, and is sooner looked at than its parts.
fn text(message: &[u8]) -> Option<&str> {
    std::str::from_utf8(message).ok()
}

/// A CheckPermissionRequest or CheckPermissionItem.
#[derive(Clone, Copy, Default)]
struct Question<'a> {
    tenant: &'a str,
    subject: &'a str,
    permission: &'a str,
    resource: &'a str,
}

impl<'a> Question<'a> {
    /// Reads a message, of which `whole` is the text if it is one.
    fn read(message: &'a [u8], whole: Option<&'a str>) -> Option<Self> {
        let mut question = Self::default();
        let mut fields = Fields(message);
        while let Some(field) = fields.next() {
            let (tag, text) = field?;
            let field = match tag {
                1 => &mut question.tenant,
                2 => &mut question.subject,
                3 => &mut question.permission,
                4 => &mut question.resource,
                CONSISTENCY => return None,
                _ => continue,
            };
            let end = message.len() - fields.0.len();
            *field = match whole {
                Some(whole) => whole.get(end - text.len()..end)?,
                None => std::str::from_utf8(text).ok()?,
            };
        }
        Some(question)
    }

    #[inline]
    fn parse(&self, keys: &Keys, tenant: &'a str) -> crate::error::Result<Asked<'a>> {
        Asked::parse(keys, tenant, self.subject, self.permission, self.resource)
    }
}

/// The texts and messages in an encoded message, by number; numbers in fields that nobody knows are
/// skipped. Nothing for what is malformed, after which comes no more.
struct Fields<'a>(&'a [u8]);

/// Whether the messages read here have this field; each that they have is a text or a message.
const fn is_known(tag: u32) -> bool {
    matches!(tag, 1..=4 | CONSISTENCY)
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Option<Option<(u32, &'a [u8])>> {
        let rest = &mut self.0;
        // Nearly all are short, and their numbers and lengths take a byte each.
        if let [key @ ..0x80, length @ ..0x80, after @ ..] = *rest
            && key & 7 == WireType::LengthDelimited as u8
            && *key >= 8
        {
            let (text, after) = after.split_at_checked(usize::from(*length))?;
            *rest = after;
            return Some(Some((u32::from(key >> 3), text)));
        }
        while !rest.is_empty() {
            let (tag, wire_type) = decode_key(rest).ok()?;
            if wire_type == WireType::LengthDelimited {
                let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
                return Some(Some((tag, rest.split_off(..length)?)));
            }
            if is_known(tag) {
                return None;
            }
            skip_field(wire_type, tag, rest, DecodeContext::default()).ok()?;
        }
        Some(None)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u32, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.read() {
            Some(field) => field.map(Some),
            None => {
                self.0 = &[];
                Some(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An encoded message, with some bytes changed, put in or taken out.
    fn mangled(message: impl Message, edits: &[(usize, u8, u8)]) -> Vec<u8> {
        let mut bytes = message.encode_to_vec();
        for (at, kind, byte) in edits {
            let at = at % (bytes.len() + 1);
            match kind % 3 {
                0 if at < bytes.len() => bytes[at] ^= byte,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.insert(at, *byte),
            }
        }
        bytes
    }

    fn edits() -> impl Strategy<Value = Vec<(usize, u8, u8)>> {
        prop::collection::vec(any::<(usize, u8, u8)>(), 0..4)
    }

    proptest! {
        #[test]
        fn what_is_read_where_it_lies_is_what_the_message_says(
            texts in any::<[String; 4]>(),
            noise in prop::collection::vec(any::<u8>(), 0..12),
            edits in edits(),
        ) {
            let [tenant, subject, permission, resource] = texts;
            let message = pb::CheckPermissionRequest {
                tenant,
                subject,
                permission,
                resource,
                consistency: None,
            };
            let mut bytes = mangled(message, &edits);
            bytes.extend(noise);
            if let Some(read) = Question::read(&bytes, text(&bytes)) {
                let said = pb::CheckPermissionRequest::decode(bytes.as_slice()).unwrap();
                let read = [read.tenant, read.subject, read.permission, read.resource];
                prop_assert_eq!(read, [said.tenant, said.subject, said.permission, said.resource]);
            }
        }

        #[test]
        fn a_batch_is_taken_apart_as_the_message_says(
            tenant in any::<String>(),
            texts in prop::collection::vec(any::<[String; 3]>(), 0..5),
            edits in edits(),
        ) {
            let all = texts.into_iter().map(|[subject, permission, resource]| {
                pb::CheckPermissionItem { subject, permission, resource }
            });
            let message = pb::BatchCheckPermissionsRequest {
                tenant,
                items: all.collect(),
                consistency: None,
            };
            let bytes = mangled(message, &edits);
            let Some((tenant, count)) = measure(&bytes) else { return Ok(()) };
            let Some(read) = items(&bytes).collect::<Option<Vec<_>>>() else { return Ok(()) };
            let said = pb::BatchCheckPermissionsRequest::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!((tenant, count), (said.tenant.as_str(), said.items.len()));
            prop_assert_eq!(read.len(), count);
            for (read, said) in read.iter().zip(&said.items) {
                prop_assert_eq!(read.subject, said.subject.as_str());
                prop_assert_eq!(read.permission, said.permission.as_str());
                prop_assert_eq!(read.resource, said.resource.as_str());
            }
        }
    }
}
