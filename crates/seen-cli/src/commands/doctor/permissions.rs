//! Whose file and folder they are, who asks, and what that user may do.
//!
//! What always holds: what a mode says on purpose is not complained of. A store may be shared by a group: then both the
//! file and its folder give the group the same rights.

use std::path::Path;

use super::Finding;

#[cfg(unix)]
pub(super) fn findings(path: &Path) -> Vec<Finding> {
    unix::findings(path)
}

#[cfg(not(unix))]
pub(super) fn findings(path: &Path) -> Vec<Finding> {
    let read_only = std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().readonly());
    vec![Finding::fine("file", if read_only { "read-only" } else { "writable" })]
}

#[cfg(unix)]
mod unix {
    use std::fs::{self, Metadata};
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use rustix::fs::{Access, AtFlags, CWD, accessat};
    use rustix::process::{Gid, getegid, geteuid, getgroups};

    use super::Finding;
    use crate::output::words::for_shell;

    pub(super) fn findings(path: &Path) -> Vec<Finding> {
        let mut findings = vec![asks()];
        if let Some(barrier) = barrier(path) {
            findings.push(barrier);
            return findings;
        }
        let Ok(file) = fs::symlink_metadata(path) else {
            findings.extend(about_place(path));
            return findings;
        };
        let Some(folder) = path.parent() else { return findings };
        findings.push(about_file(path, &file));
        findings.extend(["-wal", "-shm"].iter().filter_map(|suffix| about_side(path, suffix)));
        if let Ok(about) = fs::metadata(folder) {
            findings.push(about_folder(folder, &about, &file));
        }
        findings
    }

    /// Says who runs this command.
    fn asks() -> Finding {
        let mut groups = vec![getegid().as_raw()];
        groups.extend(getgroups().unwrap_or_default().into_iter().map(Gid::as_raw));
        groups.dedup();
        let groups: Vec<String> = groups.into_iter().map(group).collect();
        Finding::fine("asked by", format!("{}, {}", user(geteuid().as_raw()), groups.join(", ")))
    }

    /// Returns the first folder on the way to the file that this user may not go through.
    fn barrier(path: &Path) -> Option<Finding> {
        let mut ancestors: Vec<&Path> = path.ancestors().skip(1).collect();
        ancestors.reverse();
        let shut = ancestors.into_iter().find(|folder| !may(folder, Access::EXEC_OK))?;
        let about = fs::metadata(shut).ok()?;
        Some(Finding::wrong(
            "folder",
            format!("{}: {}: this user may not go through it", shut.display(), owner(&about)),
            format!(
                "run this as {}, or let its owner allow it: chmod o+x {}",
                user(about.uid()),
                for_shell(&shut.to_string_lossy())
            ),
        ))
    }

    fn about_file(path: &Path, file: &Metadata) -> Finding {
        let (what, shown) = (owner(file), for_shell(&path.to_string_lossy()));
        let mode = file.mode();
        if !may(path, Access::READ_OK) {
            return Finding::wrong(
                "file",
                format!("{what}: this user may not read it"),
                format!(
                    "run this as {}, or let its owner share it: chmod g+rw {shown}",
                    user(file.uid())
                ),
            );
        }
        if mode & 0o007 != 0 {
            let who = if mode & 0o002 == 0 { "read" } else { "read or change" };
            return Finding::wrong(
                "file",
                format!("{what}: all users may {who} it"),
                format!("unless that is meant: chmod o-rwx {shown}"),
            );
        }
        let rights = if may(path, Access::WRITE_OK) { "" } else { ": this user may read it only" };
        Finding::fine("file", format!("{what}{rights}"))
    }

    /// Returns the finding about the folder in which the store would be made.
    fn about_place(path: &Path) -> Option<Finding> {
        let (folder, about) = path
            .ancestors()
            .skip(1)
            .find_map(|folder| fs::metadata(folder).ok().map(|about| (folder, about)))?;
        let what = format!("{}: {}", folder.display(), owner(&about));
        if !is_denied(folder, Access::WRITE_OK | Access::EXEC_OK) {
            return Some(Finding::fine("folder", what));
        }
        Some(Finding::wrong(
            "folder",
            format!("{what}: this user may not make a store in it"),
            format!("run this as {}, or give another path", user(about.uid())),
        ))
    }

    /// Returns the finding about a file beside the store that this user may not use, though the store may be used:
    /// another user has left it.
    fn about_side(path: &Path, suffix: &str) -> Option<Finding> {
        let side = super::super::beside(path, suffix);
        let about = fs::symlink_metadata(&side).ok()?;
        let (read, both) = (Access::READ_OK, Access::READ_OK | Access::WRITE_OK);
        let needed = if may(path, both) { both } else { read };
        if !may(path, needed) || !is_denied(&side, needed) {
            return None;
        }
        let (store, shown) = (fs::metadata(path).ok()?, for_shell(&side.to_string_lossy()));
        Some(Finding::wrong(
            "log",
            format!("{}: {}: this user may not use it", side.display(), owner(&about)),
            format!(
                "give it the owner and the mode of the store: chown {}:{} {shown} && chmod {:o} {shown}",
                store.uid(),
                store.gid(),
                store.mode() & 0o777
            ),
        ))
    }

    fn about_folder(folder: &Path, about: &Metadata, file: &Metadata) -> Finding {
        let (what, shown) = (owner(about), for_shell(&folder.to_string_lossy()));
        let mode = about.mode();
        let group_writes = |mode: u32| mode & 0o020 != 0;
        if mode & 0o002 != 0 && mode & 0o1000 == 0 {
            Finding::wrong(
                "folder",
                format!("{what}: all users may replace the store"),
                format!("chmod o-w {shown}"),
            )
        } else if file.uid() != about.uid() && mode & 0o022 == 0 && file.uid() != 0 {
            Finding::wrong(
                "folder",
                format!("{what}: the file's owner may not create the log in it"),
                format!("chown {} {shown}", file.uid()),
            )
        } else if group_writes(file.mode()) && !group_writes(mode) {
            Finding::wrong(
                "folder",
                format!(
                    "{what}: the file's group may write the file, but may not create its log in the folder"
                ),
                format!("chgrp {} {shown} && chmod g+ws {shown}", file.gid()),
            )
        } else if group_writes(file.mode()) && file.gid() != about.gid() && mode & 0o002 == 0 {
            Finding::wrong(
                "folder",
                format!("{what}: the file is shared by another group, {}", group(file.gid())),
                format!("chgrp {} {shown} && chmod g+s {shown}", file.gid()),
            )
        } else {
            Finding::fine("folder", what)
        }
    }

    fn may(path: &Path, access: Access) -> bool {
        accessat(CWD, path, access, AtFlags::EACCESS).is_ok()
    }

    /// Returns whether the permissions are what keeps this user from it, and not a file system that is read-only.
    fn is_denied(path: &Path, access: Access) -> bool {
        accessat(CWD, path, access, AtFlags::EACCESS) == Err(rustix::io::Errno::ACCESS)
    }

    fn owner(about: &Metadata) -> String {
        format!("mode {:04o}, {}, {}", about.mode() & 0o7777, user(about.uid()), group(about.gid()))
    }

    fn user(id: u32) -> String {
        format!("user {}", named("/etc/passwd", id))
    }

    fn group(id: u32) -> String {
        format!("group {}", named("/etc/group", id))
    }

    /// Returns a number with its name, if the file tells one. (Other sources of names are for `id` and `getent`.)
    fn named(file: &str, id: u32) -> String {
        let names = fs::read_to_string(file).unwrap_or_default();
        let name = names.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(id)).then_some(name)
        });
        name.map_or_else(|| id.to_string(), |name| format!("{id} ({name})"))
    }
}
