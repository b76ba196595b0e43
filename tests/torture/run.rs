//! One run: everything is started, tortured, mended, and judged. Settings come from the environment, as
//! `TORTURE_SECONDS=60 TORTURE_SEED=7 make torture`.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rolecall::{decision::Record, ids::TenantId};
use serde::Deserialize;
use sqlx::{Connection, PgConnection};

use crate::{
    checker::{Checker, Epochs, Verdict},
    clients::{self, Stage},
    cluster::Cluster,
    dice::Dice,
    faults::{Fault, Injector, lives},
    history::{History, Known},
    reference::{Change, Replay},
    replica::{Replica, Settings, mails},
    setup::Maker,
};

/// What is run.
pub struct Plan {
    pub seconds: u64,
    pub seed: u64,
    /// In seconds.
    pub lease: u64,
    pub replicas: usize,
    pub tenants: usize,
    /// In each tenant.
    pub writers: usize,
    pub askers: usize,
    /// Of a thousand calls.
    pub batches: usize,
    pub rest: Duration,
    pub faults: Vec<Fault>,
    /// Milliseconds between faults.
    pub calm: (u64, u64),
    /// Promises that the replicas break.
    pub broken: String,
    pub quorum: bool,
    /// A folder of a small disk of its own.
    pub disk: Option<PathBuf>,
}

#[expect(clippy::disallowed_methods, reason = "it steers the test, not the program")]
fn setting(name: &str) -> Option<String> {
    std::env::var(format!("TORTURE_{name}")).ok().filter(|value| !value.is_empty())
}

pub fn number(name: &str, default: u64, most: u64) -> u64 {
    setting(name).map_or(default, |value| value.parse().unwrap()).clamp(1, most)
}

impl Plan {
    /// As the environment asks, within bounds.
    pub fn asked() -> Self {
        let small = |name, default, most| usize::try_from(number(name, default, most)).unwrap();
        Self {
            seconds: number("SECONDS", 60, 3_600),
            seed: number("SEED", u64::from(std::process::id()), u64::MAX),
            lease: number("LEASE", 1, 30),
            replicas: small("REPLICAS", 3, 9),
            tenants: small("TENANTS", 3, 50),
            writers: small("WRITERS", 2, 20),
            askers: small("ASKERS", 6, 200),
            batches: small("BATCHES", 100, 1_000),
            rest: Duration::from_millis(number("REST", 20, 10_000)),
            faults: Vec::new(),
            calm: (200, 1_500),
            broken: String::new(),
            quorum: false,
            disk: None,
        }
    }
}

/// A disk that is small enough to be filled, where there is one.
pub fn small_disk() -> Option<PathBuf> {
    setting("DISK").map(PathBuf::from)
}

/// Those of the faults that `TORTURE_FAULTS` names; all of them when it names none.
pub fn wanted(faults: &[Fault]) -> Vec<Fault> {
    let names = setting("FAULTS").unwrap_or_default();
    let wanted = |fault: &Fault| names.is_empty() || names.contains(&format!("{fault:?}"));
    faults.iter().copied().filter(wanted).collect()
}

/// A folder for one run, gone afterwards unless it failed.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

fn rolecall(url: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rolecall"));
    command.args(arguments).env_clear().env("ROLECALL_DATABASE_URL", url);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// A running world, before anybody asks.
pub struct Scene {
    pub stage: Arc<Stage>,
    pub cluster: Cluster,
    folder: Folder,
}

impl Scene {
    pub async fn set(plan: &Plan) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("rolecall-torture-{}-{next}", std::process::id());
        let folder = plan.disk.clone().unwrap_or_else(std::env::temp_dir).join(name);
        std::fs::create_dir_all(mails(&folder)).unwrap();
        let folder = Folder(folder);
        let cluster = Cluster::start(&folder.0).await;
        rolecall(&cluster.url(), &["migrate"]);
        let credential = rolecall(&cluster.url(), &["keys", "create"]);
        let settings = Settings {
            folder: folder.0.clone(),
            secret_key: rolecall(&cluster.url(), &["keys", "generate"]),
            password: cluster.password(),
            lease: plan.lease,
            pool: 6,
            strict: false,
        };
        let mut replicas = Vec::new();
        for n in 0..plan.replicas {
            replicas.push(Arc::new(Replica::start(n, &settings, cluster.port).await));
        }
        for replica in &replicas {
            replica.ready().await;
        }
        let (conn, operator) = (&mut cluster.connect().await, &replicas[0].api(&credential));
        let mut maker = Maker { replica: &replicas[0], folder: &folder.0, conn, operator };
        let setting = maker.make(plan.tenants).await;
        // Only now: the setting is made by the promises.
        if !plan.broken.is_empty() {
            for replica in &replicas {
                replica.stop().await;
                replica.launch(&plan.broken).await;
                replica.ready().await;
            }
        }
        let stage = Stage {
            replicas,
            setting,
            known: Known::default(),
            stop: AtomicBool::new(false),
            credential,
            seed: plan.seed,
            patience: Duration::from_secs(plan.lease + 3),
            batches: plan.batches,
            rest: plan.rest,
        };
        Self { stage: Arc::new(stage), cluster, folder }
    }

    pub async fn judge(&mut self, history: &History) -> Verdict {
        let mut conn = self.cluster.connect().await;
        let changes = changes(&mut conn).await;
        let epochs = epochs(&mut conn).await;
        conn.close().await.unwrap();
        let setting = &self.stage.setting;
        let replay = Replay::new(changes.into_iter(), &setting.questions, &setting.switches);
        let checker = Checker {
            replay: &replay,
            epochs: &epochs,
            questions: &setting.questions,
            switches: &setting.switches,
        };
        checker.check(history)
    }

    /// Says where the logs of a run that failed are.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder.0
    }
}

pub async fn torture(plan: Plan) -> Verdict {
    println!(
        "seed {}: {} s, a lease of {} s, {} replicas, faults {:?} {}",
        plan.seed, plan.seconds, plan.lease, plan.replicas, plan.faults, plan.broken
    );
    let mut scene = Scene::set(&plan).await;
    if plan.quorum {
        scene.cluster.add_standby(true).await;
    }
    let stage = scene.stage.clone();
    let mut tasks = tokio::task::JoinSet::new();
    let mut client = 0;
    for _ in 0..plan.askers {
        tasks.spawn(clients::asker(stage.clone(), client));
        client += 1;
    }
    for place in 0..plan.tenants {
        for part in 0..plan.writers {
            tasks.spawn(clients::writer(stage.clone(), client, place, part, plan.writers));
            client += 1;
        }
    }
    let until = Instant::now() + Duration::from_secs(plan.seconds);
    let injector = Injector {
        stage: stage.clone(),
        cluster: scene.cluster,
        dice: Dice::new(plan.seed, 1),
        lease: Duration::from_secs(plan.lease),
        kinds: plan.faults,
        calm: plan.calm,
        disk: plan.disk,
        counts: BTreeMap::new(),
    };
    let injector = if injector.kinds.is_empty() {
        tokio::time::sleep_until(until.into()).await;
        injector
    } else {
        injector.run(until).await
    };
    // Everything heals by itself.
    for replica in &stage.replicas {
        replica.ready().await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.stop.store(true, Ordering::Relaxed);
    let mut history = History::default();
    while let Some(seen) = tasks.join_next().await {
        history.absorb(seen.unwrap());
    }
    let told = injector.told();
    scene.cluster = injector.cluster;
    let verdict = scene.judge(&history).await;
    println!("{told}, {} lives of {} replicas", lives(&stage), plan.replicas);
    println!("{:?}", history.failures);
    println!("{verdict:#?}");
    if !verdict.clean() {
        println!("logs of the replicas: {}", scene.folder().display());
    }
    verdict
}

#[derive(Deserialize)]
struct Body {
    before: Option<Record>,
    after: Option<Record>,
}

async fn changes(conn: &mut PgConnection) -> Vec<Change> {
    let events: Vec<(i64, TenantId, String)> =
        sqlx::query_as("select revision, tenant_id, body::text from events order by revision, n")
            .fetch_all(conn)
            .await
            .unwrap();
    let mut changes: Vec<Change> = Vec::new();
    for (revision, tenant, body) in events {
        let revision = revision.unsigned_abs();
        let Body { before, after } = serde_json::from_str(&body).unwrap();
        let event = (tenant, before, after);
        match changes.last_mut() {
            Some(last) if last.revision == revision => last.events.push(event),
            _ => changes.push(Change { revision, events: vec![event] }),
        }
    }
    changes
}

async fn epochs(conn: &mut PgConnection) -> Epochs {
    let rows: Vec<(i64, i64)> =
        sqlx::query_as("select epoch, base from epochs").fetch_all(conn).await.unwrap();
    let epoch = |(epoch, base): (i64, i64)| (u32::try_from(epoch).unwrap(), base.unsigned_abs());
    rows.into_iter().map(epoch).collect()
}
