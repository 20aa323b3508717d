//! Downloads, against a small server on this machine that can be told to misbehave.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use ophidian_core::{Error, Result};
use ophidian_vision::{
    cards::{self, Card, CardFile},
    fetch::fetch,
};
use sha2::{Digest, Sha256};

use crate::common::{error, says};

/// What a server does with a request.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Serves ranges and all.
    Proper,
    /// Drops the connection after this many bytes of each answer.
    Drops(usize),
    /// Ignores ranges.
    Whole,
    /// Answers 404.
    Absent,
    /// Sends other bytes.
    Wrong,
    /// Sends without end.
    Endless,
    /// Answers a range with another range.
    Confused,
}

struct Server {
    prefix: String,
    requests: Arc<AtomicUsize>,
    ranges: Arc<Mutex<Vec<String>>>,
}

fn serve(body: Vec<u8>, manner: Manner) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let prefix = format!("http://{}/files", listener.local_addr().unwrap());
    let (requests, ranges) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (counted, seen) = (requests.clone(), ranges.clone());
    // Ends with the test process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = answer(stream, &body, manner, &seen);
        }
    });
    Server { prefix, requests, ranges }
}

fn answer(
    mut stream: TcpStream,
    body: &[u8],
    manner: Manner,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut range = None;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            range = value.trim().trim_end_matches('-').parse::<usize>().ok();
            seen.lock().unwrap().push(value.trim().to_owned());
        }
    }
    let close = "Connection: close\r\n";
    if manner == Manner::Absent {
        return write!(stream, "HTTP/1.1 404 Not Found\r\n{close}Content-Length: 0\r\n\r\n");
    }
    if manner == Manner::Endless {
        write!(stream, "HTTP/1.1 200 OK\r\n{close}\r\n")?;
        loop {
            stream.write_all(&[0; 4096])?;
        }
    }
    let mut body = body.to_vec();
    if manner == Manner::Wrong {
        body[0] ^= 1;
    }
    let from = if manner == Manner::Whole { 0 } else { range.unwrap_or(0).min(body.len()) };
    let rest = &body[from..];
    if from > 0 {
        let from = if manner == Manner::Confused { from + 1 } else { from };
        let (last, all) = (body.len() - 1, body.len());
        write!(stream, "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{last}/{all}\r\n")?;
    } else {
        write!(stream, "HTTP/1.1 200 OK\r\n")?;
    }
    write!(stream, "{close}Content-Length: {}\r\n\r\n", rest.len())?;
    let sent = match manner {
        Manner::Drops(most) => &rest[..most.min(rest.len())],
        _ => rest,
    };
    stream.write_all(sent)
}

fn body() -> Vec<u8> {
    (0..200_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn card() -> Card {
    let sha256 = Sha256::digest(body()).iter().map(|byte| format!("{byte:02x}")).collect();
    let files = vec![CardFile { name: "data.bin".to_owned(), bytes: body().len() as u64, sha256 }];
    Card { files, ..cards::named("mnist").unwrap() }
}

fn get(folder: &Path, server: &Server) -> Result<Vec<std::path::PathBuf>> {
    fetch(&card(), folder, Some(&server.prefix), &mut |_| ())
}

fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_fetched_once() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("new/data");
    let server = serve(body(), Manner::Proper);
    let mut last = 0;
    fetch(&card(), &target, Some(&server.prefix), &mut |progress| last = progress.done).unwrap();
    assert_eq!(last, 200_000);
    assert_eq!(std::fs::read(target.join("data.bin")).unwrap(), body());
    assert_eq!(listing(&target), ["data.bin"]);
    get(&target, &server).unwrap();
    assert_eq!(server.requests.load(Ordering::SeqCst), 1);
}

#[test]
fn a_dropped_connection_is_taken_up_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(body(), Manner::Drops(70_000));
    get(folder.path(), &server).unwrap();
    assert_eq!(std::fs::read(folder.path().join("data.bin")).unwrap(), body());
    assert_eq!(*server.ranges.lock().unwrap(), ["70000-", "140000-"]);
}

#[test]
fn an_interrupted_download_goes_on_later() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data.bin.part"), &body()[..150_000]).unwrap();
    let server = serve(body(), Manner::Proper);
    get(folder.path(), &server).unwrap();
    assert_eq!(*server.ranges.lock().unwrap(), ["150000-"]);
    assert_eq!(listing(folder.path()), ["data.bin"]);
}

#[test]
fn a_server_without_ranges_starts_over() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data.bin.part"), &body()[..150_000]).unwrap();
    get(folder.path(), &serve(body(), Manner::Whole)).unwrap();
    assert_eq!(std::fs::read(folder.path().join("data.bin")).unwrap(), body());
}

#[test]
fn a_whole_part_needs_no_server() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data.bin.part"), body()).unwrap();
    let server = serve(body(), Manner::Absent);
    get(folder.path(), &server).unwrap();
    assert_eq!(server.requests.load(Ordering::SeqCst), 0);
}

#[test]
fn a_tampered_part_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut part = body()[..1000].to_vec();
    part[7] ^= 1;
    std::fs::write(folder.path().join("data.bin.part"), part).unwrap();
    let server = serve(body(), Manner::Proper);
    says(&error(get(folder.path(), &server)), &["data.bin", "wrong checksum", "thrown away"]);
    assert!(listing(folder.path()).is_empty());
    get(folder.path(), &server).unwrap();
}

#[test]
fn a_wrong_checksum_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    says(
        &error(get(folder.path(), &serve(body(), Manner::Wrong))),
        &["wrong checksum", &card().files[0].sha256],
    );
    assert!(listing(folder.path()).is_empty());
}

#[test]
fn failing_servers_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(body(), Manner::Absent);
    says(&error(get(folder.path(), &server)), &["cannot be fetched", &server.prefix, "404"]);
    assert!(listing(folder.path()).is_empty());
    // Nobody listens there.
    let nobody = Server { prefix: "http://127.0.0.1:1/x".to_owned(), ..serve(body(), Manner::Absent) };
    says(&error(get(folder.path(), &nobody)), &["http://127.0.0.1:1/x/data.bin"]);
    let bad = Server { prefix: "no address".to_owned(), ..serve(body(), Manner::Absent) };
    says(&error(get(folder.path(), &bad)), &["cannot be fetched"]);
}

#[test]
fn the_next_source_is_tried() {
    let folder = tempfile::tempdir().unwrap();
    let (absent, proper) = (serve(body(), Manner::Absent), serve(body(), Manner::Proper));
    let card = Card { sources: vec![absent.prefix.clone(), proper.prefix.clone()], ..card() };
    fetch(&card, folder.path(), None, &mut |_| ()).unwrap();
    assert_eq!(listing(folder.path()), ["data.bin"]);
}

#[test]
fn too_many_bytes_are_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    says(&error(get(folder.path(), &serve(body(), Manner::Endless))), &["more than the 200000 bytes"]);
    assert!(listing(folder.path()).is_empty());
}

#[test]
fn a_confused_range_is_refused_and_the_part_kept() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data.bin.part"), &body()[..1000]).unwrap();
    let message = error(get(folder.path(), &serve(body(), Manner::Confused)));
    says(&message, &["bytes from 1000 on", "1000 of 200000 bytes are kept"]);
    assert_eq!(listing(folder.path()), ["data.bin.part"]);
}

#[test]
fn another_file_of_that_name_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data.bin"), b"mine").unwrap();
    says(
        &error(get(folder.path(), &serve(body(), Manner::Proper))),
        &["not the published file", "move it away"],
    );
    assert_eq!(std::fs::read(folder.path().join("data.bin")).unwrap(), b"mine");
}

#[test]
fn generators_and_bad_folders_say_so() {
    let generator = fetch(&cards::named("shapes").unwrap(), Path::new("x"), None, &mut |_| ());
    assert!(matches!(generator, Err(Error::Config(_))));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    says(&error(get(&file.join("inner"), &serve(body(), Manner::Proper))), &["cannot be made"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_named_and_nothing_looks_whole() {
    let folder = tempfile::tempdir().unwrap();
    // Every write to /dev/full fails as on a full disk.
    std::os::unix::fs::symlink("/dev/full", folder.path().join("data.bin.part")).unwrap();
    says(
        &error(get(folder.path(), &serve(body(), Manner::Proper))),
        &["data.bin.part", "cannot be written", "No space left"],
    );
    assert!(!folder.path().join("data.bin").exists());
}
