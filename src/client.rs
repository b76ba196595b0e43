//! The commands that call a running server.

use std::{
    io::{BufRead, IsTerminal, Read, Write},
    path::Path,
    process::ExitCode,
};

use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rolecall::{
    config::{ClientArgs, ImportArgs},
    proto::{self as pb, import_service_client::ImportServiceClient},
};
use secrecy::ExposeSecret;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, ClientTlsConfig, Endpoint},
};

use crate::Outcome;

/// The largest part of a file that is sent at once.
const CHUNK: usize = 64 << 10;
/// Rows of the table; what is wrong is shown whole.
const SHOWN: usize = 40;

#[derive(Clone)]
struct Credential(MetadataValue<Ascii>);

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Client = ImportServiceClient<InterceptedService<Channel, Credential>>;

async fn connect(args: &ClientArgs) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    let bearer = format!("Bearer {}", args.token()?.expose_secret());
    let mut bearer: MetadataValue<Ascii> =
        bearer.parse().map_err(|_| "the token has characters that no token has; copy it anew")?;
    bearer.set_sensitive(true);
    let mut endpoint = Endpoint::from_shared(args.server.clone())?;
    if args.server.starts_with("https://") {
        endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots())?;
    }
    let channel = endpoint.connect().await;
    let channel = channel.map_err(|error| {
        format!("no server answers at {}: {}", args.server, rolecall::error::chain(&error))
    })?;
    Ok(ImportServiceClient::with_interceptor(channel, Credential(bearer)))
}

/// Shows what a file would do, asks, and does it.
pub async fn import(args: &ImportArgs) -> Outcome {
    let file = read(&args.file)?;
    let mut client = connect(&args.server).await?;
    let preview = client.preview_import(tokio_stream::iter(parts(args, &file))).await;
    let preview = preview.map_err(told)?.into_inner();
    let import = preview.import.clone().unwrap_or_default();
    let totals = import.totals.unwrap_or_default();
    say(&table(&preview).to_string())?;
    say(&summary(&preview))?;
    if totals.rows_with_errors > 0 {
        say("Nothing was imported. Correct the file, and try again.")?;
        return Ok(ExitCode::FAILURE);
    }
    if preview.seats_available.is_some_and(|left| left < preview.seats_needed) {
        say("The plan has too few seats left, so nothing was imported.")?;
        return Ok(ExitCode::FAILURE);
    }
    if totals.invited + totals.changed == 0 {
        say("There is nothing to do.")?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes && !asked()? {
        let (tenant, import_id) = (args.tenant.clone(), import.id);
        client.cancel_import(pb::CancelImportRequest { tenant, import_id }).await.map_err(told)?;
        say("Nothing was imported.")?;
        return Ok(ExitCode::FAILURE);
    }
    let done = commit(&mut client, args, import.id).await?;
    let revision = done.import.unwrap_or_default().commit_revision;
    say(&format!(
        "Done, with revision {revision}: {} invited, {} members changed.",
        totals.invited, totals.changed
    ))?;
    Ok(ExitCode::SUCCESS)
}

async fn commit(
    client: &mut Client,
    args: &ImportArgs,
    import_id: String,
) -> Result<pb::CommitImportResponse, Box<dyn std::error::Error + Send + Sync>> {
    let tenant = args.tenant.clone();
    let request = pb::CommitImportRequest { tenant, import_id, ..Default::default() };
    let mut steps = client.commit_import(request).await.map_err(told)?.into_inner();
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} people")?);
    let mut last = pb::CommitImportResponse::default();
    while let Some(step) = steps.message().await.map_err(told)? {
        bar.set_length(u64::from(step.total.unsigned_abs()));
        bar.set_position(u64::from(step.done.unsigned_abs()));
        last = step;
    }
    bar.finish_and_clear();
    Ok(last)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut file = Vec::new();
    let read = match path.to_str() {
        Some("-") => std::io::stdin().lock().read_to_end(&mut file).map(drop),
        _ => std::fs::read(path).map(|bytes| file = bytes),
    };
    read.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    Ok(file)
}

fn parts(args: &ImportArgs, file: &[u8]) -> Vec<pb::PreviewImportRequest> {
    let name = args.file.file_name().map(|name| name.to_string_lossy().into_owned());
    let first = pb::PreviewImportRequest {
        tenant: args.tenant.clone(),
        file_name: name.unwrap_or_default(),
        language: args.language.clone(),
        message: args.message.clone(),
        chunk: Vec::new(),
    };
    let chunk =
        |chunk: &[u8]| pb::PreviewImportRequest { chunk: chunk.to_vec(), ..Default::default() };
    std::iter::once(first).chain(file.chunks(CHUNK).map(chunk)).collect()
}

fn table(preview: &pb::PreviewImportResponse) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_HORIZONTAL_ONLY)
        .set_header(["row", "what", "e-mail", "name", "role", "where"]);
    let wrong = preview.rows.iter().filter(|row| !row.errors.is_empty());
    let right = preview.rows.iter().filter(|row| row.errors.is_empty());
    for row in wrong.chain(right.take(SHOWN)) {
        let role = match row.written_role.as_str() {
            written if written.is_empty() || written == row.role => row.role.clone(),
            written if row.role.is_empty() => written.to_owned(),
            written => format!("{} ({written})", row.role),
        };
        let what = match row.action() {
            pb::ImportAction::Unspecified => "error",
            pb::ImportAction::Invite => "invite",
            pb::ImportAction::AddRole => "add role",
            pb::ImportAction::AlreadyMember => "is a member",
            pb::ImportAction::AlreadyInvited => "is invited",
        };
        let name = format!("{} {}", row.first_name, row.last_name);
        let place = if row.scope.is_empty() { "everywhere" } else { &row.scope };
        let mut cells = vec![row.row.to_string(), what.to_owned()];
        cells.extend([&row.email, name.trim(), &role, place].map(plain));
        table.add_row(cells);
    }
    table
}

fn summary(preview: &pb::PreviewImportResponse) -> String {
    let totals = preview.import.as_ref().and_then(|import| import.totals).unwrap_or_default();
    let hidden = preview.rows.iter().filter(|row| row.errors.is_empty()).count();
    let errors = preview.rows.iter().flat_map(|row| {
        row.errors.iter().map(|e| format!("row {}, {}: {}\n", row.row, e.column, plain(&e.message)))
    });
    let errors = errors.collect::<String>();
    let more = match hidden.saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("… and {more} rows more.\n"),
    };
    let needed = preview.seats_needed;
    let seats = match preview.seats_available {
        Some(left) => format!("{needed} of {left} seats left"),
        None => format!("{needed} seats"),
    };
    format!(
        "{more}{errors}{} people in {} rows: {} to invite ({seats}), {} members to change, {} as they \
         are, {} rows with errors.",
        totals.people,
        totals.rows,
        totals.invited,
        totals.changed,
        totals.unchanged,
        totals.rows_with_errors
    )
}

/// A cell of somebody's file: it moves no cursor and colours nothing.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn asked() -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    if !std::io::stdin().is_terminal() {
        return Err("nobody is there to be asked; say `--yes`".into());
    }
    write!(std::io::stdout(), "Import them? [y/N] ")?;
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes" | "o" | "oui"))
}

fn say(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{text}")
}

/// What a server refuses, in its own words.
fn told(status: Status) -> String {
    format!("{} ({:?})", plain(status.message()), status.code())
}
