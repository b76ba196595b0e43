//! Fills a PostgreSQL with the world, once for each shape: by COPY, with the secondary indexes built
//! afterwards. The events of how it all came about are left out: a server loads from the tables.

use std::{path::Path, time::Instant};

use rolecall::{
    db,
    decision::{Assignment, MemberKind, MemberStatus, Reach},
    dev::postgres::{DATABASE, Options, Postgres},
    ids::{Holder, SubjectId},
    server, service_accounts,
};
use secrecy::ExposeSecret;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, migrate::MigrateDatabase};

use crate::world::{Shape, World};

/// Raised when the same shape makes other rows.
const VERSION: u32 = 2;
const FLUSH: usize = 8 << 20;

/// What a filled database says of itself, as its comment.
#[derive(PartialEq, serde::Serialize, serde::Deserialize)]
struct Label {
    version: u32,
    shape: Shape,
    /// An operator's, of a database that is thrown away with the machine.
    api_key: String,
    assignments: usize,
}

pub struct Filled {
    pub postgres: Postgres,
    pub url: String,
    pub api_key: String,
    /// In the tenants, without the one of many members.
    pub assignments: usize,
}

/// The database of this shape: the one of an earlier run, or a new one.
pub async fn database(folder: &Path, world: &World) -> Filled {
    let Shape { tenants, users, assignments, tenant_of, seed } = world.shape;
    let data_dir = folder.join(format!("{tenants}-{users}-{assignments}-{tenant_of}-{seed}"));
    let options = Options { data_dir, bin_dir: None, port: 0, durable: false };
    let postgres = Postgres::start(options).await.unwrap();
    let url = postgres.url(DATABASE);
    if let Some(label) = label(&url).await
        && (label.version, label.shape) == (VERSION, world.shape)
    {
        db::migrate(&url.clone().into()).await.unwrap();
        warm(&url).await;
        return Filled { postgres, url, api_key: label.api_key, assignments: label.assignments };
    }
    sqlx::Postgres::drop_database(&url).await.unwrap();
    sqlx::Postgres::create_database(&url).await.unwrap();
    db::migrate(&url.clone().into()).await.unwrap();
    let secret_url = url.clone().into();
    let operator = server::once(&secret_url, async |app| {
        service_accounts::create_operator(app, "bench").await
    });
    let (_, _, api_key) = operator.await.unwrap().unwrap();
    let assignments = fill(&url, world).await;
    let api_key = api_key.expose_secret().to_owned();
    let label = Label { version: VERSION, shape: world.shape, api_key, assignments };
    write_label(&url, &label).await;
    Filled { postgres, url, api_key: label.api_key, assignments }
}

async fn label(url: &str) -> Option<Label> {
    let mut conn = PgConnection::connect(url).await.unwrap();
    let text: Option<String> = sqlx::query_scalar(
        "select shobj_description(oid, 'pg_database') from pg_database
         where datname = current_database()",
    )
    .fetch_one(&mut conn)
    .await
    .unwrap();
    serde_json::from_str(&text?).ok()
}

async fn write_label(url: &str, label: &Label) {
    let mut conn = PgConnection::connect(url).await.unwrap();
    let text = serde_json::to_string(label).unwrap();
    run(&mut conn, format!("comment on database {DATABASE} is '{text}'")).await;
}

async fn run(conn: &mut PgConnection, sql: String) {
    conn.execute(AssertSqlSafe(sql)).await.unwrap();
}

/// Reads what a server will read, so that PostgreSQL has it in memory.
async fn warm(url: &str) {
    let mut conn = PgConnection::connect(url).await.unwrap();
    for table in ["memberships", "role_assignments", "group_members"] {
        run(&mut conn, format!("select count(*) from (select t from {table} t) all_of_it")).await;
    }
}

/// Rows that are on their way into a table.
struct Table {
    name: &'static str,
    columns: &'static str,
    rows: usize,
    buffer: String,
}

macro_rules! row {
    ($table:expr, $first:expr $(, $value:expr)* $(,)?) => {{
        use std::fmt::Write as _;
        let table = &mut $table;
        table.rows += 1;
        write!(table.buffer, "{}", $first).unwrap();
        $(write!(table.buffer, "\t{}", $value).unwrap();)*
        table.buffer.push('\n');
    }};
}

struct Tables {
    tenants: Table,
    workspaces: Table,
    users: Table,
    memberships: Table,
    roles: Table,
    includes: Table,
    may_grant: Table,
    groups: Table,
    joined: Table,
    assignments: Table,
}

const NULL: &str = "\\N";
const MADE: &str = "2025-01-01 00:00:00+00";

fn or_null(value: Option<impl ToString>) -> String {
    value.map_or_else(|| NULL.to_owned(), |value| value.to_string())
}

impl Tables {
    fn new() -> Self {
        let table = |name, columns| Table { name, columns, rows: 0, buffer: String::new() };
        Self {
            tenants: table(
                "tenants",
                "id, key, display_name, status, default_role_id, created_at, updated_at",
            ),
            workspaces: table(
                "workspaces",
                "tenant_id, id, key, display_name, created_at, updated_at",
            ),
            users: table(
                "users",
                "id, email, email_canonical, first_name, last_name, created_at, updated_at",
            ),
            memberships: table(
                "memberships",
                "tenant_id, user_id, kind, status, first_name, last_name, created_at, updated_at",
            ),
            roles: table(
                "roles",
                "tenant_id, id, key, display_names, permissions, reach, max_duration_seconds, \
                 locked, created_at, updated_at",
            ),
            includes: table("role_includes", "tenant_id, role_id, included_id"),
            may_grant: table("role_may_grant", "tenant_id, role_id, granted_id"),
            groups: table("groups", "tenant_id, id, key, display_name, created_at, updated_at"),
            joined: table("group_members", "tenant_id, group_id, user_id, standing, created_at"),
            assignments: table(
                "role_assignments",
                "tenant_id, id, user_id, standing, group_id, role_id, workspace_id, path, \
                 starts_at, ends_at, created_at, created_by",
            ),
        }
    }

    fn all(&mut self) -> [&mut Table; 10] {
        [
            &mut self.tenants,
            &mut self.workspaces,
            &mut self.users,
            &mut self.memberships,
            &mut self.roles,
            &mut self.includes,
            &mut self.may_grant,
            &mut self.groups,
            &mut self.joined,
            &mut self.assignments,
        ]
    }

    async fn flush(&mut self, conn: &mut PgConnection, from: usize) {
        for table in self.all() {
            if table.buffer.len() > from {
                let sql = format!("copy {} ({}) from stdin", table.name, table.columns);
                let mut copy = conn.copy_in_raw(&sql).await.unwrap();
                copy.send(table.buffer.as_bytes()).await.unwrap();
                copy.finish().await.unwrap();
                table.buffer.clear();
            }
        }
    }

    fn assign(&mut self, tenant: uuid::Uuid, held: &Assignment, standing: &str) {
        let (user, group) = match held.holder {
            Holder::Subject(subject) => (Some(subject.uuid()), None),
            Holder::Group(group) => (None, Some(group.uuid())),
        };
        row!(
            self.assignments,
            tenant,
            held.id.uuid(),
            or_null(user),
            standing,
            or_null(group),
            held.role.uuid(),
            or_null(held.workspace.map(|id| id.uuid())),
            held.path,
            or_null(held.starts.map(|at| at.to_rfc3339())),
            or_null(held.ends.map(|at| at.to_rfc3339())),
            MADE,
            "bench",
        );
    }
}

async fn fill(url: &str, world: &World) -> usize {
    let start = Instant::now();
    let mut conn = PgConnection::connect(url).await.unwrap();
    for sql in [
        "alter system set max_wal_size = '16GB'",
        "select pg_reload_conf()",
        "set synchronous_commit = off",
        "set maintenance_work_mem = '1GB'",
        // Foreign keys hold by the making of the rows.
        "set session_replication_role = replica",
    ] {
        run(&mut conn, sql.to_owned()).await;
    }
    let mut tables = Tables::new();
    let indexes = take_indexes(&mut conn, &mut tables).await;
    for n in 0..world.shape.users {
        let id = world.user(n).uuid();
        let email = format!("person{n}@example.org");
        row!(tables.users, id, email, email, "Person", n, MADE, MADE);
        if tables.users.buffer.len() > FLUSH {
            tables.flush(&mut conn, FLUSH).await;
        }
    }
    let mut counted = 0;
    for n in 0..world.tenants() {
        if n == world.shape.tenants {
            counted = tables.assignments.rows;
        }
        tenant(&mut conn, &mut tables, world, n).await;
    }
    if world.shape.tenant_of == 0 {
        counted = tables.assignments.rows;
    }
    tables.flush(&mut conn, 0).await;
    let rows: usize = tables.all().iter().map(|table| table.rows).sum();
    let copied = start.elapsed().as_secs_f64();
    eprintln!("copied {rows} rows in {copied:.0} s, {:.0} rows/s", rows as f64 / copied);
    for sql in indexes {
        run(&mut conn, sql).await;
    }
    run(&mut conn, "vacuum analyze".to_owned()).await;
    let size: i64 = sqlx::query_scalar("select pg_database_size(current_database())")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    let seconds = start.elapsed().as_secs_f64();
    for table in tables.all() {
        eprintln!("  {:>10} {}", table.rows, table.name);
    }
    eprintln!(
        "filled and indexed in {seconds:.0} s, {:.0} rows/s, {} MB",
        rows as f64 / seconds,
        size >> 20
    );
    counted
}

async fn tenant(conn: &mut PgConnection, tables: &mut Tables, world: &World, n: usize) {
    let frame = world.frame(n);
    let (id, key) = (frame.tenant.id.uuid(), frame.tenant.key.as_str());
    let default_role = or_null(frame.tenant.default_role.map(|role| role.uuid()));
    row!(tables.tenants, id, key, key, "active", default_role, MADE, MADE);
    for role in &frame.roles {
        let reach = match role.reach {
            Reach::Here => "here",
            Reach::Joined => "joined",
            Reach::Everywhere => "everywhere",
        };
        let (role_id, key) = (role.id.uuid(), role.key.as_str());
        let permissions = format!("{{{}}}", role.permissions.join(","));
        let longest = or_null(role.max_duration_seconds);
        let locked = role.locked;
        row!(tables.roles, id, role_id, key, "{}", permissions, reach, longest, locked, MADE, MADE);
        for included in &role.includes {
            row!(tables.includes, id, role_id, included.uuid());
        }
        for granted in &role.may_grant {
            row!(tables.may_grant, id, role_id, granted.uuid());
        }
    }
    for workspace in &frame.workspaces {
        let (workspace, key) = (workspace.id.uuid(), workspace.key.as_str());
        row!(tables.workspaces, id, workspace, key, key, MADE, MADE);
    }
    for (group, held) in &frame.groups {
        let key = group.key.as_str();
        row!(tables.groups, id, group.id.uuid(), key, key, MADE, MADE);
        held.iter().for_each(|held| tables.assign(id, held, NULL));
    }
    for m in 0..world.members(n) {
        let person = world.person(&frame, m);
        let SubjectId::User(user) = person.member.subject else { continue };
        let kind = match person.member.kind {
            MemberKind::External => "external",
            MemberKind::Internal | MemberKind::Service => "internal",
        };
        let status = match person.member.status {
            MemberStatus::Suspended => "suspended",
            MemberStatus::Active | MemberStatus::Removed => "active",
        };
        let standing = match (kind, status) {
            ("internal", "active") => "1",
            ("internal", _) => "2",
            (_, "active") => "3",
            _ => "4",
        };
        row!(tables.memberships, id, user.uuid(), kind, status, "Person", m, MADE, MADE);
        if let Some(joined) = person.group {
            row!(tables.joined, id, joined.group.uuid(), user.uuid(), standing, MADE);
        }
        person.assignments.iter().for_each(|held| tables.assign(id, held, standing));
        if tables.assignments.buffer.len() > FLUSH {
            tables.flush(conn, FLUSH).await;
        }
    }
}

/// Drops the indexes besides the primary keys; what is answered makes them again.
async fn take_indexes(conn: &mut PgConnection, tables: &mut Tables) -> Vec<String> {
    let names: Vec<String> = tables.all().iter().map(|table| table.name.to_owned()).collect();
    let rows: Vec<(String, String, String, Option<String>)> = sqlx::query_as(
        "select i.indrelid::regclass::text, i.indexrelid::regclass::text,
                pg_get_indexdef(i.indexrelid), pg_get_constraintdef(c.oid)
         from pg_index i left join pg_constraint c on c.conindid = i.indexrelid and c.contype = 'u'
         where not i.indisprimary and i.indrelid::regclass::text = any($1)
            and not exists (select from pg_constraint f
                            where f.contype = 'f' and f.conindid = i.indexrelid)",
    )
    .bind(&names)
    .fetch_all(&mut *conn)
    .await
    .unwrap();
    let mut again = Vec::new();
    for (table, index, definition, constraint) in rows {
        let (drop, make) = match constraint {
            Some(constraint) => (
                format!("alter table {table} drop constraint {index}"),
                format!("alter table {table} add constraint {index} {constraint}"),
            ),
            None => (format!("drop index {index}"), definition),
        };
        run(conn, drop).await;
        again.push(make);
    }
    again
}
