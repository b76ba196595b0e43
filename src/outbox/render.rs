//! Letters from templates: one text and one HTML file per language. In HTML every value is escaped.

use minijinja::{Environment, UndefinedBehavior};
use secrecy::{ExposeSecret, SecretString};

use super::{Due, NewMail, Style, Template};
use crate::{
    app::App,
    decision::Time,
    error::{Error, Result},
    ids::{MailId, UserId},
    mail::Letter,
    secret::Proof,
    text::{self, Email},
};

/// The text, whose first line is the subject, and the HTML of a template.
fn source(template: Template, language: &str) -> (&'static str, &'static str) {
    macro_rules! mail {
        ($name:literal) => {
            (
                include_str!(concat!("../", $name, ".txt")),
                include_str!(concat!("../", $name, ".html")),
            )
        };
    }
    match (template, language) {
        (Template::Invitation, "fr") => mail!("invitations/mails/invitation.fr"),
        (Template::Invitation, _) => mail!("invitations/mails/invitation.en"),
        (Template::Request, "fr") => mail!("invitations/mails/request.fr"),
        (Template::Request, _) => mail!("invitations/mails/request.en"),
        (Template::Test, "fr") => mail!("mails/templates/test.fr"),
        (Template::Test, _) => mail!("mails/templates/test.en"),
        (Template::PasswordReset, "fr") => mail!("recovery/mails/password-reset.fr"),
        (Template::PasswordReset, _) => mail!("recovery/mails/password-reset.en"),
        (Template::EmailChange, "fr") => mail!("recovery/mails/email-change.fr"),
        (Template::EmailChange, _) => mail!("recovery/mails/email-change.en"),
        (Template::EmailChanged, "fr") => mail!("recovery/mails/email-changed.fr"),
        (Template::EmailChanged, _) => mail!("recovery/mails/email-changed.en"),
    }
}

pub fn render(app: &App, due: &Due) -> Result<Letter> {
    let link = link(app, due);
    let mail = NewMail {
        template: due.template,
        language: due.language.clone(),
        to: Email::parse("recipient", &due.recipient)?,
        name: due.recipient_name.clone(),
        invitation: None,
        account: None,
        content: due.content.0.clone(),
    };
    let style = Style {
        sender_name: due.sender_name.clone(),
        reply_to: due.reply_to.clone(),
        home_url: due.home_url.clone(),
        invitation_page: String::new(),
    };
    letter(due.id.into(), &mail, &style, link.as_deref(), due.created_at)
}

/// What the letter links to: the same however often it is rendered.
fn link(app: &App, due: &Due) -> Option<String> {
    let (page, token) = match (due.template, due.invitation_id, due.user_id) {
        (Template::Invitation, Some(invitation), _) => {
            let (tenant, invitation) = (due.tenant_id.into(), invitation.into());
            let token = app.keys.invitation_token(tenant, invitation, due.generation);
            if !due.invitation_page.is_empty() {
                return Some(due.invitation_page.replace("{token}", token.expose_secret()));
            }
            ("invitations", token)
        }
        (Template::PasswordReset, _, Some(user)) => {
            ("password-resets", proof(app, due, Proof::PASSWORD_RESET, user.into()))
        }
        (Template::EmailChange, _, Some(user)) => {
            ("email-changes", proof(app, due, Proof::EMAIL_CHANGE, user.into()))
        }
        _ => return None,
    };
    Some(format!("{}/{page}/{}", app.public_url, token.expose_secret()))
}

fn proof(app: &App, due: &Due, proof: Proof, user: UserId) -> SecretString {
    app.keys.proof_token(proof, user, due.generation, due.created_at + proof.lifetime())
}

/// The letter that a template makes of its content.
///
/// # Errors
/// `INTERNAL` when the template names what the content lacks.
pub fn letter(
    id: MailId,
    mail: &NewMail,
    style: &Style,
    link: Option<&str>,
    date: Time,
) -> Result<Letter> {
    let (text, html) = source(mail.template, &mail.language);
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let home = Some(style.home_url.as_str()).filter(|home| !home.is_empty());
    let values = minijinja::context! {
        name => mail.name.clone(),
        link => link.map(plain),
        home => home.map(plain),
        ..minijinja::Value::from(mail.content.clone())
    };
    let written = environment.render_named_str("letter.txt", text, &values);
    let written = written.map_err(Error::internal)?;
    let html = environment.render_named_str("letter.html", html, &values);
    let (subject, text) = written.split_once('\n').unwrap_or((&written, ""));
    let reply_to = match style.reply_to.as_str() {
        "" => None,
        address => Some(Email::parse("reply_to", address)?),
    };
    Ok(Letter {
        id,
        sender_name: style.sender_name.clone(),
        reply_to,
        to: mail.to.clone(),
        name: mail.name.clone(),
        subject: subject.trim().to_owned(),
        text: text.trim_start().to_owned(),
        html: html.map_err(Error::internal)?,
        date,
    })
}

/// A link as it is: escaping its slashes is right, but looks like hiding something to mail filters.
fn plain(link: &str) -> minijinja::Value {
    match text::is_plain(link) {
        true => minijinja::Value::from_safe_string(link.to_owned()),
        false => link.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invitation(language: &str, message: &str) -> Letter {
        let mail = NewMail {
            template: Template::Invitation,
            language: language.to_owned(),
            to: Email::parse("to", "maria@company.com").unwrap(),
            name: "Maria <b>".to_owned(),
            invitation: None,
            account: None,
            content: [
                ("tenant", "Acme & Sons"),
                ("inviter", "Jean"),
                ("message", message),
                ("expires", "28 November 2026, 14:05 UTC"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        };
        let link = Some("https://a.example/invitations/rci_x");
        letter(uuid::Uuid::nil().into(), &mail, &Style::default(), link, Time::default()).unwrap()
    }

    #[test]
    fn both_parts_say_who_invites_where_until_when_and_link() {
        for language in ["en", "fr"] {
            let letter = invitation(language, "See you\non Monday");
            assert!(letter.subject.contains("Acme & Sons"), "{}", letter.subject);
            for part in [&letter.text, &letter.html] {
                for word in ["Jean", "14:05 UTC", "https://a.example/invitations/rci_x", "Monday"] {
                    assert!(part.contains(word), "{language} {word}: {part}");
                }
            }
            assert!(
                letter.html.contains("Acme &amp; Sons") && letter.html.contains("Maria &lt;b&gt;")
            );
        }
    }

    #[test]
    fn what_people_type_stays_text() {
        let letter = invitation("en", "<script>alert(1)</script>");
        assert!(!letter.html.contains("<script>"), "{}", letter.html);
        assert!(!invitation("en", "").text.contains("writes:"));
    }
}
