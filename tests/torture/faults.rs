//! What befalls the replicas and their database, by seed.

use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use sqlx::Executor;

use crate::{clients::Stage, cluster::Cluster, dice::Dice, proxy::Mode, replica::Replica};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// kill −9, and begun again.
    Kill,
    /// An orderly end, and begun again.
    Leave,
    /// SIGSTOP, then SIGCONT.
    Pause,
    CutConnections,
    HalfOpen,
    Delay,
    LostNotifications,
    DatabaseCrash,
    /// Some connections ended by the server.
    Backends,
    /// Every tenant locked by somebody else, so that changes fill the pool.
    PoolExhausted,
    /// The wall clock of its machine is set, by seconds or by years.
    ClockJump,
    FullDisk,
    Failover,
}

pub const EVERYDAY: [Fault; 11] = [
    Fault::Kill,
    Fault::Leave,
    Fault::Pause,
    Fault::CutConnections,
    Fault::HalfOpen,
    Fault::Delay,
    Fault::LostNotifications,
    Fault::DatabaseCrash,
    Fault::Backends,
    Fault::PoolExhausted,
    Fault::ClockJump,
];

pub struct Injector {
    pub stage: Arc<Stage>,
    pub cluster: Cluster,
    pub dice: Dice,
    pub lease: Duration,
    pub kinds: Vec<Fault>,
    /// How long nothing happens between two of them.
    pub calm: (u64, u64),
    /// Where the database's data is, when the disk is small enough to be filled.
    pub disk: Option<PathBuf>,
    pub counts: BTreeMap<Fault, u32>,
}

impl Injector {
    /// Makes trouble until then, and mends everything.
    pub async fn run(mut self, until: Instant) -> Self {
        while Instant::now() < until {
            let calm = self.dice.millis(self.calm.0, self.calm.1);
            tokio::time::sleep(calm).await;
            let fault = self.kinds[self.dice.below(self.kinds.len())];
            self.strike(fault).await;
        }
        self
    }

    fn victim(&mut self) -> Arc<Replica> {
        let chosen = self.dice.below(self.stage.replicas.len());
        self.stage.replicas[chosen].clone()
    }

    pub async fn strike(&mut self, fault: Fault) {
        let victim = self.victim();
        // A little more than a lease now and then, so that both sides of it are met.
        let long = u64::try_from(self.lease.as_millis()).unwrap() * 3 / 2;
        println!("{:>7} ms: {fault:?} of {}", self.stage.known.now(), victim.name);
        match fault {
            Fault::Kill => {
                victim.kill().await;
                tokio::time::sleep(self.dice.millis(0, long)).await;
                victim.launch("").await;
            }
            Fault::Leave => {
                victim.stop().await;
                tokio::time::sleep(self.dice.millis(0, 500)).await;
                victim.launch("").await;
            }
            Fault::Pause => {
                victim.signal(Signal::SIGSTOP).await;
                tokio::time::sleep(self.dice.millis(100, long)).await;
                victim.signal(Signal::SIGCONT).await;
            }
            Fault::CutConnections => victim.proxy.cut(),
            Fault::HalfOpen => self.line(&victim, Mode::Hold, long).await,
            Fault::Delay => {
                let by = self.dice.millis(1, 150);
                self.line(&victim, Mode::Slow(by), long).await;
            }
            Fault::LostNotifications => self.line(&victim, Mode::Deaf, 2 * long).await,
            Fault::DatabaseCrash => {
                self.cluster.crash().await;
                tokio::time::sleep(self.dice.millis(0, 2 * long)).await;
                self.cluster.restart().await;
            }
            Fault::Backends => {
                let mut conn = self.cluster.connect().await;
                let some = "select pg_terminate_backend(pid) from pg_stat_activity
                            where application_name = 'rolecall' and pid % 3 = $1";
                let some = sqlx::query(some).bind(i32::try_from(self.dice.below(3)).unwrap());
                some.execute(&mut conn).await.unwrap();
            }
            Fault::PoolExhausted => {
                let mut conn = self.cluster.connect().await;
                // Changes lock the tenants in this order, too; an end of it all is as good.
                let lock = "begin; select from tenants order by id for update";
                if conn.execute(lock).await.is_ok() {
                    tokio::time::sleep(self.dice.millis(200, long)).await;
                    let _ = conn.execute("rollback").await;
                }
            }
            Fault::ClockJump => {
                let days = 86_400 * i64::try_from(self.dice.below(4_000)).unwrap();
                let by = [-days, -5, 5, days][self.dice.below(4)];
                if !victim.jump(by) {
                    return;
                }
                tokio::time::sleep(self.dice.millis(100, 2 * long)).await;
                victim.jump(0);
            }
            Fault::FullDisk => self.fill_disk().await,
            Fault::Failover => self.fail_over().await,
        }
        *self.counts.entry(fault).or_default() += 1;
    }

    async fn line(&mut self, victim: &Replica, mode: Mode, long: u64) {
        victim.proxy.set(mode);
        tokio::time::sleep(self.dice.millis(100, long)).await;
        victim.proxy.set(Mode::Pass);
        if self.dice.below(2) == 0 {
            victim.proxy.cut();
        }
    }

    /// Leaves no room for the log, until the server gives up or a while has passed.
    async fn fill_disk(&mut self) {
        let Some(disk) = self.disk.clone() else { return };
        let ballast = disk.join("ballast");
        let path = ballast.clone();
        let filled = tokio::task::spawn_blocking(move || {
            let mut file = std::fs::File::create(path).unwrap();
            let block = vec![1u8; 64 << 10];
            while file.write_all(&block).is_ok() {}
        });
        filled.await.unwrap();
        tokio::time::sleep(self.dice.millis(500, 3_000)).await;
        std::fs::remove_file(ballast).unwrap();
        // Without room for its log, PostgreSQL ends itself and may have come back by itself or not.
        self.cluster.crash().await;
        self.cluster.restart().await;
    }

    /// The standby becomes the primary while the old one still answers whoever is connected to it.
    async fn fail_over(&mut self) {
        let old = self.cluster.promote().await;
        for replica in &self.stage.replicas {
            replica.proxy.lead_to(self.cluster.port);
        }
        tokio::time::sleep(self.dice.millis(0, 500)).await;
        for n in 0..self.stage.replicas.len() {
            if self.dice.below(2) == 0 {
                self.stage.replicas[n].proxy.cut();
            }
        }
        self.cluster.add_standby(true).await;
        tokio::time::sleep(self.dice.millis(0, 2_000)).await;
        if let Some(old) = old {
            let data = old.data_dir().to_path_buf();
            let bury = move || {
                drop(old);
                std::fs::remove_dir_all(data).unwrap();
            };
            tokio::task::spawn_blocking(bury).await.unwrap();
        }
    }

    /// How many faults there were, in words.
    pub fn told(&self) -> String {
        let all: u32 = self.counts.values().sum();
        format!("{all} faults: {:?}", self.counts)
    }
}

/// How many lives the replicas have had.
pub fn lives(stage: &Stage) -> u32 {
    stage.replicas.iter().map(|replica| replica.lives.load(Ordering::Relaxed)).sum()
}
