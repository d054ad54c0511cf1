//! Builds the contenders' programs, and finds out who cannot take part.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use harness::Result;

use crate::contenders::{optional, rivals};
use crate::root;

pub(crate) struct Programs {
    pub(crate) paths: BTreeMap<String, PathBuf>,
    /// Contenders that cannot take part, and why.
    pub(crate) missing: BTreeMap<String, String>,
}

/// Builds what takes part. `only` names the contenders that do beside this store, if not all do.
pub(crate) fn all(only: Option<&str>) -> Result<Programs> {
    let mut programs = Programs { paths: BTreeMap::new(), missing: left_out(only)? };
    for folder in ["bench-harness", "bench-four-ways"] {
        programs.build(folder, &[])?;
    }
    if programs.needs("pools") {
        programs.build("bench-pools", &[])?;
    }
    let rocksdb = !programs.missing.contains_key("rocksdb");
    if !rocksdb && programs.needs("peers") {
        programs.build("bench-peers", &[])?;
    }
    if rocksdb && programs.build("bench-peers", &["--features", "rocksdb"]).is_err() {
        let why = "its library is not installed (librocksdb-dev, or ROCKSDB_LIB_DIR and \
                   ROCKSDB_INCLUDE_DIR)";
        programs.missing.insert("rocksdb".to_owned(), why.to_owned());
        programs.build("bench-peers", &[])?;
    }
    let redis = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
    if redis.is_err() {
        let why = || "redis-server is not installed".to_owned();
        programs.missing.entry("redis".to_owned()).or_insert_with(why);
    }
    for (contender, why) in &programs.missing {
        eprintln!("WITHOUT {contender}: {why}");
    }
    Ok(programs)
}

/// The contenders that `only` does not name, and that for a reason.
fn left_out(only: Option<&str>) -> Result<BTreeMap<String, String>> {
    let Some(only) = only else { return Ok(BTreeMap::new()) };
    let named: Vec<_> = only.split(',').map(str::trim).collect();
    if let Some(name) = named.iter().find(|name| optional().all(|other| other.name != **name)) {
        let known: Vec<_> = optional().map(|other| other.name).collect();
        return Err(format!("COMPARE_ONLY: {name:?} is none of {}", known.join(", ")).into());
    }
    let others = optional().filter(|other| !named.contains(&other.name));
    Ok(others.map(|other| (other.name.to_owned(), "left out by COMPARE_ONLY".to_owned())).collect())
}

impl Programs {
    /// Whether any contender of a program takes part.
    fn needs(&self, program: &str) -> bool {
        rivals().any(|rival| rival.program == program && !self.missing.contains_key(rival.name))
    }

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
