//! The built program, `rolecall serve`, behind a proxy of its own.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Mutex,
};
use tonic::transport::Endpoint;

use crate::{
    proxy::Proxy,
    world::{Api, Auth},
};

/// What all replicas are started with.
#[derive(Debug, Clone)]
pub struct Settings {
    pub folder: PathBuf,
    pub secret_key: String,
    pub password: String,
    pub lease: u64,
    pub pool: u32,
    pub strict: bool,
}

pub struct Replica {
    pub name: String,
    pub proxy: Proxy,
    pub port: u16,
    /// How many processes it has been.
    pub lives: AtomicU32,
    settings: Settings,
    admin: u16,
    child: Mutex<Option<Child>>,
}

fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    socket.local_addr().unwrap().port()
}

impl Replica {
    pub async fn start(number: usize, settings: &Settings, database: u16) -> Self {
        let replica = Self {
            name: format!("r{number}"),
            proxy: Proxy::start(database).await,
            port: free_port(),
            admin: free_port(),
            lives: AtomicU32::new(0),
            settings: settings.clone(),
            child: Mutex::new(None),
        };
        replica.launch("").await;
        replica
    }

    pub fn log(&self) -> PathBuf {
        self.settings.folder.join(format!("{}.log", self.name))
    }

    /// Begins a new life, unless there is one.
    pub async fn launch(&self, faults: &str) {
        let mut child = self.child.lock().await;
        if let Some(running) = child.as_mut()
            && running.try_wait().unwrap().is_none()
        {
            return;
        }
        let Settings { folder, secret_key, password, lease, pool, strict, .. } = &self.settings;
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rolecall"));
        command.arg("serve").env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let proxy = self.proxy.port;
        let state = folder.join(format!("{}.state", self.name));
        for (name, value) in [
            ("PATH", "/usr/bin:/bin".to_owned()),
            (
                "ROLECALL_DATABASE_URL",
                format!(
                    "postgres://postgres:{password}@127.0.0.1:{proxy}/rolecall?sslmode=disable"
                ),
            ),
            ("ROLECALL_DATABASE_POOL", pool.to_string()),
            ("ROLECALL_LISTEN", format!("127.0.0.1:{}", self.port)),
            ("ROLECALL_ADMIN_LISTEN", format!("127.0.0.1:{}", self.admin)),
            ("ROLECALL_SECRET_KEY", secret_key.clone()),
            ("ROLECALL_MAIL_URL", format!("file://{}", mails(folder).display())),
            ("ROLECALL_MAIL_FROM", "Rolecall <rolecall@localhost>".to_owned()),
            ("ROLECALL_PUBLIC_URL", format!("http://127.0.0.1:{}", self.port)),
            ("ROLECALL_DRAIN_SECONDS", "1".to_owned()),
            ("ROLECALL_LOG", "warn".to_owned()),
            ("ROLECALL_LEASE", lease.to_string()),
            ("ROLECALL_STATE_DIR", state.display().to_string()),
            ("ROLECALL_REPLICA_NAME", self.name.clone()),
            ("ROLECALL_DURABILITY", if *strict { "strict" } else { "default" }.to_owned()),
        ] {
            command.env(name, value);
        }
        if let Some(library) = clock_library() {
            self.jump(0);
            command.env("LD_PRELOAD", library);
            command.env("FAKETIME_TIMESTAMP_FILE", self.clock());
            command.env("FAKETIME_CACHE_DURATION", "1");
            // Whose clocks for durations nobody can set.
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        if !faults.is_empty() {
            command.env("ROLECALL_FAULTS", faults);
        }
        *child = Some(command.spawn().unwrap());
        self.lives.fetch_add(1, Ordering::Relaxed);
    }

    fn clock(&self) -> PathBuf {
        self.settings.folder.join(format!("{}.clock", self.name))
    }

    /// Sets the wall clock that its process sees, by so many seconds off the true one; `false` when there
    /// is nothing to do that with.
    pub fn jump(&self, seconds: i64) -> bool {
        clock_library().is_some() && std::fs::write(self.clock(), format!("{seconds:+}\n")).is_ok()
    }

    pub async fn signal(&self, signal: Signal) {
        if let Some(child) = self.child.lock().await.as_ref() {
            let _ = kill(pid(child), signal);
        }
    }

    /// Whether its process is there and does not run.
    pub async fn is_stopped(&self) -> bool {
        let child = self.child.lock().await;
        let state = child.as_ref().map(|child| format!("/proc/{}/status", child.id()));
        let state = state.and_then(|path| std::fs::read_to_string(path).ok());
        state.is_some_and(|state| state.contains("State:\tT"))
    }

    pub async fn kill(&self) {
        if let Some(mut child) = self.child.lock().await.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(&self) {
        let Some(mut child) = self.child.lock().await.take() else { return };
        let _ = kill(pid(&child), Signal::SIGTERM);
        let patience = Instant::now() + Duration::from_secs(20);
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > patience {
                println!("{} did not stop in 20 s", self.name);
                child.kill().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until it says that it serves. One whose start a fault has ended begins again, as whatever
    /// looks after processes would see to.
    pub async fn ready(&self) {
        let patience = Instant::now() + Duration::from_secs(60);
        loop {
            let mut ask = tokio::process::Command::new(env!("CARGO_BIN_EXE_rolecall"));
            ask.arg("healthcheck").env_clear();
            ask.env("ROLECALL_ADMIN_LISTEN", format!("127.0.0.1:{}", self.admin));
            let asked = ask.stdout(Stdio::null()).stderr(Stdio::null()).status().await;
            if asked.unwrap().success() {
                return;
            }
            let late = Instant::now() > patience;
            assert!(!late, "{} does not serve:\n{}", self.name, self.told().await);
            self.launch("").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What is known of a process that does not answer.
    async fn told(&self) -> String {
        let child = self.child.lock().await;
        let state = child.as_ref().map(|child| format!("/proc/{}/status", child.id()));
        let state = state.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let state = state.lines().find(|line| line.starts_with("State")).unwrap_or("it has ended");
        format!("{state}\n{log}")
    }

    /// What it has measured, as Prometheus reads it.
    pub async fn metrics(&self) -> String {
        let mut socket = TcpStream::connect(("127.0.0.1", self.admin)).await.unwrap();
        socket.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// A caller, connected when it first calls and again after every loss.
    pub fn api(&self, credential: &str) -> Api {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port)).unwrap();
        let channel = endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy();
        Api { channel, auth: Auth::of(credential) }
    }
}

/// The library by which a process sees another wall clock, where it is installed.
fn clock_library() -> Option<PathBuf> {
    let libraries = std::fs::read_dir("/usr/lib").ok()?;
    let mut places =
        libraries.map(|place| place.unwrap().path().join("faketime/libfaketimeMT.so.1"));
    places.find(|library| library.exists())
}

pub fn mails(folder: &Path) -> PathBuf {
    folder.join("mails")
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.get_mut().take() {
            let _ = kill(pid(&child), Signal::SIGCONT);
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
