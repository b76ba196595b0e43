//! Walking the chain of a tenant: every hash is recomputed as `seal()` in the migrations made it, and
//! every personal value that was not erased is compared with what its event committed to.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use uuid::Uuid;

use super::sql::{self, After, Link, Values};
use crate::{
    error::{Error, Result},
    ids::{EventId, Key, TenantId},
    secret,
};

/// Events in one read.
const BATCH: i64 = 2_000;
/// Numbers in one read.
const NUMBERS: i64 = 50_000;

/// What a walk along a chain found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    pub checked: i64,
    /// The hash of the last event that fits, in hexadecimal.
    pub head: String,
    pub broken: Option<Broken>,
}

/// The first event that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub revision: u64,
    pub reason: String,
}

/// Verifies a tenant's chain. For the installation also that no number is missing among the events of
/// all tenants, which shows events that were cut off at the end of somebody's chain.
///
/// # Errors
/// When the database does not answer.
pub async fn verify(pool: &PgPool, tenant: TenantId) -> Result<Verified> {
    let mut chain = Chain { tenant, hash: vec![0; 32], found: Verified::default() };
    let mut after: After = (0, 0);
    loop {
        let links = sql::links(pool, tenant, after, BATCH).await?;
        let Some(last) = links.last() else { break };
        after = (last.revision, last.n);
        let ids: Vec<Uuid> = links.iter().map(|link| link.event_id).collect();
        let mut values: HashMap<Uuid, Vec<Values>> = HashMap::new();
        for value in sql::values(pool, tenant, &ids).await? {
            values.entry(value.event_id).or_default().push(value);
        }
        for link in &links {
            let values = values.remove(&link.event_id).unwrap_or_default();
            if let Err(reason) = chain.append(link, &values) {
                let revision = link.revision.unsigned_abs();
                chain.found.broken = Some(Broken { revision, reason });
                return Ok(chain.found);
            }
        }
        tokio::task::yield_now().await;
    }
    if tenant == TenantId::SYSTEM {
        chain.found.broken = missing(pool).await?;
    }
    Ok(chain.found)
}

/// Verifies every tenant, or the one with this key.
///
/// # Errors
/// `NOT_FOUND`, or when the database does not answer.
pub async fn verify_each(pool: &PgPool, only: Option<&str>) -> Result<Vec<(Key, Verified)>> {
    let tenants = sql::tenants(pool, only).await?;
    if let (Some(key), true) = (only, tenants.is_empty()) {
        return Err(Error::not_found("tenant", key));
    }
    let mut verified = Vec::with_capacity(tenants.len());
    for (tenant, key) in tenants {
        verified.push((key, verify(pool, tenant).await?));
    }
    Ok(verified)
}

/// The first number that is missing among the events of all tenants.
async fn missing(pool: &PgPool) -> Result<Option<Broken>> {
    let mut before: After = (0, 0);
    loop {
        let numbers = sql::numbers(pool, before, NUMBERS).await?;
        if numbers.is_empty() {
            return Ok(None);
        }
        for number in numbers {
            let (revision, n) = before;
            if number != (revision, n + 1) && number != (revision + 1, 0) {
                let revision = number.0.unsigned_abs();
                let (at, n) = before;
                let reason = format!("an event after number {n} of revision {at} is missing");
                return Ok(Some(Broken { revision, reason }));
            }
            before = number;
        }
    }
}

struct Chain {
    tenant: TenantId,
    /// Of the event before.
    hash: Vec<u8>,
    found: Verified,
}

/// The part of a body that the walk compares.
#[derive(Deserialize)]
struct Body {
    id: EventId,
    #[serde(default)]
    commitments: BTreeMap<String, String>,
}

impl Chain {
    /// Appends an event, or says what does not fit.
    fn append(&mut self, link: &Link, values: &[Values]) -> Result<(), String> {
        let n = link.n;
        let hash = self.hash_of(link);
        if hash != link.hash {
            return Err(format!(
                "event {n} has another hash than its content and the event before it give"
            ));
        }
        let body: Body = serde_json::from_str(&link.body)
            .map_err(|error| format!("event {n} cannot be read: {error}"))?;
        if body.id.uuid() != link.event_id {
            return Err(format!("event {n} is stored under another id than its own"));
        }
        for Values { data_subject, salt, values, .. } in values {
            let digest = Sha256::new().chain_update(salt).chain_update(values.as_bytes());
            let commitment = secret::hex(&digest.finalize());
            if body.commitments.get(data_subject) != Some(&commitment) {
                return Err(format!(
                    "the personal values of `{data_subject}` at event {n} are not those it \
                     committed to"
                ));
            }
        }
        self.found.checked += 1;
        self.found.head = secret::hex(&hash);
        self.hash = hash;
        Ok(())
    }

    fn hash_of(&self, link: &Link) -> Vec<u8> {
        Sha256::new()
            .chain_update(&self.hash)
            .chain_update(self.tenant.uuid().as_bytes())
            .chain_update(link.revision.to_be_bytes())
            .chain_update(link.n.to_be_bytes())
            .chain_update(link.at.timestamp_micros().to_be_bytes())
            .chain_update(link.format.to_be_bytes())
            .chain_update(Sha256::digest(link.body.as_bytes()))
            .finalize()
            .to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Time;

    fn chain() -> Chain {
        Chain { tenant: TenantId::SYSTEM, hash: vec![0; 32], found: Verified::default() }
    }

    fn link(chain: &Chain, revision: i64, salted: &str) -> Link {
        let commitment = secret::hex(&Sha256::digest(salted));
        let id = EventId::from_uuid(Uuid::from_u128(revision.unsigned_abs().into()));
        let body = format!(r#"{{"id":"{id}","commitments":{{"usr_1":"{commitment}"}}}}"#);
        let event_id = id.uuid();
        let at = Time::UNIX_EPOCH;
        let link = Link { event_id, revision, n: 0, at, format: 1, body, hash: Vec::new() };
        Link { hash: chain.hash_of(&link), ..link }
    }

    fn values(text: &str) -> Values {
        Values {
            event_id: Uuid::nil(),
            data_subject: "usr_1".to_owned(),
            salt: b"salt".to_vec(),
            values: text.to_owned(),
        }
    }

    #[test]
    fn a_whole_chain_fits_also_when_values_were_erased() {
        let mut chain = chain();
        let first = link(&chain, 1, "salt{}");
        chain.append(&first, &[values("{}")]).unwrap();
        let second = link(&chain, 5, "salt{}");
        chain.append(&second, &[]).unwrap();
        assert_eq!((chain.found.checked, chain.found.head), (2, secret::hex(&second.hash)));
    }

    #[test]
    fn nothing_of_an_event_can_be_altered_left_out_or_added() {
        let good = link(&chain(), 1, "salt{}");
        let altered = |alter: &dyn Fn(&mut Link)| {
            let mut link = link(&chain(), 1, "salt{}");
            alter(&mut link);
            chain().append(&link, &[])
        };
        assert!(altered(&|_| {}).is_ok());
        assert!(altered(&|link| link.revision = 2).is_err());
        assert!(altered(&|link| link.n = 1).is_err());
        assert!(altered(&|link| link.at += chrono::TimeDelta::microseconds(1)).is_err());
        assert!(altered(&|link| link.format = 2).is_err());
        assert!(altered(&|link| link.body.push(' ')).is_err());
        assert!(altered(&|link| link.hash[0] ^= 1).is_err());
        assert!(altered(&|link| link.event_id = Uuid::nil()).is_err());
        assert!(chain().append(&good, &[values("{\"first_name\":1}")]).is_err());
        let mut without_the_first = chain();
        let second = {
            let mut chain = chain();
            chain.append(&good, &[]).unwrap();
            link(&chain, 2, "salt{}")
        };
        assert!(without_the_first.append(&second, &[]).is_err());
    }
}
