//! Modes and times.

use std::{
    fs::{File, FileTimes, Metadata},
    time::SystemTime,
};

/// What is known about a file or a directory besides its content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Permission bits as Unix has them.
    pub(crate) mode: Option<u32>,
    /// When the content last changed.
    pub(crate) modified: Option<SystemTime>,
}

impl Meta {
    pub(super) fn of(metadata: &Metadata) -> Meta {
        #[cfg(unix)]
        let mode = Some(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777);
        #[cfg(not(unix))]
        let mode = None;
        Meta { mode, modified: metadata.modified().ok() }
    }

    /// Gives `file`, which is open and therefore certainly the one that is meant, its final mode and time. A file
    /// system that has no such thing is no reason to fail.
    pub(super) fn apply(&self, file: &File, kind: Kind) {
        #[cfg(unix)]
        if let Err(error) =
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(kind.mode(self.mode)))
        {
            tracing::debug!(%error, "the mode could not be set");
        }
        #[cfg(not(unix))]
        let _ = kind;
        if let Some(modified) = self.modified
            && let Err(error) = file.set_times(FileTimes::new().set_modified(modified))
        {
            tracing::debug!(%error, "the time could not be set");
        }
    }
}

/// What gets a mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
}

impl Kind {
    /// The mode to set, given the one that the other side tells: without setuid, setgid and sticky, and within what
    /// this process gives new files, as a copy would be. A directory stays usable for its owner.
    #[cfg(unix)]
    fn mode(self, told: Option<u32>) -> u32 {
        let (default, least) = match self {
            Kind::File => (0o666, 0o400),
            Kind::Directory => (0o777, 0o700),
        };
        (told.unwrap_or(default) & 0o777 & !umask()) | least
    }
}

/// The mask of this process for new files.
#[cfg(unix)]
fn umask() -> u32 {
    use std::sync::OnceLock;

    use rustix::{fs::Mode, process::umask};
    static UMASK: OnceLock<u32> = OnceLock::new();
    // There is no way to read it but to set it. What another thread makes in that moment is more private, not less.
    *UMASK.get_or_init(|| {
        let mask = umask(Mode::from_raw_mode(0o077));
        umask(mask);
        mask.as_raw_mode()
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn modes_never_have_more_than_the_permissions_that_new_files_get() {
        for told in [Some(0o7777), Some(0o4755), Some(0o2070), Some(0), None] {
            for (kind, least) in [(Kind::File, 0o400), (Kind::Directory, 0o700)] {
                let mode = kind.mode(told);
                assert_eq!(mode & !0o777, 0, "{told:?}");
                assert_eq!(mode & umask() & !least, 0, "{told:?}");
                assert_eq!(mode & least, least, "{told:?}");
            }
        }
        assert_eq!(Kind::File.mode(Some(0o4755)), 0o755 & !umask() | 0o400);
    }
}
