//! The PostgreSQL that we run ourselves: it keeps its data, and never outlives us.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rolecall::dev::postgres::{DATABASE, Options, Postgres, PostgresError};
use sqlx::{Connection, PgConnection};

/// A folder of one test, away from the others, gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rolecall-{name}-{}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        Self(path)
    }

    fn options(&self) -> Options {
        Options { data_dir: self.0.clone(), bin_dir: None, port: 0, durable: false }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn server_pid(data_dir: &Path) -> i32 {
    let text = fs::read_to_string(data_dir.join("cluster/postmaster.pid")).unwrap();
    text.lines().next().unwrap().trim().parse().unwrap()
}

/// A dead process that nobody has collected yet is not alive.
fn alive(pid: i32) -> bool {
    let known = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok();
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    known && !state.contains(") Z ")
}

/// How long a process still lives, `None` past five seconds.
fn ends(pid: i32) -> Option<Duration> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        if !alive(pid) {
            return Some(begun.elapsed());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

async fn connect(postgres: &Postgres) -> PgConnection {
    PgConnection::connect(&postgres.url(DATABASE)).await.unwrap()
}

#[tokio::test]
async fn a_second_start_on_the_same_folder_keeps_the_data() {
    let scratch = Scratch::new("keeps");
    let first = Postgres::start(scratch.options()).await.unwrap();
    let mut connection = connect(&first).await;
    sqlx::raw_sql("CREATE TABLE kept AS SELECT 7 AS n").execute(&mut connection).await.unwrap();
    let pid = server_pid(first.data_dir());
    first.stop().await.unwrap();
    assert!(!alive(pid), "an orderly stop waits for the server's end");

    let second = Postgres::start(scratch.options()).await.unwrap();
    let mut connection = connect(&second).await;
    let n: i32 = sqlx::query_scalar("SELECT n FROM kept").fetch_one(&mut connection).await.unwrap();
    assert_eq!(n, 7);
}

#[tokio::test]
async fn the_server_lets_nobody_in_without_the_password() {
    let scratch = Scratch::new("password");
    let postgres = Postgres::start(scratch.options()).await.unwrap();
    let url = format!("postgres://postgres:guess@127.0.0.1:{}/postgres", postgres.port());
    let refused = PgConnection::connect(&url).await.unwrap_err();
    assert!(refused.to_string().contains("password authentication failed"), "{refused}");
}

#[tokio::test]
async fn a_folder_in_use_is_refused_with_the_process_that_holds_it() {
    let scratch = Scratch::new("in-use");
    let _first = Postgres::start(scratch.options()).await.unwrap();
    let refused = Postgres::start(scratch.options()).await.err().unwrap();
    assert!(matches!(refused, PostgresError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
}

#[tokio::test]
async fn missing_binaries_are_said_with_their_remedy() {
    let scratch = Scratch::new("missing");
    let options = Options { bin_dir: Some("/nowhere".into()), ..scratch.options() };
    let refused = Postgres::start(options).await.err().unwrap();
    assert!(refused.to_string().contains("`--pg-bin`"), "{refused}");
}

#[test]
fn a_killed_parent_leaves_no_server_behind() {
    let scratch = Scratch::new("killed");
    let mut parent = parent_of_a_server(&scratch.0);
    let server = server_pid(&scratch.0);
    assert!(alive(server));
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(ends(server).is_some(), "the server outlived its parent by five seconds");
}

#[tokio::test]
async fn a_leftover_of_an_earlier_run_is_stopped() {
    let scratch = Scratch::new("leftover");
    let first = Postgres::start(scratch.options()).await.unwrap();
    let cluster = first.data_dir().join("cluster");
    first.stop().await.unwrap();

    // The same server without its supervisor, which alone may have been killed.
    let started_as = fs::read_to_string(cluster.join("postmaster.opts")).unwrap();
    let mut leftover = Command::new("sh")
        .args(["-c", &format!("exec {started_as}")])
        .uid(fs::metadata(&cluster).unwrap().uid())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ready =
        || fs::read_to_string(cluster.join("postmaster.pid")).is_ok_and(|t| t.contains("ready"));
    while !ready() {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(server_pid(&scratch.0), i32::try_from(leftover.id()).unwrap());

    let next = Postgres::start(scratch.options()).await.unwrap();
    assert!(leftover.try_wait().unwrap().is_some(), "the leftover still runs");
    next.stop().await.unwrap();
}

#[tokio::test]
async fn a_pid_file_whose_number_another_process_got_is_no_hindrance() {
    let scratch = Scratch::new("reused");
    let first = Postgres::start(scratch.options()).await.unwrap();
    let file = first.data_dir().join("cluster/postmaster.pid");
    let stale = fs::read_to_string(&file).unwrap();
    let server = server_pid(first.data_dir());
    first.stop().await.unwrap();

    let user = fs::metadata(file.parent().unwrap()).unwrap().uid();
    let mut other = Command::new("sleep").arg("60").uid(user).spawn().unwrap();
    fs::write(&file, stale.replacen(&server.to_string(), &other.id().to_string(), 1)).unwrap();
    let second = Postgres::start(scratch.options()).await;
    assert!(alive(i32::try_from(other.id()).unwrap()), "a stranger was stopped");
    other.kill().unwrap();
    other.wait().unwrap();
    second.unwrap();
}

/// This test binary again, as a process that holds a server and can be killed.
fn parent_of_a_server(data_dir: &Path) -> Child {
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "postgres::hold_a_server", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(parent.stdin.as_mut().unwrap(), "{}", data_dir.display()).unwrap();
    let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.ends_with("holding")));
    parent
}

#[tokio::test]
#[ignore = "run by other tests as the process that they kill"]
async fn hold_a_server() {
    let mut data_dir = String::new();
    std::io::stdin().read_line(&mut data_dir).unwrap();
    let Some(data_dir) = data_dir.strip_suffix('\n') else {
        return;
    };
    let options = Options { data_dir: data_dir.into(), bin_dir: None, port: 0, durable: false };
    let _server = Postgres::start(options).await.unwrap();
    println!("holding");
    std::thread::sleep(Duration::from_secs(60));
}
