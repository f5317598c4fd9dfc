//! Moving old entries out of a log without breaking a proof: bundles go, hashes stay.

use crate::log::entry::Event;
use crate::log::kind::EventKind;
use crate::log::tiles::{TILE_WIDTH, TileKind, tile_path};
use crate::log::{Log, LogError, RETAINED_DETAIL, RETAINED_FILE};
use crate::storage;
use crate::time::Timestamp;
use std::fs;
use std::io::Write;
use std::path::Path;

/// What was moved out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retained {
    /// First entry that stays.
    pub first: u64,
    /// Entries that went now.
    pub moved: u64,
}

impl Log<'_> {
    /// The first entry not older than `time`, or all of them: what an age limit keeps.
    ///
    /// Errors: an entry that is not what the log signed.
    pub fn first_since(&self, time: Timestamp) -> Result<u64, LogError> {
        for index in self.retained_from()..self.size() {
            if self.entry(index)?.time >= time {
                return Ok(index);
            }
        }
        Ok(self.size())
    }

    /// Moves the entries before `first` out of the log, in whole bundles of 256, and writes them to `archive` as JSON
    /// lines where one is given. The log itself says so, signed, before any entry goes; proofs of old states and of old
    /// entries hold on, since all hashes stay.
    ///
    /// Errors: entries that are not what the log signed (nothing goes then), or a file system that refuses.
    pub fn retain(&mut self, first: u64, now: Timestamp, archive: Option<&Path>) -> Result<Retained, LogError> {
        let first = first.min(self.size()) / TILE_WIDTH * TILE_WIDTH;
        let before = self.retained_from();
        if first <= before {
            return Ok(Retained { first: before, moved: 0 });
        }
        if let Some(archive) = archive {
            self.write_archive(before..first, archive)?;
        }
        let folder = self.tiles_folder();
        let mut event = Event::new(EventKind::LogRetained, now, self.log_key());
        event.metadata.insert(RETAINED_DETAIL.to_owned(), i64::try_from(first).unwrap_or(i64::MAX).into());
        self.append(&event)?;
        storage::replace(&folder, RETAINED_FILE, format!("{first}\n").as_bytes())
            .map_err(LogError::io("writing what stays in", &folder))?;
        self.view_mut().retained_from = first;
        for bundle in before / TILE_WIDTH..first / TILE_WIDTH {
            let path = folder.join(tile_path(TileKind::Entries, bundle, TILE_WIDTH));
            fs::remove_file(&path).map_err(LogError::io("removing", &path))?;
        }
        Ok(Retained { first, moved: first - before })
    }

    fn write_archive(&self, entries: std::ops::Range<u64>, archive: &Path) -> Result<(), LogError> {
        let folder = archive.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let io = || LogError::io("writing the archive", archive);
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io())?;
        {
            let mut out = std::io::BufWriter::new(file.as_file_mut());
            for index in entries {
                let line = self.line(index)?;
                out.write_all(&line).and_then(|()| out.write_all(b"\n")).map_err(io())?;
            }
            out.flush().map_err(io())?;
        }
        file.as_file().sync_all().map_err(io())?;
        file.persist_noclobber(archive).map_err(|error| io()(error.error))?;
        storage::sync_folder(folder).map_err(io())
    }
}
