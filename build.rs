//! Names the cause where a system's SQLite is too old to link with. With the feature `bundled` it does nothing.

use std::env;
use std::process::Command;

/// The first version that has `sqlite3_set_clientdata`, which rusqlite calls.
const OLDEST: (u32, u32) = (3, 44);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SQLITE3_LIB_DIR");
    let elsewhere =
        env::var_os("SQLITE3_LIB_DIR").is_some() || env::var_os("TARGET") != env::var_os("HOST");
    if env::var_os("CARGO_FEATURE_BUNDLED").is_some() || elsewhere {
        return;
    }
    // Without an answer it is left to the linker.
    let Ok(output) = Command::new("pkg-config").args(["--modversion", "sqlite3"]).output() else {
        return;
    };
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    if let (Some(major), Some(minor)) = (numbers.next(), numbers.next())
        && (major, minor) < OLDEST
    {
        println!(
            "cargo::error=the system's SQLite is {version}, and 3.44 is the oldest to link with; \
             enable the feature `bundled` (also where another crate has rusqlite bundle it), or name a newer \
             library by SQLITE3_LIB_DIR"
        );
    }
}
