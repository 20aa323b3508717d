//! `ophidian models`, as a user types it.

use std::{
    fs,
    process::{Command, Output},
};

fn ophidian(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ophidian")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_list_tells_names_sizes_and_papers() {
    let output = ophidian(&["models", "list"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let listed = text(&output.stdout);
    for parts in [
        ["vim_tiny_patch16_224", "7,148,008", "bidirectional", "2401.09417"],
        ["vmamba_tiny_s1l8", "30,249,064", "cross", "2401.10166"],
        ["vanilla_vmamba_base", "76,254,056", "3x224x224", "VMamba"],
        ["plainmamba_l1", "plainmamba", "4 directions", "2403.17695"],
        ["localvmamba_tiny", "25,527,160", "localvmamba", "2403.09338"],
        ["efficientvmamba_small", "11,273,688", "atrous", "2403.09977"],
        ["hydra_vit_base", "hydra", "bidirectional", "2407.09941"],
    ] {
        let line = listed.lines().find(|line| line.starts_with(&format!("{} ", parts[0])));
        let line = line.unwrap_or_else(|| panic!("no {} in {listed}", parts[0]));
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
    assert!(listed.contains("9 L D N"), "how operations are counted: {listed}");
}

#[test]
fn a_shown_model_is_a_config_that_train_takes() {
    let output = ophidian(&["models", "show", "vmamba_tiny_s1l8"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    for part in [
        "# parameters: 30,249,064",
        "56x56",
        "14x14",
        "patch embedding",
        "# FLOPs of one input",
        "vssm1_tiny_0230s_ckpt_epoch_264.pth",
        "\"forward_type\":\"v05_noz\"",
        "--family vmamba",
        "depth = [2, 2, 8, 2]",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("model.toml");
    fs::write(&config, &shown).unwrap();
    let config = config.to_str().unwrap();
    let resolved = ophidian(&["config", "show", config, "--set", "data.format=shapes"]);
    assert!(resolved.status.success(), "{}", text(&resolved.stderr));
    let resolved = text(&resolved.stdout);
    let model = |text: &str| text.split_once("\n[model]\n").unwrap().1.lines().count();
    assert!(model(&resolved) >= model(&shown), "{resolved}");
    assert!(resolved.contains("downsample = \"conv3\""), "{resolved}");
    let set = ["data.image_size=223", "data.format=shapes"];
    let refused = ophidian(&["config", "show", config, "--set", set[0], "--set", set[1]]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("`model.patch_size`") && said.contains("223"), "{said}");
}

#[test]
fn a_shown_model_may_be_changed() {
    let set = |assignment: &'static str| ["models", "show", "groupmamba_tiny", "--set", assignment];
    let output = ophidian(&set("model.mixer=mamba2"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    for part in
        ["mixer = \"mamba2\"", "channels = \"grouped\"", "[model.mamba2]", "# Changed: model.mixer=mamba2"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("23,361,917") && !shown.contains("Released weights"), "{shown}");
    for (assignment, words) in [
        ("model.mixer=mamba4", "`model.mixer`"),
        ("data.size=3", "`data` cannot be set here"),
        ("model=3", "no table"),
    ] {
        let output = ophidian(&set(assignment));
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(words), "{assignment}: {said}");
    }
}

#[test]
fn a_wrong_name_suggests_the_nearest() {
    let output = ophidian(&["models", "show", "vmamba_tiny_s1l9"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("did you mean `vmamba_tiny_s1l8`?"), "{said}");
}

#[test]
fn a_model_is_timed() {
    let time = |more: &[&str]| ophidian(&[&["bench", "model"][..], more].concat());
    let output = time(&["vim_tiny_patch16_224", "--side", "32", "--batch", "1,2", "--runs", "1"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shapes: Vec<_> = rows.iter().map(|row| row["shape"].to_string()).collect();
    assert_eq!(shapes, ["[1,3,32,32]", "[2,3,32,32]"]);
    for row in &rows {
        assert!(row["median_s"].as_f64() > Some(0.0) && row["device"] == "cpu", "{row}");
        // 7 million weights of 4 bytes, where the system tells.
        assert!(row["peak_bytes"].is_null() || row["peak_bytes"].as_u64() > Some(20 << 20), "{row}");
    }
    for (wrong, said) in [
        (&["vim_tiny_patch16_225"][..], "did you mean `vim_tiny_patch16_224`?"),
        (&["vim_tiny_patch16_224", "--side", "0"], "inputs of [1, 3, 0, 0] cannot be timed"),
        (&["vim_tiny_patch16_224", "--dtype", "f64"], "--dtype f64: expected f32 or bf16"),
    ] {
        let output = time(wrong);
        let told = text(&output.stderr);
        assert!(output.status.code() == Some(2) && told.contains(said), "{told}");
    }
}
