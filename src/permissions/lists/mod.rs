//! The lists behind a check: what somebody may do, where, and who may. Who asks for one learns more than
//! from a check, so it takes the right to have decisions explained; for oneself it takes nothing.

mod rpc;
mod stream;

use super::{Named, admit, no_subject, permission, resource};
use crate::{
    access::{Claim, authorise},
    app::App,
    caller::Call,
    decision::{
        Access, Credential, Facts, Permission, PermissionSet, Reason, Resource, Scope, Subject,
        TenantNotLoaded, There, Time, effective_permissions, scopes, subjects,
    },
    error::Result,
    ids::{Revision, SubjectId},
};

pub use rpc::{list_effective_permissions, list_scopes, list_subjects, stream_subjects};

/// The most groups that are shown of one subject.
const MAX_GROUPS: usize = 20;

/// An answer, or the reason why there is nothing to list; and the revision that it was made on.
#[derive(Debug, Clone)]
struct Answer<T> {
    found: Result<T, Reason>,
    revision: Revision,
}

/// Whom a list is about, for a caller who may ask.
struct About<'a> {
    tenant: &'a str,
    subject: Named,
    /// Set where the caller may ask only because it is about itself.
    oneself: Option<Claim>,
}

impl<'a> About<'a> {
    /// Finds the subject. Who may not ask about others is answered about the session that calls, when
    /// it asks about that or its person: a session may do less than its person.
    ///
    /// # Errors
    /// The refusal of a caller who may not ask; `INVALID_ARGUMENT` for a malformed subject.
    async fn read(app: &App, call: &Call, tenant: &'a str, subject: &str) -> Result<Self> {
        let mut subject = Named::parse(&app.keys, subject)?;
        let now = app.clock.now();
        let admitted = app.replica.ask(|facts| Ok(admit(facts, call, tenant, now)?.map(drop)));
        let refusal = match admitted.await? {
            Ok(()) => {
                subject.look_up(app, call, tenant).await?;
                return Ok(Self { tenant, subject, oneself: None });
            }
            Err(refusal) => refusal,
        };
        let Some(own) = call.authority().map(|authority| &authority.credential) else {
            return Err(refusal);
        };
        let session = match (own, &subject) {
            (Credential::Session(own), Named::Id(id)) if *id == SubjectId::User(own.user) => own,
            (Credential::Session(own), Named::Session(Some(named))) if own == named => own,
            _ => return Err(refusal),
        };
        let claim = call.claim_oneself(tenant)?;
        match app.replica.ask(|facts| authorise(facts, call, &claim, now)).await? {
            Ok(()) => {
                let subject = Named::Session(Some(*session));
                Ok(Self { tenant, subject, oneself: Some(claim) })
            }
            Err(_) => Err(refusal),
        }
    }

    /// What takes a permit for this caller.
    fn claim(&self, call: &Call) -> Result<Claim> {
        self.oneself.clone().map_or_else(|| call.claim(self.tenant), Ok)
    }

    /// Answers on one state, which also says that the caller may ask.
    async fn ask<T>(
        &self,
        app: &App,
        call: &Call,
        list: impl Fn(&Facts, Subject<'_>, Time) -> Result<Result<T, Reason>, TenantNotLoaded>,
    ) -> Result<Answer<T>> {
        let now = app.clock.now();
        let answer = app.replica.ask(|facts| {
            let admitted = match &self.oneself {
                Some(claim) => authorise(facts, call, claim, now)?,
                None => admit(facts, call, self.tenant, now)?.map(drop),
            };
            if let Err(refusal) = admitted {
                return Ok(Err(refusal));
            }
            let found = match self.subject.find(facts) {
                Some(subject) => list(facts, subject, now)?,
                None => Err(no_subject(facts, self.tenant)),
            };
            Ok(Ok(Answer { found, revision: facts.revision }))
        });
        answer.await?
    }

    async fn scopes(
        &self,
        app: &App,
        call: &Call,
        permission: Permission<'_>,
    ) -> Result<Answer<Vec<Scope>>> {
        let list = |facts: &Facts, subject: Subject<'_>, now| {
            scopes(facts, self.tenant, subject, permission, now)
        };
        self.ask(app, call, list).await
    }

    /// What the subject may do, and the permissions that roles of the tenant name.
    async fn permissions(
        &self,
        app: &App,
        call: &Call,
        resource: Resource<'_>,
    ) -> Result<Answer<(PermissionSet, Vec<String>)>> {
        let list = |facts: &Facts, subject: Subject<'_>, now| {
            let there = There { tenant: self.tenant, resource, now };
            let set = effective_permissions(facts, &there, subject)?;
            let tenant = facts.directory.tenants.get(self.tenant).and_then(|entry| entry.facts());
            let words = tenant.into_iter().flat_map(|t| t.words()).map(str::to_owned);
            Ok(set.map(|set| (set, words.collect())))
        };
        self.ask(app, call, list).await
    }
}

/// What a list of subjects is about.
#[derive(Debug, Clone)]
struct Wanted {
    tenant: String,
    permission: String,
    resource: String,
}

/// A part of the subjects who may.
#[derive(Debug, Clone)]
struct Part {
    found: Vec<Allowed>,
    next: Option<SubjectId>,
    reason: Option<Reason>,
}

/// Somebody who may.
#[derive(Debug, Clone)]
pub struct Allowed {
    pub access: Access,
    /// Keys, sorted.
    pub groups: Vec<String>,
}

impl Wanted {
    /// # Errors
    /// `INVALID_ARGUMENT` naming what is malformed.
    fn check(self) -> Result<Self> {
        self.parsed().map(drop)?;
        Ok(self)
    }

    fn parsed(&self) -> Result<(Permission<'_>, Resource<'_>)> {
        Ok((permission(&self.permission)?, resource(&self.resource)?))
    }

    /// The next part of the list, for a caller who may ask.
    ///
    /// # Errors
    /// When the facts of a tenant are not loaded; the inner error is the refusal of the caller.
    fn part(
        &self,
        facts: &Facts,
        call: &Call,
        after: Option<SubjectId>,
        limit: usize,
        now: Time,
    ) -> Result<Result<Part>, TenantNotLoaded> {
        match admit(facts, call, &self.tenant, now)? {
            Ok(_) => self.part_of(facts, after, limit, now),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// The next part of the list; it looks at no more members than fit into some milliseconds.
    fn part_of(
        &self,
        facts: &Facts,
        after: Option<SubjectId>,
        limit: usize,
        now: Time,
    ) -> Result<Result<Part>, TenantNotLoaded> {
        let (permission, resource) = match self.parsed() {
            Ok(parsed) => parsed,
            Err(error) => return Ok(Err(error)),
        };
        let there = There { tenant: &self.tenant, resource, now };
        let page = subjects(facts, &there, permission, after, limit)?;
        let tenant = facts.directory.tenants.get(self.tenant.as_str()).and_then(|e| e.facts());
        let found = page.found.into_iter().map(|access| {
            let keys = access.groups.iter().filter_map(|id| tenant?.group_key(*id));
            let mut groups: Vec<String> = keys.map(ToString::to_string).collect();
            groups.sort_unstable();
            Allowed { access, groups }
        });
        Ok(Ok(Part { found: found.collect(), next: page.next, reason: page.reason }))
    }
}
