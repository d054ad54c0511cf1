//! What the figures were measured on.

use std::path::Path;
use std::process::Command;

use crate::root;

/// One line each: what it is, and its value.
pub(crate) fn describe(scratch: &Path) -> Vec<(String, String)> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map_or("?".into(), |(_, v)| v.trim().to_owned())
    };
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let cpu = field(&read("/proc/cpuinfo"), "model name");
    let kib: f64 =
        field(&read("/proc/meminfo"), "MemTotal").replace(" kB", "").parse().unwrap_or(0.0);
    let release = read("/proc/sys/kernel/osrelease");
    // Only the kernel's version: the text after it names the machine on which it was built.
    let kernel = release.trim().split('-').next().unwrap_or_default().to_owned();
    [
        ("date", output("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        ("this store", commit()),
        ("processors", format!("{processors} × {cpu}")),
        ("memory", format!("{:.0} GiB", kib / f64::from(1 << 20))),
        ("kernel", format!("Linux {kernel}")),
        ("file system", file_system(scratch)),
        ("load average when it began", load()),
        ("compiler", output("rustc", &["--version"])),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// The type of the file system that holds a folder.
pub(crate) fn file_system(folder: &Path) -> String {
    output("stat", &["-f", "-c", "%T", &folder.to_string_lossy()]).replace("ext2/ext3", "ext4")
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

/// The commit, and whether the library differs from it. (This report itself may.)
fn commit() -> String {
    let root = root().to_string_lossy();
    let commit = output("git", &["-C", &root, "rev-parse", "--short", "HEAD"]);
    let library = ["src", "Cargo.toml", "Cargo.lock"];
    let changes =
        output("git", &[&["-C", &*root, "status", "--porcelain", "--"], &library[..]].concat());
    if changes.is_empty() { commit } else { format!("{commit}, with changes") }
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output
        .map_or("?".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
