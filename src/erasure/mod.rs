//! Erasure: what is left of a person when a tenant is done with them, or they with us, and of a tenant when
//! we are done with it. Events stay, with ids and commitments; every byte of a person's data goes, in
//! whichever module's table it stands.

use futures::future::BoxFuture;

use crate::{
    access::Claim,
    accounts,
    app::App,
    caller::Call,
    change::{self, Change, Event, Options},
    error::{Error, Result},
    groups,
    ids::{Key, UserId},
    imports, invitations, mails, memberships, outbox, roles, security, service_accounts, sessions,
    tenants, workspaces,
};

/// How much was erased.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    pub sessions: u64,
    pub invitations: u64,
    pub mails: u64,
    /// Previews that named them; they are cancelled.
    pub imports: u64,
    /// Values beside events.
    pub audit_values: u64,
    /// Answers kept for repeated requests.
    pub answers: u64,
    /// No other tenant knows the person, so the account is gone.
    pub account: bool,
}

/// Erases what the tenant of this change knows about somebody whose time is over, and the account where
/// no other tenant knows them.
///
/// # Errors
/// `NOT_FOUND` for who never was here or was purged; `FAILED_PRECONDITION` with the reason
/// `NOT_PURGEABLE`; `LAST_ADMINISTRATOR`.
pub async fn purge(change: &mut Change, user: UserId) -> Result<Erased> {
    memberships::require_purgeable(change, user).await?;
    erase(change, user).await
}

/// Erases it whatever its time. For whoever ends their account.
///
/// # Errors
/// `NOT_FOUND`; `FAILED_PRECONDITION` with the reason `LAST_ADMINISTRATOR`.
pub async fn erase(change: &mut Change, user: UserId) -> Result<Erased> {
    // Locked first: two tenants that erase the same person at once take turns.
    let account = accounts::lock(change, user).await?.user;
    memberships::dismiss(change, user).await?;
    let invited = invitations::of_person(change, user, &account.email).await?;
    let mails = outbox::erase(change, user, &account.email, &invited).await?;
    let imports = imports::erase(change, user).await?;
    let sessions = sessions::erase(change, user).await?;
    security::erase(change, user).await?;
    let mut subjects = vec![user.to_string()];
    subjects.extend(invited.iter().map(ToString::to_string));
    let mut audit_values = change.erase_values(&subjects).await?;
    let answers = change.erase_answers(&[&subjects[0], &account.email]).await?;
    let invitations = invitations::erase(change, &invited).await?;
    let last = memberships::erase(change, user).await?;
    if last {
        audit_values += change.erase_values_everywhere(&user.to_string()).await?;
        outbox::erase_of_account(change, user).await?;
        security::erase_everywhere(change, user).await?;
        accounts::erase(change, user).await?;
    }
    change.record(Event::new("member.purged", user).change("account", &true, &!last))?;
    Ok(Erased { sessions, invitations, mails, imports, audit_values, answers, account: last })
}

/// Erases what is left of a tenant when its people are gone: all but its keys and the audit log.
async fn finish(change: &mut Change) -> Result<()> {
    outbox::erase_all(change).await?;
    invitations::erase_all(change).await?;
    imports::erase_all(change).await?;
    service_accounts::erase(change).await?;
    groups::erase(change).await?;
    workspaces::erase(change).await?;
    roles::erase(change).await?;
    mails::erase(change).await?;
    security::erase_all(change).await?;
    change.erase_all_values().await?;
    tenants::erase(change).await
}

/// Purges the people and the tenants whose time is over where the tenants want it so, and goes on with the
/// tenants that are being erased; returns how many changes that took.
///
/// # Errors
/// When the database does not answer.
pub async fn purge_due(app: &App) -> Result<usize> {
    let mut done = 0;
    for (tenant, user) in memberships::due(&app.pool, app.clock.now()).await? {
        done += work(app, &tenant, |change| {
            Box::pin(async move { purge(change, user).await.map(drop) })
        })
        .await?;
    }
    let (due, erasing) = tenants::due(&app.pool, app.clock.now()).await?;
    for tenant in due {
        done += work(app, &tenant, |change| {
            Box::pin(async move { tenants::condemn(change).await.map(drop) })
        })
        .await?;
    }
    for tenant in erasing {
        let people = memberships::some_unpurged(&app.pool, &tenant).await?;
        if people.is_empty() {
            done += work(app, &tenant, |change| Box::pin(finish(change))).await?;
        }
        for user in people {
            done += work(app, &tenant, |change| {
                Box::pin(async move { erase(change, user).await.map(drop) })
            })
            .await?;
        }
    }
    Ok(done)
}

/// Does a part of that as a change of its own, and returns how many were done. One that fails keeps no
/// other from being done.
async fn work<F>(app: &App, tenant: &Key, part: F) -> Result<usize>
where
    F: for<'c> Fn(&'c mut Change) -> BoxFuture<'c, Result<()>> + Send + Sync,
{
    let call = Call::installation();
    let claim = Claim::installation(&call, tenant.as_str())?;
    match change::run(app, &call, claim, Options::default(), (), |change, ()| part(change)).await {
        Ok(()) => Ok(1),
        // Another replica was faster, or somebody came back.
        Err(Error::NotFound { .. } | Error::Precondition { .. }) => Ok(0),
        Err(error) => {
            tracing::warn!(%error, %tenant, "a part of a purge failed, and is tried again");
            Ok(0)
        }
    }
}
