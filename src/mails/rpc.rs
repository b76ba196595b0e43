//! The MailService: generated types in and out.

use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{
    access::permit,
    app::Rpc,
    caller::Call,
    change::TenantRow,
    error::{Error, Result},
    mail::{Step, Talk},
    outbox::{self, Delivery, Mailing, Template},
    page::Page,
    proto::{self as pb, mail_service_server::MailService},
    replica::revision_text,
    text::{self, Email},
};

#[tonic::async_trait]
impl MailService for Rpc {
    async fn send_test_email(
        &self,
        request: Request<pb::SendTestEmailRequest>,
    ) -> Result<Response<pb::SendTestEmailResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let claim = call.claim(&request.tenant)?;
        let permit = permit(&self.0, &call, &claim).await?;
        let to = Email::parse("to", &request.to)?;
        let language = match request.language.as_str() {
            "" => None,
            language => Some(text::language("language", language, "")?),
        };
        let tenant = TenantRow::get(&self.0.pool, &permit).await?;
        let talk = super::send_test(&self.0, tenant, to, language).await?;
        Ok(Response::new(talk.into()))
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
            revision: revision_text(permit.revision()),
        }))
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
        let kind = match mailing.template {
            Template::Invitation => "invitation",
            Template::Test => "test",
        };
        Self {
            id: mailing.id.to_string(),
            kind: kind.to_owned(),
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

impl From<Talk> for pb::SendTestEmailResponse {
    fn from(talk: Talk) -> Self {
        let ok = talk.ok();
        let steps = talk.steps.into_iter().map(|told| pb::Step {
            name: pb::StepName::from(told.step).into(),
            ok: told.ok,
            server_reply: told.reply,
        });
        Self { ok, steps: steps.collect() }
    }
}

impl From<Step> for pb::StepName {
    fn from(step: Step) -> Self {
        match step {
            Step::Connect => Self::Connect,
            Step::Tls => Self::Tls,
            Step::Authenticate => Self::Authenticate,
            Step::Sender => Self::Sender,
            Step::Recipient => Self::Recipient,
            Step::Accepted => Self::Accepted,
        }
    }
}
