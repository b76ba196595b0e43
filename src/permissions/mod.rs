//! Permissions: may this subject do that, there, and if not, what would help? Reads only: the answers
//! come from the facts alone, and only an address is looked up.

mod lists;
mod remedy;
mod rpc;
mod sql;
mod together;

use std::collections::{HashMap, HashSet};

use crate::{
    access::{Permit, authorise_demand, permit, recognise_again},
    activity::Activity,
    app::App,
    assignments::Shown,
    caller::Call,
    decision::{
        Considered, Decision, Explanation, Facts, Flaw, Holding, Party, Permission, Question,
        Reason, Resource, SessionClaims, Subject, TenantEntry, TenantNotLoaded, Time,
        explain as explain_decision, scope_text,
    },
    error::{Error, Result},
    ids::{AssignmentId, Holder, Key, Revision, RoleId, SubjectId, TenantId},
    replica::{Consistency, Dated},
    secret::{self, Keys},
    text::Email,
};

pub use remedy::{Remedy, RemedyKind};
pub use rpc::{quick, serve_stream};
use together::{BLOCK, Together};

/// The most assignments that an explanation shows.
const MAX_CONSIDERED: usize = 100;

/// The most items of a batch.
const MAX_ITEMS: usize = 1000;

/// A question, checked for its form.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    tenant: &'a str,
    pub subject: Named,
    what: What<'a>,
}

/// What a question is about, apart from the subject.
#[derive(Debug, Clone, Copy)]
struct What<'a> {
    permission: Permission<'a>,
    resource: Resource<'a>,
}

/// Whom a question names.
#[derive(Debug, Clone, PartialEq)]
pub enum Named {
    Id(SubjectId),
    /// A session token; nothing when it is not genuine.
    Session(Option<SessionClaims>),
    /// The hash of an API key.
    Key([u8; 32]),
    Email(Email),
    /// The address of nobody who belongs here.
    Nobody(Email),
}

fn permission(text: &str) -> Result<Permission<'_>> {
    Permission::parse(text).map_err(|error| Error::invalid("permission", error))
}

fn resource(text: &str) -> Result<Resource<'_>> {
    Resource::parse(text).map_err(|error| Error::invalid("resource", error))
}

impl<'a> Asked<'a> {
    /// # Errors
    /// `INVALID_ARGUMENT` naming what is malformed.
    #[inline]
    pub fn parse(
        keys: &Keys,
        tenant: &'a str,
        subject: &str,
        permission: &'a str,
        resource: &'a str,
    ) -> Result<Self> {
        let subject = Named::parse(keys, subject)?;
        Ok(Self { tenant, subject, what: What::parse(permission, resource)? })
    }

    /// The question, or nothing when there is no such subject.
    fn question<'q>(&'q self, facts: &'q Facts, now: Time) -> Option<Question<'q>> {
        let subject = self.subject.find(facts)?;
        let Self { tenant, what: What { permission, resource }, .. } = *self;
        Some(Question { tenant, subject, permission, resource, now })
    }

    /// Finds the person behind an address, among those who belong to the tenant.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for who may not ask.
    pub async fn look_up(&mut self, app: &App, call: &Call) -> Result<()> {
        self.subject.look_up(app, call, self.tenant).await
    }
}

impl<'a> What<'a> {
    /// # Errors
    /// `INVALID_ARGUMENT` naming what is malformed.
    #[inline]
    pub fn parse(permission: &'a str, resource: &'a str) -> Result<Self> {
        Ok(Self { permission: self::permission(permission)?, resource: self::resource(resource)? })
    }
}

impl Named {
    /// # Errors
    /// `INVALID_ARGUMENT` naming `subject`.
    #[inline]
    pub fn parse(keys: &Keys, text: &str) -> Result<Self> {
        if let Ok(id) = text.parse() {
            Ok(Self::Id(id))
        } else if secret::is_session_token(text) {
            Ok(Self::Session(keys.open_session(text)))
        } else if secret::is_api_key(text) {
            Ok(Self::Key(secret::hash_api_key(text)))
        } else if text.contains('@') {
            Email::parse("subject", text).map(Self::Email)
        } else {
            let wanted = "expected `usr_…`, `svc_…`, a session token, an api key or an address";
            Err(Error::invalid("subject", wanted))
        }
    }

    /// Notes that the session was used, if it is one.
    pub fn note(&self, activity: &Activity, now: Time) {
        if let Self::Session(Some(claims)) = self {
            activity.note(claims, now);
        }
    }

    /// Whether the subject has to be looked up before there is an answer.
    #[must_use]
    pub fn is_address(&self) -> bool {
        matches!(self, Self::Email(_))
    }

    /// The subject, or nothing when there is no such one.
    fn find<'q>(&'q self, facts: &'q Facts) -> Option<Subject<'q>> {
        Some(match self {
            Self::Id(id) => Subject::from(*id),
            Self::Session(claims) => Subject::Session(claims.as_ref()?),
            Self::Key(hash) => Subject::Key(facts.directory.api_keys.get(hash)?),
            Self::Email(_) | Self::Nobody(_) => return None,
        })
    }

    async fn look_up(&mut self, app: &App, call: &Call, tenant: &str) -> Result<()> {
        let Self::Email(email) = self else { return Ok(()) };
        let person = match permit_known(app, call, tenant).await? {
            Some(permit) => sql::find_person(&app.pool, &permit, email).await?,
            None => None,
        };
        *self = match person {
            Some(user) => Self::Id(SubjectId::User(user)),
            None => Self::Nobody(email.clone()),
        };
        Ok(())
    }
}

/// A decision and the revision that it was made on.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    pub decision: Decision,
    pub revision: Revision,
}

/// Asks the facts that are in memory; nothing when a tenant has to be read first.
pub fn ask_now<T>(
    app: &App,
    question: impl FnOnce(&Facts) -> Result<T, TenantNotLoaded>,
) -> Option<Result<T>> {
    match app.replica.ask_now(question) {
        Ok(Ok(answer)) => Some(Ok(answer)),
        Ok(Err(TenantNotLoaded(_))) => None,
        Err(error) => Some(Err(error)),
    }
}

/// Asks facts that are as new as the caller wants them. The caller is recognised on the same facts: they
/// may be older than those that let the call in, or newer.
///
/// # Errors
/// The refusal of the caller, those of the question, and `UNAVAILABLE`.
async fn ask_as<T>(
    app: &App,
    call: &Call,
    consistency: Consistency,
    now: Time,
    mut question: impl FnMut(&Facts, &Call) -> Result<Result<T>, TenantNotLoaded>,
) -> Result<Dated<T>> {
    let mut call = call.clone();
    let asked = app.replica.ask_as(consistency, |facts| {
        match recognise_again(facts, &mut call.caller, now)? {
            Ok(()) => question(facts, &call),
            Err(ended) => Ok(Err(ended)),
        }
    });
    let Dated { answer, age } = asked.await?;
    Ok(Dated { answer: answer?, age })
}

/// A caller who may ask about one tenant, and the facts that answer.
#[derive(Clone, Copy)]
struct Admitted<'a> {
    facts: &'a Facts,
    /// Nothing for a tenant that does not exist.
    entry: Option<&'a TenantEntry>,
    now: Time,
}

/// Lets a caller ask. Whoever may ask about every tenant is told that there is no such one; to
/// everybody else it looks like one that is not theirs.
///
/// # Errors
/// When the facts of a tenant are not loaded; the inner error is the refusal of the caller.
fn admit<'a>(
    facts: &'a Facts,
    call: &Call,
    tenant: &'a str,
    now: Time,
) -> Result<Result<Admitted<'a>>, TenantNotLoaded> {
    let entry = facts.directory.tenants.get(tenant);
    let admitted = Admitted { facts, entry, now };
    let demand = |tenant| match call.demand(tenant) {
        Ok(demand) => authorise_demand(facts, &call.caller, demand, now),
        Err(error) => Ok(Err(error)),
    };
    match demand(tenant)? {
        Ok(()) => Ok(Ok(admitted)),
        Err(refusal) if entry.is_some() => Ok(Err(refusal)),
        Err(refusal) => Ok(match demand(Key::SYSTEM)? {
            Ok(()) => match tenant.parse::<Key>() {
                Ok(_) => Ok(admitted),
                Err(error) => Err(Error::invalid("tenant", error)),
            },
            Err(_) => Err(refusal),
        }),
    }
}

impl<'a> Admitted<'a> {
    /// Finds whom questions name, once for all of them.
    ///
    /// # Errors
    /// When the facts of a tenant are not loaded.
    #[inline]
    pub fn find<'q>(&self, subject: &'q Named) -> Result<Found<'q>, TenantNotLoaded>
    where
        'a: 'q,
    {
        let Some(entry) = self.entry else { return Ok(Found(Err(Reason::TenantUnknown))) };
        Ok(Found(match subject.find(self.facts) {
            Some(subject) => Ok(Party::find(self.facts, entry, subject, self.now)?),
            None => Err(Reason::SubjectUnknown),
        }))
    }

    /// # Errors
    /// When the facts of a tenant are not loaded.
    #[inline]
    pub fn decide(&self, asked: &Asked<'_>) -> Result<Decision, TenantNotLoaded> {
        Ok(self.find(&asked.subject)?.decide(asked.what))
    }
}

/// The subject of questions, or why there is none.
#[derive(Debug, Clone, Copy)]
struct Found<'a>(Result<Party<'a>, Reason>);

impl Found<'_> {
    /// Touches what a decision reads first.
    #[inline]
    fn approach(&self) {
        if let Ok(party) = &self.0 {
            party.approach();
        }
    }

    #[must_use]
    #[inline]
    pub fn decide(&self, What { permission, resource }: What<'_>) -> Decision {
        match &self.0 {
            Ok(party) => party.decide(permission, resource),
            Err(reason) => Decision::because(*reason),
        }
    }
}

/// Decides for a caller who may ask.
///
/// # Errors
/// As [`admit`].
fn check(
    facts: &Facts,
    call: &Call,
    asked: &Asked<'_>,
    now: Time,
) -> Result<Result<Answer>, TenantNotLoaded> {
    Ok(match admit(facts, call, asked.tenant, now)? {
        Ok(admitted) => Ok(Answer { decision: admitted.decide(asked)?, revision: facts.revision }),
        Err(refusal) => Err(refusal),
    })
}

fn no_subject(facts: &Facts, tenant: &str) -> Reason {
    if facts.directory.tenants.contains_key(tenant) {
        Reason::SubjectUnknown
    } else {
        Reason::TenantUnknown
    }
}

/// The permit to read in the tenant, or nothing when there is no such tenant.
async fn permit_known(app: &App, call: &Call, tenant: &str) -> Result<Option<Permit>> {
    let now = app.clock.now();
    app.replica.ask(|facts| Ok(admit(facts, call, tenant, now)?.map(drop))).await??;
    if app.replica.facts().directory.tenants.contains_key(tenant) {
        permit(app, call, &call.claim(tenant)?).await.map(Some)
    } else {
        Ok(None)
    }
}

/// Why a decision is what it is, and what would turn it round.
#[derive(Debug, Clone)]
pub struct Explained {
    pub reason: Reason,
    pub message: String,
    pub grounds: Option<Grounds>,
    pub considered: Vec<NoHelp>,
    pub considered_truncated: bool,
    pub remedies: Vec<Remedy>,
    pub revision: Revision,
}

#[derive(Debug, Clone)]
pub struct Grounds {
    pub assignment: Shown,
    /// Keys from the assigned role to the one that has the permission.
    pub include_path: Vec<String>,
    pub matched: String,
    pub tenant: String,
}

/// An assignment that does not give the permission.
#[derive(Debug, Clone)]
pub struct NoHelp {
    pub assignment: Shown,
    /// Nothing: it would give it, but the reason of the denial stands in the way.
    pub flaw: Option<Flaw>,
    pub tenant: String,
}

/// Explains what [`check`] answers.
///
/// # Errors
/// The refusal of a caller who may not ask, or `UNAVAILABLE`.
pub async fn explain(app: &App, call: &Call, asked: &Asked<'_>) -> Result<Explained> {
    let permit = permit_known(app, call, asked.tenant).await?;
    let invited = match &permit {
        Some(permit) => {
            let now = app.clock.now();
            match &asked.subject {
                Named::Nobody(email) => sql::is_invited(&app.pool, permit, email, now).await?,
                Named::Id(SubjectId::User(user))
                | Named::Session(Some(SessionClaims { user, .. })) => {
                    sql::is_person_invited(&app.pool, permit, *user, now).await?
                }
                _ => false,
            }
        }
        None => false,
    };
    let now = app.clock.now();
    let explanation = app.replica.ask(|facts| explanation(facts, asked, now)).await?;
    let holders: HashSet<Holder> =
        explanation.considered.iter().map(|considered| considered.holding.holder).collect();
    let ids = match &permit {
        Some(permit) if !holders.is_empty() => {
            sql::assignments(&app.pool, permit, &holders).await?
        }
        _ => Ids::new(),
    };
    app.replica
        .ask(|facts| match admit(facts, call, asked.tenant, now)? {
            Ok(_) => explain_from(facts, asked, invited, &ids, now).map(Ok),
            Err(refusal) => Ok(Err(refusal)),
        })
        .await?
}

/// The ids of assignments by what they say, which the facts do without. One that was changed since the
/// decision has none.
type Ids = HashMap<Holding, AssignmentId>;

fn explanation(
    facts: &Facts,
    asked: &Asked<'_>,
    now: Time,
) -> Result<Explanation, TenantNotLoaded> {
    match asked.question(facts, now) {
        Some(question) => explain_decision(facts, &question),
        None => Ok(Explanation::of(Decision::because(no_subject(facts, asked.tenant)))),
    }
}

fn explain_from(
    facts: &Facts,
    asked: &Asked<'_>,
    invited: bool,
    ids: &Ids,
    now: Time,
) -> Result<Explained, TenantNotLoaded> {
    let explanation = explanation(facts, asked, now)?;
    let question = asked.question(facts, now);
    let allowed = explanation.decision.allowed();
    let considered = || explanation.considered.iter().filter(|_| !allowed);
    let remedies = if allowed {
        Vec::new()
    } else {
        remedy::remedies(facts, asked, question.as_ref(), &explanation, invited, ids, now)?
    };
    Ok(Explained {
        reason: explanation.decision.reason,
        message: remedy::sentence(explanation.decision.reason, asked),
        grounds: grounds(facts, &explanation, ids),
        considered: considered().take(MAX_CONSIDERED).map(|c| no_help(facts, c, ids)).collect(),
        considered_truncated: considered().count() > MAX_CONSIDERED,
        remedies,
        revision: facts.revision,
    })
}

fn grounds(facts: &Facts, explanation: &Explanation, ids: &Ids) -> Option<Grounds> {
    let grounds = explanation.grounds.as_ref()?;
    let path = explanation.include_path.iter();
    Some(Grounds {
        assignment: shown(facts, grounds, ids),
        include_path: path.map(|id| role_key(facts, grounds.home, *id)).collect(),
        matched: explanation.matched.clone(),
        tenant: tenant_key(facts, grounds.home),
    })
}

fn no_help(facts: &Facts, considered: &Considered, ids: &Ids) -> NoHelp {
    NoHelp {
        assignment: shown(facts, considered, ids),
        flaw: considered.flaw,
        tenant: tenant_key(facts, considered.home),
    }
}

fn shown(facts: &Facts, considered: &Considered, ids: &Ids) -> Shown {
    let Considered { home, holding, group, .. } = considered;
    let tenant = facts.tenant(*home);
    let workspace = holding.workspace.and_then(|id| tenant?.workspace_key(id));
    let group = group.and_then(|id| tenant?.group_key(id));
    Shown {
        id: ids.get(holding).copied(),
        role: role_key(facts, *home, holding.role),
        scope: scope_text(workspace, &holding.path),
        starts: holding.starts,
        ends: holding.ends,
        group: group.map(ToString::to_string).unwrap_or_default(),
    }
}

fn role_key(facts: &Facts, home: TenantId, role: RoleId) -> String {
    let role = facts.tenant(home).and_then(|tenant| tenant.role(role));
    role.map(|role| role.key.to_string()).unwrap_or_default()
}

fn tenant_key(facts: &Facts, tenant: TenantId) -> String {
    facts.directory.tenant_keys.get(&tenant).map(ToString::to_string).unwrap_or_default()
}
