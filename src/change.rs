//! The write path: the only way to write what a decision, a list of people or the audit can show.
//!
//! A change waits its turn for the tenant, locks the tenant's row, is authorised by the facts read after
//! the lock, writes, and is sealed: its events are numbered and chained, and committed, in one message.
//! It is acknowledged when the replicas obey it.

mod administrators;
mod audit;
mod request;
mod rules;
mod seal;
mod seats;
mod tenant;
mod turn;

use futures::future::BoxFuture;
use sqlx::{Executor, PgConnection, Postgres, pool::PoolConnection};

pub use administrators::count_without;
pub use audit::Event;
pub use request::{Answer, Options, forget};
pub use rules::{Scope, nearest};
pub use seats::Seats;
pub use tenant::TenantRow;
pub use turn::Turns;

use crate::{
    access::{Claim, Warrant, authorise},
    app::App,
    caller::Call,
    decision::{
        Account, Credential, Facts, Record, Resource, SessionEnd, TenantFacts, Time, Transition,
    },
    error::{Error, Result},
    faults::Point,
    ids::{GroupId, Revision, SubjectId, TenantId},
    proto::Withheld,
    refusals::{Kind, Refusal},
    replica::{self, load},
};

/// One change in progress. Statements that write take it, so that none escapes audit and revision.
pub struct Change {
    app: App,
    call: Call,
    /// `None` only after the end.
    conn: Option<PoolConnection<Postgres>>,
    tenant: TenantRow,
    facts: Facts,
    now: Time,
    reason: String,
    drafts: Vec<audit::Draft>,
    /// Whose values this change erased, also those that it would have left itself.
    erased: std::collections::HashSet<String>,
    rights: administrators::Touch,
    /// More than it frees: what the plan has to have left.
    seats_taken: i64,
    /// The key that was looked up last: a group ends with all that it held.
    group: Option<(GroupId, String)>,
}

/// Where a change stood before a part of it.
pub struct Mark {
    facts: Facts,
    drafts: usize,
    rights: administrators::Touch,
    seats_taken: i64,
}

/// Runs an operation as one change and returns its answer with the revision set.
///
/// The operation may run again after a deadlock, so it has no effects but through the change.
///
/// # Errors
/// What the operation returns, refusals of the gate, and `UNAVAILABLE` when the outcome is not known or
/// not yet obeyed everywhere; the same request id then finds it.
pub async fn run<Q, R, F>(
    app: &App,
    call: &Call,
    claim: Claim,
    options: Options,
    input: Q,
    operation: F,
) -> Result<R>
where
    Q: Clone + Send,
    R: Answer,
    F: for<'c> Fn(&'c mut Change, Q) -> BoxFuture<'c, Result<R>> + Send + Sync,
{
    // A tenant that does not exist is refused as one that is not yours: the gate says so.
    let directory = app.replica.facts();
    let Some(tenant) = directory.directory.tenants.get(claim.tenant()).map(|t| t.id) else {
        crate::access::permit(app, call, &claim).await?;
        return Err(Error::not_found("tenant", claim.tenant()));
    };
    drop(directory);
    let (outcome, revision) = {
        let _turn = app.turns.wait(tenant).await?;
        attempts(app, call, &claim, &options, input, &operation).await
    }
    .inspect_err(|refusal| note_refusal(app, call, tenant, refusal))?;
    if let Err(refusal) = &outcome {
        note_refusal(app, call, tenant, refusal);
    }
    // Also what changed nothing, what was answered before, and what a refusal says of the state must be
    // obeyed everywhere.
    app.faults.reach(Point::Sealed).await;
    app.replica.barrier(revision).await?;
    app.faults.reach(Point::Obeyed).await;
    let mut answer = outcome?;
    if !options.validate_only {
        answer.set_revision(revision.text());
    }
    Ok(answer)
}

/// What came of an operation, and the revision that shows it.
type Outcome<R> = (Result<R>, Revision);

async fn attempts<Q, R, F>(
    app: &App,
    call: &Call,
    claim: &Claim,
    options: &Options,
    input: Q,
    operation: &F,
) -> Result<Outcome<R>>
where
    Q: Clone + Send,
    R: Answer,
    F: for<'c> Fn(&'c mut Change, Q) -> BoxFuture<'c, Result<R>> + Send + Sync,
{
    const TRIES: usize = 3;
    const CONFLICT: &str = "CONFLICT";
    for _ in 1..TRIES {
        match attempt(app, call, claim, options, input.clone(), operation).await {
            Err(Error::Aborted { reason: CONFLICT, .. })
            | Ok((Err(Error::Aborted { reason: CONFLICT, .. }), _)) => {}
            outcome => return outcome,
        }
    }
    attempt(app, call, claim, options, input, operation).await
}

/// Remembers what was refused to whom, for the security log.
fn note_refusal(app: &App, call: &Call, tenant: TenantId, error: &Error) {
    if let (Error::Denied { reason, .. }, Some(_)) = (error, call.authority()) {
        let refusal = Refusal {
            kind: Kind::Change,
            reason,
            method: call.path,
            user: call.person(),
            caller: call.actor(),
            source: call.source.clone(),
        };
        app.refusals.note(tenant, refusal, app.clock.now());
    }
}

async fn attempt<Q, R, F>(
    app: &App,
    call: &Call,
    claim: &Claim,
    options: &Options,
    input: Q,
    operation: &F,
) -> Result<Outcome<R>>
where
    R: Answer,
    F: for<'c> Fn(&'c mut Change, Q) -> BoxFuture<'c, Result<R>> + Send + Sync,
{
    let mut change = Change::begin(app, call, claim, options).await?;
    let (request, now) = (options.request.as_ref(), change.now);
    if let Some(key) = request
        && let Some((answer, number)) = request::find(change.conn(), key, now).await?
    {
        let revision = change.abandon().await?;
        return Ok((Ok(answer), revision.at(number)));
    }
    let outcome = change.operate(claim, input, operation).await;
    app.faults.reach(Point::Written).await;
    match outcome {
        Ok(mut answer) if options.validate_only => {
            let revision = change.abandon().await?;
            // A secret of what was not made could still open something: tokens prove themselves.
            answer.redact(Withheld::ValidateOnly);
            Ok((Ok(answer), revision))
        }
        Ok(answer) if change.drafts.is_empty() => {
            let kept = request.map(|key| key.kept(&answer));
            let revision = change.end(kept).await?;
            Ok((Ok(answer), revision))
        }
        Ok(answer) => {
            let revision = change.seal(request.map(|key| key.kept(&answer))).await?;
            Ok((Ok(answer), revision))
        }
        Err(failure) if failure.is_failure() => Err(failure),
        Err(refusal) => Ok((Err(refusal), change.abandon().await?)),
    }
}

/// Reads what a change would find under the tenant's lock, and changes nothing; also returns the revision
/// that it was read at.
///
/// # Errors
/// What the operation returns, and refusals of the gate.
pub async fn look<T, F>(app: &App, call: &Call, claim: Claim, operation: F) -> Result<(T, Revision)>
where
    F: for<'c> FnOnce(&'c mut Change) -> BoxFuture<'c, Result<T>> + Send,
{
    let permit = crate::access::permit(app, call, &claim).await?;
    let _turn = app.turns.wait(permit.tenant()).await?;
    let mut change = Change::begin(app, call, &claim, &Options::default()).await?;
    let outcome = match change.authorise(&claim).await {
        Ok(()) => operation(&mut change).await,
        Err(refusal) => Err(refusal),
    };
    // What it says about the state must be obeyed everywhere, too.
    let revision = change.abandon().await?;
    app.replica.barrier(revision).await?;
    Ok((outcome?, revision))
}

impl Change {
    async fn begin(app: &App, call: &Call, claim: &Claim, options: &Options) -> Result<Self> {
        let mut conn = app.pool.acquire().await?;
        conn.execute("begin").await?;
        app.faults.reach(Point::Begun).await;
        let mut change = Self {
            app: app.clone(),
            call: call.clone(),
            conn: Some(conn),
            tenant: TenantRow::unknown(),
            facts: Facts::default(),
            now: app.clock.now(),
            reason: options.reason.clone(),
            drafts: Vec::new(),
            erased: std::collections::HashSet::new(),
            rights: administrators::Touch::Nothing,
            seats_taken: 0,
            group: None,
        };
        change.tenant = tenant::lock(change.conn(), claim.tenant()).await?;
        app.faults.reach(Point::Locked).await;
        Ok(change)
    }

    async fn operate<Q, R, F>(&mut self, claim: &Claim, input: Q, operation: &F) -> Result<R>
    where
        F: for<'c> Fn(&'c mut Self, Q) -> BoxFuture<'c, Result<R>>,
    {
        self.authorise(claim).await?;
        let answer = operation(self, input).await?;
        self.check_rules().await?;
        Ok(answer)
    }

    /// Reads the facts about the caller, after the lock, and decides by them.
    async fn authorise(&mut self, claim: &Claim) -> Result<()> {
        self.load_caller(claim).await?;
        self.app.faults.reach(Point::Authorised).await;
        authorise(&self.facts, &self.call, claim, self.now)
            .map_err(|missing| Error::internal(format!("{} is not in the slice", missing.0)))?
    }

    async fn load_caller(&mut self, claim: &Claim) -> Result<()> {
        let call = self.call.clone();
        let authority = call.authority();
        let subjects: Vec<SubjectId> =
            authority.map(|a| a.subjects().collect()).unwrap_or_default();
        let home = authority.map_or(TenantId::SYSTEM, crate::decision::Authority::home);
        let workspaces: Vec<String> = match claim.warrant() {
            Warrant::Demands { scopes, .. } => scopes
                .iter()
                .filter_map(|scope| Resource::parse(scope).ok()?.workspace.map(str::to_owned))
                .collect(),
            _ => Vec::new(),
        };
        let tenant = self.tenant.clone();
        let conn = self.conn.as_deref_mut().ok_or_else(ended)?;
        let mut facts =
            Facts::new(replica::position(conn).await?, crate::decision::Directory::default());
        learn(&mut facts, Record::Tenant(tenant.record()), tenant.id);
        facts.insert_tenant(load::slice(conn, tenant.id, &subjects, &workspaces).await?);
        for other in [TenantId::SYSTEM, home] {
            if facts.tenant(other).is_none() {
                // Held until the commit, so that what was revoked in the caller's own tenant while
                // this change ran came after it.
                if other == home {
                    tenant::share(conn, other).await?;
                }
                let row = TenantRow::read(conn, other).await?;
                learn(&mut facts, Record::Tenant(row.record()), other);
                facts.insert_tenant(load::slice(conn, other, &subjects, &[]).await?);
            }
        }
        if let Some(authority) = authority {
            load_credential(conn, &mut facts, &authority.credential).await?;
        }
        load_accounts(conn, &mut facts, &subjects).await?;
        self.facts = facts;
        self.refresh_credential();
        Ok(())
    }

    /// The key as the database has it now, not as the replica knew it.
    fn refresh_credential(&mut self) {
        if let crate::caller::Caller::Authenticated(authority) = &mut self.call.caller
            && let Credential::ApiKey(key) = &mut authority.credential
            && let Some(fresh) = self.facts.directory.api_keys.get(&key.hash)
        {
            *key = fresh.clone();
        }
    }

    /// The connection, inside the transaction and under the tenant's lock.
    pub fn conn(&mut self) -> &mut PgConnection {
        // Invariant: only `seal` and `end` take the connection, and both end the change.
        #[expect(clippy::unwrap_used, reason = "the invariant above")]
        self.conn.as_deref_mut().unwrap()
    }

    #[must_use]
    pub fn app(&self) -> &App {
        &self.app
    }

    #[must_use]
    pub fn call(&self) -> &Call {
        &self.call
    }

    #[must_use]
    pub fn tenant(&self) -> &TenantRow {
        &self.tenant
    }

    /// From here on it is this person who acts: they came without a credential, and have proved who they
    /// are. It gives them no rights.
    pub fn identify(&mut self, user: crate::ids::UserId) {
        if matches!(self.call.caller, crate::caller::Caller::Anonymous) {
            self.call.caller = crate::caller::Caller::Proved(user);
        }
    }

    /// The time of this change, by which its dates are judged.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// A new id.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn id<T: From<uuid::Uuid>>(&self) -> Result<T> {
        crate::random::id(self.now)
    }

    /// Goes on in a tenant that this very change has made; its lock is the installation's.
    ///
    /// # Errors
    /// When the row is not there.
    pub async fn enter(&mut self, tenant: TenantId) -> Result<()> {
        let row = TenantRow::read(self.conn(), tenant).await?;
        learn(&mut self.facts, Record::Tenant(row.record()), tenant);
        self.facts.insert_tenant(TenantFacts::new(tenant));
        self.tenant = row;
        Ok(())
    }

    /// Notes what happened; the facts of this change follow at once.
    ///
    /// # Errors
    /// When the event cannot be written down; `FAILED_PRECONDITION` `TENANT_PURGED` for what would begin in
    /// a tenant that is being erased.
    pub fn record(&mut self, event: Event) -> Result<()> {
        let (before, after) = event.records();
        if after.is_some_and(rules::lasts) {
            self.require_unpurged()?;
        }
        self.rights = self.rights.max(administrators::Touch::of(before, after));
        self.seats_taken += seats::taken(before, after, self.now);
        let step =
            Transition { tenant: self.tenant.id, before: before.cloned(), after: after.cloned() };
        self.facts.apply(&step);
        let draft = audit::Draft::new(&self.call, self.tenant.id, &event, &self.reason, self.now)?;
        self.drafts.push(draft);
        Ok(())
    }

    /// Begins a part that may fail by itself.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn mark(&mut self) -> Result<Mark> {
        self.conn().execute("savepoint part").await?;
        let Self { rights, seats_taken, .. } = *self;
        Ok(Mark { facts: self.facts.clone(), drafts: self.drafts.len(), rights, seats_taken })
    }

    /// Ends a part. Where it was refused, or takes a seat that is not there, nothing of it happened.
    ///
    /// # Errors
    /// When the change cannot go on; the inner result is the part's.
    pub async fn settle<T>(&mut self, mark: Mark, outcome: Result<T>) -> Result<Result<T>> {
        let outcome = match outcome {
            Ok(done) => self.check_seats(mark.seats_taken).await.map(|()| done),
            refused => refused,
        };
        match outcome {
            Ok(done) => {
                self.conn().execute("release savepoint part").await?;
                Ok(Ok(done))
            }
            Err(fatal) if fatal.is_failure() || matches!(fatal, Error::Aborted { .. }) => {
                Err(fatal)
            }
            Err(refusal) => {
                self.conn().execute("rollback to savepoint part").await?;
                self.facts = mark.facts;
                self.drafts.truncate(mark.drafts);
                (self.rights, self.seats_taken) = (mark.rights, mark.seats_taken);
                Ok(Err(refusal))
            }
        }
    }
}

fn ended() -> Error {
    Error::internal("the change has ended")
}

impl Drop for Change {
    /// A change that was neither sealed nor abandoned is undone, and its connection kept.
    fn drop(&mut self) {
        let Some(mut conn) = self.conn.take() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    if conn.execute("rollback").await.is_err() {
                        conn.close_on_drop();
                    }
                });
            }
            Err(_) => conn.close_on_drop(),
        }
    }
}

fn learn(facts: &mut Facts, record: Record, tenant: TenantId) {
    facts.apply(&Transition { tenant, before: None, after: Some(record) });
}

async fn load_credential(
    conn: &mut PgConnection,
    facts: &mut Facts,
    credential: &Credential,
) -> Result<()> {
    match credential {
        Credential::ApiKey(key) => {
            for fresh in load::api_keys(conn, Some(&key.hash)).await? {
                learn(facts, Record::ApiKey(fresh.clone()), fresh.tenant);
            }
        }
        Credential::Session(claims) => {
            let ended = sqlx::query_scalar!(
                "select expires_at from sessions
                 where tenant_id = $1 and id = $2 and ended_at is not null",
                claims.tenant as TenantId,
                claims.session.uuid()
            )
            .fetch_optional(conn)
            .await?;
            if let Some(expires) = ended {
                let end = SessionEnd { session: claims.session, user: claims.user, expires };
                learn(facts, Record::SessionEnd(end), claims.tenant);
            }
        }
    }
    Ok(())
}

async fn load_accounts(
    conn: &mut PgConnection,
    facts: &mut Facts,
    subjects: &[SubjectId],
) -> Result<()> {
    let users: Vec<uuid::Uuid> =
        subjects.iter().filter_map(|s| s.user()).map(crate::ids::UserId::uuid).collect();
    if users.is_empty() {
        return Ok(());
    }
    let rows =
        sqlx::query!("select id, disabled, epoch from users where id = any($1) for share", &users)
            .fetch_all(conn)
            .await?;
    for row in rows {
        let account = Account { user: row.id.into(), disabled: row.disabled, epoch: row.epoch };
        learn(facts, Record::Account(account), TenantId::SYSTEM);
    }
    Ok(())
}
