//! What a check costs over the wire, beside the yardstick: an empty RPC. The server is pinned to core
//! 0, the generator of the load to core 1; servers take turns, medians are printed.
//!
//! `make bench` fills a PostgreSQL in `target/bench-data` with a million people (once; it takes
//! minutes), prints the table of the README and draws its plot. `make bench ARGS=--small` is the same
//! on little data in a minute, and draws into `target/checks.svg`. A machine must have nothing else
//! to do.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "a bench says what it saw, or stops"
)]

mod client;
mod generator;
mod load;
mod report;
mod servers;
#[path = "../world/mod.rs"]
mod world;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use clap::Parser;
use rolecall::{
    config::{LogArgs, LogFormat},
    proto as pb, telemetry,
};

use client::Client;
use generator::{Calls, Load, Requests};
use report::{Row, Turn, median, of};
use servers::Contestant;
use world::{Asked, Shape, World};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SERVER_CORE: &str = "0";
const GENERATOR_CORE: &str = "1";
const BOTH: &str = "0,1";

const CHECK: &str = "/rolecall.v1.PermissionService/CheckPermission";
const BATCH: &str = "/rolecall.v1.PermissionService/BatchCheckPermissions";
const STREAM: &str = "/rolecall.v1.PermissionService/CheckPermissionStream";

const HOT: usize = 1_000;
const WARMUP: Duration = Duration::from_millis(300);
const H2LOAD_CALLS: usize = 300_000;

#[derive(Parser)]
struct Args {
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
    /// A hundredth of the data, and short turns.
    #[arg(long)]
    small: bool,
    #[arg(long, default_value_t = 10_000)]
    tenants: usize,
    #[arg(long, default_value_t = 1_000_000)]
    users: usize,
    #[arg(long, default_value_t = 10_000_000)]
    assignments: usize,
    /// Members of one more tenant, with one assignment each.
    #[arg(long, default_value_t = 1_000_000)]
    tenant_of: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Distinct requests of the random loads.
    #[arg(long, default_value_t = 200_000)]
    random: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Of each turn.
    #[arg(long, default_value_t = 2.5)]
    seconds: f64,
    /// Fill the database, and no more.
    #[arg(long)]
    fill: bool,
    /// Only the loads whose names contain this.
    #[arg(long)]
    only: Option<String>,
    #[command(subcommand)]
    server: Option<ServerProcess>,
}

/// What this program starts itself as.
#[derive(clap::Subcommand)]
enum ServerProcess {
    Bare,
    Rolecall { url: String },
}

fn main() {
    let mut args = Args::parse();
    if args.server.is_some() {
        // As a server does, which decides what becomes of every span that a library opens.
        let (log, log_format) = ("error".to_owned(), LogFormat::Pretty);
        telemetry::log(&LogArgs { log, log_format }).unwrap();
    }
    if matches!(args.server, Some(ServerProcess::Bare)) {
        return servers::bare();
    }
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match args.server.take() {
        Some(ServerProcess::Rolecall { url }) => threads.block_on(servers::rolecall(&url)),
        _ => measure(args, &threads),
    }
}

fn measure(mut args: Args, threads: &tokio::runtime::Runtime) {
    if args.small {
        (args.tenants, args.users, args.assignments) = (100, 10_000, 100_000);
        (args.tenant_of, args.random, args.seconds) = (10_000, 20_000, 0.5);
    }
    let Args { tenants, users, assignments, tenant_of, seed, .. } = args;
    let world = World::new(Shape { tenants, users, assignments, tenant_of, seed });
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let filled = threads.block_on(load::database(&target.join("bench-data"), &world));
    if args.fill {
        return threads.block_on(filled.postgres.stop()).unwrap();
    }
    servers::pin(std::process::id(), GENERATOR_CORE);
    let bench = Bench { args, world, url: filled.url, api_key: filled.api_key };
    if bench.args.only.is_none() {
        bench.first_answers(threads);
    }

    let ours = bench.rolecall(SERVER_CORE);
    let before = ours.memory();
    let seconds = threads.block_on(bench.client(&ours).load_tenants(&bench.world));
    let bytes = ours.memory() - before;
    println!(
        "loaded {} assignments in {seconds:.1} s: {} MB more memory, {:.1} bytes an assignment\n",
        filled.assignments,
        bytes >> 20,
        bytes as f64 / filled.assignments as f64
    );
    let mut loads = Loads::new(&bench.world, bench.args.random);
    threads.block_on(bench.client(&ours).verify(&bench.world, &loads.hot, &loads.random));
    if let Some(only) = &bench.args.only {
        loads.rows.retain(|(name, ..)| name.contains(only));
        report::table(&bench.rounds(&loads, &ours));
        return threads.block_on(filled.postgres.stop()).unwrap();
    }
    let rows = bench.rounds(&loads, &ours);
    report::table(&rows);
    bench.two_cores(&loads, &ours, threads);
    bench.h2load(&loads);
    let plot: PathBuf =
        if bench.args.small { target } else { target.join("../benches") }.join("checks.svg");
    report::plot(&plot, &rows);
    println!("the plot is in {}", plot.display());
    drop(ours);
    threads.block_on(filled.postgres.stop()).unwrap();
}

/// The requests of every load.
struct Loads {
    hot: Vec<Asked>,
    random: Vec<Asked>,
    /// Ready to be sent, with what the row is called.
    rows: Vec<(String, Requests, usize, Calls)>,
}

impl Loads {
    fn new(world: &World, random: usize) -> Self {
        let hot = world.questions(HOT);
        let random = world.questions(random);
        let mut rows = Vec::new();
        for (connections, streams, questions, name) in [
            (1, 1, &hot, "hot"),
            (1, 32, &hot, "hot"),
            (8, 32, &hot, "hot"),
            (8, 32, &random, "random"),
        ] {
            let requests = Requests::new(CHECK, 1, questions.iter().map(check));
            let name = format!("{connections}×{streams} {name}");
            rows.push((name, requests, connections, Calls::Single { streams }));
        }
        for (questions, name) in [(&hot, "hot"), (&random, "random")] {
            let requests = Requests::new(STREAM, 1, questions.iter().enumerate().map(message));
            rows.push((format!("stream {name}"), requests, 8, Calls::Stream { window: 256 }));
        }
        for size in [100, 1_000] {
            for (batches, name) in [(1, "hot"), (random.len() / HOT, "random")] {
                let requests = Requests::new(BATCH, size, batch_requests(world, batches, size));
                let calls = Calls::Single { streams: 4 };
                rows.push((format!("batch {size} {name}"), requests, 2, calls));
            }
        }
        let one = Requests::new(BATCH, HOT, random.iter().take(HOT).map(|a| person(world, a)));
        rows.push((format!("batch {HOT} person"), one, 2, Calls::Single { streams: 4 }));
        Self { hot, random, rows }
    }

    /// The load that says how much a server can do.
    fn full(&self) -> &(String, Requests, usize, Calls) {
        &self.rows[2]
    }
}

fn check(asked: &Asked) -> pb::CheckPermissionRequest {
    pb::CheckPermissionRequest {
        tenant: asked.tenant.clone(),
        subject: asked.subject.clone(),
        permission: asked.permission.clone(),
        resource: asked.resource.clone(),
        consistency: None,
    }
}

fn message((n, asked): (usize, &Asked)) -> pb::CheckPermissionStreamRequest {
    pb::CheckPermissionStreamRequest {
        tenant: asked.tenant.clone(),
        subject: asked.subject.clone(),
        permission: asked.permission.clone(),
        resource: asked.resource.clone(),
        correlation_id: n as u64,
        consistency: None,
    }
}

fn batch(asked: &[Asked]) -> pb::BatchCheckPermissionsRequest {
    let items = asked.iter().map(|asked| pb::CheckPermissionItem {
        subject: asked.subject.clone(),
        permission: asked.permission.clone(),
        resource: asked.resource.clone(),
    });
    pb::BatchCheckPermissionsRequest {
        tenant: asked[0].tenant.clone(),
        items: items.collect(),
        consistency: None,
    }
}

/// A thousand questions of as many tenants as there are batches, the large ones more often.
fn batch_requests(
    world: &World,
    batches: usize,
    size: usize,
) -> Vec<pb::BatchCheckPermissionsRequest> {
    let mut tenants: Vec<usize> =
        world.questions(batches.max(2)).iter().map(|asked| asked.place.0).collect();
    tenants.truncate(batches);
    tenants.sort_unstable();
    let mut requests = Vec::new();
    for chosen in tenants.chunk_by(|a, b| a == b) {
        let questions = world.questions_in(chosen[0], None, HOT * chosen.len());
        requests.extend(questions.chunks(size).map(batch));
    }
    requests
}

/// As many questions as a batch has about one person: which of these things may they see?
fn person(world: &World, asked: &Asked) -> pb::BatchCheckPermissionsRequest {
    let (tenant, member) = asked.place;
    batch(&world.questions_in(tenant, Some(member), HOT))
}

struct Bench {
    args: Args,
    world: World,
    url: String,
    api_key: String,
}

impl Bench {
    fn rolecall(&self, cores: &str) -> Contestant {
        Contestant::start(cores, &["rolecall", &self.url])
    }

    fn client(&self, server: &Contestant) -> Client {
        Client::new(&server.address, &self.api_key)
    }

    /// How long somebody waits who is the first to ask about a tenant.
    fn first_answers(&self, threads: &tokio::runtime::Runtime) {
        let small = self.world.shape.tenants / 2..self.world.shape.tenants;
        let (mut large_ones, mut small_ones) = (Vec::new(), Vec::new());
        for _ in 0..self.args.rounds {
            let server = self.rolecall(SERVER_CORE);
            let client = self.client(&server);
            for n in small.clone().take(21) {
                small_ones.push(threads.block_on(client.first_answer(&self.world, n)));
            }
            if self.world.shape.tenant_of > 0 {
                let large = self.world.shape.tenants;
                large_ones.push(threads.block_on(client.first_answer(&self.world, large)));
            }
        }
        let most = small_ones.iter().copied().fold(0.0, f64::max);
        let usual = median(small_ones);
        println!(
            "first answer on a small tenant: {:.1} ms, at most {:.1} ms",
            usual * 1e3,
            most * 1e3
        );
        if !large_ones.is_empty() {
            let (members, seconds) = (self.world.shape.tenant_of, median(large_ones));
            println!("first answer on a tenant of {members} members: {seconds:.2} s");
        }
    }

    fn turn(
        &self,
        server: &Contestant,
        (_, requests, connections, calls): &(String, Requests, usize, Calls),
    ) -> Turn {
        let load = Load {
            address: &server.address,
            api_key: &self.api_key,
            requests,
            connections: *connections,
            calls: *calls,
            warmup: WARMUP,
            time: Duration::from_secs_f64(self.args.seconds),
        };
        let mut marks = Vec::new();
        let run =
            generator::run(load, || marks.push((server.cpu(), servers::cpu(std::process::id()))));
        let (used, own) = (marks[1].0 - marks[0].0, marks[1].1 - marks[0].1);
        let mut latencies = run.latencies;
        latencies.sort_unstable();
        let percentile = |p: usize| {
            latencies.get(latencies.len() * p / 100).map_or(0.0, |nanos| f64::from(*nanos) / 1e3)
        };
        Turn {
            server: used * 1e6 / run.checks,
            generator: own * 1e6 / run.checks,
            per_second: run.checks / run.seconds,
            busy: used / run.seconds,
            p50: percentile(50),
            p99: percentile(99),
        }
    }

    /// Every load in turns; and how the latency compares with that of two equal yardsticks.
    fn rounds(&self, loads: &Loads, ours: &Contestant) -> Vec<Row> {
        let bare = Contestant::start(SERVER_CORE, &["bare"]);
        let copy = Contestant::start(SERVER_CORE, &["bare"]);
        let mut rows = Vec::new();
        for load in &loads.rows {
            let mut row = Row { load: load.0.clone(), yardstick: vec![], ours: vec![] };
            let mut copies = Vec::new();
            for _ in 0..self.args.rounds {
                row.yardstick.push(self.turn(&bare, load));
                row.ours.push(self.turn(ours, load));
                if load.2 == 1 && load.3 == (Calls::Single { streams: 1 }) {
                    copies.push(self.turn(&copy, load));
                }
            }
            if !copies.is_empty() {
                latency(&row, &copies);
            }
            rows.push(row);
        }
        rows
    }

    /// With two cores the generator needs a part of one, so what counts is how many checks a second
    /// of the server's CPU yields.
    fn two_cores(&self, loads: &Loads, one: &Contestant, threads: &tokio::runtime::Runtime) {
        let two = self.rolecall(BOTH);
        threads.block_on(self.client(&two).verify(&self.world, &loads.hot, &[]));
        let (mut ones, mut twos) = (Vec::new(), Vec::new());
        for _ in 0..self.args.rounds {
            servers::pin(std::process::id(), GENERATOR_CORE);
            ones.push(self.turn(one, loads.full()));
            servers::pin(std::process::id(), BOTH);
            twos.push(self.turn(&two, loads.full()));
        }
        servers::pin(std::process::id(), GENERATOR_CORE);
        let (one, two) = (of(&ones, |t| t.server), of(&twos, |t| t.server));
        println!(
            "from one server core to two, {}: {one:.3} and {two:.3} µs a check, so {:.2} × as many \
             checks (seen: {:.0}/s and {:.0}/s, with the generator on the second core)\n",
            loads.full().0,
            2.0 * one / two,
            of(&ones, |t| t.per_second),
            of(&twos, |t| t.per_second),
        );
    }

    /// The empty RPC under a generator that nobody here wrote.
    fn h2load(&self, loads: &Loads) {
        let body = std::env::temp_dir().join("rolecall-bench-body");
        let (_, requests, connections, _) = loads.full();
        std::fs::write(&body, requests.message(0)).unwrap();
        let bare = Contestant::start(SERVER_CORE, &["bare"]);
        let before = bare.cpu();
        let ran = Command::new("h2load")
            .args(["-t", "1", "-m", "32", "-c", &connections.to_string()])
            .args(["-n", &H2LOAD_CALLS.to_string(), "-d"])
            .arg(&body)
            .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
            .args(["-H", &format!("authorization: Bearer {}", self.api_key)])
            .arg(format!("http://{}{CHECK}", bare.address))
            .output();
        let Ok(ran) = ran else {
            println!("no h2load here, so nothing was cross-checked (package nghttp2-client)\n");
            return;
        };
        let cpu = bare.cpu() - before;
        let said = String::from_utf8_lossy(&ran.stdout);
        let wanted = format!("{H2LOAD_CALLS} succeeded");
        assert!(said.contains(&wanted), "h2load: {said}");
        let own = of(
            &(0..self.args.rounds).map(|_| self.turn(&bare, loads.full())).collect::<Vec<_>>(),
            |t| t.server,
        );
        println!(
            "empty RPC at 8×32: {:.3} µs under h2load, {own:.3} µs under our generator\n",
            cpu * 1e6 / H2LOAD_CALLS as f64
        );
    }
}

fn latency(row: &Row, copies: &[Turn]) {
    println!("| latency at {} | p50, µs | p99, µs |\n|---|--:|--:|", row.load);
    for (name, turns) in [
        ("empty RPC", &row.yardstick[..]),
        ("a second copy of it", copies),
        ("Rolecall", &row.ours),
    ] {
        let spread = |what: fn(&Turn) -> f64| {
            let least = turns.iter().map(what).fold(f64::INFINITY, f64::min);
            let most = turns.iter().map(what).fold(0.0, f64::max);
            format!("{:.1} ({least:.1}–{most:.1})", of(turns, what))
        };
        println!("| {name} | {} | {} |", spread(|t| t.p50), spread(|t| t.p99));
    }
    println!();
}
