//! The table `mail_settings`.

use sqlx::{PgExecutor, PgPool};

use super::MailSettings;
use crate::{access::Permit, change::Change, error::Result, ids::TenantId};

pub async fn get(pool: &PgPool, permit: &Permit) -> Result<MailSettings> {
    find(pool, permit.tenant()).await
}

/// The settings of the tenant of the change, as the change has made them.
pub async fn find_in(change: &mut Change) -> Result<MailSettings> {
    let tenant = change.tenant().id;
    find(change.conn(), tenant).await
}

async fn find(db: impl PgExecutor<'_>, tenant: TenantId) -> Result<MailSettings> {
    let row = sqlx::query_as!(
        MailSettings,
        "select sender_name, reply_to, home_url, invitation_page, reminder_after_seconds, version
         from mail_settings where tenant_id = $1",
        tenant as TenantId
    )
    .fetch_optional(db)
    .await?;
    Ok(row.unwrap_or_default())
}

pub async fn upsert(change: &mut Change, settings: &MailSettings) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "insert into mail_settings (tenant_id, sender_name, reply_to, home_url, invitation_page,
                                    reminder_after_seconds, version)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (tenant_id) do update set
             sender_name = $2, reply_to = $3, home_url = $4, invitation_page = $5,
             reminder_after_seconds = $6, version = $7",
        tenant as TenantId,
        settings.sender_name,
        settings.reply_to,
        settings.home_url,
        settings.invitation_page,
        settings.reminder_after_seconds,
        settings.version
    )
    .execute(change.conn())
    .await?;
    Ok(())
}

pub async fn erase(change: &mut Change) -> Result<()> {
    let tenant = change.tenant().id;
    sqlx::query!(
        "update mail_settings set sender_name = '', reply_to = '', home_url = '', invitation_page = '',
                                  reminder_after_seconds = null
         where tenant_id = $1",
        tenant as TenantId
    )
    .execute(change.conn())
    .await?;
    Ok(())
}
