//! Role assignments in and out of generated types, for every service that gives or shows them.

use super::{NewAssignment, Shown};
use crate::{
    error::{Error, Result},
    ids::AssignmentId,
    proto as pb,
};

/// The most roles that one request gives, and the most that it takes away.
const MAX_GIVEN: usize = 100;

impl NewAssignment {
    /// Reads the roles that a request gives in the list `field`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for too many, or a time outside the calendar.
    pub fn read(field: &str, roles: Vec<pb::AssignRole>) -> Result<Vec<Self>> {
        check_length(field, roles.len())?;
        let read = |(at, role): (usize, pb::AssignRole)| {
            let field = format!("{field}[{at}]");
            Ok(Self {
                role: role.role,
                scope: role.scope,
                starts: pb::time(&format!("{field}.start_time"), role.start_time)?,
                ends: pb::time(&format!("{field}.end_time"), role.end_time)?,
                field,
            })
        };
        roles.into_iter().enumerate().map(read).collect()
    }
}

/// Reads the assignments that a request takes away in the list `field`.
///
/// # Errors
/// `INVALID_ARGUMENT` for too many, or what is not the id of an assignment.
pub fn read_ids(field: &str, ids: &[String]) -> Result<Vec<AssignmentId>> {
    check_length(field, ids.len())?;
    let read = |(at, id): (usize, &String)| {
        id.parse().map_err(|error| Error::invalid(format!("{field}[{at}]"), error))
    };
    ids.iter().enumerate().map(read).collect()
}

fn check_length(field: &str, length: usize) -> Result<()> {
    if length > MAX_GIVEN {
        return Err(Error::invalid(field, format!("at most {MAX_GIVEN}; make several calls")));
    }
    Ok(())
}

impl From<Shown> for pb::RoleAssignment {
    fn from(shown: Shown) -> Self {
        Self {
            id: shown.id.map(|id| id.to_string()).unwrap_or_default(),
            role: shown.role,
            scope: shown.scope,
            start_time: shown.starts.map(pb::timestamp),
            end_time: shown.ends.map(pb::timestamp),
            group: shown.group,
        }
    }
}
