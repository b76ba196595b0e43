//! The outbox: letters are queued in the change that they tell about, and sent by a worker that
//! claims them, tries again for about a day, and then gives up visibly.
//!
//! Owns the table `mails`, which is bookkeeping: no decision and no audit reads it.

mod render;
mod shown;

pub use render::check;
pub use shown::{Mailing, list, preview, send_test};

use std::{collections::BTreeMap, panic::AssertUnwindSafe, time::Duration};

use chrono::TimeDelta;
use futures::FutureExt;
use sqlx::{PgExecutor, PgPool, types::Json};
use tokio::{sync::watch, task::JoinSet};
use uuid::Uuid;

use crate::{
    app::App,
    change::Change,
    decision::Time,
    error::Result,
    ids::{InvitationId, MailId, TenantId, UserId},
    mail::Talk,
    random,
    text::Email,
};

/// Letters that are sent at once. One that takes long holds up none but itself.
const AT_ONCE: usize = 8;
/// How long the worker rests when nothing is due.
const REST: Duration = Duration::from_millis(500);
/// Longer than [`crate::mail::TALK`]: a claim older than this was left by a worker that died.
const LEASE: TimeDelta = TimeDelta::seconds(75);
/// The first pause after a failure doubles up to the longest; all of them make about a day.
const FIRST_PAUSE: TimeDelta = TimeDelta::seconds(15);
const LONGEST_PAUSE: TimeDelta = TimeDelta::hours(4);
const MAX_ATTEMPTS: i32 = 16;

/// What a letter says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Template {
    Invitation,
    /// An invitation that waits.
    Reminder,
    /// Somebody asks for a new link.
    Request,
    Test,
    PasswordReset,
    EmailChange,
    EmailChanged,
}

impl Template {
    pub const ALL: [Self; 7] = [
        Self::Invitation,
        Self::Reminder,
        Self::Request,
        Self::Test,
        Self::PasswordReset,
        Self::EmailChange,
        Self::EmailChanged,
    ];

    /// Of its files, and of what lists say.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invitation => "invitation",
            Self::Reminder => "reminder",
            Self::Request => "request",
            Self::Test => "test",
            Self::PasswordReset => "password_reset",
            Self::EmailChange => "email_change",
            Self::EmailChanged => "email_changed",
        }
    }
}

/// How far a letter got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Delivery {
    Queued,
    Sending,
    Sent,
    Failed,
}

/// The values that a template names.
pub type Content = BTreeMap<String, String>;

/// A letter to be sent. What it links to is derived when it is rendered, never kept.
#[derive(Debug, Clone)]
pub struct NewMail {
    pub template: Template,
    /// `en` or `fr`.
    pub language: String,
    pub to: Email,
    pub name: String,
    /// The invitation that it links to, and the generation of the link.
    pub invitation: Option<(InvitationId, i32)>,
    /// The account that it is about, and the generation of the link.
    pub account: Option<(UserId, i32)>,
    pub content: Content,
}

/// Queues a letter; it is sent when the change is committed, and only then.
///
/// # Errors
/// When the database does not answer.
pub async fn queue(change: &mut Change, new: &NewMail) -> Result<MailId> {
    let (tenant, now, id) = (change.tenant().id, change.now(), change.id()?);
    insert(change.conn(), tenant, id, new, now).await?;
    Ok(id)
}

/// Queues a reminder by itself, since it changes nothing; `false` when its link has one already.
///
/// # Errors
/// When the database does not answer.
pub async fn queue_reminder(app: &App, tenant: TenantId, new: &NewMail) -> Result<bool> {
    let now = app.clock.now();
    insert(&app.pool, tenant, random::id(now)?, new, now).await
}

async fn insert(
    db: impl PgExecutor<'_>,
    tenant: TenantId,
    id: MailId,
    new: &NewMail,
    now: Time,
) -> Result<bool> {
    let (invitation, generation) = new.invitation.unzip();
    let (user, of_account) = new.account.unzip();
    let done = sqlx::query!(
        "insert into mails (tenant_id, id, template, language, recipient, recipient_name,
                            invitation_id, generation, content, due_at, created_at, user_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11)
         on conflict (tenant_id, invitation_id, generation) where template = 'reminder' do nothing",
        tenant as TenantId,
        id as MailId,
        new.template as Template,
        new.language,
        new.to.as_str(),
        new.name,
        invitation.map(Uuid::from),
        generation.or(of_account).unwrap_or_default(),
        Json(&new.content) as _,
        now,
        user.map(Uuid::from)
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes back what waits to be sent about an invitation whose links are dead.
///
/// # Errors
/// When the database does not answer.
pub async fn withdraw(change: &mut Change, invitation: InvitationId, why: &str) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "update mails set status = 'failed', last_error = $3, content = '{}'
         where tenant_id = $1 and invitation_id = $2 and status = 'queued'",
        tenant as TenantId,
        invitation as InvitationId,
        why
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

/// Erases the letters of this tenant to a person, and those about these invitations; returns how many.
///
/// # Errors
/// When the database does not answer.
pub async fn erase(
    change: &mut Change,
    user: UserId,
    email: &str,
    invitations: &[InvitationId],
) -> Result<u64> {
    let tenant = change.tenant().id;
    let invitations: Vec<Uuid> = invitations.iter().map(|id| id.uuid()).collect();
    let done = sqlx::query!(
        "delete from mails where tenant_id = $1
           and (invitation_id = any($2)
                or invitation_id is null and (user_id = $3 or lower(recipient) = lower($4)))",
        tenant as TenantId,
        &invitations,
        user as UserId,
        email
    )
    .execute(change.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Erases the letters of a tenant that is being erased.
///
/// # Errors
/// When the database does not answer.
pub async fn erase_all(change: &mut Change) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!("delete from mails where tenant_id = $1", tenant as TenantId)
        .execute(change.conn())
        .await?;
    Ok(())
}

/// Erases the letters about an account that goes.
///
/// # Errors
/// When the database does not answer.
pub async fn erase_of_account(change: &mut Change, user: UserId) -> Result<()> {
    sqlx::query!("delete from mails where user_id = $1", user as UserId)
        .execute(change.conn())
        .await?;
    Ok(())
}

/// In whose name the letters of a tenant go out, and where they lead; what is empty is the installation's.
#[derive(Debug, Clone, Default)]
pub struct Style {
    pub sender_name: String,
    pub reply_to: String,
    pub home_url: String,
    /// With `{token}`.
    pub invitation_page: String,
}

/// A claimed letter.
struct Due {
    tenant_id: Uuid,
    id: Uuid,
    template: Template,
    language: String,
    recipient: String,
    recipient_name: String,
    invitation_id: Option<Uuid>,
    user_id: Option<Uuid>,
    generation: i32,
    content: Json<Content>,
    attempts: i32,
    created_at: Time,
    sender_name: String,
    reply_to: String,
    home_url: String,
    invitation_page: String,
}

/// Sends what is due until it is told to stop, and then ends what it began. Killing it loses nothing:
/// its claims are taken again after their lease.
pub async fn run(app: App, mut stop: watch::Receiver<bool>) {
    let mut sending = JoinSet::new();
    while !*stop.borrow() {
        while sending.try_join_next().is_some() {}
        let places = AT_ONCE - sending.len();
        let due = match places {
            0 => Vec::new(),
            places => claim(&app.pool, app.clock.now(), places).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the outbox could not be read");
                Vec::new()
            }),
        };
        let more = due.len() == places;
        for mail in due {
            let app = app.clone();
            sending.spawn(async move { deliver(&app, &mail).await });
        }
        tokio::select! {
            _ = sending.join_next(), if more && !sending.is_empty() => {}
            () = tokio::time::sleep(REST) => {}
            // Whoever could say so is gone: that says it, too.
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    while sending.join_next().await.is_some() {}
}

async fn claim(pool: &PgPool, now: Time, most: usize) -> sqlx::Result<Vec<Due>> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    sqlx::query_as!(
        Due,
        r#"update mails m set status = 'sending', claimed_at = $1, attempts = m.attempts + 1
           from (select q.tenant_id, q.id, s.* from mails q
                 left join lateral (select sender_name, reply_to, home_url, invitation_page
                                    from mail_settings where tenant_id = q.tenant_id) s on true
                 where q.status in ('queued', 'sending') and q.due_at <= $1
                   and (q.status = 'queued' or q.claimed_at <= $2)
                 order by q.due_at limit $3 for update of q skip locked) due
           where m.tenant_id = due.tenant_id and m.id = due.id
           returning m.tenant_id, m.id, m.template "template: Template", m.language, m.recipient,
                     m.recipient_name, m.invitation_id, m.user_id, m.generation,
                     m.content "content: Json<Content>", m.attempts, m.created_at,
                     coalesce(due.sender_name, '') "sender_name!",
                     coalesce(due.reply_to, '') "reply_to!",
                     coalesce(due.home_url, '') "home_url!",
                     coalesce(due.invitation_page, '') "invitation_page!""#,
        now,
        now - LEASE,
        most
    )
    .fetch_all(pool)
    .await
}

async fn send(app: &App, mail: &Due) -> Talk {
    let mut talk = Talk::default();
    let sent = match render::render(app, mail) {
        Ok(letter) => app.mail.send(&letter, &mut talk).await,
        Err(error) => Err(error),
    };
    if let Err(error) = sent {
        tracing::error!(mail = %MailId::from_uuid(mail.id), ?error, "a mail cannot be written");
        return Talk::impossible();
    }
    talk
}

async fn deliver(app: &App, mail: &Due) {
    let id = MailId::from_uuid(mail.id);
    // Whatever one letter does, the others are sent.
    let talk = AssertUnwindSafe(send(app, mail)).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(mail = %id, "writing a mail panicked");
        Talk::impossible()
    });
    let told = match talk.last_reply() {
        _ if talk.ok() => "",
        "" => "the mail cannot be written; ask the operators",
        reply => reply,
    };
    let over = talk.refused || mail.attempts >= MAX_ATTEMPTS;
    let status = match talk.ok() {
        true => Delivery::Sent,
        false if over => Delivery::Failed,
        false => Delivery::Queued,
    };
    let outcome = match status {
        Delivery::Sent => "sent",
        Delivery::Failed => "given_up",
        Delivery::Queued | Delivery::Sending => "to_be_tried_again",
    };
    metrics::counter!("rolecall_mails_total", "outcome" => outcome).increment(1);
    if status != Delivery::Sent {
        // What the server says may hold the address, which belongs in no log.
        tracing::warn!(mail = %id, attempts = mail.attempts, ?status, "a mail was not accepted");
    }
    let now = app.clock.now();
    let due = now + pause(mail.attempts);
    if let Err(error) = finish(&app.pool, mail, status, told, due, now).await {
        tracing::warn!(mail = %id, %error, "what became of a mail could not be noted");
    }
}

/// The pause after so many attempts: doubled each time, and up to a quarter longer by chance, so that
/// letters which failed together do not come back together.
fn pause(attempts: i32) -> TimeDelta {
    let doublings = u32::try_from(attempts.clamp(1, 20) - 1).unwrap_or_default();
    let pause = (FIRST_PAUSE * 2_i32.pow(doublings)).min(LONGEST_PAUSE);
    let chance = random::bytes::<1>().map_or(0, |[byte]| i32::from(byte));
    pause + pause * chance / 1024
}

/// A worker that lost its claim in the meantime changes nothing.
async fn finish(
    pool: &PgPool,
    mail: &Due,
    status: Delivery,
    told: &str,
    due: Time,
    now: Time,
) -> sqlx::Result<()> {
    let sent_at = (status == Delivery::Sent).then_some(now);
    // What is not sent again need not be kept: it is about people.
    sqlx::query!(
        "update mails set status = $3, last_error = $4, due_at = $5, claimed_at = null, sent_at = $6,
                          content = case when $3 in ('sent', 'failed') then '{}' else content end
         where tenant_id = $1 and id = $2 and status = 'sending' and attempts = $7",
        mail.tenant_id,
        mail.id,
        status as Delivery,
        told,
        due,
        sent_at,
        mail.attempts
    )
    .execute(pool)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_make_about_a_day() {
        assert!(pause(1) >= FIRST_PAUSE && pause(1) < FIRST_PAUSE * 2);
        assert!(pause(1_000) >= LONGEST_PAUSE && pause(1_000) < LONGEST_PAUSE * 2);
        let all = (1..MAX_ATTEMPTS).map(pause).fold(TimeDelta::zero(), |sum, next| sum + next);
        assert!(all > TimeDelta::hours(20) && all < TimeDelta::hours(36), "{all}");
    }
}
