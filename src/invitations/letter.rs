//! The mail that carries an invitation.

use chrono::Datelike;

use super::{Invitation, sql};
use crate::{
    change::Change,
    decision::Time,
    error::Result,
    outbox::{self, NewMail, Template},
};

/// Queues the mail with the link of the invitation's present generation.
///
/// # Errors
/// When the database does not answer.
pub async fn queue(change: &mut Change, invitation: &Invitation) -> Result<()> {
    let inviter = match change.call().person() {
        Some(user) => sql::name_of(change, user).await?,
        None => String::new(),
    };
    let expires = day(invitation.expires_at, &invitation.language);
    let tenant = change.tenant().display_name.clone();
    let content = [
        ("tenant", tenant),
        ("inviter", inviter),
        ("message", invitation.message.clone()),
        ("expires", expires),
    ];
    let profile = &invitation.profile;
    let mail = NewMail {
        template: Template::Invitation,
        language: invitation.language.clone(),
        to: invitation.email.clone(),
        name: format!("{} {}", profile.first_name, profile.last_name).trim().to_owned(),
        invitation: Some((invitation.id, invitation.generation)),
        content: content.map(|(key, value)| (key.to_owned(), value)).into(),
    };
    outbox::queue(change, &mail).await?;
    Ok(())
}

/// A time as people read it.
fn day(time: Time, language: &str) -> String {
    const ENGLISH: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const FRENCH: [&str; 12] = [
        "janvier",
        "février",
        "mars",
        "avril",
        "mai",
        "juin",
        "juillet",
        "août",
        "septembre",
        "octobre",
        "novembre",
        "décembre",
    ];
    let (months, at) = if language == "fr" { (FRENCH, "à") } else { (ENGLISH, "at") };
    let month = usize::try_from(time.month0()).ok().and_then(|at| months.get(at)).unwrap_or(&"");
    format!("{} {month} {} {at} {} UTC", time.day(), time.year(), time.format("%H:%M"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_the_language_of_the_mail() {
        let time: Time = "2026-08-01T09:05:00Z".parse().unwrap();
        assert_eq!(day(time, "en"), "1 August 2026 at 09:05 UTC");
        assert_eq!(day(time, "fr"), "1 août 2026 à 09:05 UTC");
    }
}
