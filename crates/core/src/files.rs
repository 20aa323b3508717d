//! Files that appear whole or not at all.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use crate::{Error, Result};

/// What lies in the folder `path`.
///
/// # Errors
/// [`Error::File`] naming `path`: it is a file, is not there, or cannot be read.
pub fn entries(path: &Path) -> Result<std::fs::ReadDir> {
    std::fs::read_dir(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotADirectory => {
            Error::file(path, "is a file, expected a folder (`data.format`)")
        }
        _ => Error::file(path, error),
    })
}

/// Writes `path` through a temporary file beside it, synced and renamed into place: a crash, a full disk or an error
/// of `write` leaves what was there before.
///
/// # Errors
/// [`Error::File`] naming `path`: the folder is missing or read-only, the disk is full, or `write` failed.
pub fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> std::io::Result<()>,
) -> Result<()> {
    // What stands there may be a link, which is followed, or a device, which is not replaced.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    if std::fs::metadata(&target).is_ok_and(|found| !found.is_file()) {
        return Err(Error::file(path, "is not a regular file; expected the name of one, or of none yet"));
    }
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let written = (|| {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".ophidian-").suffix(".tmp");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // As any new file: what the umask leaves of rw-rw-rw-.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let file = builder.tempfile_in(folder)?;
        let mut writer = BufWriter::new(file.as_file());
        write(&mut writer)?;
        writer.flush()?;
        drop(writer);
        file.as_file().sync_all()?;
        file.persist(&target).map_err(|error| error.error)?;
        // The rename itself must survive a power cut.
        #[cfg(unix)]
        File::open(folder)?.sync_all()?;
        Ok(())
    })();
    written.map_err(|error: std::io::Error| {
        if !folder.is_dir() {
            let folder = folder.display();
            return Error::file(path, format!("cannot be written: there is no folder {folder}"));
        }
        // The system's reason alone, without the name of the temporary file.
        let reason = error.raw_os_error().map_or(error, std::io::Error::from_raw_os_error);
        Error::file(path, format!("cannot be written: {reason}"))
    })
}
