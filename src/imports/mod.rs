//! Imports: people from a CSV file. A preview says for every row what would happen, and is kept as a
//! plan; committing does exactly that, in one change, or says what has moved. Who is invited belongs to
//! `invitations`, what members hold to `memberships`.
//!
//! Invariant: a preview and its commit judge the rows by the same function, under the same lock.

mod columns;
mod export;
mod judge;
mod names;
mod rpc;
mod sql;

use chrono::TimeDelta;
use tokio::sync::mpsc;

use crate::{
    access::{Claim, Permit},
    app::App,
    caller::Call,
    change::{self, Change, Event},
    decision::Time,
    error::{Difference, Error, Result},
    ids::{ImportId, Revision, SubjectId},
    invitations::{self, NewInvitation},
    memberships::{self, RolesEdit},
    sheet::Separator,
};

pub use columns::read as read_lines;
pub use judge::{Action, Judged};
pub use rpc::read_separator;
use sql::Filter;
pub use sql::{erase, erase_all, forget};

use columns::{Column, Line};
use judge::{Effect, Person, Plan};

/// How long a plan can be committed.
const KEPT: TimeDelta = TimeDelta::hours(1);
/// Plans that one caller keeps in a tenant.
const MAX_PLANS: i64 = 10;
/// The most differences that an error lists.
const MAX_DIFFERENCES: usize = 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum ImportStatus {
    Planned,
    /// It has errors, so there is nothing to commit.
    Faulty,
    Committed,
    Cancelled,
    Expired,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub rows: i32,
    pub people: i32,
    pub invited: i32,
    pub changed: i32,
    pub unchanged: i32,
    pub rows_with_errors: i32,
}

/// Who makes an import: nobody else commits or cancels it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maker {
    /// As [`Call::actor`] names them.
    pub actor: String,
    /// Empty: in their own name.
    pub on_behalf_of: String,
}

impl Maker {
    fn of(call: &Call) -> Self {
        let person = call.authority().and_then(|authority| authority.on_behalf_of);
        let on_behalf_of = person.map(|user| user.to_string()).unwrap_or_default();
        Self { actor: call.actor(), on_behalf_of }
    }
}

/// An import as lists show it; its status is judged at the time of the reading.
#[derive(Debug, Clone)]
pub struct Import {
    pub id: ImportId,
    pub maker: Maker,
    pub file_name: String,
    pub encoding: String,
    pub separator: String,
    pub totals: Totals,
    pub status: ImportStatus,
    pub created_at: Time,
    pub expires_at: Time,
    pub committed_at: Option<Time>,
    /// The change that committed it.
    pub revision: Option<i64>,
}

/// A file to be imported.
#[derive(Debug, Clone)]
pub struct NewImport {
    pub file_name: String,
    /// `None`: the tenant's.
    pub language: Option<String>,
    pub message: String,
    pub bytes: Vec<u8>,
}

/// What committing would do.
pub struct Preview {
    pub import: Import,
    pub rows: Vec<(Line, Judged)>,
    /// `None`: as many as they like.
    pub seats_free: Option<i64>,
    pub revision: Revision,
}

/// Judges a file and keeps the plan.
///
/// # Errors
/// `INVALID_ARGUMENT` for `chunk` when the file is no table of people; refusals of the gate.
pub async fn preview(app: &App, call: &Call, claim: Claim, new: NewImport) -> Result<Preview> {
    let NewImport { file_name, language, message, bytes } = new;
    let read = tokio::task::spawn_blocking(move || columns::read("chunk", &bytes));
    let (table, lines) = read.await.map_err(Error::internal)??;
    let look = change::look(app, call, claim, |change| {
        Box::pin(async move {
            let judged = judge::judge(change, &lines).await?;
            Ok((change.tenant().id, lines, judged))
        })
    });
    let ((tenant, lines, judged), revision) = look.await?;
    let totals = judged.totals();
    let faulty = totals.rows_with_errors > 0;
    let now = app.clock.now();
    let import = Import {
        id: crate::random::id(now)?,
        maker: Maker::of(call),
        file_name,
        encoding: table.encoding.name().to_owned(),
        separator: table.separator.name().to_owned(),
        totals,
        status: if faulty { ImportStatus::Faulty } else { ImportStatus::Planned },
        created_at: now,
        expires_at: now + KEPT,
        committed_at: None,
        revision: None,
    };
    let plan = (!faulty).then(|| Plan::new(&lines, &judged, language, message));
    sql::insert(&app.pool, tenant, &import, plan.as_ref()).await?;
    sql::end_oldest(&app.pool, tenant, &import.maker, MAX_PLANS).await?;
    let (rows, seats_free) = (lines.into_iter().zip(judged.rows).collect(), judged.seats_free);
    Ok(Preview { import, rows, seats_free, revision })
}

/// How far a commit is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    pub done: i32,
    pub total: i32,
}

/// Does what the preview showed, or nothing. What was committed before stays as it was.
///
/// # Errors
/// `NOT_FOUND`; `FAILED_PRECONDITION` when there is nothing to commit, or the state has moved; what
/// inviting and giving roles refuses.
pub async fn commit(
    change: &mut Change,
    id: ImportId,
    progress: &mpsc::Sender<Progress>,
) -> Result<Import> {
    let (mut import, plan) = lock(change, id).await?;
    match (import.status, plan) {
        (ImportStatus::Committed, _) => {}
        (ImportStatus::Planned, Some(plan)) => {
            carry_out(change, id, plan, progress).await?;
            (import.status, import.committed_at) = (ImportStatus::Committed, Some(change.now()));
            sql::end(change, &import).await?;
            let Totals { invited, changed, unchanged, .. } = import.totals;
            let event = Event::new("import.committed", id)
                .change("invited", &0, &invited)
                .change("changed", &0, &changed)
                .change("unchanged", &0, &unchanged);
            change.record(event)?;
        }
        (ImportStatus::Faulty, _) => {
            let message = "the preview has errors; correct the file, and preview it again";
            return Err(Error::precondition("IMPORT_HAS_ERRORS", id, message));
        }
        (ImportStatus::Cancelled, _) => {
            let message = "the import was cancelled; preview the file again";
            return Err(Error::precondition("IMPORT_CANCELLED", id, message));
        }
        (ImportStatus::Expired | ImportStatus::Planned, _) => {
            let message = "the preview is too old to be committed; preview the file again";
            return Err(Error::precondition("IMPORT_EXPIRED", id, message));
        }
    }
    Ok(import)
}

async fn carry_out(
    change: &mut Change,
    id: ImportId,
    plan: Plan,
    progress: &mpsc::Sender<Progress>,
) -> Result<()> {
    let Plan { lines, verdicts, language, message } = plan;
    let lines: Vec<Line> = lines.into_iter().map(Into::into).collect();
    let judged = judge::judge(change, &lines).await?;
    let differences = judged.differences(&lines, &verdicts);
    if !differences.is_empty() {
        return Err(stale(id, differences));
    }
    let mut people = judged.people;
    // What it does to the person who commits it may take the right to do the rest, so it comes last.
    let oneself = change.call().person();
    people.sort_by_key(|Person { effect, .. }| {
        matches!(effect, Effect::AddRoles(user, _) if Some(*user) == oneself)
    });
    let total = i32::try_from(people.len()).map_err(Error::internal)?;
    for (person, done) in people.into_iter().zip(1..) {
        let Person { first, effect } = person;
        let line = &lines[first];
        match effect {
            Effect::Nothing | Effect::Unclear => {}
            Effect::Invite(roles) => {
                let Some(email) = line.email.clone() else { continue };
                let new = NewInvitation {
                    email,
                    kind: line.kind,
                    profile: line.profile.clone(),
                    roles,
                    message: message.clone(),
                    language: language.clone(),
                };
                invitations::create(change, new).await?;
            }
            Effect::AddRoles(user, add) => {
                let (subject, remove) = (SubjectId::User(user), Vec::new());
                let edit = RolesEdit { subject, add, remove, etag: String::new() };
                memberships::update_roles(change, edit).await?;
            }
        }
        // Whoever does not keep up misses some steps of the way.
        let _ = progress.try_send(Progress { done, total });
    }
    Ok(())
}

fn stale(id: ImportId, mut differences: Vec<Difference>) -> Error {
    const TOLD: usize = 3;
    let more = differences.len().saturating_sub(TOLD);
    let told = differences.iter().take(TOLD).map(|d| format!("{}: {}", d.subject, d.description));
    let told = told.collect::<Vec<_>>().join("; ");
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    differences.truncate(MAX_DIFFERENCES);
    Error::Moved {
        reason: "IMPORT_STALE",
        message: format!(
            "import {id} would not do what its preview showed, so it did nothing: {told}{more}; \
             preview the file again"
        ),
        differences,
    }
}

/// Forgets a plan and its people.
///
/// # Errors
/// `NOT_FOUND`; `FAILED_PRECONDITION` when it was committed.
pub async fn cancel(app: &App, call: &Call, permit: &Permit, id: ImportId) -> Result<Import> {
    let maker = Maker::of(call);
    sql::cancel(&app.pool, permit, id, &maker).await?;
    let now = app.clock.now();
    let filter = Filter { id: Some(id), maker: Some(&maker), before: None, now, limit: 1 };
    let found = sql::list(&app.pool, permit, &filter).await?.pop();
    let import = found.ok_or_else(|| unknown(id))?;
    if import.status == ImportStatus::Committed {
        let message = "the import was committed; cancel its invitations one by one";
        return Err(Error::precondition("IMPORT_COMMITTED", id, message));
    }
    Ok(import)
}

/// The import, for whoever made it.
async fn lock(change: &mut Change, id: ImportId) -> Result<(Import, Option<Plan>)> {
    let maker = Maker::of(change.call());
    sql::lock(change, id, &maker).await?.ok_or_else(|| unknown(id))
}

fn unknown(id: ImportId) -> Error {
    Error::not_found("import", id)
}

/// An empty file: the names of the columns.
///
/// # Errors
/// When there is no memory to write to.
pub fn template(separator: Separator, with_scopes: bool) -> Result<Vec<u8>> {
    let columns = if with_scopes { Column::SCOPED } else { Column::USUAL };
    crate::sheet::write(separator, [Column::ALL[..columns].iter().map(|column| column.name())])
}
