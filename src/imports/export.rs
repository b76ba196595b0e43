//! The members of a tenant as a file that can be imported again.

use super::{
    columns::{Column, date_text, scope_cell},
    sql,
};
use crate::{
    access::{Claim, permit, renew},
    app::App,
    assignments::Shown,
    caller::Call,
    decision::{MemberKind, Time},
    error::Result,
    memberships::{self, Filter, Listed, Order, Person, Profile, StatusFilter},
    replica,
    sheet::{self, Download, Part, Separator},
};

/// People in one part.
const BATCH: i64 = 500;
/// So that spreadsheets take the file for UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub separator: Separator,
    /// `None`: everybody.
    pub status: Option<StatusFilter>,
}

/// Writes the file, on one snapshot, for as long as the caller may read it.
///
/// # Errors
/// The refusal of a caller who may not read, or not any more; a reader that does not keep up.
pub async fn members(
    app: App,
    call: Call,
    claim: Claim,
    wanted: Wanted,
    out: Download,
) -> Result<()> {
    let mut permitted = permit(&app, &call, &claim).await?;
    let mut tx = app.pool.begin_with("begin isolation level repeatable read, read only").await?;
    let revision = replica::position(&mut tx).await?;
    let now = app.clock.now();
    let columns = sql::columns(&mut tx, &permitted, now).await?;
    let header = [columns.iter().map(|column| column.name())];
    let header = sheet::write(wanted.separator, header)?;
    out.send(Part { chunk: [MARK, &header].concat(), revision }).await?;
    let filter = Filter {
        status: wanted.status,
        kind: None,
        role: None,
        workspace: None,
        department: None,
        external_id: None,
        query: None,
        last_sign_in_before: None,
        // An order that the same people have in any tenant.
        order: Order::Email,
        descending: false,
        now,
    };
    let mut after = None;
    loop {
        let page = memberships::page(&mut tx, &permitted, &filter, after.as_ref(), BATCH).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        let cells: Vec<Vec<String>> =
            page.iter().flat_map(|listed| rows(listed, &columns, now)).collect();
        let cells = cells.iter().map(|row| row.iter().map(String::as_str));
        let chunk = sheet::write(wanted.separator, cells)?;
        out.send(Part { chunk, revision }).await?;
        permitted = permit(&app, &renew(&app, &call).await?, &claim).await?;
    }
    Ok(tx.rollback().await?)
}

/// A row for every role of their own that is not over, or one without a role.
fn rows(listed: &Listed, columns: &[Column], now: Time) -> Vec<Vec<String>> {
    let (email, kind, profile) = match &listed.person {
        Person::Member(member) => (&member.email, member.kind, &member.profile),
        Person::Invited(invited) => (&invited.email, invited.kind, &invited.profile),
    };
    let own = |role: &&Shown| role.group.is_empty() && role.ends.is_none_or(|ends| ends > now);
    let mut roles: Vec<&Shown> = listed.roles.iter().filter(own).collect();
    roles.sort_by(|a, b| (&a.scope, &a.role).cmp(&(&b.scope, &b.role)));
    let without = roles.is_empty().then_some(None);
    roles
        .into_iter()
        .map(Some)
        .chain(without)
        .map(|role| columns.iter().map(|c| cell(*c, email, kind, profile, role, now)).collect())
        .collect()
}

fn cell(
    column: Column,
    email: &str,
    kind: MemberKind,
    profile: &Profile,
    role: Option<&Shown>,
    now: Time,
) -> String {
    match column {
        Column::FirstName => profile.first_name.clone(),
        Column::LastName => profile.last_name.clone(),
        Column::Email => email.to_owned(),
        Column::Department => profile.department.clone(),
        Column::JobTitle => profile.job_title.clone(),
        Column::Phone => profile.phone.clone(),
        Column::Location => profile.location.clone(),
        Column::Role => role.map(|role| role.role.clone()).unwrap_or_default(),
        Column::Workspace => {
            role.map(|role| scope_cell(&role.scope).to_owned()).unwrap_or_default()
        }
        Column::Until => date_text(role.and_then(|role| role.ends), true),
        // What has started is as if it had always been.
        Column::From => {
            date_text(role.and_then(|role| role.starts).filter(|starts| *starts > now), false)
        }
        Column::Kind => match kind {
            MemberKind::External => "external".to_owned(),
            MemberKind::Internal | MemberKind::Service => String::new(),
        },
    }
}

/// The columns of a file: the rarer ones only where they say something.
#[must_use]
pub fn columns(starts_later: bool, external: bool) -> Vec<Column> {
    let usual = Column::ALL[..Column::SCOPED].iter().copied();
    let from = starts_later.then_some(Column::From);
    usual.chain(from).chain(external.then_some(Column::Kind)).collect()
}
