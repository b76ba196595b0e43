//! Letters from templates: one text and one HTML file per language. In HTML every value is escaped.

use minijinja::{Environment, UndefinedBehavior};
use secrecy::{ExposeSecret, SecretString};

use super::{Due, NewMail, Style, Template};
use crate::{
    app::App,
    decision::Time,
    error::{Error, Result},
    ids::{MailId, UserId},
    mail::{Letter, Templates, TemplatesError},
    random,
    secret::Proof,
    text::{self, Email},
};

/// Steps of a template before it is given up.
const FUEL: u64 = 100_000;

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
    letter(app, due.id.into(), &mail, &style, link.as_deref(), due.created_at)
}

/// What the letter links to: the same however often it is rendered.
fn link(app: &App, due: &Due) -> Option<String> {
    let (page, token) = match (due.template, due.invitation_id, due.user_id) {
        (Template::Invitation | Template::Reminder, Some(invitation), _) => {
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
    app: &App,
    id: MailId,
    mail: &NewMail,
    style: &Style,
    link: Option<&str>,
    date: Time,
) -> Result<Letter> {
    let (subject, text, html) =
        words(&app.templates, mail, style, link).map_err(Error::internal)?;
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
        subject,
        text,
        html,
        date,
    })
}

/// Subject, text and HTML.
fn words(
    templates: &Templates,
    mail: &NewMail,
    style: &Style,
    link: Option<&str>,
) -> Result<(String, String, String), minijinja::Error> {
    let wording = templates.get(mail.template.name(), &mail.language);
    let wording = wording.ok_or(minijinja::ErrorKind::TemplateNotFound)?;
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // A template of the operators can loop for ever, too.
    environment.set_fuel(Some(FUEL));
    let home = Some(style.home_url.as_str()).filter(|home| !home.is_empty());
    let values = minijinja::context! {
        name => mail.name.clone(),
        link => link.map(plain),
        home => home.map(plain),
        ..minijinja::Value::from(mail.content.clone())
    };
    let text = environment.render_named_str("letter.txt", &wording.text, &values)?;
    let html = environment.render_named_str("letter.html", &wording.html, &values)?;
    let (subject, text) = text.split_once('\n').unwrap_or((&text, ""));
    Ok((subject.trim().to_owned(), text.trim_start().to_owned(), html))
}

/// A letter with made-up names and a link that leads nowhere.
///
/// # Errors
/// `INTERNAL` when the template is broken.
pub fn sample(
    app: &App,
    template: Template,
    language: &str,
    tenant: &str,
    style: &Style,
    now: Time,
) -> Result<Letter> {
    let link = match style.invitation_page.as_str() {
        "" => format!("{}/invitations/rci_sample", app.public_url),
        page => page.replace("{token}", "rci_sample"),
    };
    let mail = made_up(template, language, tenant, now)?;
    letter(app, random::id(now)?, &mail, style, Some(&link), now)
}

fn made_up(template: Template, language: &str, tenant: &str, now: Time) -> Result<NewMail> {
    let expires = text::moment(now + chrono::TimeDelta::days(7), language);
    let message = if language == "fr" { "À lundi !" } else { "See you on Monday!" };
    let values: &[(&str, &str)] = &[
        ("tenant", tenant),
        ("inviter", "Jean Martin"),
        ("message", message),
        ("expires", &expires),
        ("person", "Maria Smith"),
        ("email", "maria@company.example"),
        ("state", "expired"),
        ("minutes", "10"),
    ];
    Ok(NewMail {
        template,
        language: language.to_owned(),
        to: Email::parse("to", "maria@company.example")?,
        name: "Maria Smith".to_owned(),
        invitation: None,
        account: None,
        content: values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    })
}

/// Finds out at the start whether every template works, rather than when somebody waits for the letter.
///
/// # Errors
/// For the first that does not.
pub fn check(templates: &Templates, now: Time) -> Result<(), TemplatesError> {
    for template in Template::ALL {
        for language in ["en", "fr"] {
            let broken = |reason: String| TemplatesError::Broken {
                name: template.name().to_owned(),
                language: language.to_owned(),
                reason,
            };
            let mail = made_up(template, language, "Acme", now);
            let mail = mail.map_err(|error| broken(error.to_string()))?;
            let link = Some("https://id.example.com/invitations/rci_sample");
            let (subject, text, html) = words(templates, &mail, &Style::default(), link)
                .map_err(|error| broken(error.to_string()))?;
            if subject.is_empty() {
                return Err(broken("its first line, the subject, is empty".to_owned()));
            }
            let leads = |part: &str| part.contains("rci_sample");
            let linked = match template {
                Template::Invitation
                | Template::Reminder
                | Template::PasswordReset
                | Template::EmailChange => true,
                Template::Request | Template::Test | Template::EmailChanged => false,
            };
            if linked && !(leads(&text) && leads(&html)) {
                return Err(broken("it has no `{{ link }}`".to_owned()));
            }
        }
    }
    Ok(())
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

    fn invitation(language: &str, message: &str) -> (String, String, String) {
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
        words(&Templates::read(None).unwrap(), &mail, &Style::default(), link).unwrap()
    }

    #[test]
    fn both_parts_say_who_invites_where_until_when_and_link() {
        for language in ["en", "fr"] {
            let (subject, text, html) = invitation(language, "See you\non Monday");
            assert!(subject.contains("Acme & Sons"), "{subject}");
            for part in [&text, &html] {
                for word in ["Jean", "14:05 UTC", "https://a.example/invitations/rci_x", "Monday"] {
                    assert!(part.contains(word), "{language} {word}: {part}");
                }
            }
            assert!(html.contains("Acme &amp; Sons") && html.contains("Maria &lt;b&gt;"), "{html}");
        }
    }

    #[test]
    fn what_people_type_stays_text() {
        let (_, _, html) = invitation("en", "<script>alert(1)</script>");
        assert!(!html.contains("<script>"), "{html}");
        assert!(!invitation("en", "").1.contains("writes:"));
    }

    #[test]
    fn templates_that_cannot_work_are_found_before_they_are_needed() {
        check(&Templates::read(None).unwrap(), Time::default()).unwrap();
        for (text, wanted) in [
            ("Hello\n{{ lnik }}", "undefined"),
            ("Hello\n{% if %}", "syntax"),
            ("\nHello {{ link }}", "subject"),
            ("Hello\nno way in", "{{ link }}"),
            (
                "Hello\n{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
                "fuel",
            ),
        ] {
            let folder =
                std::env::temp_dir().join(format!("rolecall-broken-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("reminder.fr.txt"), text).unwrap();
            let refused = check(&Templates::read(Some(&folder)).unwrap(), Time::default());
            let refused = refused.unwrap_err().to_string();
            assert!(
                refused.contains("reminder.fr") && refused.contains(wanted),
                "{text}: {refused}"
            );
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
}
