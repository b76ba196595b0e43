//! The server's process: starts it under a supervisor that ends it when we die, waits until it is
//! ready, stops it, and stops one that an earlier run left behind.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::PostgresError;
use super::binaries::Binaries;
use super::folder::Folder;

const READY_WITHIN: Duration = Duration::from_secs(120);
const STOP_WITHIN: Duration = Duration::from_secs(30);
const LEFTOVER_WITHIN: Duration = Duration::from_secs(10);

/// Holds the server as its child and reads our pipe. Our death, however it comes, closes the pipe,
/// and the server is stopped at once; the word `stop` stops it orderly. It stands between us
/// because a signal at the parent's death (`prctl`) would need `unsafe` and hang on one thread.
const SUPERVISOR: &str = r#"
exec 3<&0
"$@" </dev/null >&2 3<&- &
server=$!
echo "$server"
{ word=; read -r word <&3
  if [ "$word" = stop ]; then kill -INT "$server"; read -r word <&3; fi
  kill -QUIT "$server"; } >/dev/null 2>&1 &
watch=$!
exec 3<&- >/dev/null
wait "$server"
status=$?
kill "$watch" 2>/dev/null
exit "$status"
"#;

/// A running server with its supervisor. Dropping it stops it at once and waits for its end.
pub(super) struct Server {
    supervisor: Child,
    pipe: Option<ChildStdin>,
    pid: Pid,
}

impl Server {
    pub fn start(
        folder: &Folder,
        binaries: &Binaries,
        port: u16,
        durable: bool,
    ) -> Result<Self, PostgresError> {
        let log = folder.new_log().map_err(|e| folder.error("write a log in", e))?;
        let mut command = folder.command("/bin/sh".into());
        command.args(["-c", SUPERVISOR, "rolecall-postgres"]);
        command.arg(binaries.folder.join("postgres")).arg("-D").arg(folder.cluster());
        for setting in settings(port, durable) {
            command.arg("-c").arg(setting);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut supervisor = command.spawn().map_err(|e| folder.error("start a server in", e))?;
        let pipe = supervisor.stdin.take();
        let mut line = String::new();
        if let Some(said) = supervisor.stdout.take() {
            BufReader::new(said).read_line(&mut line).ok();
        }
        let Ok(pid) = line.trim().parse().map(Pid::from_raw) else {
            drop(pipe);
            supervisor.wait().ok();
            return Err(failed(folder));
        };
        let mut server = Self { supervisor, pipe, pid };
        server.wait_until_ready(folder)?;
        Ok(server)
    }

    fn wait_until_ready(&mut self, folder: &Folder) -> Result<(), PostgresError> {
        let deadline = Instant::now() + READY_WITHIN;
        while Instant::now() < deadline {
            if !matches!(self.supervisor.try_wait(), Ok(None)) {
                return Err(failed(folder));
            }
            let ours = PidFile::read(folder).filter(|file| file.pid == self.pid);
            if ours.is_some_and(|file| file.ready) {
                return Ok(());
            }
            pause();
        }
        Err(PostgresError::Slow { log: folder.log() })
    }

    /// Waits for an orderly end; one that takes too long is left to `drop`.
    pub fn stop(&mut self) {
        if let Some(pipe) = &mut self.pipe {
            // Fails only when the server is gone already.
            pipe.write_all(b"stop\n").ok();
        }
        let deadline = Instant::now() + STOP_WITHIN;
        while Instant::now() < deadline && matches!(self.supervisor.try_wait(), Ok(None)) {
            pause();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // Told to stop at once, PostgreSQL kills what is left of itself after five seconds.
        self.supervisor.wait().ok();
    }
}

fn settings(port: u16, durable: bool) -> Vec<String> {
    let mut settings = vec![
        format!("port={port}"),
        "listen_addresses=127.0.0.1".to_owned(),
        "unix_socket_directories=".to_owned(),
        "max_connections=200".to_owned(),
        // What a tenant of a million is searched by; taken as it is used.
        "shared_buffers=1GB".to_owned(),
        "timezone=UTC".to_owned(),
        "log_timezone=UTC".to_owned(),
    ];
    if !durable {
        settings.extend(["fsync=off".to_owned(), "full_page_writes=off".to_owned()]);
    }
    settings
}

/// Stops the server that an earlier run left in this folder. Sound because we hold the folder's
/// lock: no living rolecall wants that server.
pub(super) fn stop_leftover(folder: &Folder) -> Result<(), PostgresError> {
    let Some(PidFile { pid, .. }) = PidFile::read(folder) else {
        return Ok(());
    };
    let deadline = Instant::now() + LEFTOVER_WITHIN;
    while let Some(command_line) = command_line(pid) {
        if !mentions(&command_line, folder.cluster().as_os_str()) {
            // Another process got the number, and PostgreSQL would refuse to start because of it.
            // Invariant: a file that may name any server stays, it guards the data against two.
            if !mentions(&command_line, "postgres".as_ref()) {
                fs::remove_file(PidFile::path(folder)).ok();
            }
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(PostgresError::Leftover { pid: pid.as_raw() });
        }
        kill(pid, Signal::SIGQUIT).ok();
        pause();
    }
    Ok(())
}

/// What a living process was started as; `None` when it is gone or was not yet collected.
fn command_line(pid: Pid) -> Option<Vec<u8>> {
    let known = fs::read(format!("/proc/{pid}/cmdline")).or_else(|_| {
        let pid = pid.to_string();
        Command::new("ps").args(["-o", "command=", "-p", &pid]).output().map(|said| said.stdout)
    });
    known.ok().filter(|line| !line.is_empty())
}

fn mentions(command_line: &[u8], wanted: &OsStr) -> bool {
    let wanted = wanted.as_encoded_bytes();
    command_line.windows(wanted.len()).any(|part| part == wanted)
}

/// What PostgreSQL writes of itself into `postmaster.pid`.
struct PidFile {
    pid: Pid,
    ready: bool,
}

impl PidFile {
    fn path(folder: &Folder) -> PathBuf {
        folder.cluster().join("postmaster.pid")
    }

    fn read(folder: &Folder) -> Option<Self> {
        let text = fs::read_to_string(Self::path(folder)).ok()?;
        let mut lines = text.lines();
        let pid = Pid::from_raw(lines.next()?.trim().parse().ok()?);
        Some(Self { pid, ready: lines.nth(6).is_some_and(|status| answers(status.trim())) })
    }
}

/// A standby answers, too.
fn answers(status: &str) -> bool {
    status == "ready" || status == "standby"
}

fn failed(folder: &Folder) -> PostgresError {
    let mut log = String::new();
    File::open(folder.log()).and_then(|mut file| file.read_to_string(&mut log)).ok();
    let lines: Vec<&str> = log.lines().collect();
    let last = lines[lines.len().saturating_sub(12)..].join("\n");
    PostgresError::Failed { program: "postgres", said: last }
}

pub(super) fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}
