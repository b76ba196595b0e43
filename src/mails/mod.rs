//! Mails: what became of those of a tenant, in whose name they go out, and a test that tells how far
//! one gets. The outbox sends; here is what people see of it.

mod rpc;
mod settings;
mod sql;

use chrono::TimeDelta;
use tokio::sync::mpsc::UnboundedReceiver;

pub use settings::MailSettings;

use crate::{
    app::App,
    attempts::{self, Limit},
    change::{Change, TenantRow},
    error::Result,
    mail::{Letter, Told},
    outbox::{self, NewMail, Template},
    text::Email,
};

/// Test mails of one tenant.
const TESTS: Limit = Limit { what: "mail test", burst: 10, every: TimeDelta::minutes(6) };

/// Sends a test mail in the name of a tenant and tells each step of the talk with the server as it ends.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` above ten in an hour.
pub async fn send_test(
    app: &App,
    tenant: TenantRow,
    to: Email,
    language: Option<String>,
) -> Result<UnboundedReceiver<Told>> {
    attempts::count(app, TESTS, &tenant.id.to_string()).await?;
    let mail = NewMail {
        template: Template::Test,
        language: language.unwrap_or(tenant.language),
        to,
        name: String::new(),
        invitation: None,
        account: None,
        content: [("tenant".to_owned(), tenant.display_name)].into(),
    };
    outbox::send_test(app, tenant.id, &mail).await
}

/// A mail of a tenant as it would be, with made-up names.
///
/// # Errors
/// When the database does not answer.
pub async fn preview(
    app: &App,
    tenant: TenantRow,
    template: Template,
    language: Option<String>,
) -> Result<Letter> {
    let language = language.unwrap_or(tenant.language);
    outbox::preview(app, tenant.id, template, &language, &tenant.display_name).await
}

/// Forgets the settings of a tenant that is being erased.
///
/// # Errors
/// When the database does not answer.
pub async fn erase(change: &mut Change) -> Result<()> {
    sql::erase(change).await
}
