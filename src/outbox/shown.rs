//! What people see of letters: those of a tenant, a sample of each kind, and a test that is sent at once.

use sqlx::PgPool;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{Delivery, NewMail, Style, Template, render};
use crate::{
    access::Permit,
    app::App,
    decision::Time,
    error::Result,
    ids::{InvitationId, MailId, TenantId},
    mail::{Letter, Talk, Told},
    random,
};

/// A letter as lists show it.
#[derive(Debug, Clone)]
pub struct Mailing {
    pub id: MailId,
    pub template: Template,
    pub recipient: String,
    pub invitation: Option<InvitationId>,
    pub status: Delivery,
    pub attempts: i32,
    pub last_error: String,
    pub due_at: Time,
    pub created_at: Time,
    pub sent_at: Option<Time>,
}

/// Lists the letters of a tenant, newest first.
///
/// # Errors
/// When the database does not answer.
pub async fn list(
    pool: &PgPool,
    permit: &Permit,
    delivery: Option<Delivery>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Mailing>> {
    let rows = sqlx::query_as!(
        Mailing,
        r#"select id "id: MailId", template "template: Template", recipient,
                  invitation_id "invitation: InvitationId", status "status: Delivery", attempts,
                  last_error, due_at, created_at, sent_at
           from mails
           where tenant_id = $1 and ($2::text is null or status = $2) and ($3::uuid is null or id < $3)
           order by id desc limit $4"#,
        permit.tenant() as TenantId,
        delivery as Option<Delivery>,
        before,
        limit
    )
    .fetch_all(pool)
    .await?;
    Ok(rows)
}

/// Sends a test letter of a tenant at once, past the outbox; the steps of the talk are told as they end,
/// also of a letter that nobody waits for any more.
///
/// # Errors
/// When the letter cannot be written down.
pub async fn send_test(
    app: &App,
    tenant: TenantId,
    test: &NewMail,
) -> Result<mpsc::UnboundedReceiver<Told>> {
    let now = app.clock.now();
    let style = style(&app.pool, tenant).await?;
    let letter = render::letter(app, random::id(now)?, test, &style, None, now)?;
    let (listener, heard) = mpsc::unbounded_channel();
    let app = app.clone();
    tokio::spawn(async move {
        let mut talk = Talk::heard(listener);
        if let Err(error) = app.mail.send(&letter, &mut talk).await {
            tracing::error!(%error, "a test mail cannot be written");
        }
    });
    Ok(heard)
}

/// A letter of a tenant as it would be, with made-up names and a link that leads nowhere.
///
/// # Errors
/// `INTERNAL` when the template is broken.
pub async fn preview(
    app: &App,
    tenant: TenantId,
    template: Template,
    language: &str,
    tenant_name: &str,
) -> Result<Letter> {
    let (style, now) = (style(&app.pool, tenant).await?, app.clock.now());
    render::sample(app, template, language, tenant_name, &style, now)
}

async fn style(pool: &PgPool, tenant: TenantId) -> Result<Style> {
    let style = sqlx::query_as!(
        Style,
        "select sender_name, reply_to, home_url, invitation_page
         from mail_settings where tenant_id = $1",
        tenant as TenantId
    );
    Ok(style.fetch_optional(pool).await?.unwrap_or_default())
}
