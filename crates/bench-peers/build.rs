//! Links the system's RocksDB, if the feature asks for it, and notes which version that is.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for variable in ["ROCKSDB_LIB_DIR", "ROCKSDB_INCLUDE_DIR"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if std::env::var_os("CARGO_FEATURE_ROCKSDB").is_none() {
        return;
    }
    if let Ok(folder) = std::env::var("ROCKSDB_LIB_DIR") {
        println!("cargo::rustc-link-search=native={folder}");
    }
    println!("cargo::rustc-link-lib=dylib=rocksdb");
    let include = std::env::var("ROCKSDB_INCLUDE_DIR").unwrap_or_else(|_| "/usr/include".into());
    let header = Path::new(&include).join("rocksdb/version.h");
    let text = std::fs::read_to_string(header).unwrap_or_default();
    let part = |name: &str| {
        let prefix = format!("#define ROCKSDB_{name} ");
        text.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or("?").trim().to_owned()
    };
    let version = format!("{}.{}.{}", part("MAJOR"), part("MINOR"), part("PATCH"));
    println!("cargo::rustc-env=ROCKSDB_VERSION={version}");
}
