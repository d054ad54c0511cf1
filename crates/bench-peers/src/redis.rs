//! Redis over a Unix socket: `SET id 1 NX PX ttl`.
//!
//! Durability: with `appendonly yes` the server writes its log before it answers. `appendfsync no`
//! leaves the sync to the operating system: that survives a killed server. `appendfsync always` syncs
//! before answering, once for all the commands that arrived together: that survives a power cut.
//!
//! The server is started in the run's folder, stopped at the end, and dies with this process.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Contender, Durability, Error, Plan, Report, Result, Worker};
use redis::{Client, Connection, Value, cmd, pipe};

/// How long the server may take to load its log.
const LOADING: Duration = Duration::from_secs(120);

pub(crate) struct Redis {
    server: Child,
    client: Client,
    _socket: Socket,
    version: String,
    settings: String,
}

/// The path of a socket may have about 100 bytes only: it lies in a short folder of its own.
struct Socket(PathBuf);

impl Socket {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("seen-compare-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    fn path(&self) -> PathBuf {
        self.0.join("redis.sock")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn start(dir: &Path, socket: &Path, appendfsync: &str) -> Result<Child> {
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--save", "", "--appendonly", "yes", "--daemonize", "no"]);
    command.args(["--appendfsync", appendfsync, "--auto-aof-rewrite-percentage", "0"]);
    command.arg("--dir").arg(dir).arg("--unixsocket").arg(socket);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    // SAFETY: prctl is async-signal-safe and touches nothing of this process.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command.spawn().map_err(|e| format!("redis-server cannot be started: {e}").into())
}

impl Contender for Redis {
    fn open(plan: &Plan) -> Result<Self> {
        let appendfsync = match plan.durability {
            Durability::Kill => "no",
            Durability::Power => "always",
        };
        let socket = Socket::new()?;
        let server = start(&plan.dir, &socket.path(), appendfsync)?;
        let client = Client::open(format!("unix://{}", socket.path().display()))?;
        let settings = format!(
            "Unix socket, appendonly yes, appendfsync {appendfsync}, no snapshots, no log rewrites; \
             a connection a thread; batches as pipelines"
        );
        let mut redis = Self { server, client, _socket: socket, version: String::new(), settings };
        let begin = Instant::now();
        redis.version = loop {
            if let Some(status) = redis.server.try_wait()? {
                return Err(format!("redis-server ended: {status}").into());
            }
            match redis.server_version() {
                Ok(version) => break version,
                Err(e) if begin.elapsed() > LOADING => return Err(e),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        Ok(redis)
    }

    fn report(&self) -> Report {
        Report { version: format!("Redis {}", self.version), settings: self.settings.clone() }
    }

    fn worker(&self) -> Result<Box<dyn Worker + '_>> {
        Ok(Box::new(Caller(self.client.get_connection()?)))
    }

    /// Writes the log anew in its short form, as a server does from time to time.
    fn settle(&self) -> Result<()> {
        let mut connection = self.client.get_connection()?;
        cmd("BGREWRITEAOF").query::<()>(&mut connection)?;
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let info: String = cmd("INFO").arg("persistence").query(&mut connection)?;
            let idle = ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"];
            if idle.iter().all(|state| info.contains(state)) {
                return Ok(());
            }
        }
    }

    fn pid(&self) -> u32 {
        self.server.id()
    }

    fn close(mut self) -> Result<()> {
        let mut connection = self.client.get_connection()?;
        // The server closes the connection instead of answering.
        let _ = cmd("SHUTDOWN").arg("NOSAVE").query::<()>(&mut connection);
        self.server.wait()?;
        Ok(())
    }
}

impl Redis {
    fn server_version(&self) -> Result<String> {
        let mut connection = self.client.get_connection()?;
        cmd("PING").query::<()>(&mut connection)?;
        let info: String = cmd("INFO").arg("server").query(&mut connection)?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        version.map(str::to_owned).ok_or_else(|| Error::from("redis-server gives no version"))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn set(id: &str) -> redis::Cmd {
    let mut set = cmd("SET");
    set.arg(id).arg(1).arg("NX").arg("PX").arg(harness::TTL_MS);
    set
}

/// A thread's connection.
struct Caller(Connection);

impl Worker for Caller {
    fn test_and_set(&mut self, id: &str, _: bool) -> Result<bool> {
        Ok(set(id).query::<Value>(&mut self.0)? != Value::Nil)
    }

    fn test_and_set_all(&mut self, ids: &[String]) -> Result<u64> {
        let mut new = 0;
        for ids in ids.chunks(1_000) {
            let mut pipe = pipe();
            for id in ids {
                pipe.add_command(set(id));
            }
            let answers: Vec<Value> = pipe.query(&mut self.0)?;
            new += answers.iter().filter(|answer| **answer != Value::Nil).count() as u64;
        }
        Ok(new)
    }
}
