//! Refusals: failed sign-ins and refused changes, gathered until they are written. However many there
//! are, what is kept of them is bounded: the same ones are counted, and beyond the most of a tenant only
//! that there were more.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use crate::{
    decision::Time,
    ids::{TenantId, UserId},
};

/// The most different refusals of a tenant between two writes.
const MOST: usize = 50;
/// The most tenants between two writes.
const MOST_TENANTS: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Kind {
    SignIn,
    Change,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Refusal {
    pub kind: Kind,
    pub reason: &'static str,
    pub method: &'static str,
    /// Whose account, or who acted; none where that is not the tenant's to know.
    pub user: Option<UserId>,
    pub caller: String,
    pub source: String,
}

/// How often, and when last.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub count: i64,
    pub last: Time,
}

#[derive(Default)]
pub struct Refusals(Mutex<HashMap<TenantId, HashMap<Refusal, Times>>>);

impl Refusals {
    pub fn note(&self, tenant: TenantId, refusal: Refusal, now: Time) {
        let mut tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tenants.len() >= MOST_TENANTS && !tenants.contains_key(&tenant) {
            metrics::counter!("rolecall_refusals_dropped_total").increment(1);
            return;
        }
        let gathered = tenants.entry(tenant).or_default();
        let refusal = match gathered.len() >= MOST && !gathered.contains_key(&refusal) {
            // Of these it is only known that there were more.
            true => Refusal { user: None, caller: String::new(), source: String::new(), ..refusal },
            false => refusal,
        };
        let times = gathered.entry(refusal).or_insert(Times { count: 0, last: now });
        times.count += 1;
        times.last = now;
    }

    /// What was gathered since the last time.
    pub fn take(&self) -> Vec<(TenantId, Refusal, Times)> {
        let tenants = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let flat = tenants.into_iter().flat_map(|(tenant, gathered)| {
            gathered.into_iter().map(move |(refusal, times)| (tenant, refusal, times))
        });
        flat.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_there_are_few_are_kept_and_all_are_counted() {
        let refusals = Refusals::default();
        let one = |source: String| Refusal {
            kind: Kind::SignIn,
            reason: "SIGN_IN_FAILED",
            method: "",
            user: None,
            caller: String::new(),
            source,
        };
        for n in 0..10_000 {
            refusals.note(TenantId::SYSTEM, one(format!("192.0.2.{}", n % 5_000)), Time::default());
        }
        let taken = refusals.take();
        assert_eq!(taken.len(), MOST + 1);
        assert_eq!(taken.iter().map(|(_, _, times)| times.count).sum::<i64>(), 10_000);
        assert!(refusals.take().is_empty());
    }
}
