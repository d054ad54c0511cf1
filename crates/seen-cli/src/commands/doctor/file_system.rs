//! The file system that a store is on: which one, whether it can be written to, and whether it has room.

use std::fs;
use std::path::{Path, PathBuf};

use super::Finding;
use crate::output::words::size;

/// With less free space than this, a checkpoint or a compaction may fail soon.
const LITTLE_BYTES: u64 = 16 << 20;

pub(super) fn findings(path: &Path) -> Vec<Finding> {
    // The file may be out of reach.
    let reachable = path.ancestors().find(|ancestor| fs::metadata(ancestor).is_ok());
    let mut findings: Vec<Finding> = kind(path).into_iter().collect();
    #[cfg(unix)]
    findings.extend(reachable.into_iter().flat_map(room));
    #[cfg(not(unix))]
    let _ = reachable;
    findings
}

/// Returns the finding about the type of the file system, from the list of mounts of Linux.
fn kind(path: &Path) -> Option<Finding> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let kind = mounts
        .lines()
        .filter_map(mount)
        .filter(|(point, _)| path.starts_with(point))
        // Of two file systems at one point, the later one hides the earlier.
        .max_by_key(|(point, _)| point.as_os_str().len())?
        .1;
    let is_network =
        ["nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "9p", "fuse.sshfs", "glusterfs"]
            .contains(&kind);
    Some(if is_network {
        Finding::wrong(
            "file system",
            format!("{kind}, over a network, where locks cannot be trusted"),
            "move the store to a local disk",
        )
    } else if ["tmpfs", "ramfs"].contains(&kind) {
        Finding::wrong(
            "file system",
            format!("{kind}, in memory: a restart of the machine forgets it"),
            "unless that is meant: move the store to a disk",
        )
    } else {
        Finding::fine("file system", kind)
    })
}

/// Returns the mount point and the type of the file system of a line of mountinfo(5).
fn mount(line: &str) -> Option<(PathBuf, &str)> {
    let (mount, rest) = line.split_once(" - ")?;
    let point = mount.split(' ').nth(4)?;
    let point = point.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
    Some((point.into(), rest.split(' ').next()?))
}

/// Returns what keeps a file system from taking more.
#[cfg(unix)]
fn room(path: &Path) -> Vec<Finding> {
    use rustix::fs::{StatVfsMountFlags, statvfs};
    let Ok(about) = statvfs(path) else { return Vec::new() };
    let mut findings = Vec::new();
    if about.f_flag.contains(StatVfsMountFlags::RDONLY) {
        findings.push(Finding::wrong(
            "file system",
            "it is mounted read-only: no id can be remembered",
            "mount it for writing (`mount -o remount,rw`); after a disk error, look at `dmesg` first",
        ));
    }
    let free_bytes = about.f_bavail.saturating_mul(about.f_frsize);
    findings.push(if free_bytes < LITTLE_BYTES {
        let what = match free_bytes {
            0 => "none is left: no id can be remembered".to_owned(),
            bytes => format!("only {} are left", size(bytes)),
        };
        Finding::wrong("space", what, "make room on its file system, or move the store")
    } else {
        Finding::fine("space", format!("{} free", size(free_bytes)))
    });
    // Some file systems have no fixed number of inodes, and tell none.
    if about.f_files > 0 && about.f_favail == 0 {
        findings.push(Finding::wrong(
            "inodes",
            "none is left: the log cannot be created beside the store, though there may be space",
            "delete files that are not needed on its file system: `df -i` counts them",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_with_its_spaces() {
        let line = "36 35 98:0 /a /my\\040disk rw,noatime master:1 - ext4 /dev/root rw";
        assert_eq!(mount(line), Some((PathBuf::from("/my disk"), "ext4")));
        assert_eq!(mount("36 35"), None);
    }
}
