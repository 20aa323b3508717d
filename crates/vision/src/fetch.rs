//! Downloading the files of a data set: resumed where it stopped, held against their checksums, whole or not there.
//!
//! A file grows as `NAME.part` and takes its name only once its checksum is right.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use ophidian_core::{Error, Result};
use sha2::{Digest, Sha256};
use ureq::{Agent, http::StatusCode};

use crate::cards::{Card, CardFile};

/// How often a broken connection is taken up again without a single byte of progress before giving up.
const TRIES: u32 = 3;

/// A connection that takes longer than this is cut, and taken up again where it stopped.
const ATTEMPT: Duration = Duration::from_secs(600);

/// How a download stands.
pub struct Progress<'a> {
    /// The file.
    pub file: &'a CardFile,
    /// Bytes that are there.
    pub done: u64,
}

/// Downloads what is missing of a data set into `folder` and returns the paths of its files. `mirror` replaces the
/// card's sources: the files are looked for under that prefix. `progress` is called now and then.
///
/// # Errors
/// [`Error::Config`] for a card without files; [`Error::File`] naming the file: the folder cannot be written, the disk
/// is full, every source failed, the checksum is wrong. What was downloaded stays in `NAME.part` for the next try,
/// unless its checksum is wrong.
pub fn fetch(
    card: &Card,
    folder: &Path,
    mirror: Option<&str>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<PathBuf>> {
    if card.files.is_empty() {
        return Err(Error::Config(if card.homepage.is_empty() {
            format!("`{}` is generated on the fly; there is nothing to fetch", card.name)
        } else {
            format!("`{}` has no files to fetch one by one. {}", card.name, card.notes)
        }));
    }
    let sources: Vec<&str> =
        mirror.map_or_else(|| card.sources.iter().map(String::as_str).collect(), |one| vec![one]);
    fs::create_dir_all(folder).map_err(|error| Error::file(folder, format!("cannot be made: {error}")))?;
    let agent: Agent = Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_recv_body(Some(ATTEMPT))
        .http_status_as_error(false)
        .user_agent(concat!("ophidian/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let one = |file: &CardFile| {
        let path = folder.join(&file.name);
        Download { agent: &agent, file, path: &path, progress: &mut *progress }.run(&sources)?;
        Ok(path)
    };
    card.files.iter().map(one).collect()
}

/// One file on its way.
struct Download<'a> {
    agent: &'a Agent,
    file: &'a CardFile,
    path: &'a Path,
    progress: &'a mut dyn FnMut(Progress<'_>),
}

/// Why an attempt ended.
enum Broken {
    /// The other side's fault: another try or another source may do.
    Remote(String),
    /// Ours: the disk.
    Local(io::Error),
}

impl Download<'_> {
    fn run(&mut self, sources: &[&str]) -> Result<()> {
        if self.path.exists() {
            return self.check_present();
        }
        let part = self.path.with_file_name(format!("{}.part", self.file.name));
        let local = |error: io::Error| Error::file(&part, written(&error));
        let mut out = OpenOptions::new().create(true).read(true).append(true).open(&part).map_err(local)?;
        if out.try_lock().is_err() {
            return Err(Error::file(&part, "is being written by another download; wait for it to end"));
        }
        if out.metadata().map_err(local)?.len() > self.file.bytes {
            out.set_len(0).map_err(local)?;
        }
        let mut failures = Vec::new();
        for source in sources {
            let url = format!("{}/{}", source.trim_end_matches('/'), self.file.name);
            match self.download_from(&url, &mut out) {
                Ok(()) => return self.finish(&part, &out),
                Err(Broken::Local(error)) => return Err(local(error)),
                Err(Broken::Remote(reason)) => failures.push(format!("{url}: {reason}")),
            }
        }
        let done = out.metadata().map_err(local)?.len();
        let kept = if done == 0 {
            drop(fs::remove_file(&part));
            String::new()
        } else {
            format!("; {done} of {} bytes are kept, the same command goes on from there", self.file.bytes)
        };
        Err(Error::file(self.path, format!("cannot be fetched: {}{kept}", failures.join("; "))))
    }

    /// Downloads from one address, taking it up again as long as it gets on.
    fn download_from(&mut self, url: &str, out: &mut File) -> std::result::Result<(), Broken> {
        let mut idle = 0;
        loop {
            let before = out.metadata().map_err(Broken::Local)?.len();
            if before == self.file.bytes {
                return Ok(());
            }
            let ended = self.attempt(url, before, out);
            let after = out.metadata().map_err(Broken::Local)?.len();
            let reason = match ended {
                Ok(()) if after == self.file.bytes => return Ok(()),
                Ok(()) => format!("ended after {after} of {} bytes", self.file.bytes),
                Err(Broken::Remote(reason)) => reason,
                Err(local) => return Err(local),
            };
            idle = if after > before { 0 } else { idle + 1 };
            if idle >= TRIES {
                return Err(Broken::Remote(reason));
            }
            std::thread::sleep(Duration::from_millis(200 << idle));
        }
    }

    /// One request for what is missing, appended to `out`.
    fn attempt(&mut self, url: &str, have: u64, out: &mut File) -> std::result::Result<(), Broken> {
        let remote = |error: &dyn std::fmt::Display| Broken::Remote(error.to_string());
        let mut request = self.agent.get(url).header("Accept-Encoding", "identity");
        if have > 0 {
            request = request.header("Range", format!("bytes={have}-"));
        }
        let response = request.call().map_err(|error| remote(&error))?;
        let mut done = have;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if have > 0 => {
                let range = response.headers().get("Content-Range").and_then(|value| value.to_str().ok());
                if range.is_none_or(|range| !range.starts_with(&format!("bytes {have}-"))) {
                    let found = range.unwrap_or("nothing");
                    return Err(Broken::Remote(format!(
                        "was asked for bytes from {have} on and offers {found}"
                    )));
                }
            }
            StatusCode::OK => {
                // A server that does not know ranges starts over.
                if have > 0 {
                    out.set_len(0).map_err(Broken::Local)?;
                }
                done = 0;
            }
            status => return Err(Broken::Remote(format!("answers {status}"))),
        }
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(remote(&error)),
            };
            done += read as u64;
            if done > self.file.bytes {
                out.set_len(0).map_err(Broken::Local)?;
                return Err(Broken::Remote(format!(
                    "sends more than the {} bytes expected",
                    self.file.bytes
                )));
            }
            out.write_all(&buffer[..read]).map_err(Broken::Local)?;
            (self.progress)(Progress { file: self.file, done });
        }
    }

    /// Checks the finished part and gives it its name.
    fn finish(&self, part: &Path, mut out: &File) -> Result<()> {
        let local = |error: io::Error| Error::file(part, written(&error));
        out.sync_all().map_err(local)?;
        out.seek(SeekFrom::Start(0)).map_err(local)?;
        let found = sha256(out).map_err(local)?;
        if found != self.file.sha256 {
            drop(fs::remove_file(part));
            let reason = format!(
                "has the wrong checksum and was thrown away: SHA-256 {found}, expected {}; try again, or another --mirror",
                self.file.sha256
            );
            return Err(Error::file(self.path, reason));
        }
        fs::rename(part, self.path).map_err(|error| Error::file(self.path, written(&error)))
    }

    /// A file that is there already is left alone, and must be the right one.
    fn check_present(&mut self) -> Result<()> {
        let found =
            File::open(self.path).and_then(|file| sha256(&file)).map_err(|e| Error::file(self.path, e))?;
        if found == self.file.sha256 {
            (self.progress)(Progress { file: self.file, done: self.file.bytes });
            return Ok(());
        }
        let reason = format!(
            "is there but is not the published file: SHA-256 {found}, expected {}; move it away to fetch it",
            self.file.sha256
        );
        Err(Error::file(self.path, reason))
    }
}

fn written(error: &io::Error) -> String {
    format!("cannot be written: {error}")
}

/// The SHA-256 of all that `reader` gives, in hexadecimal.
fn sha256(mut reader: &File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut reader, &mut hasher)?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
