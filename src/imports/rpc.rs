//! The ImportService: generated types in and out.

use std::time::Duration;

use futures::{StreamExt, stream::BoxStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::{
    Action, Import, ImportStatus, Judged, NewImport, Progress, Totals,
    columns::{Flaw, Line},
    export::{self, Wanted},
    sql::{self, Filter},
};
use crate::{
    access::{Permit, claim_any, permit},
    app::{App, Rpc},
    caller::Call,
    change::{self, Options},
    decision::MemberStatus,
    error::{Error, Result},
    ids::{ImportId, Revision},
    memberships::StatusFilter,
    page::Page,
    proto::{self as pb, import_service_server::ImportService},
    roles,
    sheet::{self, Separator},
    text,
};

/// The largest file, in bytes.
const MAX_FILE: usize = 2 << 20;
/// Files that are read at the same time: as much memory they take.
static UPLOADS: Semaphore = Semaphore::const_new(8);
/// The longest personal message, in characters.
const MAX_MESSAGE: usize = 2_000;

type Parts<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl ImportService for Rpc {
    async fn get_import_template(
        &self,
        request: Request<pb::GetImportTemplateRequest>,
    ) -> Result<Response<pb::GetImportTemplateResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let permit = permit_any(&self.0, &call, &request.tenant).await?;
        let separator = read_separator("separator", request.separator)?;
        Ok(Response::new(pb::GetImportTemplateResponse {
            file_name: "members.csv".to_owned(),
            content: super::template(separator, request.with_scopes)?,
            roles: roles::keys(&self.0.pool, &permit).await?,
            revision: permit.revision().text(),
        }))
    }

    async fn preview_import(
        &self,
        request: Request<Streaming<pb::PreviewImportRequest>>,
    ) -> Result<Response<pb::PreviewImportResponse>, Status> {
        let (call, mut parts) = Call::split(request)?;
        let first = parts.message().await?.unwrap_or_default();
        let claim = claim_any(&self.0, &call, &first.tenant).await?;
        // Before anything more is read.
        permit(&self.0, &call, &claim).await?;
        let _place = UPLOADS.try_acquire().map_err(|_| Error::Exhausted {
            reason: "TOO_MANY_UPLOADS",
            message: "many files are being read already; wait for one of them to end",
            retry_after: Duration::from_secs(1),
        })?;
        let mut new = NewImport::try_from(first)?;
        while let Some(part) = parts.message().await? {
            if new.bytes.len() + part.chunk.len() > MAX_FILE {
                return Err(too_large().into());
            }
            new.bytes.extend_from_slice(&part.chunk);
        }
        let preview = super::preview(&self.0, &call, claim, new).await?;
        Ok(Response::new(pb::PreviewImportResponse {
            seats_needed: i64::from(preview.import.totals.invited),
            seats_available: preview.seats_free,
            import: Some(wire(preview.import, preview.revision)),
            rows: preview.rows.into_iter().map(row).collect(),
            revision: preview.revision.text(),
        }))
    }

    type CommitImportStream = Parts<pb::CommitImportResponse>;

    async fn commit_import(
        &self,
        request: Request<pb::CommitImportRequest>,
    ) -> Result<Response<Self::CommitImportStream>, Status> {
        let (call, request) = Call::split(request)?;
        let options = Options::of(&self.0, &call, &request)?;
        let claim = claim_any(&self.0, &call, &request.tenant).await?;
        permit(&self.0, &call, &claim).await?;
        let id: ImportId = text::parse("import_id", &request.import_id)?;
        let (steps, mut progress) = mpsc::channel::<Progress>(1);
        let (out, messages) = mpsc::channel(4);
        let told = out.clone();
        tokio::spawn(async move {
            while let Some(Progress { done, total }) = progress.recv().await {
                let step = pb::CommitImportResponse { done, total, ..Default::default() };
                if told.send(Ok(step)).await.is_err() {
                    return;
                }
            }
        });
        let app = self.0.clone();
        // A task of its own: whoever hangs up does not cut it in half.
        tokio::spawn(async move {
            let outcome = commit(&app, &call, claim, options, (id, steps)).await;
            let _ = out.send(outcome.map_err(Status::from)).await;
        });
        Ok(Response::new(ReceiverStream::new(messages).boxed()))
    }

    async fn cancel_import(
        &self,
        request: Request<pb::CancelImportRequest>,
    ) -> Result<Response<pb::CancelImportResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let permit = permit_any(&self.0, &call, &request.tenant).await?;
        let id = text::parse("import_id", &request.import_id)?;
        let import = super::cancel(&self.0, &call, &permit, id).await?;
        Ok(Response::new(pb::CancelImportResponse {
            import: Some(wire(import, permit.revision())),
        }))
    }

    async fn list_imports(
        &self,
        request: Request<pb::ListImportsRequest>,
    ) -> Result<Response<pb::ListImportsResponse>, Status> {
        let (call, request) = Call::split(request)?;
        let permit = permit(&self.0, &call, &call.claim(&request.tenant)?).await?;
        let binding = ("imports", &request.tenant);
        let page =
            Page::<Uuid>::read(&self.0.keys, &binding, request.page_size, &request.page_token)?;
        let (now, limit) = (self.0.clock.now(), page.limit());
        let filter = Filter { id: None, maker: None, before: page.after, now, limit };
        let mut rows = sql::list(&self.0.pool, &permit, &filter).await?;
        let next_page_token = page.finish(&self.0.keys, &mut rows, |row| row.id.uuid())?;
        Ok(Response::new(pb::ListImportsResponse {
            imports: rows.into_iter().map(|import| wire(import, permit.revision())).collect(),
            next_page_token,
            revision: permit.revision().text(),
        }))
    }

    type ExportMembersStream = Parts<pb::ExportMembersResponse>;

    async fn export_members(
        &self,
        request: Request<pb::ExportMembersRequest>,
    ) -> Result<Response<Self::ExportMembersStream>, Status> {
        let (call, request) = Call::split(request)?;
        let claim = call.claim(&request.tenant)?;
        permit(&self.0, &call, &claim).await?;
        let wanted = Wanted {
            separator: read_separator("separator", request.separator)?,
            status: read_status("status", request.status)?,
        };
        let app = self.0.clone();
        let parts = sheet::download(&self.0, |out| export::members(app, call, claim, wanted, out))?;
        let parts = parts.map(|part| {
            let part = part.map_err(Status::from)?;
            Ok(pb::ExportMembersResponse { chunk: part.chunk, revision: part.revision.text() })
        });
        Ok(Response::new(parts.boxed()))
    }
}

async fn permit_any(app: &App, call: &Call, tenant: &str) -> Result<Permit> {
    let claim = claim_any(app, call, tenant).await?;
    permit(app, call, &claim).await
}

/// Commits, and tells the change by which it was done, whether now or before.
async fn commit(
    app: &App,
    call: &Call,
    claim: crate::access::Claim,
    options: Options,
    input: (ImportId, mpsc::Sender<Progress>),
) -> Result<pb::CommitImportResponse> {
    let answer = change::run(app, call, claim, options, input, |change, (id, steps)| {
        Box::pin(async move {
            let import = super::commit(change, id, &steps).await?;
            let total = import.totals.people;
            let here = *change.app().replica.applied().borrow();
            let import = Some(wire(import, here));
            Ok(pb::CommitImportResponse { done: total, total, import, ..Default::default() })
        })
    });
    let mut answer = answer.await?;
    if let Some(import) = &mut answer.import {
        if import.commit_revision.is_empty() {
            import.commit_revision.clone_from(&answer.revision);
        } else {
            answer.revision.clone_from(&import.commit_revision);
        }
    }
    Ok(answer)
}

fn too_large() -> Error {
    Error::invalid("chunk", "the file has more than 2 MiB; divide it")
}

impl TryFrom<pb::PreviewImportRequest> for NewImport {
    type Error = Error;

    fn try_from(request: pb::PreviewImportRequest) -> Result<Self> {
        let language = match request.language.as_str() {
            "" => None,
            language => Some(text::language("language", language, "")?),
        };
        if request.chunk.len() > MAX_FILE {
            return Err(too_large());
        }
        Ok(Self {
            file_name: text::line("file_name", &request.file_name, text::MAX_TEXT)?,
            language,
            message: text::lines("message", &request.message, MAX_MESSAGE)?,
            bytes: request.chunk,
        })
    }
}

/// Reads what separates the cells of a file.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field`.
pub fn read_separator(field: &str, separator: i32) -> Result<Separator> {
    match pb::CsvSeparator::try_from(separator) {
        Ok(pb::CsvSeparator::Unspecified | pb::CsvSeparator::Comma) => Ok(Separator::Comma),
        Ok(pb::CsvSeparator::Semicolon) => Ok(Separator::Semicolon),
        Ok(pb::CsvSeparator::Tab) => Ok(Separator::Tab),
        Err(_) => Err(Error::invalid(field, "expected COMMA, SEMICOLON or TAB")),
    }
}

fn read_status(field: &str, status: i32) -> Result<Option<StatusFilter>> {
    use pb::MembershipStatus as Wire;
    match Wire::try_from(status) {
        Ok(Wire::Unspecified) => Ok(None),
        Ok(Wire::Pending) => Ok(Some(StatusFilter::Pending)),
        Ok(Wire::Active) => Ok(Some(StatusFilter::Member(MemberStatus::Active))),
        Ok(Wire::Suspended) => Ok(Some(StatusFilter::Member(MemberStatus::Suspended))),
        Ok(Wire::Removed) | Err(_) => {
            Err(Error::invalid(field, "expected PENDING, ACTIVE or SUSPENDED"))
        }
    }
}

fn row((line, judged): (Line, Judged)) -> pb::ImportRow {
    let number = |row: u32| i32::try_from(row).unwrap_or(i32::MAX);
    let action = judged.action.map_or(pb::ImportAction::Unspecified, Into::into);
    pb::ImportRow {
        row: number(line.row),
        action: action.into(),
        email: line.written_email,
        first_name: line.profile.first_name,
        last_name: line.profile.last_name,
        role: judged.role.map(|(_, key)| key).unwrap_or_default(),
        written_role: line.role,
        scope: line.scope,
        start_time: line.starts.map(pb::timestamp),
        end_time: judged.ends.map(pb::timestamp),
        kind: pb::MemberKind::from(line.kind).into(),
        same_person_as: judged.same_person_as.map(number).unwrap_or_default(),
        errors: judged.flaws.into_iter().map(Into::into).collect(),
    }
}

impl From<Flaw> for pb::ImportError {
    fn from(flaw: Flaw) -> Self {
        Self {
            column: flaw.column.name().to_owned(),
            message: flaw.message,
            suggestions: flaw.suggestions,
        }
    }
}

impl From<Action> for pb::ImportAction {
    fn from(action: Action) -> Self {
        match action {
            Action::Invite => Self::Invite,
            Action::AddRole => Self::AddRole,
            Action::AlreadyMember => Self::AlreadyMember,
            Action::AlreadyInvited => Self::AlreadyInvited,
        }
    }
}

impl From<ImportStatus> for pb::ImportStatus {
    fn from(status: ImportStatus) -> Self {
        match status {
            ImportStatus::Planned => Self::Planned,
            ImportStatus::Faulty => Self::Faulty,
            ImportStatus::Committed => Self::Committed,
            ImportStatus::Cancelled => Self::Cancelled,
            ImportStatus::Expired => Self::Expired,
        }
    }
}

impl From<Totals> for pb::ImportTotals {
    fn from(totals: Totals) -> Self {
        let Totals { rows, people, invited, changed, unchanged, rows_with_errors } = totals;
        Self { rows, people, invited, changed, unchanged, rows_with_errors }
    }
}

/// An import on the wire, read at a revision.
fn wire(import: Import, here: Revision) -> pb::Import {
    let revision = import.revision.map(|number| here.at(number.unsigned_abs()).text());
    pb::Import {
        id: import.id.to_string(),
        status: pb::ImportStatus::from(import.status).into(),
        file_name: import.file_name,
        encoding: import.encoding,
        separator: import.separator,
        totals: Some(import.totals.into()),
        created_by: import.maker.actor,
        on_behalf_of: import.maker.on_behalf_of,
        create_time: Some(pb::timestamp(import.created_at)),
        expire_time: Some(pb::timestamp(import.expires_at)),
        commit_time: import.committed_at.map(pb::timestamp),
        commit_revision: revision.unwrap_or_default(),
    }
}
