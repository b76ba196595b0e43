//! The columns of a file, in both directions: what the cells of a row say, as far as it can be known
//! without looking at the tenant, and how a member is written.

use chrono::{NaiveDate, SecondsFormat, TimeDelta};

use crate::{
    change::nearest,
    decision::{MemberKind, Resource, Time},
    error::{Error, Result},
    memberships::{MAX_PROFILE, Profile},
    sheet::{Limits, Row, SheetError, Table},
    text::{self, Email},
};

/// The most rows below the header.
pub const MAX_ROWS: usize = 1_000;
const LIMITS: Limits =
    Limits { rows: MAX_ROWS + 1, columns: Column::ALL.len(), row_bytes: 16 << 10 };
/// Of what was written and could not be read, as much is shown.
const SHOWN: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    FirstName,
    LastName,
    Email,
    Role,
    Department,
    JobTitle,
    Phone,
    Location,
    Workspace,
    Until,
    From,
    Kind,
}

impl Column {
    pub const ALL: [Self; 12] = [
        Self::FirstName,
        Self::LastName,
        Self::Email,
        Self::Role,
        Self::Department,
        Self::JobTitle,
        Self::Phone,
        Self::Location,
        Self::Workspace,
        Self::Until,
        Self::From,
        Self::Kind,
    ];
    /// What a file has when nothing is out of the ordinary.
    pub const USUAL: usize = 8;
    /// With where a role holds, and until when.
    pub const SCOPED: usize = 10;

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FirstName => "first_name",
            Self::LastName => "last_name",
            Self::Email => "email",
            Self::Role => "role",
            Self::Department => "department",
            Self::JobTitle => "job_title",
            Self::Phone => "phone",
            Self::Location => "location",
            Self::Workspace => "workspace",
            Self::Until => "until",
            Self::From => "from",
            Self::Kind => "kind",
        }
    }

    fn named(written: &str) -> Option<Self> {
        let name = written.to_lowercase().replace([' ', '-'], "_");
        Self::ALL.into_iter().find(|column| column.name() == name)
    }
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    pub column: Column,
    pub message: String,
    /// What may have been meant.
    pub suggestions: Vec<String>,
}

impl Flaw {
    pub fn new(column: Column, message: impl ToString) -> Self {
        Self { column, message: message.to_string(), suggestions: Vec::new() }
    }

    /// A refusal as what is wrong with a row; what says nothing about the row stays an error.
    ///
    /// # Errors
    /// The error itself, when the row is not its cause.
    pub fn of(column: Column, error: Error) -> Result<Self> {
        match error {
            Error::Invalid(violations) => {
                let first = violations.into_iter().next();
                Ok(Self::new(column, first.map_or_else(String::new, |v| v.description)))
            }
            Error::Denied { .. } | Error::Precondition { .. } | Error::NotFound { .. } => {
                Ok(Self::new(column, error))
            }
            error => Err(error),
        }
    }
}

/// A row as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub row: u32,
    /// As it was written, shortened; the address itself, when it is one.
    pub written_email: String,
    pub email: Option<Email>,
    pub profile: Profile,
    pub kind: MemberKind,
    /// The role as it was written; empty: none.
    pub role: String,
    /// As [`Resource::parse`] reads it; empty: the tenant.
    pub scope: String,
    pub starts: Option<Time>,
    pub ends: Option<Time>,
    pub flaws: Vec<Flaw>,
}

/// The rows of a file.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field` when the file is no table of people.
pub fn read(field: &str, bytes: &[u8]) -> Result<(Table, Vec<Line>)> {
    let invalid = |error: SheetError| Error::invalid(field, error);
    let mut table = crate::sheet::read(bytes, &LIMITS).map_err(invalid)?;
    let rows = std::mem::take(&mut table.rows);
    let (header, rows) = rows.split_first().ok_or_else(|| invalid(SheetError::Empty))?;
    let columns = header.cells.iter().map(|cell| column(cell)).collect::<Result<Vec<_>, _>>();
    let columns = columns.map_err(|wrong| Error::invalid(field, wrong))?;
    if let Some(twice) = twice(&columns) {
        let name = twice.name();
        let wrong = format!("two columns are called `{name}`; delete or rename one");
        return Err(Error::invalid(field, wrong));
    }
    if !columns.contains(&Some(Column::Email)) {
        let wrong = "no column is called `email`; the first row must name the columns, as in the \
                     template";
        return Err(Error::invalid(field, wrong));
    }
    if rows.is_empty() {
        return Err(Error::invalid(field, "no rows below the header; add people"));
    }
    let lines = rows.iter().map(|row| Line::read(row, &columns)).collect();
    Ok((table, lines))
}

/// The column that a cell of the first row names; an empty one is nothing, if nothing is below it.
fn column(cell: &str) -> Result<Option<Column>, String> {
    if cell.is_empty() {
        return Ok(None);
    }
    Column::named(cell).map(Some).ok_or_else(|| {
        let shown: String = cell.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
        let names = Column::ALL.map(Column::name);
        let likely = nearest(&cell.to_lowercase(), names.into_iter());
        let remedy = match likely.first() {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("delete it, or name it one of `{}`", names.join("`, `")),
        };
        format!("no column is called `{shown}`; {remedy}")
    })
}

fn twice(columns: &[Option<Column>]) -> Option<Column> {
    let named = || columns.iter().flatten();
    named().find(|column| named().filter(|other| other == column).count() > 1).copied()
}

impl Line {
    fn read(row: &Row, columns: &[Option<Column>]) -> Self {
        let mut flaws = Vec::new();
        let cell = |wanted: Column| {
            let at = columns.iter().position(|column| *column == Some(wanted));
            at.and_then(|at| row.cells.get(at)).map_or("", String::as_str)
        };
        let nameless =
            row.cells.iter().enumerate().find(|(at, cell)| {
                !cell.is_empty() && columns.get(*at).is_none_or(Option::is_none)
            });
        if nameless.is_some() {
            let wrong = "the row has more cells than the header has names; put cells that hold a \
                         separator in quotes";
            flaws.push(Flaw::new(Column::Email, wrong));
        }
        let mut keep = |column: Column, read: Result<String>| match read {
            Ok(text) => text,
            Err(error) => {
                flaws.extend(Flaw::of(column, error));
                shown(cell(column))
            }
        };
        let mut line =
            |column: Column| keep(column, text::line(column.name(), cell(column), MAX_PROFILE));
        let profile = Profile {
            first_name: line(Column::FirstName),
            last_name: line(Column::LastName),
            department: line(Column::Department),
            job_title: line(Column::JobTitle),
            location: line(Column::Location),
            phone: String::new(),
        };
        let role = line(Column::Role);
        let phone = keep(Column::Phone, phone(cell(Column::Phone)));
        let scope = keep(Column::Workspace, scope(cell(Column::Workspace)));
        let mut note = |column: Column, error: Error| flaws.extend(Flaw::of(column, error));
        let email = Email::enter("email", cell(Column::Email));
        let email = email.map_err(|error| note(Column::Email, error)).ok();
        let mut day = |column, last| {
            date(cell(column), last).map_err(|error| note(column, error)).unwrap_or_default()
        };
        let (starts, ends) = (day(Column::From, false), day(Column::Until, true));
        let kind = match cell(Column::Kind).to_lowercase().as_str() {
            "" | "internal" => MemberKind::Internal,
            "external" => MemberKind::External,
            _ => {
                let wrong = "expected `internal` or `external`, or nothing, which is internal";
                flaws.push(Flaw::new(Column::Kind, wrong));
                MemberKind::Internal
            }
        };
        if role.is_empty() && !(scope.is_empty() && starts.is_none() && ends.is_none()) {
            let wrong = "the row says where or when, and not which role; name the role";
            flaws.push(Flaw::new(Column::Role, wrong));
        }
        let written_email = match &email {
            Some(email) => email.as_str().to_owned(),
            None => shown(cell(Column::Email)),
        };
        let profile = Profile { phone, ..profile };
        let row = row.number;
        Self { row, written_email, email, profile, kind, role, scope, starts, ends, flaws }
    }
}

fn shown(cell: &str) -> String {
    cell.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

/// A phone as people write it: with spaces and the like, and `00` for the plus.
fn phone(cell: &str) -> Result<String> {
    let dense: String = cell
        .chars()
        .filter(|c| !(c.is_whitespace() || matches!(c, '.' | '-' | '(' | ')')))
        .collect();
    match dense.strip_prefix("00") {
        Some(rest) => text::phone("phone", &format!("+{rest}")),
        None => text::phone("phone", &dense),
    }
}

/// A scope, written as such or as the key of a workspace.
fn scope(cell: &str) -> Result<String> {
    let scope = match cell {
        "" => String::new(),
        scope if scope.contains('/') => scope.to_owned(),
        key => format!("workspaces/{key}"),
    };
    Resource::parse(&scope).map_err(|error| Error::invalid("workspace", error))?;
    Ok(scope)
}

/// A time, or a day: its start, or with `last` its end.
fn date(cell: &str, last: bool) -> Result<Option<Time>> {
    if cell.is_empty() {
        return Ok(None);
    }
    if let Ok(time) = cell.parse::<Time>() {
        // As exact as it is stored.
        return Ok(Time::from_timestamp_micros(time.timestamp_micros()));
    }
    let midnight = NaiveDate::parse_from_str(cell, "%Y-%m-%d").ok().filter(|_| cell.len() == 10);
    let day = midnight.and_then(|day| day.checked_add_signed(TimeDelta::days(i64::from(last))));
    let time = day.map(|day| day.and_time(chrono::NaiveTime::MIN).and_utc());
    let wanted = "expected a day such as `2026-12-31`, or a time such as `2026-12-31T18:00:00Z`";
    time.map(Some).ok_or_else(|| Error::invalid("until", wanted))
}

/// A time as [`date`] reads it.
pub fn date_text(time: Option<Time>, last: bool) -> String {
    let Some(time) = time else { return String::new() };
    if time.time() == chrono::NaiveTime::MIN {
        let day = time.date_naive().checked_sub_signed(TimeDelta::days(i64::from(last)));
        let text = day.map(|day| day.format("%Y-%m-%d").to_string()).unwrap_or_default();
        if text.len() == 10 {
            return text;
        }
    }
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// A scope as [`scope`] reads it, as short as can be.
pub fn scope_cell(scope: &str) -> &str {
    match scope.strip_prefix("workspaces/") {
        Some(key) if !key.contains('/') => key,
        _ => scope,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "first_name,last_name,email,role,department,job_title,phone,location\n\
        John,Doe,john.doe@company.com,employee,Sales,Sales Manager,+14155551234,New York\n\
        Maria,Smith,maria.smith@company.com,hr,HR,HR Director,+33612345678,Paris\n";

    fn lines(text: &str) -> Vec<Line> {
        read("chunk", text.as_bytes()).unwrap().1
    }

    fn wrong(text: &str) -> String {
        read("chunk", text.as_bytes()).unwrap_err().to_string()
    }

    fn flaws(text: &str) -> Vec<(u32, &'static str)> {
        let named =
            |line: Line| line.flaws.into_iter().map(move |flaw| (line.row, flaw.column.name()));
        lines(text).into_iter().flat_map(named).collect()
    }

    #[test]
    fn the_example_of_the_product_documents_is_read_as_it_is_meant() {
        let lines = lines(EXAMPLE);
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.flaws.is_empty()));
        let maria = &lines[1];
        assert_eq!((maria.row, maria.role.as_str(), maria.scope.as_str()), (3, "hr", ""));
        assert_eq!(maria.written_email, "maria.smith@company.com");
        let Profile { first_name, job_title, phone, location, .. } = &maria.profile;
        let read = [first_name, job_title, phone, location];
        assert_eq!(read, ["Maria", "HR Director", "+33612345678", "Paris"]);
    }

    #[test]
    fn columns_are_found_by_their_names_and_others_are_refused() {
        assert_eq!(
            lines("EMAIL;First Name;job-title\na@b.fr;Ana;Boss")[0].profile.job_title,
            "Boss"
        );
        assert!(wrong("email,e-mail\n").contains("did you mean `email`?"));
        assert!(wrong("email,workpsace\na@b.fr,x").contains("did you mean `workspace`?"));
        assert!(wrong("email,Email\n").contains("two columns are called `email`"));
        assert!(wrong("\u{435}mail\na@b.fr").contains("no column is called"));
        assert!(wrong("first_name\nAna").contains("no column is called `email`"));
        assert!(wrong("email\n").contains("add people"));
        assert!(wrong("email,=cmd|' /C calc'!A0\n").contains("no column is called"));
        assert_eq!(flaws("email,\na@b.fr,x"), [(2, "email")]);
        assert_eq!(flaws("email\na@b.fr,x"), [(2, "email")]);
    }

    #[test]
    fn every_cell_that_is_wrong_is_named_by_its_column() {
        let header = "first_name,email,role,phone,workspace,until,from,kind\n";
        for (row, column) in [
            ("Ana,a@b,r,,,,,", "email"),
            (",,,,,,,", "email"),
            ("A\u{202e}na,a@b.fr,r,,,,,", "first_name"),
            ("Ana,a@b.fr,r,0612345678,,,,", "phone"),
            ("Ana,a@b.fr,r,3.36E+10,,,,", "phone"),
            ("Ana,a@b.fr,r,,Paris!,,,", "workspace"),
            ("Ana,a@b.fr,r,,folders/,,,", "workspace"),
            ("Ana,a@b.fr,r,,,31/12/2026,,", "until"),
            ("Ana,a@b.fr,r,,,,tomorrow,", "from"),
            ("Ana,a@b.fr,r,,,,,boss", "kind"),
            ("Ana,a@b.fr,,,paris,,,", "role"),
            ("Ana,a@b.fr,,,,2026-12-31,,", "role"),
        ] {
            let found = if row.starts_with(",,") {
                // A row of nothing is no row.
                continue;
            } else {
                flaws(&format!("{header}{row}"))
            };
            assert_eq!(found, [(2, column)], "{row}");
        }
        let long = format!("{header}{},a@b.fr,{},,,,,", "x".repeat(101), "y".repeat(101));
        assert_eq!(flaws(&long), [(2, "first_name"), (2, "role")]);
    }

    #[test]
    fn phones_pass_as_people_write_them() {
        for (written, read) in [
            ("+33 6 12 34 56 78", "+33612345678"),
            ("0033.6.12.34.56.78", "+33612345678"),
            ("+1 (415) 555-1234", "+14155551234"),
            ("'+33612345678", "+33612345678"),
        ] {
            let lines = lines(&format!("email,phone\na@b.fr,{written}"));
            assert_eq!(lines[0].profile.phone, read);
        }
    }

    #[test]
    fn days_and_times_are_read_as_they_are_written() {
        let time = |text: &str| text.parse::<Time>().unwrap();
        let until = date("2026-12-31", true).unwrap();
        assert_eq!(until, Some(time("2027-01-01T00:00:00Z")));
        assert_eq!(date("2026-12-31", false).unwrap(), Some(time("2026-12-31T00:00:00Z")));
        for (text, last) in [
            ("2026-12-31", true),
            ("2026-12-31", false),
            ("2026-12-31T18:00:00Z", true),
            ("2026-12-31T18:00:00.000001Z", false),
            ("", true),
        ] {
            assert_eq!(date_text(date(text, last).unwrap(), last), text);
        }
        let zone = date("2026-12-31T18:00:00+01:00", true).unwrap();
        assert_eq!(date_text(zone, true), "2026-12-31T17:00:00Z");
        for wrong in
            ["2026-02-30", "2026-1-1", "31.12.2026", "2026-12-31T25:00:00Z", "+262143-01-01"]
        {
            assert!(date(wrong, true).is_err(), "{wrong}");
        }
    }

    #[test]
    fn scopes_are_keys_of_workspaces_or_paths() {
        for (cell, text) in [
            ("", ""),
            ("paris", "workspaces/paris"),
            ("workspaces/paris/folders/42", "workspaces/paris/folders/42"),
            ("folders/42", "folders/42"),
        ] {
            assert_eq!(scope(cell).unwrap(), text);
            assert_eq!(scope_cell(text), cell);
        }
        assert_eq!(scope("workspaces/paris").unwrap(), "workspaces/paris");
    }
}
