//! The audit log: what happened in a tenant, for people to read, and the proof that nobody altered it.
//! Reads only; events are written by changes and by nothing else.

mod export;
mod rpc;
mod sql;
mod verify;
mod watch;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    decision::Time,
    error::{Error, Result},
    ids::EventId,
    secret,
};

pub use verify::{Broken, Verified, verify, verify_each};
pub use watch::{Seen, Watch, watch};

/// Which events of a tenant a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// By this caller, or in their name.
    pub actor: Option<String>,
    pub target: Option<String>,
    pub verb: Option<Verb>,
    /// `from <= at < until`.
    pub from: Option<Time>,
    pub until: Option<Time>,
    pub oldest_first: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    Exactly(String),
    /// Every verb that starts so.
    Starts(String),
}

impl Verb {
    /// Reads `thing.happened` or `thing.*` in this field; empty is any.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`.
    pub fn parse(field: &str, text: &str) -> Result<Option<Self>> {
        let word =
            |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        match text.split_once('.') {
            None if text.is_empty() => Ok(None),
            Some((thing, "*")) if word(thing) => Ok(Some(Self::Starts(format!("{thing}.")))),
            Some((thing, happened)) if word(thing) && word(happened) => {
                Ok(Some(Self::Exactly(text.to_owned())))
            }
            _ => Err(Error::invalid(field, "expected `thing.happened` or `thing.*`, or nothing")),
        }
    }

    #[must_use]
    pub fn is(&self, verb: &str) -> bool {
        match self {
            Self::Exactly(exactly) => exactly == verb,
            Self::Starts(prefix) => verb.starts_with(prefix.as_str()),
        }
    }
}

/// An event as it is stored.
#[derive(Debug)]
pub struct Row {
    pub revision: i64,
    pub n: i32,
    pub at: Time,
    pub body: String,
    pub hash: Vec<u8>,
    /// The personal values that were not erased, as json objects by data subject.
    pub values: Vec<String>,
}

/// An event as people read it.
#[derive(Debug, Clone)]
pub struct AuditEvent {
    pub id: EventId,
    pub revision: u64,
    pub n: i32,
    pub at: Time,
    pub verb: String,
    pub actor: String,
    pub on_behalf_of: String,
    pub target: String,
    pub reason: String,
    pub source: String,
    pub before: Map<String, Value>,
    pub after: Map<String, Value>,
    /// `field` is the value after, `field.before` the one before.
    pub personal: BTreeMap<String, String>,
    pub hash: String,
}

/// The body of an event, as far as people read it.
#[derive(Deserialize)]
struct Body {
    id: EventId,
    verb: String,
    target: String,
    actor: String,
    #[serde(default)]
    on_behalf_of: String,
    before: Option<Map<String, Value>>,
    after: Option<Map<String, Value>>,
    /// Field to value before and value after.
    #[serde(default)]
    changes: BTreeMap<String, (Value, Value)>,
}

impl TryFrom<Row> for AuditEvent {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let body: Body = serde_json::from_str(&row.body).map_err(Error::internal)?;
        let mut event = Self {
            id: body.id,
            revision: row.revision.unsigned_abs(),
            n: row.n,
            at: row.at,
            verb: body.verb,
            actor: body.actor,
            on_behalf_of: body.on_behalf_of,
            target: body.target,
            reason: String::new(),
            source: String::new(),
            before: record(body.before),
            after: record(body.after),
            personal: BTreeMap::new(),
            hash: secret::hex(&row.hash),
        };
        for (field, (before, after)) in body.changes {
            event.before.extend(present(&field, before));
            event.after.extend(present(&field, after));
        }
        for values in row.values {
            let values: BTreeMap<String, Value> =
                serde_json::from_str(&values).map_err(Error::internal)?;
            values.into_iter().for_each(|(field, value)| event.tell(field, value));
        }
        Ok(event)
    }
}

impl AuditEvent {
    fn tell(&mut self, field: String, value: Value) {
        match (field.as_str(), value) {
            ("reason", Value::String(reason)) => self.reason = reason,
            ("source", Value::String(source)) => self.source = source,
            (_, Value::Array(pair)) => {
                let mut pair = pair.into_iter();
                let (before, after) = (pair.next(), pair.next());
                let before = before.and_then(|value| present(&format!("{field}.before"), value));
                let after = after.and_then(|value| present(&field, value));
                let texts = [before, after].into_iter().flatten();
                self.personal.extend(texts.map(|(field, value)| (field, text(value))));
            }
            (_, value) => {
                self.personal.insert(field, text(value));
            }
        }
    }
}

/// A record as people read it: without the hash of a key, which says nothing to them.
fn record(record: Option<Map<String, Value>>) -> Map<String, Value> {
    let mut record = record.unwrap_or_default();
    record.remove("hash");
    record
}

/// The field, unless it is empty: what is new has no value before, what is gone none after.
fn present(field: &str, value: Value) -> Option<(String, Value)> {
    let empty = match &value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    (!empty).then(|| (field.to_owned(), value))
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_words_or_all_of_a_thing() {
        assert_eq!(Verb::parse("verb", "").unwrap(), None);
        assert_eq!(Verb::parse("verb", "member.*").unwrap(), Some(Verb::Starts("member.".into())));
        let one = Some(Verb::Exactly("session.ended".into()));
        assert_eq!(Verb::parse("verb", "session.ended").unwrap(), one);
        for text in ["member", "*", "*.ended", "a.b.c", "Member.added", "member.a%", "."] {
            assert!(Verb::parse("verb", text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_an_event_tells_is_put_together_from_its_body_and_the_personal_values() {
        let body = r#"{"id":"evt_00000000000000000000000000000001","verb":"member.updated",
            "target":"usr_1","actor":"svc_1","before":{"record":"api_key","hash":"x"},"after":null,
            "changes":{"external_id":["","42"],"limit":[1,2]},"commitments":{"usr_1":"00"}}"#;
        let row = Row {
            revision: 7,
            n: 0,
            at: Time::UNIX_EPOCH,
            body: body.to_owned(),
            hash: vec![0xab],
            values: vec![
                r#"{"first_name":["","Maria"],"phone":["+33612345678",""],
                             "reason":"asked","source":"192.0.2.1"}"#
                    .to_owned(),
            ],
        };
        let event = AuditEvent::try_from(row).unwrap();
        assert_eq!((event.reason.as_str(), event.source.as_str()), ("asked", "192.0.2.1"));
        assert_eq!(event.personal["first_name"], "Maria");
        assert_eq!(event.personal["phone.before"], "+33612345678");
        assert_eq!(event.personal.len(), 2);
        assert_eq!(
            Value::Object(event.before),
            serde_json::json!({"record": "api_key", "limit": 1})
        );
        assert_eq!(
            Value::Object(event.after),
            serde_json::json!({"external_id": "42", "limit": 2})
        );
        assert_eq!(event.hash, "ab");
    }
}
