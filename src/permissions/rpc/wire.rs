//! The questions of checks, read where they lie in a message, one or many. What is out of the ordinary
//! gives nothing: prost reads it again and says what is wrong.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

const ITEMS: u32 = 2;
const CORRELATION_ID: u32 = 5;
/// Whoever asks for another than the usual one is out of the ordinary.
const CONSISTENCY: u32 = 15;

/// The tenant of a batch and the number of its items.
pub fn measure(message: &[u8]) -> Option<(&str, usize)> {
    let (mut tenant, mut items) = ("", 0);
    for field in Fields(message) {
        match field? {
            Field::Bytes(1, text) => tenant = std::str::from_utf8(text).ok()?,
            Field::Bytes(ITEMS, _) => items += 1,
            Field::Bytes(CONSISTENCY, _) => return None,
            _ => {}
        }
    }
    Some((tenant, items))
}

/// The items of a batch; nothing for one that is malformed.
pub fn items(message: &[u8]) -> impl Iterator<Item = Option<Question<'_>>> {
    let whole = text(message);
    let mut fields = Fields(message);
    std::iter::from_fn(move || {
        loop {
            let Some(field) = fields.next()? else { return Some(None) };
            if let Field::Bytes(ITEMS, item) = field {
                let end = message.len() - fields.0.len();
                let part = whole.and_then(|whole| whole.get(end - item.len()..end));
                return Some(Question::read(item, part.or_else(|| text(item))));
            }
        }
    })
}

/// Mostly all of a message is text, and is sooner looked at than its parts.
pub fn text(message: &[u8]) -> Option<&str> {
    std::str::from_utf8(message).ok()
}

/// A CheckPermissionRequest, CheckPermissionItem or CheckPermissionStreamRequest.
#[derive(Debug, Clone, Copy, Default)]
pub struct Question<'a> {
    pub tenant: &'a str,
    pub subject: &'a str,
    pub permission: &'a str,
    pub resource: &'a str,
    pub correlation_id: u64,
}

impl<'a> Question<'a> {
    /// Reads a message, of which `whole` is the text if it is one.
    pub fn read(message: &'a [u8], whole: Option<&'a str>) -> Option<Self> {
        let mut question = Self::default();
        let mut fields = Fields(message);
        while let Some(field) = fields.next() {
            let (tag, text) = match field? {
                Field::Bytes(tag, text) => (tag, text),
                Field::Number(CORRELATION_ID, number) => {
                    question.correlation_id = number;
                    continue;
                }
                Field::Number(..) => continue,
            };
            let field = match tag {
                1 => &mut question.tenant,
                2 => &mut question.subject,
                3 => &mut question.permission,
                4 => &mut question.resource,
                CORRELATION_ID | CONSISTENCY => return None,
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
}

/// A field of an encoded message, after its number.
enum Field<'a> {
    /// A text or a message.
    Bytes(u32, &'a [u8]),
    Number(u32, u64),
}

/// The fields of an encoded message; those that nobody knows and that are neither are skipped. Nothing
/// for what is malformed, after which comes no more.
struct Fields<'a>(&'a [u8]);

/// Whether the messages read here have such a field in another form.
const fn is_known(tag: u32, wire_type: WireType) -> bool {
    match wire_type {
        WireType::Varint => matches!(tag, 1..=4 | CONSISTENCY),
        _ => matches!(tag, 1..=5 | CONSISTENCY),
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Option<Option<Field<'a>>> {
        let rest = &mut self.0;
        // Nearly all are short, and their numbers and lengths take a byte each.
        if let [key @ ..0x80, length @ ..0x80, after @ ..] = *rest
            && key & 7 == WireType::LengthDelimited as u8
            && *key >= 8
        {
            let (text, after) = after.split_at_checked(usize::from(*length))?;
            *rest = after;
            return Some(Some(Field::Bytes(u32::from(key >> 3), text)));
        }
        while !rest.is_empty() {
            let (tag, wire_type) = decode_key(rest).ok()?;
            if wire_type == WireType::LengthDelimited {
                let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
                return Some(Some(Field::Bytes(tag, rest.split_off(..length)?)));
            }
            if is_known(tag, wire_type) {
                return None;
            }
            if wire_type == WireType::Varint {
                return Some(Some(Field::Number(tag, decode_varint(rest).ok()?)));
            }
            skip_field(wire_type, tag, rest, DecodeContext::default()).ok()?;
        }
        Some(None)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<Field<'a>>;

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
    use prost::Message;

    use super::*;
    use crate::proto as pb;

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
            correlation_id in any::<u64>(),
            noise in prop::collection::vec(any::<u8>(), 0..12),
            edits in edits(),
        ) {
            let [tenant, subject, permission, resource] = texts;
            let message = pb::CheckPermissionStreamRequest {
                tenant,
                subject,
                permission,
                resource,
                correlation_id,
                consistency: None,
            };
            let mut bytes = mangled(message, &edits);
            bytes.extend(noise);
            if let Some(read) = Question::read(&bytes, text(&bytes)) {
                let said = pb::CheckPermissionStreamRequest::decode(bytes.as_slice()).unwrap();
                prop_assert_eq!(read.correlation_id, said.correlation_id);
                let read = [read.tenant, read.subject, read.permission, read.resource];
                prop_assert_eq!(&read, &[&said.tenant, &said.subject, &said.permission, &said.resource]);
                let said = pb::CheckPermissionRequest::decode(bytes.as_slice()).unwrap();
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
