//! What a write costs beside a bare command. Run in a release build, with `--ignored --nocapture`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::Cmd;

use crate::nodes::clock::steady_us;
use crate::nodes::{Deadline, Nodes, Settings};

const ROUNDS: usize = 9;
const WRITES: u64 = 5_000;

fn mark(n: u64) -> (String, Cmd) {
    // One node has all: the comparison has one connection.
    let key = format!("{{m}}{n}");
    let mut set = redis::cmd("SET");
    set.arg(&key).arg("v").arg("NX").arg("PX").arg(60_000).arg("GET");
    (key, set)
}

fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

/// Returns the microseconds a write, of `tasks` that write at once.
async fn ours(nodes: &Nodes, next: &Arc<AtomicU64>, tasks: u64) -> f64 {
    let start = steady_us();
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let (nodes, next) = (nodes.clone(), next.clone());
        set.spawn(async move {
            for _ in 0..WRITES / tasks {
                let (key, command) = mark(next.fetch_add(1, Ordering::Relaxed));
                nodes.write(key.as_bytes(), command, deadline()).await.unwrap();
            }
        });
    }
    set.join_all().await;
    (steady_us() - start) as f64 / WRITES as f64
}

async fn bare(
    connection: &redis::aio::MultiplexedConnection,
    next: &Arc<AtomicU64>,
    tasks: u64,
) -> f64 {
    let start = steady_us();
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let (mut connection, next) = (connection.clone(), next.clone());
        set.spawn(async move {
            for _ in 0..WRITES / tasks {
                let (_, command) = mark(next.fetch_add(1, Ordering::Relaxed));
                connection.send_packed_command(&command).await.unwrap();
            }
        });
    }
    set.join_all().await;
    (steady_us() - start) as f64 / WRITES as f64
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

async fn compare(port: u16) {
    let connect = |min_replicas| {
        let mut settings = Settings::new(vec![("127.0.0.1".into(), port)]);
        settings.min_replicas = min_replicas;
        Nodes::connect(settings, deadline())
    };
    let nodes = connect(0).await.unwrap();
    let replicated = connect(1).await.unwrap();
    let owner = nodes.cluster.map().owner(crate::nodes::slot(b"{m}")).unwrap().clone();
    let client = redis::Client::open(format!("redis://{owner}")).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    let next = Arc::new(AtomicU64::new(0));
    for tasks in std::env::var("NODES_TASKS").map_or(vec![1, 16, 64], |n| vec![n.parse().unwrap()])
    {
        let mut figures = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            figures[0].push(bare(&connection, &next, tasks).await);
            figures[1].push(ours(&nodes, &next, tasks).await);
            figures[2].push(ours(&replicated, &next, tasks).await);
        }
        let [bare, ours, replicated] = figures.map(median);
        println!(
            "{tasks:3} tasks: bare {bare:6.1} us a write, ours {ours:6.1} ({:.2}), with a replica {replicated:6.1}",
            ours / bare
        );
    }
}

#[test]
#[ignore = "measures"]
fn a_write_costs_little_more_than_a_bare_command() {
    let port = std::env::var("NODES_PORT").unwrap().parse().unwrap();
    for workers in [0, 2] {
        let runtime = match workers {
            0 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
            n => tokio::runtime::Builder::new_multi_thread().worker_threads(n).enable_all().build(),
        };
        println!("worker threads: {workers}");
        runtime.unwrap().block_on(compare(port));
    }
}
