//! PostgreSQL with a standby, and what befalls it.

use std::{
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rolecall::dev::postgres::{DATABASE, Options, Postgres};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::proxy::{Mode, Proxy};

pub struct Cluster {
    folder: PathBuf,
    primary: Option<Postgres>,
    standby: Option<Postgres>,
    /// What the standby hears the primary through.
    line: Option<Proxy>,
    made: u32,
    quorum: bool,
    pub port: u16,
    /// The primary's data folder.
    data: PathBuf,
}

fn options(folder: &Path, port: u16) -> Options {
    Options { data_dir: folder.to_path_buf(), bin_dir: None, port, durable: false }
}

impl Cluster {
    pub async fn start(folder: &Path) -> Self {
        let data = folder.join("pg0");
        let primary = Postgres::start(options(&data, 0)).await.unwrap();
        let port = primary.port();
        let folder = folder.to_path_buf();
        let primary = Some(primary);
        Self { folder, primary, standby: None, line: None, made: 0, quorum: false, port, data }
    }

    pub fn password(&self) -> String {
        std::fs::read_to_string(self.data.join("password")).unwrap()
    }

    pub fn url(&self) -> String {
        let (password, port) = (self.password(), self.port);
        format!("postgres://postgres:{password}@127.0.0.1:{port}/{DATABASE}?sslmode=disable")
    }

    /// A connection that no fault stands in the way of.
    pub async fn connect(&self) -> PgConnection {
        let patience = Instant::now() + Duration::from_secs(30);
        loop {
            match PgConnection::connect(&self.url()).await {
                Ok(conn) => return conn,
                Err(error) => assert!(Instant::now() < patience, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops the primary as a crash would.
    pub async fn crash(&mut self) {
        let primary = self.primary.take();
        tokio::task::spawn_blocking(move || drop(primary)).await.unwrap();
    }

    pub async fn restart(&mut self) {
        self.primary = Some(Postgres::start(options(&self.data, self.port)).await.unwrap());
    }

    /// Makes a standby of the primary, and has commits wait for it when `quorum`.
    pub async fn add_standby(&mut self, quorum: bool) {
        let mut conn = self.connect().await;
        let programs: String =
            sqlx::query_scalar("select setting from pg_config where name = 'BINDIR'")
                .fetch_one(&mut conn)
                .await
                .unwrap();
        self.made += 1;
        let data = self.folder.join(format!("pg{}", self.made));
        std::fs::create_dir_all(&data).unwrap();
        let owner = std::fs::metadata(self.data.join("cluster")).unwrap();
        chown(&data, Some(owner.uid()), Some(owner.gid())).unwrap();
        std::fs::copy(self.data.join("password"), data.join("password")).unwrap();
        let line = Proxy::start(self.port).await;
        let mut backup = Command::new(Path::new(&programs).join("pg_basebackup"));
        backup.args(["-h", "127.0.0.1", "-U", "postgres", "-R", "-c", "fast", "--no-sync"]);
        backup.arg("-p").arg(line.port.to_string()).arg("-D").arg(data.join("cluster"));
        backup.env_clear().env("PGPASSWORD", self.password()).current_dir("/");
        // The proxy reads plain messages, and the standby will connect as this does.
        backup.env("PGSSLMODE", "disable").env("PGGSSENCMODE", "disable");
        if nix::unistd::geteuid().is_root() {
            backup.uid(owner.uid()).gid(owner.gid());
        }
        let made = tokio::task::spawn_blocking(move || backup.output()).await.unwrap().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        self.standby = Some(Postgres::start(options(&data, 0)).await.unwrap());
        self.line = Some(line);
        self.quorum = quorum;
        let names = if quorum { "ANY 1 (*)" } else { "" };
        // It is not a change: with a quorum that has gone it must not wait for it.
        conn.execute("set synchronous_commit = local").await.unwrap();
        let alter = format!("alter system set synchronous_standby_names = '{names}'");
        conn.execute(AssertSqlSafe(alter)).await.unwrap();
        conn.execute("select pg_reload_conf()").await.unwrap();
        let patience = Instant::now() + Duration::from_secs(30);
        let streams = "select count(*) from pg_stat_replication
                       where state = 'streaming' and sync_state = $1";
        let state = if quorum { "quorum" } else { "async" };
        while sqlx::query_scalar::<_, i64>(streams).bind(state).fetch_one(&mut conn).await.unwrap()
            < 1
        {
            assert!(Instant::now() < patience, "the standby does not follow");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Keeps the standby from hearing more.
    pub fn isolate_standby(&self) {
        self.line.as_ref().unwrap().set(Mode::Hold);
    }

    /// Waits until the standby has everything.
    pub async fn caught_up(&self) {
        let mut conn = self.connect().await;
        let behind = "select count(*) from pg_stat_replication
                      where flush_lsn < pg_current_wal_flush_lsn()";
        while sqlx::query_scalar::<_, i64>(behind).fetch_one(&mut conn).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes the standby the primary, and returns the old one as it was.
    pub async fn promote(&mut self) -> Option<Postgres> {
        let standby = self.standby.take().unwrap();
        self.data = standby.data_dir().to_path_buf();
        self.port = standby.port();
        let old = self.primary.replace(standby);
        self.line = None;
        let mut conn = self.connect().await;
        let promoted: bool =
            sqlx::query_scalar("select pg_promote(true, 30)").fetch_one(&mut conn).await.unwrap();
        assert!(promoted, "the standby was not promoted");
        old
    }
}
