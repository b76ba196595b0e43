//! Whether a subject may do anything at all in a tenant: its credential, its account, the tenant, and its
//! membership there.

use super::{
    Facts, TenantEntry, TenantFacts,
    decide::{Reason, SessionClaims, Subject, TenantNotLoaded},
    facts::is_active,
    members::Member,
    record::{MemberStatus, TenantStatus, Time},
};
use crate::ids::{SubjectId, TenantId};

/// Why the subject may do nothing at all in the tenant, or nothing: its credential, its account, the
/// tenant and its membership there are what [`decide`] would look at first.
///
/// # Errors
/// When the facts of the tenant, or of the installation, are not loaded.
pub fn standing(
    facts: &Facts,
    tenant: &str,
    subject: Subject<'_>,
    now: Time,
) -> Result<Option<Reason>, TenantNotLoaded> {
    let Some(entry) = facts.directory.tenants.get(tenant) else {
        return Ok(Some(Reason::TenantUnknown));
    };
    let loaded = entry.facts().ok_or(TenantNotLoaded(entry.id))?;
    Ok(credential_flaw(facts, entry, subject, now)?
        .or_else(|| membership_flaw(entry.status, loaded.find(subject.id()).as_ref())))
}

/// The member, when active there and when the session, if any, was opened there.
pub(super) fn active_member<'a>(
    tenant: &'a TenantFacts,
    subject: Subject<'_>,
) -> Option<Member<'a>> {
    if !subject.may_hold_in(tenant.id) {
        return None;
    }
    tenant.find(subject.id()).filter(|member| is_active(member.head))
}

pub(super) fn membership_flaw(status: TenantStatus, member: Option<&Member<'_>>) -> Option<Reason> {
    match status {
        TenantStatus::Pending => return Some(Reason::TenantPending),
        TenantStatus::Suspended => return Some(Reason::TenantSuspended),
        TenantStatus::Deleted | TenantStatus::Purged => return Some(Reason::TenantDeleted),
        TenantStatus::Active => {}
    }
    match member.map(|member| member.head.status()) {
        Some(MemberStatus::Active) => None,
        Some(MemberStatus::Suspended) => Some(Reason::MembershipSuspended),
        Some(MemberStatus::Removed) | None => Some(Reason::NotAMember),
    }
}

/// What makes the account or the credential worthless; of an account that was disabled, what the tenant
/// may know.
///
/// # Errors
/// When the facts of the tenant, or of the installation, are not loaded.
pub(super) fn credential_flaw(
    facts: &Facts,
    entry: &TenantEntry,
    subject: Subject<'_>,
    now: Time,
) -> Result<Option<Reason>, TenantNotLoaded> {
    Ok(match subject {
        Subject::User(user) if facts.directory.account(user).disabled => {
            let tenant = entry.facts().ok_or(TenantNotLoaded(entry.id))?;
            let system = facts.system().ok_or(TenantNotLoaded(TenantId::SYSTEM))?;
            let belongs = |home: &TenantFacts| {
                let member = home.find(subject.id());
                member.is_some_and(|member| member.head.status() != MemberStatus::Removed)
            };
            // What became of an account is told where it belongs; elsewhere it looks like any other.
            match belongs(tenant) || belongs(system) {
                true => Some(Reason::AccountDisabled),
                false => membership_flaw(entry.status, None),
            }
        }
        Subject::User(_) | Subject::Service(_) => None,
        Subject::Session(claims)
            if claims.tenant != entry.id && claims.tenant != TenantId::SYSTEM =>
        {
            Some(Reason::SessionElsewhere)
        }
        Subject::Session(claims) => session_flaw(facts, claims, now),
        Subject::Key(key) => {
            if key.revoked {
                Some(Reason::KeyRevoked)
            } else if key.expires.is_some_and(|expires| now >= expires) {
                Some(Reason::KeyExpired)
            } else {
                None
            }
        }
    })
}

/// Why a genuine session is not live, or nothing. A membership that is not loaded counts as unchanged;
/// the decision itself refuses to answer without it.
pub(super) fn session_flaw(facts: &Facts, claims: &SessionClaims, now: Time) -> Option<Reason> {
    let account = facts.directory.account(claims.user);
    if now >= claims.expires {
        return Some(Reason::SessionExpired);
    }
    if account.disabled {
        return Some(Reason::AccountDisabled);
    }
    let member_epoch = facts
        .tenant(claims.tenant)
        .and_then(|tenant| tenant.find(SubjectId::User(claims.user)))
        .map(|member| member.head.epoch());
    let ended = facts.directory.ended_sessions.contains_key(&claims.session)
        || account.epoch != claims.account_epoch
        || member_epoch.is_some_and(|epoch| epoch != claims.member_epoch);
    ended.then_some(Reason::SessionEnded)
}
