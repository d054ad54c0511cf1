//! Builds the contenders' programs, and finds out who cannot take part.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use harness::Result;

use crate::root;

pub(crate) struct Programs {
    pub(crate) paths: BTreeMap<String, PathBuf>,
    /// Contenders that cannot take part, and why.
    pub(crate) missing: BTreeMap<String, String>,
}

pub(crate) fn all() -> Result<Programs> {
    let mut programs = Programs { paths: BTreeMap::new(), missing: BTreeMap::new() };
    for folder in ["bench-harness", "bench-four-ways", "bench-pools"] {
        programs.build(folder, &[])?;
    }
    if programs.build("bench-peers", &["--features", "rocksdb"]).is_err() {
        let why = "its library is not installed (librocksdb-dev, or ROCKSDB_LIB_DIR and \
                   ROCKSDB_INCLUDE_DIR)";
        programs.missing.insert("rocksdb".to_owned(), why.to_owned());
        programs.build("bench-peers", &[])?;
    }
    let redis = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
    if redis.is_err() {
        let why = "redis-server is not installed".to_owned();
        programs.missing.insert("redis".to_owned(), why);
    }
    for (contender, why) in &programs.missing {
        eprintln!("WITHOUT {contender}: {why}");
    }
    Ok(programs)
}

impl Programs {
    fn build(&mut self, folder: &str, options: &[&str]) -> Result<()> {
        eprintln!("building crates/{folder} {}", options.join(" "));
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let output = Command::new(cargo)
            .args(["build", "--profile", "bench", "--message-format=json-render-diagnostics"])
            .arg("--manifest-path")
            .arg(root().join("crates").join(folder).join("Cargo.toml"))
            .args(options)
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err(format!("crates/{folder} does not build").into());
        }
        for line in String::from_utf8(output.stdout)?.lines() {
            let message: serde_json::Value = serde_json::from_str(line)?;
            if let Some(path) = message["executable"].as_str() {
                let name = message["target"]["name"].as_str().unwrap_or_default();
                self.paths.insert(name.to_owned(), path.into());
            }
        }
        Ok(())
    }
}
