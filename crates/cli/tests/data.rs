//! `ophidian data`, run as a user runs it.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

fn run(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ophidian"))
        .args(["data"])
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Asserts success and returns what was printed.
fn prints(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Asserts the exit code and that the message says all of `parts`.
fn fails(output: &Output, code: i32, parts: &[&str]) {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    for part in parts {
        assert!(message.contains(part), "`{message}` does not say `{part}`");
    }
    assert!(!message.contains("panicked"), "{message}");
}

/// A BMP of one pixel.
fn bmp() -> Vec<u8> {
    let mut bytes = b"BM".to_vec();
    for word in [58u32, 0, 54, 40, 1, 1, 0x0018_0001, 0, 4, 0, 0, 0, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend([1, 2, 3, 0]);
    bytes
}

fn put(folder: &Path, path: &str, bytes: &[u8]) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn list_names_every_card() {
    let folder = tempfile::tempdir().unwrap();
    let plain = prints(&run(folder.path(), &["list"]));
    for name in [
        "mnist",
        "fashion-mnist",
        "cifar10",
        "cifar100",
        "shapes",
        "motions",
        "generated",
        "licence: MIT (Zalando SE)",
    ] {
        assert!(plain.contains(name), "{plain}");
    }
    let json = prints(&run(folder.path(), &["list", "--json"]));
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(first["files"][0]["bytes"], 9_912_422);
}

#[test]
fn inspect_reads_a_generator_a_config_and_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "run.toml", b"adapter = 'vision'\n[data]\nformat = 'shapes'\ntrain = 50\neval = 20\n");
    let found = prints(&run(folder.path(), &["inspect", "run.toml", "--set", "data.train=40"]));
    for part in [
        "format      shapes",
        "train       40 images",
        "eval        20 images",
        "28x28x1",
        "star",
        "mean",
        "std",
    ] {
        assert!(found.contains(part), "{found}");
    }
    let json = prints(&run(folder.path(), &["inspect", "shapes", "--set", "data.train=10", "--json"]));
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["splits"][0]["per_class"], serde_json::json!([1, 1, 1, 1, 1, 1, 1, 1, 1, 1]));

    let found = prints(&run(folder.path(), &["inspect", "motions", "--set", "data.train=16"]));
    for part in ["format      motions", "train       16 clips", "8 frames of 32x32x1", "counterclockwise"] {
        assert!(found.contains(part), "{found}");
    }

    for class in ["cat", "dog"] {
        (0..5).for_each(|index| put(folder.path(), &format!("pets/{class}/{index}.bmp"), &bmp()));
    }
    let found = prints(&run(folder.path(), &["inspect", "pets"]));
    for part in
        ["format      folder", "train       8 images", "held out", "1x1x3", "dog       4 train       1 eval"]
    {
        assert!(found.contains(part), "{found}");
    }
}

#[test]
fn check_names_every_corrupt_file() {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..12 {
        let whole = index % 2 == 0;
        let bytes = bmp();
        put(folder.path(), &format!("pets/cat/{index}.bmp"), if whole { &bytes } else { &bytes[..40] });
    }
    let output = run(folder.path(), &["inspect", "pets", "--check"]);
    fails(&output, 1, &["6 images cannot be read"]);
    let found = text(&output.stdout);
    for index in [1, 3, 5, 7, 9, 11] {
        assert!(found.contains(&format!("corrupt     pets/cat/{index}.bmp: broken Bmp image")), "{found}");
    }
    // Without --check they are reported all the same.
    assert!(prints(&run(folder.path(), &["inspect", "pets"])).contains("corrupt"));
}

#[test]
fn wrong_arguments_are_usage() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "bad.toml", b"[data]\nformt = 'shapes'\n");
    put(folder.path(), "none.toml", b"seed = 1\n");
    fails(&run(folder.path(), &["inspect", "bad.toml"]), 2, &["`data.formt`", "`data.format`"]);
    fails(&run(folder.path(), &["inspect", "none.toml"]), 2, &["no table [data]"]);
    fails(&run(folder.path(), &["inspect", "absent.toml"]), 2, &["absent.toml"]);
    fails(&run(folder.path(), &["fetch", "minst"]), 2, &["did you mean `mnist`?"]);
    fails(&run(folder.path(), &["fetch", "shapes"]), 2, &["generated"]);
    fails(&run(folder.path(), &["inspect", "absent"]), 1, &["absent", "does not exist"]);
    fails(&run(folder.path(), &["inspect", "."]), 1, &["no data set that is known"]);
    fails(&run(folder.path(), &["inspect"]), 2, &["PATH|CONFIG.toml"]);
}

#[test]
fn fetch_names_what_is_wrong_and_leaves_nothing_that_looks_whole() {
    // Answers every request with bytes that are no data set.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mirror = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            lines.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            let body = vec![7; 9_912_422];
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&body);
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["fetch", "mnist", "--mirror", &mirror]);
    fails(&output, 1, &["data/mnist/train-images-idx3-ubyte.gz", "wrong checksum", "--mirror"]);
    assert_eq!(std::fs::read_dir(folder.path().join("data/mnist")).unwrap().count(), 0);

    put(folder.path(), "file", b"");
    fails(
        &run(folder.path(), &["fetch", "mnist", "--output", "file/x", "--mirror", &mirror]),
        1,
        &["file/x", "cannot be made"],
    );
    let closed = run(folder.path(), &["fetch", "mnist", "--output", "out", "--mirror", "http://127.0.0.1:1"]);
    fails(&closed, 1, &["cannot be fetched", "http://127.0.0.1:1/train-images-idx3-ubyte.gz"]);
}
