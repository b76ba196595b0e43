//! What an acknowledged change is worth when the database has to wait for a standby.

use std::{path::PathBuf, time::Duration};

use rolecall::{
    db,
    dev::postgres::{DATABASE, Options, Postgres},
    proto as pb,
    secret::Keys,
    server::{Server, Settings},
    service_accounts, telemetry,
};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tonic::Code;
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

use crate::world::{Api, settings};

/// A PostgreSQL of one test, whose settings it may change.
struct Own {
    postgres: Postgres,
    folder: PathBuf,
    conn: PgConnection,
}

impl Own {
    async fn start(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("rolecall-{name}-{}", std::process::id()));
        let options = Options { data_dir: folder.clone(), bin_dir: None, port: 0, durable: false };
        let postgres = Postgres::start(options).await.unwrap();
        let url = postgres.url(DATABASE);
        db::migrate(&url.clone().into()).await.unwrap();
        let conn = PgConnection::connect(&url).await.unwrap();
        Self { postgres, folder, conn }
    }

    /// Whom commits wait for.
    async fn standbys(&mut self, names: &str) {
        let set = format!("alter system set synchronous_standby_names = '{names}'");
        self.conn.execute(AssertSqlSafe(set)).await.unwrap();
        self.conn.execute("select pg_reload_conf()").await.unwrap();
        let (mut now, mut tries) = (String::new(), 0);
        while now != names && tries < 200 {
            tokio::time::sleep(Duration::from_millis(25)).await;
            now = sqlx::query_scalar("select current_setting('synchronous_standby_names')")
                .fetch_one(&mut self.conn)
                .await
                .unwrap();
            tries += 1;
        }
        assert_eq!(now, names);
    }

    /// Whether a transaction with such a last statement comes to wait for a standby.
    async fn waits(&mut self, statement: &str) -> bool {
        for _ in 0..400 {
            let waiting = sqlx::query_scalar::<_, bool>(
                "select exists (select from pg_stat_activity
                                where wait_event = 'SyncRep' and query like '%' || $1 || '%')",
            );
            if waiting.bind(statement).fetch_one(&mut self.conn).await.unwrap() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        false
    }

    fn settings(&self) -> Settings {
        let database: SecretString = self.postgres.url(DATABASE).into();
        let keys = Keys::parse(&Keys::generate().unwrap()).unwrap();
        settings(&database, keys, "file:///dev/null")
    }

    async fn stop(self) {
        drop(self.conn);
        self.postgres.stop().await.unwrap();
        let _ = std::fs::remove_dir_all(self.folder);
    }
}

fn shop() -> pb::CreateServiceAccountRequest {
    pb::CreateServiceAccountRequest {
        tenant: "system".into(),
        key: "shop".into(),
        display_name: "Shop".into(),
        request_id: uuid::Uuid::from_u128(1).to_string(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_durability_takes_a_quorum_of_standbys() {
    let mut own = Own::start("strict").await;
    let strict = || Settings { quorum: true, ..own.settings() };
    let (absent, nobody) = (strict(), strict());
    own.standbys("ANY 1 (nobody)").await;
    let refused = Server::start(absent).await.err().expect("nobody is there to confirm");
    assert!(refused.to_string().contains("no quorum confirmed"), "{refused}");
    own.standbys("").await;
    let refused = Server::start(nobody).await.err().expect("nobody has to confirm anything");
    assert!(refused.to_string().contains("synchronous_standby_names"), "{refused}");
    own.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_no_standby_confirmed_is_not_acknowledged() {
    // As the program does it: what PostgreSQL warns of is heard nowhere else.
    let _ = tracing_subscriber::registry().with(telemetry::notices()).try_init();
    let mut own = Own::start("unconfirmed").await;
    let server = Server::start(own.settings()).await.unwrap();
    let (_, _, key) = service_accounts::create_operator(&server.app, "test").await.unwrap();
    let operator = Api::connect(&server, key.expose_secret()).await;
    let create = shop();
    own.standbys("ANY 1 (nobody)").await;
    let (api, request) = (operator.clone(), create.clone());
    let change =
        tokio::spawn(async move { api.service_accounts().create_service_account(request).await });
    assert!(own.waits("seal()").await);
    let cancel = "select pg_cancel_backend(pid) from pg_stat_activity
                  where wait_event = 'SyncRep' and query like '%seal()%'";
    own.conn.execute(cancel).await.unwrap();
    let unsure = change.await.unwrap().unwrap_err();
    assert_eq!(unsure.code(), Code::Unavailable, "{unsure}");
    assert!(unsure.message().contains("not known"), "{unsure}");
    // The same request finds the one true outcome.
    own.standbys("").await;
    let first = operator.service_accounts().create_service_account(create.clone()).await.unwrap();
    let again = operator.service_accounts().create_service_account(create).await.unwrap();
    assert_eq!(first.into_inner(), again.into_inner());
    server.stop().await;
    own.stop().await;
}

/// A repetition, a refusal, a trial and what changes nothing tell of the state, which a failover could undo.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_tells_of_the_state_waits_for_a_standby_as_a_change_does() {
    let mut own = Own::start("told").await;
    let server = Server::start(own.settings()).await.unwrap();
    let (_, _, key) = service_accounts::create_operator(&server.app, "test").await.unwrap();
    let operator = Api::connect(&server, key.expose_secret()).await;
    let create = shop();
    let made = operator.service_accounts().create_service_account(create.clone()).await.unwrap();
    let taken = pb::CreateServiceAccountRequest { request_id: String::new(), ..create.clone() };
    let trial = pb::CreateServiceAccountRequest {
        key: "other".into(),
        validate_only: true,
        ..taken.clone()
    };
    for (request, code) in
        [(create.clone(), Code::Ok), (taken, Code::AlreadyExists), (trial, Code::Ok)]
    {
        own.standbys("ANY 1 (nobody)").await;
        let api = operator.clone();
        let asked = request.clone();
        let answer =
            tokio::spawn(async move { api.service_accounts().create_service_account(asked).await });
        assert!(own.waits("confirm(").await, "{request:?}");
        assert!(!answer.is_finished());
        own.standbys("").await;
        let told = answer.await.unwrap().map_or_else(|refusal| refusal.code(), |_| Code::Ok);
        assert_eq!(told, code, "{request:?}");
    }
    // What changes nothing keeps its answer in the same commit.
    let same = pb::UpdateServiceAccountRequest {
        tenant: "system".into(),
        service_account_id: made.into_inner().service_account.unwrap().id,
        display_name: "Shop".into(),
        request_id: uuid::Uuid::from_u128(2).to_string(),
        ..Default::default()
    };
    own.standbys("ANY 1 (nobody)").await;
    let (api, asked) = (operator.clone(), same.clone());
    let answer =
        tokio::spawn(async move { api.service_accounts().update_service_account(asked).await });
    assert!(own.waits("confirm(").await);
    own.standbys("").await;
    let first = answer.await.unwrap().unwrap().into_inner();
    let again = operator.service_accounts().update_service_account(same).await.unwrap();
    assert_eq!(first, again.into_inner());
    server.stop().await;
    own.stop().await;
}
