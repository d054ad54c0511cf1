//! What a process holds in memory and a folder on disk.

use std::path::Path;

/// The process's resident memory: private memory and mapped files apart, in bytes. A mapped file can
/// be taken back by the kernel at any time; private memory cannot.
pub(crate) fn resident(pid: u32) -> (u64, u64) {
    let status = status(pid);
    (kib(&status, "RssAnon:"), kib(&status, "RssFile:"))
}

/// The most memory that the process ever had resident, mapped files included, in bytes.
pub(crate) fn peak(pid: u32) -> u64 {
    kib(&status(pid), "VmHWM:")
}

/// How many threads the process has.
pub(crate) fn threads(pid: u32) -> u64 {
    field(&status(pid), "Threads:").unwrap_or(0)
}

/// How many bytes the process had the disk read. `None` if the kernel does not count them.
pub(crate) fn read_from_disk(pid: u32) -> Option<u64> {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    field(&io, "read_bytes:")
}

fn status(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()
}

fn kib(status: &str, name: &str) -> u64 {
    field(status, name).unwrap_or(0) * 1024
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The disk blocks below a folder, in bytes. Counts blocks and not lengths: some files are sparse.
pub(crate) fn on_disk(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            Some(if meta.is_dir() { on_disk(&entry.path()) } else { meta.blocks() * 512 })
        })
        .sum()
}
