//! A package index on this machine with small wheels, which can be told to misbehave.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

/// Makes the wheels in the folder argv[1] and prints name, file and SHA-256, a line each.
const WHEELS: &str = r##"
import hashlib, os, random, sys, zipfile
libs = ["libtorch_cpu", "libtorch", "libc10", "libarm_compute", "libtorch_cuda", "libtorch_python"]
members = {"torch/lib/%s.%s" % (lib, end): lib.encode() for lib in libs for end in ("so", "dylib")}
members["torch/lib/libtorch_cpu.so"] = members["torch/lib/libtorch_cpu.dylib"] = random.Random(7).randbytes(4 << 20)
members.update({"torch/lib/" + name: b"x" for name in ("libgomp.so.1", "libgfortran.so.5", "libnvpl_blas.so.0")})
members["torch/include/torch/headeronly/version.h"] = b"".join(
    b"#define TORCH_VERSION_%s %d\n" % part for part in ((b"MAJOR", 2), (b"MINOR", 11), (b"PATCH", 0)))
wheels = [
    ("torch", "2.11.0", members),
    ("nvidia-cuda-runtime", "13.0.5", {"nvidia/cu13/lib/libcudart.so.13": b"cudart"}),
    ("nvidia-cuda-cupti", "13.0.9", {"nvidia/cu13/lib/libcupti.so.13": b"cupti"}),
    ("nvidia-cuda-nvrtc", "13.0.88", {"nvidia/cu13/lib/" + name: name.encode() for name in (
        "libnvrtc.so.13", "libnvrtc.alt.so.13", "libnvrtc-builtins.so.13.0")}),
]
for name, version, files in wheels:
    file = "%s-%s-py3-none-any.whl" % (name.replace("-", "_"), version)
    path = os.path.join(sys.argv[1], file)
    with zipfile.ZipFile(path, "w") as archive:
        for inner, data in files.items():
            archive.writestr(inner, data)
        about = "%s-%s.dist-info/" % (name.replace("-", "_"), version)
        archive.writestr(about + "METADATA", "Metadata-Version: 2.1\nName: %s\nVersion: %s\n" % (name, version))
        archive.writestr(about + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(about + "RECORD", "")
    print(name, file, hashlib.sha256(open(path, "rb").read()).hexdigest())
"##;

/// How the server treats requests for wheels.
#[derive(Default)]
pub struct Behaviour {
    /// Answers that break off in the middle, still to come.
    pub breaks: AtomicUsize,
    /// Whether `Range` is ignored.
    pub no_ranges: AtomicBool,
    /// Whether each block of an answer takes a while.
    pub slow: AtomicBool,
    /// Whether the index gives a wrong hash.
    pub wrong_hash: AtomicBool,
}

/// The running index.
pub struct Index {
    pub url: String,
    pub behaviour: Arc<Behaviour>,
    /// Every request for torch's wheel: the first byte that was asked for.
    pub asked: Arc<Mutex<Vec<usize>>>,
    _files: tempfile::TempDir,
}

impl Index {
    /// Starts it, or returns none where python3 is missing.
    pub fn start() -> Option<Self> {
        let files = tempfile::tempdir().unwrap();
        let made =
            Command::new("python3").args(["-c", WHEELS]).arg(files.path()).stderr(Stdio::inherit()).output();
        let list = String::from_utf8(made.ok().filter(|made| made.status.success())?.stdout).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/simple", listener.local_addr().unwrap());
        let (behaviour, asked) = (Arc::new(Behaviour::default()), Arc::new(Mutex::new(Vec::new())));
        let (folder, shared, log) = (files.path().to_path_buf(), behaviour.clone(), asked.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (folder, list, shared, log) = (folder.clone(), list.clone(), shared.clone(), log.clone());
                // A client that was killed breaks the connection: no failure of the server.
                thread::spawn(move || answer(stream, &folder, &list, &shared, &log));
            }
        });
        Some(Self { url, behaviour, asked, _files: files })
    }
}

fn answer(
    mut stream: TcpStream,
    folder: &Path,
    list: &str,
    behaviour: &Behaviour,
    asked: &Mutex<Vec<usize>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut path, mut start) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some(rest) = line.strip_prefix("GET ") {
            path = rest.split(' ').next().unwrap_or_default().to_owned();
        }
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            start = range.trim().trim_end_matches('-').parse().unwrap_or(0);
        }
    }
    let mut send = |status: &str, headers: String, body: &[u8]| {
        write!(stream, "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n", body.len())?;
        write!(stream, "Connection: close\r\n\r\n")?;
        let mut left = body;
        let shorten = path.ends_with(".whl")
            && behaviour.breaks.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        if shorten {
            left = &left[..left.len() / 3];
        }
        for block in left.chunks(64 << 10) {
            if behaviour.slow.load(SeqCst) {
                thread::sleep(Duration::from_millis(20));
            }
            stream.write_all(block)?;
        }
        stream.flush()
    };
    if let Some(name) = path.strip_prefix("/simple/").map(|name| name.trim_end_matches('/')) {
        let Some(line) = list.lines().find(|line| line.split(' ').next() == Some(name)) else {
            return send("404 Not Found", String::new(), b"");
        };
        let mut parts = line.split(' ').skip(1);
        let (file, mut hash) = (parts.next().unwrap(), parts.next().unwrap().to_owned());
        if behaviour.wrong_hash.load(SeqCst) {
            hash = "0".repeat(64);
        }
        let page = format!(
            "<!DOCTYPE html><html><body><a href=\"/files/{file}#sha256={hash}\">{file}</a></body></html>"
        );
        return send("200 OK", "Content-Type: text/html\r\n".to_owned(), page.as_bytes());
    }
    let Ok(wheel) = fs::read(folder.join(path.trim_start_matches("/files/"))) else {
        return send("404 Not Found", String::new(), b"");
    };
    if path.contains("/torch-") {
        asked.lock().unwrap().push(start);
    }
    match start {
        0 => send("200 OK", String::new(), &wheel),
        _ if behaviour.no_ranges.load(SeqCst) => send("200 OK", String::new(), &wheel),
        _ if start >= wheel.len() => {
            send("416 Range Not Satisfiable", format!("Content-Range: bytes */{}\r\n", wheel.len()), b"")
        }
        _ => {
            let range = format!("Content-Range: bytes {start}-{}/{}\r\n", wheel.len() - 1, wheel.len());
            send("206 Partial Content", range, &wheel[start..])
        }
    }
}
