//! The run folder: what lies where, who may write to it, and the two logs that grow with the run.

use std::{
    fs::{self, File, OpenOptions},
    io::{Seek, Write},
    path::{Path, PathBuf},
};

use ophidian_core::files::write_whole;

use crate::{Error, Result};

/// What is asked of a run folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A new run; the folder must not hold one.
    New,
    /// Go on with the run in the folder, or begin if there is none.
    Resume,
    /// A new run in the place of the one in the folder.
    Force,
}

/// A run folder that this process alone writes to.
pub struct RunFolder {
    root: PathBuf,
    // Held, not read: the lock goes with the process, however it ends.
    _lock: File,
}

/// What a run leaves at the top of its folder; only these are removed when a run is replaced.
const FILES: [&str; 9] = [
    "config.toml",
    "environment.json",
    "metrics.jsonl",
    "events.out.tfevents.0.ophidian",
    "evaluation.json",
    "summary.json",
    "curves.png",
    "confusion.png",
    "misclassified.png",
];
const CHECKPOINTS: &str = "checkpoints";
const LOCK: &str = ".lock";

impl RunFolder {
    /// Opens `root` for a run and says whether there is one to go on with.
    ///
    /// # Errors
    /// [`Error::Folder`] if the folder holds a run and `mode` is [`Mode::New`], if it holds something else, or if
    /// another process is writing to it; a file error if it cannot be made or written.
    pub fn open(root: &Path, mode: Mode) -> Result<(Self, bool)> {
        let show = root.display();
        if root.exists() && !root.is_dir() {
            return Err(Error::Folder(format!("{show} is a file, expected a folder for the run")));
        }
        let holds_run = root.join(FILES[0]).is_file() || root.join(CHECKPOINTS).is_dir();
        if holds_run && mode == Mode::New {
            return Err(Error::Folder(format!(
                "{show} already holds a run; add --resume to go on with it, or --force to replace it"
            )));
        }
        if !holds_run && has_foreign_files(root)? {
            return Err(Error::Folder(format!(
                "{show} is not empty and holds no run; name a new or empty folder with --output"
            )));
        }
        fs::create_dir_all(root.join(CHECKPOINTS))
            .map_err(|error| Error::file(root, format!("the run folder cannot be made: {error}")))?;
        let lock = lock(root)?;
        let folder = RunFolder { root: root.to_path_buf(), _lock: lock };
        folder.remove_leftovers();
        if holds_run && mode == Mode::Force {
            folder.clear()?;
        }
        Ok((folder, holds_run && mode == Mode::Resume))
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The resolved config.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// What the run ran on.
    pub fn environment(&self) -> PathBuf {
        self.root.join("environment.json")
    }

    /// One JSON object a line.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// TensorBoard's file.
    pub fn events(&self) -> PathBuf {
        self.root.join(FILES[3])
    }

    /// The last measurement, answer by answer.
    pub fn evaluation(&self) -> PathBuf {
        self.root.join("evaluation.json")
    }

    /// How the run ended, and what the model is.
    pub fn summary(&self) -> PathBuf {
        self.root.join("summary.json")
    }

    /// A picture by name (`curves`, `confusion`, `misclassified`).
    pub fn picture(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.png"))
    }

    /// The checkpoint called `name` (`last`, `best`, `epoch-0001`).
    pub fn checkpoint(&self, name: &str) -> PathBuf {
        checkpoint_path(&self.root, name)
    }

    /// Temporary files that a killed process left behind.
    fn remove_leftovers(&self) {
        for folder in [self.root.clone(), self.root.join(CHECKPOINTS)] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if name.starts_with(".ophidian-") && name.ends_with(".tmp") {
                    // Whatever cannot be removed only takes room.
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }

    /// Removes what an earlier run left, and nothing else.
    fn clear(&self) -> Result<()> {
        let checkpoints = fs::read_dir(self.root.join(CHECKPOINTS)).into_iter().flatten().flatten();
        let stale = checkpoints
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
            // The config goes last: while it is there, the folder is known to hold a run.
            .chain(FILES.iter().rev().map(|name| self.root.join(name)));
        for path in stale {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::file(&path, format!("cannot be removed: {error}")));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The checkpoint that `path` stands for: itself, or the one called `name` of the run folder `path`.
///
/// # Errors
/// [`Error::Folder`] if there is none.
pub fn find_checkpoint(path: &Path, name: &str) -> Result<PathBuf> {
    if path.is_file() {
        return Ok(path.to_path_buf());
    }
    let found = checkpoint_path(path, name);
    if found.is_file() {
        return Ok(found);
    }
    let show = path.display();
    Err(Error::Folder(match (path.exists(), path.join(CHECKPOINTS).is_dir()) {
        (false, _) => format!("there is no run folder or checkpoint `{show}`"),
        (true, false) => format!("{show} is not a run folder: it holds no `{CHECKPOINTS}/`"),
        (true, true) => format!("{show} holds no checkpoint `{name}` yet (looked for {})", found.display()),
    }))
}

fn checkpoint_path(root: &Path, name: &str) -> PathBuf {
    root.join(CHECKPOINTS).join(format!("{name}.safetensors"))
}

fn has_foreign_files(root: &Path) -> Result<bool> {
    if !root.exists() {
        return Ok(false);
    }
    let entries = fs::read_dir(root).map_err(|error| Error::file(root, error))?;
    Ok(entries.flatten().any(|entry| entry.file_name() != LOCK))
}

/// True while another process writes to the run folder `root`.
pub fn in_use(root: &Path) -> bool {
    let file = File::open(root.join(LOCK));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
}

/// Takes the folder `root` for this process, for as long as the file is held.
pub(crate) fn lock(root: &Path) -> Result<File> {
    let path = root.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|error| Error::file(root, format!("the run folder cannot be written to: {error}")))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            Err(Error::Folder(format!("another process is training in {}", root.display())))
        }
        // Some network file systems have no locks; the run is then not guarded.
        Err(fs::TryLockError::Error(_)) => Ok(file),
    }
}

/// A file that grows with the run and is cut back to the last checkpoint when the run resumes.
pub struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Log {
    /// Opens the log at `path` with its first `keep` bytes; what lies beyond them is cut off.
    ///
    /// # Errors
    /// The file cannot be opened or written.
    pub fn open(path: &Path, keep: u64) -> Result<Self> {
        let wrong = |error| Error::file(path, error);
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(path)
            .map_err(wrong)?;
        let bytes = file.metadata().map_err(wrong)?.len().min(keep);
        file.set_len(bytes).map_err(wrong)?;
        file.seek(std::io::SeekFrom::Start(bytes)).map_err(wrong)?;
        Ok(Log { path: path.to_path_buf(), file, bytes })
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds `entry`. If it cannot be written whole, nothing of it stays.
    ///
    /// # Errors
    /// The disk is full …
    pub fn append(&mut self, entry: &[u8]) -> Result<()> {
        if let Err(error) = self.file.write_all(entry) {
            // The error that matters is the first one.
            let _ = self.file.set_len(self.bytes);
            let _ = self.file.seek(std::io::SeekFrom::Start(self.bytes));
            return Err(Error::file(&self.path, format!("cannot be written: {error}")));
        }
        self.bytes += entry.len() as u64;
        Ok(())
    }

    /// Makes what was written survive a power cut.
    ///
    /// # Errors
    /// The disk failed.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| Error::file(&self.path, format!("cannot be written: {error}")))
    }
}

/// Writes `text` to `path`, whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    Ok(write_whole(path, |file| file.write_all(text.as_bytes()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_cut_back_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log::open(&path, 0).unwrap();
        log.append(b"one\n").unwrap();
        let kept = log.bytes();
        log.append(b"two, which is cut off\n").unwrap();
        drop(log);
        let mut log = Log::open(&path, kept).unwrap();
        log.append(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\nthree\n");
        assert_eq!(Log::open(&path, 1000).unwrap().bytes(), 10);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let full = Path::new("/dev/full");
        let Ok(file) = OpenOptions::new().write(true).open(full) else {
            return; // not on this system; a full file system is tested with the program
        };
        let mut log = Log { path: full.into(), file, bytes: 0 };
        assert!(log.append(b"x").unwrap_err().to_string().starts_with("/dev/full: cannot be written: "));
        assert_eq!(log.bytes(), 0);
    }

    fn refusal(root: &Path, mode: Mode) -> String {
        RunFolder::open(root, mode).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_folder_is_taken_once_and_never_by_surprise() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("runs/a");
        let (run, resumes) = RunFolder::open(&root, Mode::New).unwrap();
        assert!(!resumes);
        assert!(refusal(&root, Mode::Resume).starts_with("another process is training in "));
        fs::write(run.config(), "x").unwrap();
        fs::write(run.checkpoint("last"), "x").unwrap();
        fs::write(root.join("notes.txt"), "mine").unwrap();
        fs::write(root.join("checkpoints/.ophidian-abc.tmp"), "half").unwrap();
        drop(run);
        assert!(refusal(&root, Mode::New).contains("--resume to go on with it, or --force to replace it"));
        let (run, resumes) = RunFolder::open(&root, Mode::Resume).unwrap();
        assert!(resumes && run.checkpoint("last").exists());
        assert!(!root.join("checkpoints/.ophidian-abc.tmp").exists());
        drop(run);
        let (run, resumes) = RunFolder::open(&root, Mode::Force).unwrap();
        assert!(!resumes && !run.checkpoint("last").exists() && !run.config().exists());
        assert_eq!(fs::read_to_string(root.join("notes.txt")).unwrap(), "mine");

        let foreign = temporary.path().join("photos");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("a.png"), "x").unwrap();
        assert!(refusal(&foreign, Mode::Force).contains("holds no run"));
    }
}
