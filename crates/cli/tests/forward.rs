//! `ophidian forward`, as a user types it.
#![allow(clippy::print_stderr)] // a test that is skipped says so

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use ophidian_core::tensors;
use tch::Kind;

fn ophidian(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ophidian")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn goldens() -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let shared = std::env::var("OPHIDIAN_SHARED").map_or_else(|_| beside.into(), PathBuf::from);
    let folder = shared.join("golden/models/vim");
    if !folder.is_dir() {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: no goldens at {}\n", folder.display()),
        );
        return None;
    }
    Some(folder)
}

fn forward(family: &str, model: &Path, input: &Path, output: &Path) -> Output {
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (model, input, output) = (path(model), path(input), path(output));
    ophidian(&["forward", "--family", family, "--model", &model, "--input", &input, "--output", &output])
}

#[test]
fn a_published_folder_runs_and_writes_logits_and_gradients() {
    let Some(folder) = goldens() else { return };
    let dir = tempfile::tempdir().unwrap();
    let model = folder.join("a_midcls_div2");
    let (input, output) = (model.join("golden.safetensors"), dir.path().join("out.safetensors"));
    let run = forward("vim", &model, &input, &output);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let said = text(&run.stdout);
    assert!(said.contains("out.logits [2, 10] Float") && said.contains("grad.*"), "{said}");
    let (want, got) = (tensors::read(&input).unwrap(), tensors::read(&output).unwrap());
    for (name, tolerance) in
        [("out.logits", 1e-5), ("grad.layers.1.mixer.A_b_log", 1e-4), ("grad.pos_embed", 1e-4)]
    {
        let scale = want[name].abs().max().double_value(&[]);
        let error = (&got[name] - &want[name]).abs().max().double_value(&[]) / scale;
        assert!(error <= tolerance, "{name}: {error:.1e}");
        assert_eq!(got[name].kind(), Kind::Float);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing but the output is left");
}

/// A checkpoint as PyTorch writes one: `{"model": {name: tensor}}` of f32 tensors.
fn checkpoint(tensors: &tensors::Tensors) -> Vec<u8> {
    use std::io::Write;
    let text = |text: &str| [b"X", (text.len() as u32).to_le_bytes().as_slice(), text.as_bytes()].concat();
    let int = |n: i64| [b"J".as_slice(), &(n as i32).to_le_bytes()].concat();
    let tuple = |n: Vec<i64>| [b"(".to_vec(), n.into_iter().flat_map(int).collect(), b"t".to_vec()].concat();
    let mut pickle = [b"\x80\x02}".to_vec(), text("model"), b"}".to_vec()].concat();
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (key, (name, tensor)) in tensors.iter().enumerate() {
        let values: Vec<f32> = tensor.to_kind(Kind::Float).contiguous().view(-1).try_into().unwrap();
        zip.start_file(format!("x/data/{key}"), options).unwrap();
        zip.write_all(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>()).unwrap();
        pickle.extend(
            [text(&format!("module.{name}")), b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec()].concat(),
        );
        pickle.extend([text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text(&key.to_string())].concat());
        pickle.extend([text("cpu"), int(values.len() as i64), b"tQ".to_vec(), int(0)].concat());
        pickle.extend(
            [tuple(tensor.size()), tuple(tensor.contiguous().stride()), b"\x89}tRs".to_vec()].concat(),
        );
    }
    pickle.extend(*b"s.");
    zip.start_file("x/data.pkl", options).unwrap();
    zip.write_all(&pickle).unwrap();
    zip.finish().unwrap().into_inner()
}

#[test]
fn a_checkpoint_of_pytorch_runs_as_it_is() {
    let Some(folder) = goldens() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (model, path) = (folder.join("a_midcls_div2"), |name: &str| dir.path().join(name));
    let weights = checkpoint(&tensors::read(&model.join("model.safetensors")).unwrap());
    std::fs::write(path("x.pth"), &weights).unwrap();
    // By --weights, and as a folder's own.
    std::fs::create_dir(path("model")).unwrap();
    std::fs::copy(model.join("config.json"), path("model/config.json")).unwrap();
    std::fs::write(path("model/pytorch_model.bin"), &weights).unwrap();
    let input = model.join("golden.safetensors");
    let want = &tensors::read(&input).unwrap()["out.logits"];
    for (folder, weights) in [(&model, Some(path("x.pth"))), (&path("model"), None)] {
        let output = path("out.safetensors");
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mut args =
            vec!["forward".into(), "--family".into(), "vim".into(), "--model".into(), text(folder)];
        args.extend(weights.iter().flat_map(|weights| ["--weights".into(), text(weights)]));
        args.extend(["--input".into(), text(&input), "--output".into(), text(&output)]);
        let run = ophidian(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(run.status.success(), "{}", self::text(&run.stderr));
        let error = (&tensors::read(&output).unwrap()["out.logits"] - want).abs().max().double_value(&[]);
        assert!(error < 1e-4, "{error:.1e}");
    }
}

#[test]
fn mistakes_have_their_exit_codes_and_write_nothing() {
    let Some(folder) = goldens() else { return };
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let model = at("model");
    std::fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(folder.join("c_v1_doublecls").join(name), model.join(name)).unwrap();
    }
    let (input, output) = (folder.join("c_v1_doublecls/golden.safetensors"), at("out.safetensors"));
    let fails = |run: Output, code: i32, parts: &[&str]| {
        let said = text(&run.stderr);
        assert_eq!(run.status.code(), Some(code), "{said}");
        assert!(said.starts_with("error: ") && parts.iter().all(|part| said.contains(part)), "{said}");
        assert!(!output.exists());
    };
    fails(forward("vin", &model, &input, &output), 2, &["no family `vin`", "did you mean `vim`?"]);
    fails(forward("vim", &at("nowhere"), &input, &output), 2, &["nowhere", "config.json"]);
    fails(forward("vim", &model, &at("no.safetensors"), &output), 1, &["no.safetensors"]);
    fails(forward("vim", &model, &input, &at("no/out.safetensors")), 1, &["cannot be written"]);

    let config = std::fs::read_to_string(model.join("config.json")).unwrap();
    std::fs::write(model.join("config.json"), &config[..config.len() / 2]).unwrap();
    fails(forward("vim", &model, &input, &output), 2, &["config.json", "not JSON", "line"]);
    std::fs::write(model.join("config.json"), config.replace("\"depth\": 2", "\"depht\": 2")).unwrap();
    let parts = ["config.json", "unknown key `depht`", "did you mean `depth`?"];
    fails(forward("vim", &model, &input, &output), 2, &parts);
    std::fs::write(model.join("config.json"), config.replace("\"depth\": 2", "\"depth\": 3")).unwrap();
    let parts = ["model.safetensors", "`layers.2.mixer.A_log` [32, 4] is missing"];
    fails(forward("vim", &model, &input, &output), 1, &parts);
    std::fs::write(model.join("config.json"), &config).unwrap();

    let weights = std::fs::read(model.join("model.safetensors")).unwrap();
    std::fs::write(model.join("model.safetensors"), &weights[..weights.len() - 9]).unwrap();
    fails(forward("vim", &model, &input, &output), 1, &["not a whole safetensors file"]);
    let mut hostile = weights.clone();
    hostile[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(model.join("model.safetensors"), hostile).unwrap();
    fails(forward("vim", &model, &input, &output), 1, &["not a whole safetensors file"]);
}

#[test]
fn help_tells_what_to_type() {
    let said = text(&ophidian(&["forward", "--help"]).stdout);
    for part in ["--family", "--model", "config.json", "in.labels", "grad.*"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(ophidian(&["forward"]).status.code(), Some(2));
}
