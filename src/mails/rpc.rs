//! The MailService: generated types in and out.

use futures::{StreamExt, stream::BoxStream};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{
    MailSettings,
    settings::{self, SettingsEdit},
    sql,
};
use crate::{
    access::permit,
    app::Rpc,
    caller::Call,
    change::{self, Options, TenantRow},
    edit::{Mask, etag},
    error::{Error, Result},
    mail::{Step, Told},
    outbox::{self, Delivery, Mailing, Template},
    page::Page,
    proto::{self as pb, mail_service_server::MailService},
    text::{self, Email},
};

#[tonic::async_trait]
impl MailService for Rpc {
    type SendTestEmailStream = BoxStream<'static, Result<pb::SendTestEmailResponse, Status>>;

    async fn send_test_email(
        &self,
        request: Request<pb::SendTestEmailRequest>,
    ) -> Result<Response<Self::SendTestEmailStream>, Status> {
        let (call, request) = Call::split(request)?;
        let claim = call.claim(&request.tenant)?;
        let permit = permit(&self.0, &call, &claim).await?;
        let to = Email::enter("to", &request.to)?;
        let language = optional_language(&request.language)?;
        let tenant = TenantRow::get(&self.0.pool, &permit).await?;
        let told = super::send_test(&self.0, tenant, to, language).await?;
        let steps = UnboundedReceiverStream::new(told).map(|told| Ok(told.into()));
        Ok(Response::new(steps.boxed()))
    }

    async fn preview_mail(
        &self,
        request: Request<pb::PreviewMailRequest>,
    ) -> Result<Response<pb::PreviewMailResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let permit = permit(&self.0, &call, &call.claim(&request.tenant)?).await?;
        let template = Template::ALL.into_iter().find(|t| t.name() == request.kind);
        let template = template.ok_or_else(|| {
            let names = Template::ALL.map(Template::name).join("`, `");
            Error::invalid("kind", format!("expected one of `{names}`"))
        })?;
        let language = optional_language(&request.language)?;
        let tenant = TenantRow::get(&self.0.pool, &permit).await?;
        let letter = super::preview(&self.0, tenant, template, language).await?;
        Ok(Response::new(pb::PreviewMailResponse {
            subject: letter.subject,
            text: letter.text,
            html: letter.html,
            sender_name: letter.sender_name,
            reply_to: letter.reply_to.map(|to| to.as_str().to_owned()).unwrap_or_default(),
            revision: permit.revision().text(),
        }))
    }

    async fn list_mails(
        &self,
        request: Request<pb::ListMailsRequest>,
    ) -> Result<Response<pb::ListMailsResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let claim = call.claim(&request.tenant)?;
        let permit = permit(&self.0, &call, &claim).await?;
        let delivery = read_delivery("delivery", request.delivery)?;
        let binding = ("mails", &request.tenant, request.delivery);
        let page =
            Page::<Uuid>::read(&self.0.keys, &binding, request.page_size, &request.page_token)?;
        let mut rows =
            outbox::list(&self.0.pool, &permit, delivery, page.after, page.limit()).await?;
        let next_page_token = page.finish(&self.0.keys, &mut rows, |row| row.id.uuid())?;
        Ok(Response::new(pb::ListMailsResponse {
            mails: rows.into_iter().map(Into::into).collect(),
            next_page_token,
            revision: permit.revision().text(),
        }))
    }

    async fn get_mail_settings(
        &self,
        request: Request<pb::GetMailSettingsRequest>,
    ) -> Result<Response<pb::GetMailSettingsResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let permit = permit(&self.0, &call, &call.claim(&request.tenant)?).await?;
        let settings = Some(sql::get(&self.0.pool, &permit).await?.into());
        let revision = permit.revision().text();
        Ok(Response::new(pb::GetMailSettingsResponse { settings, revision }))
    }

    async fn update_mail_settings(
        &self,
        request: Request<pb::UpdateMailSettingsRequest>,
    ) -> Result<Response<pb::UpdateMailSettingsResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let edit = SettingsEdit::try_from(request)?;
        let answer = change::run(&self.0, &call, claim, options, edit, |change, edit| {
            Box::pin(async move {
                let settings = Some(settings::update(change, edit).await?.into());
                Ok(pb::UpdateMailSettingsResponse { settings, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn set_invitation_page(
        &self,
        request: Request<pb::SetInvitationPageRequest>,
    ) -> Result<Response<pb::SetInvitationPageResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = call.claim(&request.tenant)?;
        let page = settings::read_page("invitation_page", &request.invitation_page)?;
        let answer = change::run(&self.0, &call, claim, options, page, |change, page| {
            Box::pin(async move {
                let settings = Some(settings::set_invitation_page(change, page).await?.into());
                Ok(pb::SetInvitationPageResponse { settings, ..Default::default() })
            })
        });
        Ok(Response::new(answer.await?))
    }
}

const MAX_SENDER: usize = 100;
const DAY_SECONDS: i64 = 86_400;
const REMINDERS: std::ops::RangeInclusive<i64> = DAY_SECONDS..=29 * DAY_SECONDS;

impl TryFrom<pb::UpdateMailSettingsRequest> for SettingsEdit {
    type Error = Error;

    fn try_from(request: pb::UpdateMailSettingsRequest) -> Result<Self> {
        let mask = Mask::read(
            request.update_mask,
            &["sender_name", "reply_to", "home_url", "reminder_after"],
        )?;
        let sender = mask.pick("sender_name", request.sender_name);
        let reply_to = mask.pick("reply_to", request.reply_to);
        let home = mask.pick("home_url", request.home_url);
        let reminder = mask.pick("reminder_after", request.reminder_after);
        Ok(Self {
            sender_name: sender.map(|t| text::line("sender_name", &t, MAX_SENDER)).transpose()?,
            reply_to: reply_to.map(|t| optional_email("reply_to", &t)).transpose()?,
            home_url: home.map(|t| settings::read_url("home_url", &t)).transpose()?,
            reminder_after_seconds: reminder.map(reminder_after).transpose()?,
            etag: request.etag,
        })
    }
}

fn optional_language(text: &str) -> Result<Option<String>> {
    match text {
        "" => Ok(None),
        text => text::language("language", text, "").map(Some),
    }
}

fn optional_email(field: &str, text: &str) -> Result<String> {
    match text.trim() {
        "" => Ok(String::new()),
        text => Ok(Email::enter(field, text)?.as_str().to_owned()),
    }
}

fn reminder_after(given: Option<prost_types::Duration>) -> Result<Option<i64>> {
    let Some(given) = given else { return Ok(None) };
    let whole = given.nanos == 0 && given.seconds % DAY_SECONDS == 0;
    if whole && REMINDERS.contains(&given.seconds) {
        Ok(Some(given.seconds))
    } else {
        Err(Error::invalid("reminder_after", "whole days, from 1 to 29"))
    }
}

impl From<MailSettings> for pb::MailSettings {
    fn from(settings: MailSettings) -> Self {
        let duration = |seconds| prost_types::Duration { seconds, nanos: 0 };
        Self {
            sender_name: settings.sender_name,
            reply_to: settings.reply_to,
            home_url: settings.home_url,
            reminder_after: settings.reminder_after_seconds.map(duration),
            invitation_page: settings.invitation_page,
            etag: etag(settings.version),
        }
    }
}

fn read_delivery(field: &str, delivery: i32) -> Result<Option<Delivery>> {
    Ok(Some(match pb::Delivery::try_from(delivery) {
        Ok(pb::Delivery::Unspecified) => return Ok(None),
        Ok(pb::Delivery::Queued) => Delivery::Queued,
        Ok(pb::Delivery::Sending) => Delivery::Sending,
        Ok(pb::Delivery::Sent) => Delivery::Sent,
        Ok(pb::Delivery::Failed) => Delivery::Failed,
        Err(_) => return Err(Error::invalid(field, "expected QUEUED, SENDING, SENT or FAILED")),
    }))
}

impl From<Mailing> for pb::Mail {
    fn from(mailing: Mailing) -> Self {
        let waits = mailing.status == Delivery::Queued;
        Self {
            id: mailing.id.to_string(),
            kind: mailing.template.name().to_owned(),
            to: mailing.recipient,
            delivery: pb::Delivery::from(mailing.status).into(),
            attempts: mailing.attempts,
            last_error: mailing.last_error,
            next_attempt_time: waits.then(|| pb::timestamp(mailing.due_at)),
            create_time: Some(pb::timestamp(mailing.created_at)),
            send_time: mailing.sent_at.map(pb::timestamp),
            target: mailing.invitation.map(|id| id.to_string()).unwrap_or_default(),
        }
    }
}

impl From<Delivery> for pb::Delivery {
    fn from(delivery: Delivery) -> Self {
        match delivery {
            Delivery::Queued => Self::Queued,
            Delivery::Sending => Self::Sending,
            Delivery::Sent => Self::Sent,
            Delivery::Failed => Self::Failed,
        }
    }
}

impl From<Told> for pb::SendTestEmailResponse {
    fn from(told: Told) -> Self {
        Self { step: pb::StepName::from(told.step).into(), ok: told.ok, server_reply: told.reply }
    }
}

impl From<Step> for pb::StepName {
    fn from(step: Step) -> Self {
        match step {
            Step::Resolve => Self::Resolve,
            Step::Connect => Self::Connect,
            Step::Tls => Self::Tls,
            Step::Authenticate => Self::Authenticate,
            Step::Sender => Self::Sender,
            Step::Recipient => Self::Recipient,
            Step::Queued => Self::Queued,
        }
    }
}
