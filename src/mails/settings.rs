//! In whose name the mails of a tenant go out, and where they lead.

use http::Uri;

use super::sql;
use crate::{
    change::{Change, Event},
    edit::check_etag,
    error::{Error, Result},
};

/// The longest address of a page, in bytes.
const MAX_URL: usize = 500;
/// Stands for the token in the address of an invitation page.
pub const TOKEN: &str = "{token}";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailSettings {
    pub sender_name: String,
    pub reply_to: String,
    pub home_url: String,
    /// With [`TOKEN`]; empty: our own.
    pub invitation_page: String,
    pub reminder_after_seconds: Option<i64>,
    pub version: i64,
}

/// What to change; `None` leaves a field as it is.
#[derive(Debug, Clone)]
pub struct SettingsEdit {
    pub sender_name: Option<String>,
    pub reply_to: Option<String>,
    pub home_url: Option<String>,
    pub reminder_after_seconds: Option<Option<i64>>,
    pub etag: String,
}

/// # Errors
/// `ABORTED` for a stale etag.
pub async fn update(change: &mut Change, edit: SettingsEdit) -> Result<MailSettings> {
    let before = sql::find_in(change).await?;
    check_etag(&edit.etag, before.version)?;
    let mut after = before.clone();
    after.sender_name = edit.sender_name.unwrap_or(after.sender_name);
    after.reply_to = edit.reply_to.unwrap_or(after.reply_to);
    after.home_url = edit.home_url.unwrap_or(after.home_url);
    after.reminder_after_seconds =
        edit.reminder_after_seconds.unwrap_or(after.reminder_after_seconds);
    replace(change, before, after).await
}

/// Lets invitations lead to a page of the tenant's product; empty: to ours.
///
/// # Errors
/// When the database does not answer.
pub async fn set_invitation_page(change: &mut Change, page: String) -> Result<MailSettings> {
    let before = sql::find_in(change).await?;
    let after = MailSettings { invitation_page: page, ..before.clone() };
    replace(change, before, after).await
}

async fn replace(
    change: &mut Change,
    before: MailSettings,
    mut after: MailSettings,
) -> Result<MailSettings> {
    let tenant = change.tenant().key.clone();
    let event = Event::new("tenant.mail_updated", &tenant)
        .change("sender_name", &before.sender_name, &after.sender_name)
        .change("home_url", &before.home_url, &after.home_url)
        .change("invitation_page", &before.invitation_page, &after.invitation_page)
        .change(
            "reminder_after_seconds",
            &before.reminder_after_seconds,
            &after.reminder_after_seconds,
        )
        // It may be somebody's own address.
        .personal(&tenant, "reply_to", &before.reply_to, &after.reply_to);
    if !event.changes_anything() {
        return Ok(before);
    }
    after.version += 1;
    sql::upsert(change, &after).await?;
    change.record(event)?;
    Ok(after)
}

/// The address of a page: encrypted on its way, except on this machine, and nothing but an address.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field`.
pub fn read_url(field: &str, text: &str) -> Result<String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(String::new());
    }
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && !b"\"'<>\\^`{|}".contains(&b));
    let uri = text.parse::<Uri>().ok().filter(|_| plain && text.len() <= MAX_URL);
    let local = |uri: &Uri| matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
    let fits = uri.is_some_and(|uri| {
        let named = uri.authority().is_some_and(|a| !a.as_str().contains('@'));
        named
            && match uri.scheme_str() {
                Some("https") => true,
                Some("http") => local(&uri),
                _ => false,
            }
    });
    if fits {
        Ok(text.to_owned())
    } else {
        let wanted = format!(
            "expected an address such as `https://app.acme.com`, at most {MAX_URL} characters; \
             `http://` only for this machine"
        );
        Err(Error::invalid(field, wanted))
    }
}

/// The address of a page of invitations, with [`TOKEN`] behind the name of its host.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field`.
pub fn read_page(field: &str, text: &str) -> Result<String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(String::new());
    }
    let wrong = || {
        let wanted = format!("it needs `{TOKEN}` once, behind the host's name");
        Error::invalid(field, wanted)
    };
    let (before, after) = text.split_once(TOKEN).ok_or_else(wrong)?;
    read_url(field, &format!("{before}token{after}"))?;
    let host_ended = before.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    if host_ended && !after.contains(TOKEN) { Ok(text.to_owned()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_pages_are_encrypted_or_on_this_machine() {
        for good in
            ["", "https://app.acme.com", "https://a.example/x?y=1#z", "http://localhost:3000/"]
        {
            assert_eq!(read_url("home_url", good).unwrap(), good);
        }
        for bad in [
            "app.acme.com",
            "http://app.acme.com",
            "javascript:alert(1)",
            "https://acme.com@evil.example",
            "https://a.example/\"><script>",
            "https://a.example/ b",
            "https://a.example\r\nx: y",
            "data:text/html,x",
            "//evil.example",
            "https://",
        ] {
            assert!(read_url("home_url", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_page_of_invitations_takes_the_token_once_and_not_as_its_host() {
        let good = "https://app.acme.com/join?invitation={token}";
        assert_eq!(read_page("invitation_page", good).unwrap(), good);
        for bad in [
            "https://app.acme.com/join",
            "https://{token}.evil.example/",
            "https://app.acme.com{token}/",
            "https://app.acme.com/{token}/{token}",
            "http://app.acme.com/{token}",
        ] {
            assert!(read_page("invitation_page", bad).is_err(), "{bad}");
        }
    }
}
