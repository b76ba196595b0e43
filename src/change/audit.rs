//! What a change leaves behind: events, and the personal values that they only commit to.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::Change;
use crate::{
    caller::Call,
    decision::{Record, Time},
    error::{Error, Result},
    ids::{EventId, InvitationId, TenantId, UserId},
    random, secret,
};

/// One thing that happened: a record replaced by another, and what people will want to read about it.
#[derive(Debug, Clone)]
pub struct Event {
    verb: &'static str,
    target: String,
    before: Option<Record>,
    after: Option<Record>,
    changes: Map<String, Value>,
    personal: Option<(String, Map<String, Value>)>,
}

impl Event {
    /// `verb` is `thing.happened`; `target` is the id or key of what it happened to.
    #[must_use]
    pub fn new(verb: &'static str, target: impl ToString) -> Self {
        Self {
            verb,
            target: target.to_string(),
            before: None,
            after: None,
            changes: Map::new(),
            personal: None,
        }
    }

    #[must_use]
    pub fn before(mut self, record: impl Into<Option<Record>>) -> Self {
        self.before = record.into();
        self
    }

    #[must_use]
    pub fn after(mut self, record: impl Into<Option<Record>>) -> Self {
        self.after = record.into();
        self
    }

    /// A value that is nobody's personal data and is not in a record, such as a tenant's name.
    #[must_use]
    pub fn change<T: Serialize + PartialEq>(mut self, field: &str, before: &T, after: &T) -> Self {
        if before != after {
            self.changes.insert(field.to_owned(), serde_json::json!([before, after]));
        }
        self
    }

    /// What ids in the record before, and in the one after, are called. For as long as there is such a
    /// record, so it comes after [`Self::before`] and [`Self::after`].
    #[must_use]
    pub fn named<T: Serialize>(mut self, field: &str, before: T, after: T) -> Self {
        let before = self.before.is_some().then_some(before);
        let after = self.after.is_some().then_some(after);
        self.changes.insert(field.to_owned(), serde_json::json!([before, after]));
        self
    }

    /// A personal value of `data_subject` (`usr_…` or `inv_…`): kept beside the event, and erasable.
    #[must_use]
    pub fn personal<T: Serialize + PartialEq>(
        mut self,
        data_subject: impl ToString,
        field: &str,
        before: &T,
        after: &T,
    ) -> Self {
        if before != after {
            let (_, values) =
                self.personal.get_or_insert_with(|| (data_subject.to_string(), Map::new()));
            values.insert(field.to_owned(), serde_json::json!([before, after]));
        }
        self
    }

    /// Whether there is a difference to tell of.
    #[must_use]
    pub fn changes_anything(&self) -> bool {
        self.before != self.after || !self.changes.is_empty() || self.personal.is_some()
    }

    pub(super) fn records(&self) -> (Option<&Record>, Option<&Record>) {
        (self.before.as_ref(), self.after.as_ref())
    }
}

/// An event ready to be sealed.
pub(super) struct Draft {
    pub tenant: TenantId,
    pub body: String,
    id: EventId,
    values: Vec<Values>,
}

struct Values {
    data_subject: String,
    salt: [u8; 16],
    text: String,
}

/// The body of an event, in the order in which it is written and hashed.
#[derive(Serialize)]
struct Body<'a> {
    id: EventId,
    verb: &'a str,
    target: &'a str,
    actor: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    credential: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_behalf_of: Option<String>,
    before: Option<&'a Record>,
    after: Option<&'a Record>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    changes: &'a Map<String, Value>,
    /// Data subject to SHA-256(salt ‖ values), in hexadecimal.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    commitments: BTreeMap<&'a str, String>,
}

impl Draft {
    pub fn new(
        call: &Call,
        tenant: TenantId,
        event: &Event,
        reason: &str,
        now: Time,
    ) -> Result<Self> {
        let id = random::id(now)?;
        let actor = call.actor();
        let mut people: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
        if let Some((data_subject, values)) = &event.personal {
            people.entry(data_subject).or_default().extend(values.clone());
        }
        // Why is told about the person concerned, from where about whoever called.
        let target = &event.target;
        let concerns = target.parse::<UserId>().is_ok() || target.parse::<InvitationId>().is_ok();
        let about = match &event.personal {
            Some((subject, _)) => subject.as_str(),
            None if concerns => event.target.as_str(),
            None => actor.as_str(),
        };
        if !reason.is_empty() {
            people.entry(about).or_default().insert("reason".to_owned(), reason.into());
        }
        if !call.source.is_empty() {
            let source = call.source.as_str().into();
            people.entry(&actor).or_default().insert("source".to_owned(), source);
        }
        let mut values = Vec::new();
        for (data_subject, map) in people {
            let text = serde_json::to_string(&map).map_err(Error::internal)?;
            values.push(Values {
                data_subject: data_subject.to_owned(),
                salt: random::bytes()?,
                text,
            });
        }
        let body = Body {
            id,
            verb: event.verb,
            target: &event.target,
            actor: &actor,
            credential: &call.credential(),
            on_behalf_of: call.authority().and_then(|a| a.on_behalf_of).map(|u| u.to_string()),
            before: event.before.as_ref(),
            after: event.after.as_ref(),
            changes: &event.changes,
            commitments: values.iter().map(|v| (v.data_subject.as_str(), v.commitment())).collect(),
        };
        let body = serde_json::to_string(&body).map_err(Error::internal)?;
        Ok(Self { tenant, body, id, values })
    }
}

impl Values {
    fn commitment(&self) -> String {
        let digest = Sha256::new().chain_update(self.salt).chain_update(self.text.as_bytes());
        secret::hex(&digest.finalize())
    }
}

impl Change {
    /// Notes in a tenant, whichever is locked, what became of the account of one of its people: nothing
    /// that a decision reads from its events. Why, and from where, is for the installation to know.
    ///
    /// # Errors
    /// When the event cannot be written down.
    pub fn tell(&mut self, tenant: TenantId, event: &Event) -> Result<()> {
        if event.records() != (None, None) {
            return Err(Error::internal("a record of another tenant than the locked one"));
        }
        let call = Call { source: String::new(), ..self.call.clone() };
        self.drafts.push(Draft::new(&call, tenant, event, "", self.now)?);
        Ok(())
    }

    /// Erases the values of these data subjects in this tenant; returns how many. The commitments stay.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn erase_values(&mut self, data_subjects: &[String]) -> Result<u64> {
        let tenant = self.tenant.id;
        self.erased.extend(data_subjects.iter().cloned());
        let erased = sqlx::query!(
            "delete from event_values where data_subject = any($1) and tenant_id = $2",
            data_subjects,
            tenant as TenantId
        )
        .execute(self.conn())
        .await?;
        Ok(erased.rows_affected())
    }

    /// Erases the values that are left in a tenant that is being erased.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn erase_all_values(&mut self) -> Result<()> {
        let tenant = self.tenant.id;
        sqlx::query!("delete from event_values where tenant_id = $1", tenant as TenantId)
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Erases the values of a person in every tenant, for when the account goes.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn erase_values_everywhere(&mut self, data_subject: &str) -> Result<u64> {
        self.erased.insert(data_subject.to_owned());
        let erased = sqlx::query!("delete from event_values where data_subject = $1", data_subject)
            .execute(self.conn())
            .await?;
        Ok(erased.rows_affected())
    }
}

/// Writes the personal values of all events, but those that were erased meanwhile.
pub(super) async fn insert_values(
    conn: &mut PgConnection,
    drafts: &[Draft],
    erased: &HashSet<String>,
) -> Result<()> {
    for draft in drafts {
        for values in draft.values.iter().filter(|v| !erased.contains(&v.data_subject)) {
            sqlx::query!(
                "insert into event_values (tenant_id, event_id, data_subject, salt, values)
                 values ($1, $2, $3, $4, $5)",
                draft.tenant as TenantId,
                draft.id as EventId,
                values.data_subject,
                values.salt.as_slice(),
                values.text
            )
            .execute(&mut *conn)
            .await?;
        }
    }
    Ok(())
}
