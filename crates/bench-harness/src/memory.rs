//! What a process holds in memory and a folder on disk.

use std::path::Path;

/// The process's resident memory: private memory and mapped files apart, in bytes. A mapped file can
/// be taken back by the kernel at any time; private memory cannot.
pub(crate) fn resident(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    (field("RssAnon:").unwrap_or(0) * 1024, field("RssFile:").unwrap_or(0) * 1024)
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
