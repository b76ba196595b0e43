//! What becomes of every row, by the tenant as it is under the lock: who is new, who is a member, which
//! role is meant, and what the caller may not do.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{
    ImportStatus, Totals,
    columns::{Column, Flaw, Line},
    names::Names,
    sql::{self, Known},
};
use crate::{
    assignments::{self, NewAssignment, Resolved},
    change::{Change, Scope, Seats},
    decision::{MemberKind, Time},
    error::{Difference, Error, Result},
    ids::{Holder, RoleId, SubjectId, UserId},
    invitations,
    memberships::{self, Profile},
    roles,
    text::Email,
};

/// What committing does with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Invite,
    AddRole,
    AlreadyMember,
    AlreadyInvited,
}

/// A row, judged.
#[derive(Debug, Clone)]
pub struct Judged {
    /// None when something is wrong.
    pub action: Option<Action>,
    /// The role that is meant, or comes by itself.
    pub role: Option<(RoleId, String)>,
    pub ends: Option<Time>,
    /// The first row of the same person, if this is not it.
    pub same_person_as: Option<u32>,
    /// Of the row itself, and of the row in this tenant.
    pub flaws: Vec<Flaw>,
}

/// What must still hold of a row when it is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    action: Option<Action>,
    role: Option<RoleId>,
}

/// Everything judged: by row, and by person.
pub struct Judgement {
    pub rows: Vec<Judged>,
    pub people: Vec<Person>,
    /// That the plan of the tenant has left; `None`: as many as they like.
    pub seats_free: Option<i64>,
}

pub struct Person {
    /// Where among the lines the person comes first.
    pub first: usize,
    pub effect: Effect,
}

pub enum Effect {
    /// Something is wrong with a row of theirs.
    Unclear,
    Nothing,
    Invite(Vec<NewAssignment>),
    AddRoles(UserId, Vec<NewAssignment>),
}

/// A plan as it waits: what was read, and what it came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    pub lines: Vec<PlannedLine>,
    pub verdicts: Vec<Verdict>,
    pub language: Option<String>,
    pub message: String,
}

/// A line without flaws.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlannedLine {
    row: u32,
    email: Email,
    profile: Profile,
    kind: MemberKind,
    role: String,
    scope: String,
    starts: Option<Time>,
    ends: Option<Time>,
}

impl Plan {
    pub fn new(
        lines: &[Line],
        judged: &Judgement,
        language: Option<String>,
        message: String,
    ) -> Self {
        let planned = lines.iter().filter_map(|line| {
            Some(PlannedLine {
                row: line.row,
                email: line.email.clone()?,
                profile: line.profile.clone(),
                kind: line.kind,
                role: line.role.clone(),
                scope: line.scope.clone(),
                starts: line.starts,
                ends: line.ends,
            })
        });
        let verdicts = judged.rows.iter().map(Judged::verdict).collect();
        Self { lines: planned.collect(), verdicts, language, message }
    }
}

impl From<PlannedLine> for Line {
    fn from(planned: PlannedLine) -> Self {
        let PlannedLine { row, email, profile, kind, role, scope, starts, ends } = planned;
        let written_email = email.as_str().to_owned();
        let (email, flaws) = (Some(email), Vec::new());
        Self { row, written_email, email, profile, kind, role, scope, starts, ends, flaws }
    }
}

impl Judged {
    fn verdict(&self) -> Verdict {
        Verdict { action: self.action, role: self.role.as_ref().map(|(id, _)| *id) }
    }
}

impl Judgement {
    pub fn totals(&self) -> Totals {
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let people = |wanted: fn(&Effect) -> bool| {
            count(self.people.iter().filter(|person| wanted(&person.effect)).count())
        };
        Totals {
            rows: count(self.rows.len()),
            people: count(self.people.len()),
            invited: people(|effect| matches!(effect, Effect::Invite(_))),
            changed: people(|effect| matches!(effect, Effect::AddRoles(..))),
            unchanged: people(|effect| matches!(effect, Effect::Nothing)),
            rows_with_errors: count(self.rows.iter().filter(|row| !row.flaws.is_empty()).count()),
        }
    }

    /// What is not as it was when the verdicts were given.
    pub fn differences(&self, lines: &[Line], verdicts: &[Verdict]) -> Vec<Difference> {
        let rows = self.rows.iter().zip(lines).zip(verdicts);
        rows.filter_map(|((judged, line), verdict)| {
            let (kind, description) = judged.difference(verdict)?;
            Some(Difference { kind, subject: format!("row {}", line.row), description })
        })
        .collect()
    }
}

impl Judged {
    fn difference(&self, before: &Verdict) -> Option<(&'static str, String)> {
        use Action::{AddRole, AlreadyInvited, AlreadyMember, Invite};
        if let Some(flaw) = self.flaws.first() {
            let kind = match flaw.column {
                Column::Role | Column::Workspace | Column::From | Column::Until => "ROLE",
                _ => "OTHER",
            };
            return Some((kind, flaw.message.clone()));
        }
        let now = self.verdict();
        let idle = |action| matches!(action, Some(AlreadyMember | AlreadyInvited));
        if now == *before || idle(now.action) && idle(before.action) {
            return None;
        }
        Some(match (before.action, now.action) {
            (before, now) if before == now => {
                ("ROLE", "what is written means another role now".to_owned())
            }
            (Some(Invite), Some(AlreadyInvited)) => {
                ("INVITATION", "somebody else has invited this person".to_owned())
            }
            (Some(Invite), _) => ("MEMBER", "this person has become a member".to_owned()),
            (Some(AlreadyInvited), _) => {
                ("INVITATION", "this person's invitation is not open any more".to_owned())
            }
            (_, Some(Invite | AlreadyInvited)) => {
                ("MEMBER", "this person is not a member any more".to_owned())
            }
            (_, Some(AddRole)) => ("MEMBER", "this member has lost the role".to_owned()),
            _ => ("MEMBER", "this member has got the role".to_owned()),
        })
    }
}

/// Judges all rows.
///
/// # Errors
/// When the database does not answer.
pub async fn judge(change: &mut Change, lines: &[Line]) -> Result<Judgement> {
    let mut judge = Judge {
        names: Names::new(roles::names(change).await?),
        known: sql::known(change, lines).await?,
        scopes: HashMap::new(),
        resolved: HashMap::new(),
    };
    let mut rows = Vec::with_capacity(lines.len());
    for line in lines {
        rows.push(judge.row(change, line).await?);
    }
    let mut people = Vec::new();
    for at in people_of(lines) {
        people.push(judge.person(change, lines, &mut rows, &at)?);
    }
    let (tenant, now) = (change.tenant().id, change.now());
    let seats_free = Seats::count(change.conn(), tenant, now).await?.free();
    Ok(Judgement { rows, people, seats_free })
}

/// The places of each person's rows, in the order in which they come; a row without an address is a
/// person of its own.
fn people_of(lines: &[Line]) -> Vec<Vec<usize>> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut people: Vec<Vec<usize>> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let known = line
            .email
            .as_ref()
            .map(|email| *places.entry(email.canonical()).or_insert(people.len()));
        match known {
            Some(place) if place < people.len() => people[place].push(at),
            _ => people.push(vec![at]),
        }
    }
    people
}

/// A role on a scope with dates, which many rows share.
type Wanted = (RoleId, String, Option<Time>, Option<Time>);

struct Judge {
    names: Names,
    known: Known,
    scopes: HashMap<String, Result<Scope, Flaw>>,
    resolved: HashMap<Wanted, Result<Resolved, Flaw>>,
}

impl Judge {
    /// A row by itself, without a look at the others of the same person.
    async fn row(&mut self, change: &mut Change, line: &Line) -> Result<Judged> {
        let mut judged = Judged {
            action: None,
            role: None,
            ends: line.ends,
            same_person_as: None,
            flaws: line.flaws.clone(),
        };
        if !line.role.is_empty() {
            match self.names.find(&line.role) {
                Ok((key, id)) => judged.role = Some((id, key.to_string())),
                Err(flaw) => judged.flaws.push(flaw),
            }
        }
        let scope = self.scope(change, &line.scope).await?;
        if let Err(flaw) = &scope {
            judged.flaws.push(flaw.clone());
        }
        if judged.role.is_none() || scope.is_err() {
            // What cannot be given is not looked at as a whole, but all that is wrong with it is said.
            let dates = assignments::check_end("until", line.starts, line.ends, change.now());
            if let Err(error) = dates {
                judged.flaws.push(Flaw::of(Column::Until, error)?);
            }
        }
        let Some(email) = &line.email else {
            if let (Some((role, key)), Ok(_)) = (judged.role.clone(), &scope)
                && let Err(flaw) = self.resolve(change, role, &key, line).await?
            {
                judged.flaws.push(flaw);
            }
            return Ok(judged);
        };
        let member = self.known.members.get(email.canonical()).copied();
        if member.is_none() && self.known.invited.contains(email.canonical()) {
            judged.action = Some(Action::AlreadyInvited);
            return Ok(judged);
        }
        let action = if member.is_some() { Action::AddRole } else { Action::Invite };
        judged.action = Some(action);
        let Some((role, key)) = judged.role.clone() else {
            match member {
                Some(_) => judged.action = Some(Action::AlreadyMember),
                None if line.role.is_empty() => judged.role = self.default_role(change),
                None => {}
            }
            return Ok(judged);
        };
        let Ok(scope) = scope else { return Ok(judged) };
        let held = member.and_then(|user| self.known.held(user, role, &scope, change.now()));
        if let Some((_, ends)) = held
            && line.starts.is_none()
            && line.ends.is_none()
        {
            (judged.action, judged.ends) = (Some(Action::AlreadyMember), ends);
            return Ok(judged);
        }
        match self.resolve(change, role, &key, line).await? {
            Ok(resolved) => {
                judged.ends = resolved.ends;
                if held == Some((resolved.starts, resolved.ends)) {
                    judged.action = Some(Action::AlreadyMember);
                }
            }
            Err(flaw) => judged.flaws.push(flaw),
        }
        Ok(judged)
    }

    fn default_role(&self, change: &Change) -> Option<(RoleId, String)> {
        let role = change.tenant().default_role?;
        Some((role, self.names.key(role)?.to_string()))
    }

    async fn scope(&mut self, change: &mut Change, text: &str) -> Result<Result<Scope, Flaw>> {
        if let Some(known) = self.scopes.get(text) {
            return Ok(known.clone());
        }
        let found = match change.scope("workspace", text).await {
            Ok(scope) => Ok(scope),
            Err(error) => Err(Flaw::of(Column::Workspace, error)?),
        };
        self.scopes.insert(text.to_owned(), found.clone());
        Ok(found)
    }

    async fn resolve(
        &mut self,
        change: &mut Change,
        role: RoleId,
        key: &str,
        line: &Line,
    ) -> Result<Result<Resolved, Flaw>> {
        let wanted = (role, line.scope.clone(), line.starts, line.ends);
        if let Some(known) = self.resolved.get(&wanted) {
            return Ok(known.clone());
        }
        let new = assignment(line, key);
        let resolved = match assignments::resolve(change, &new).await {
            Ok(resolved) => Ok(resolved),
            Err(error) => {
                let column =
                    if error.field().ends_with("time") { Column::Until } else { Column::Role };
                Err(Flaw::of(column, error)?)
            }
        };
        self.resolved.insert(wanted, resolved.clone());
        Ok(resolved)
    }

    /// The rows of a person together.
    fn person(
        &self,
        change: &Change,
        lines: &[Line],
        rows: &mut [Judged],
        places: &[usize],
    ) -> Result<Person> {
        let Some((&first, others)) = places.split_first() else {
            return Err(Error::internal("a person without rows"));
        };
        for at in others {
            rows[*at].same_person_as = Some(lines[first].row);
            rows[*at].flaws.extend(contradiction(&lines[first], &lines[*at]));
        }
        for (n, at) in places.iter().enumerate() {
            let same = places[..n].iter().find(|other| {
                rows[**other].role == rows[*at].role && lines[**other].scope == lines[*at].scope
            });
            if let Some(same) = same {
                let message = format!(
                    "row {} has the same person with the same role; delete one of the two",
                    lines[*same].row
                );
                rows[*at].flaws.push(Flaw::new(Column::Email, message));
            }
        }
        let line = &lines[first];
        if let Some(email) =
            line.email.as_ref().filter(|_| rows[first].action == Some(Action::Invite))
        {
            let may = change.require(invitations::permission(line.kind), "");
            let fits = memberships::require_domain(change, line.kind, email);
            for (column, outcome) in [(Column::Kind, may), (Column::Email, fits)] {
                if let Err(error) = outcome {
                    rows[first].flaws.push(Flaw::of(column, error)?);
                }
            }
        }
        let roles = self.roles(change, lines, rows, places)?;
        let unclear = places.iter().any(|at| !rows[*at].flaws.is_empty());
        let effect = match rows[first].action {
            _ if unclear => Effect::Unclear,
            Some(Action::Invite) => Effect::Invite(roles),
            Some(Action::AddRole | Action::AlreadyMember) if !roles.is_empty() => {
                let user = line.email.as_ref().and_then(|e| self.known.members.get(e.canonical()));
                user.map_or(Effect::Nothing, |user| Effect::AddRoles(*user, roles))
            }
            _ => Effect::Nothing,
        };
        for at in places {
            if !rows[*at].flaws.is_empty() {
                rows[*at].action = None;
            }
        }
        Ok(Person { first, effect })
    }

    /// What the rows of a person give; none of it twice, and nothing that excludes another.
    fn roles(
        &self,
        change: &Change,
        lines: &[Line],
        rows: &mut [Judged],
        places: &[usize],
    ) -> Result<Vec<NewAssignment>> {
        let mut given: Vec<Resolved> = Vec::new();
        let mut roles = Vec::new();
        let email = places.first().and_then(|first| lines[*first].email.as_ref());
        let member = email.and_then(|email| self.known.members.get(email.canonical()));
        for at in places {
            let (line, row) = (&lines[*at], &mut rows[*at]);
            let gives = matches!(row.action, Some(Action::Invite | Action::AddRole));
            let Some((role, key)) = row.role.as_ref().filter(|_| gives && !line.role.is_empty())
            else {
                continue;
            };
            let wanted = (*role, line.scope.clone(), line.starts, line.ends);
            let Some(Ok(resolved)) = self.resolved.get(&wanted) else { continue };
            roles.push(assignment(line, key));
            let Resolved { role: found, scope, ends, .. } = resolved;
            let beside = assignments::check_beside(change, &given, resolved, "role");
            let raised = member.map_or(Ok(()), |user| {
                let holder = Holder::Subject(SubjectId::User(*user));
                change.require_no_raise(holder, found.id, scope, *ends)
            });
            if row.flaws.is_empty()
                && let Err(error) = beside.and(raised)
            {
                row.flaws.push(Flaw::of(Column::Role, error)?);
            }
            given.push(resolved.clone());
        }
        Ok(roles)
    }
}

/// Where two rows of the same person say different things.
fn contradiction(first: &Line, other: &Line) -> Option<Flaw> {
    let (a, b) = (&first.profile, &other.profile);
    let different = [
        (Column::FirstName, &a.first_name, &b.first_name),
        (Column::LastName, &a.last_name, &b.last_name),
        (Column::Department, &a.department, &b.department),
        (Column::JobTitle, &a.job_title, &b.job_title),
        (Column::Phone, &a.phone, &b.phone),
        (Column::Location, &a.location, &b.location),
    ];
    let differs = different.into_iter().find(|(_, a, b)| a != b && !b.is_empty());
    let column = match differs {
        Some((column, ..)) => column,
        None if first.kind != other.kind => Column::Kind,
        None => return None,
    };
    let message = format!(
        "row {} is the same person, by the address, and says something else here; make both the same",
        first.row
    );
    Some(Flaw::new(column, message))
}

fn assignment(line: &Line, key: &str) -> NewAssignment {
    NewAssignment {
        field: format!("row {}", line.row),
        role: key.to_owned(),
        scope: line.scope.clone(),
        starts: line.starts,
        ends: line.ends,
    }
}

impl ImportStatus {
    /// As it is at a time: a plan that nobody committed is over by itself.
    #[must_use]
    pub fn at(self, expires: Time, now: Time) -> Self {
        if self == Self::Planned && expires <= now { Self::Expired } else { self }
    }
}
