//! Plans: what tenants are sold, as far as it limits what they can do. What takes a seat, and that no
//! change takes too many, is a rule of every change: `change/seats.rs`.

mod rpc;
mod sql;

use std::collections::BTreeMap;

use crate::{
    change::{Change, Event, Seats},
    decision::Time,
    edit::check_etag,
    error::{Error, Result},
    ids::{Key, TenantId},
};

/// The most plans of an installation.
const MAX_PLANS: usize = 100;

#[derive(Debug, Clone)]
pub struct Plan {
    pub key: Key,
    /// By language.
    pub display_names: BTreeMap<String, String>,
    /// None: as many as they like.
    pub seat_limit: Option<i64>,
    pub version: i64,
    pub created_at: Time,
    pub updated_at: Time,
}

#[derive(Debug, Clone)]
pub struct NewPlan {
    pub key: Key,
    pub display_names: BTreeMap<String, String>,
    pub seat_limit: Option<i64>,
    pub etag: String,
}

/// Makes a plan or replaces the one with this key.
///
/// # Errors
/// `ABORTED` for a stale etag; `FAILED_PRECONDITION` for one too many.
pub async fn put(change: &mut Change, new: NewPlan) -> Result<Plan> {
    let plans = sql::list(change.conn()).await?;
    let before = plans.iter().find(|plan| plan.key == new.key);
    let event = Event::new("plan.put", &new.key);
    let (event, version, created_at) = match before {
        Some(before) => {
            check_etag(&new.etag, before.version)?;
            let event = event
                .change("display_names", &before.display_names, &new.display_names)
                .change("seat_limit", &before.seat_limit, &new.seat_limit);
            if !event.changes_anything() {
                return Ok(before.clone());
            }
            (event, before.version + 1, before.created_at)
        }
        None if !new.etag.is_empty() => return Err(Error::stale_etag()),
        None if plans.len() >= MAX_PLANS => {
            let message = format!("there are {MAX_PLANS} plans; change one that is there");
            return Err(Error::precondition("TOO_MANY_PLANS", &new.key, message));
        }
        None => {
            let event = event.change("display_names", &None, &Some(&new.display_names)).change(
                "seat_limit",
                &Some(0),
                &new.seat_limit,
            );
            (event, 1, change.now())
        }
    };
    let updated_at = change.now();
    let NewPlan { key, display_names, seat_limit, .. } = new;
    let plan = Plan { key, display_names, seat_limit, version, created_at, updated_at };
    sql::upsert(change, &plan).await?;
    change.record(event)?;
    Ok(plan)
}

/// The plan of the tenant of this change, perhaps with another number of seats.
///
/// # Errors
/// `INVALID_ARGUMENT` for an unknown plan; `FAILED_PRECONDITION` for the installation.
pub async fn choose(change: &mut Change, plan: &Key, seat_limit: Option<i64>) -> Result<Seats> {
    let (tenant, now) = (change.tenant().id, change.now());
    let key = change.tenant().key.clone();
    if tenant == TenantId::SYSTEM {
        let message = "tenant `system` is the installation and needs no seats; choose another";
        return Err(Error::precondition("TENANT_RESERVED", key, message));
    }
    let before = sql::find_chosen(change).await?;
    sql::choose(change, plan, seat_limit).await?;
    let event = Event::new("tenant.plan_changed", &key)
        .change("plan", &before.0.as_str(), &plan.as_str())
        .change("seat_limit", &before.1, &seat_limit);
    if event.changes_anything() {
        change.record(event)?;
    }
    Seats::count(change.conn(), tenant, now).await
}

fn unknown(plan: &Key) -> Error {
    Error::invalid("plan", format!("no plan `{plan}`; list the plans, or make it first"))
}
