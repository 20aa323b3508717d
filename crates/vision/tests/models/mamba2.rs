//! Mamba-2 in the place of every published model's mixer, by one line.

use std::collections::HashSet;

use ophidian_vision::models::{self, CATALOGUE, MixerKind};

use crate::{
    config::{build, gradients, refused},
    seeded, table,
};

/// The line over a published model.
fn line(name: &str) -> String {
    format!("base = '{name}'\nmixer = 'mamba2'\n")
}

/// Every published model takes the line, keeps what its paper has around the recurrence, and loses what only its own mixer
/// reads.
#[test]
fn every_published_model_takes_mamba2() {
    let kept = [
        "scan",
        "channels",
        "merge",
        "coarse",
        "coarse_scan",
        "squeeze",
        "norm_each",
        "step_embedding",
        "conv",
        "d_conv",
        "expand",
        "parameters",
        "gate",
        "affinity",
        "conv_branch",
        "depth",
        "d_model",
    ];
    for name in CATALOGUE.names() {
        let official = CATALOGUE.official(name).unwrap();
        let read = CATALOGUE.read(table(&line(name))).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((read.mixer.0.values(), read.d_state), (&[MixerKind::Mamba2][..], 64), "{name}");
        let [theirs, ours] = [&official.model, &read].map(|model| toml::Table::try_from(model).unwrap());
        for key in kept {
            assert_eq!(theirs.get(key), ours.get(key), "{name}: {key}");
        }
        assert!(!["out_norm", "hydra"].iter().any(|key| ours.contains_key(*key)), "{name}");
        assert_eq!(CATALOGUE.resolve(ours.clone()).unwrap(), ours, "{name}: resolving is idempotent");
        let [before, after] =
            [&official.model, &read].map(|model| model.count(official.input, official.classes).unwrap());
        assert_eq!(before.stages, after.stages, "{name}");
        // Neither mixer is many times the other, and what stands around them is the same.
        let ratio = after.parameters as f64 / before.parameters as f64;
        assert!((0.5..3.0).contains(&ratio), "{name}: {ratio}");
        let around = |summary: &ophidian_core::grid::Summary| -> i64 {
            summary
                .parts
                .iter()
                .filter(|part| !part.name.starts_with("stage"))
                .map(|part| part.parameters)
                .sum()
        };
        if official.model.class_blocks == 0 {
            assert_eq!(around(&before), around(&after), "{name}");
        }
    }
}

/// One of each family, made small: gradients are finite and reach every recurrence, and as many parameters are counted as
/// there are.
#[test]
fn every_family_trains_with_mamba2() {
    let mut seen = HashSet::new();
    for name in CATALOGUE.names() {
        let official = CATALOGUE.official(name).unwrap();
        if !seen.insert((official.family, official.input.frames)) {
            continue;
        }
        let _guard = seeded(1);
        let model = official.model;
        let widths: Vec<i64> = model.widths().iter().map(|width| (width / 4 + 15) / 16 * 16).collect();
        // Blocks may come in pairs.
        let blocks = if model.stages() == 1 { 2 } else { 1 };
        let text = line(name)
            + &format!("d_model = {widths:?}\ndepth = {:?}\ndrop_path = 0.0", vec![blocks; widths.len()]);
        // Every walk of the last stage has more than one token, so that its states decay.
        let shape: Vec<i64> = [3].into_iter().chain(official.input.frames).chain([128, 128]).collect();
        let gradients = gradients(&text, &shape);
        let parts =
            ["in_proj.weight", "dt_bias", "A_log", "D", "out_proj.weight", "step_embedding", "coarse.weight"];
        for (key, grad) in &gradients {
            // Blocks on the mean walk one token.
            if key.starts_with("layers") && parts.iter().any(|part| key.ends_with(&format!(".{part}"))) {
                assert!(grad.abs().max().double_value(&[]) > 0.0, "{name}: {key} has a gradient of zeros");
            }
            // As a variable store has it if two things have one name.
            assert!(!key.contains("__"), "{name}: {key}");
        }
        let built: usize = gradients.iter().map(|(_, grad)| grad.numel()).sum();
        let input = models::Input::try_from(&shape[..]).unwrap();
        let counted = CATALOGUE.read(table(&text)).unwrap().count(input, 10).unwrap();
        assert_eq!(counted.parameters, built as i64, "{name}");
    }
    assert!(seen.len() >= 15);
}

/// A key that Mamba-2 does not read is noted where it is set, with what there is in its place, or an error where the
/// directions would be others without it.
#[test]
fn keys_of_mamba1_alone_are_noted_or_refused() {
    let shape = [3, 64, 64];
    for (key, instead, noted) in [
        ("dt_rank = 4", "`mamba2.dt_limit`", true),
        ("dt_init = 'constant'", "`dt_min`", true),
        ("dt_scale = 2.0", "`dt_max`", true),
        ("step_sizes = 'first-log-uniform'", "log-uniform from `dt_min`", true),
        ("out_norm = 'layer'", "`mamba2.rmsnorm`", true),
        ("cascade = 2", "from the tokens", false),
        ("written_as = 'cross'", "leave it out", false),
        ("compat = {double_dt_bias = true}", "leave it out", false),
    ] {
        let name = key.split(' ').next().unwrap();
        // The first of these has an `out_norm` and the second `step_sizes` of its own, which are left out.
        for base in
            ["base = 'vmamba_tiny_s1l8'", "base = 'vim_tiny_patch16_224'\npool = 'mean'", "pool = 'mean'"]
        {
            let text = format!("{base}\nmixer = 'mamba2'\n{key}");
            let said = match CATALOGUE.read(table(&text)) {
                Ok(model) if noted => {
                    let notes = model.notes();
                    assert_eq!(notes.len(), 1, "{text}: {notes:?}");
                    notes.concat()
                }
                Err(error) if !noted => error.to_string(),
                other => panic!("{text}: {other:?}"),
            };
            let set = format!("`{name}` is set, but `mixer = \"mamba2\"`");
            assert!(said.contains(&set) && said.contains(instead), "{text}: {said}");
        }
    }
    // Where another stage reads it, it may stay.
    build(
        "mixer = ['mamba1', 'mamba2']\ndepth = [1, 1]\npool = 'mean'\nout_norm = 'layer'\nd_model = 16",
        &shape,
    )
    .unwrap();
    for (text, parts) in [
        (
            "channels = 'grouped'\nscan = 'cross'\npatch_size = 8\npool = 'mean'",
            &["`channels` is \"grouped\"", "concat"][..],
        ),
        (
            "channels = 'grouped'\nmerge = 'concat'\nscan = 'cross'\nd_model = 30\npatch_size = 8",
            &["`d_model` is 30", "multiple of the 4 directions"],
        ),
        (
            "channels = 'grouped'\nmerge = 'concat'\nscan = 'cross'\nd_model = 32\npatch_size = 8\nmamba2 = {headdim = 32}",
            &["`headdim` is 32", "16 inner channels of a direction"],
        ),
    ] {
        let error = refused(&format!("mixer = 'mamba2'\n{text}"), &shape);
        assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
    }
}

/// Another mixer's keys go with it, whatever comes in its place.
#[test]
fn what_only_the_mixer_of_the_base_reads_goes_with_it() {
    for (base, mixer) in
        [("hydra_vit_base", "mamba1"), ("vmamba_tiny_s1l8", "hydra"), ("msvmamba_tiny", "spatialmamba")]
    {
        let text = format!("base = '{base}'\nmixer = '{mixer}'");
        CATALOGUE.read(table(&text)).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    // What a config of one's own still holds for it is noted, but where no mixer is named, its line was forgotten.
    let read = CATALOGUE.read(table("base = 'hydra_vit_base'\nmixer = 'mamba2'\nhydra = {headdim = 8}"));
    assert_eq!(read.unwrap().notes(), ["`hydra` is set, but `mixer` is not \"hydra\": nothing reads it"]);
    let error = CATALOGUE.read(table("hydra = {headdim = 8}")).unwrap_err().to_string();
    assert!(error.contains("`hydra` is set, but `mixer` is not \"hydra\""), "{error}");
    // A published config as a file of one's own takes it by one line too.
    for name in CATALOGUE.names() {
        let mut table = CATALOGUE.resolve(table(&format!("base = '{name}'"))).unwrap();
        table.insert("mixer".into(), "mamba2".into());
        CATALOGUE.read(table).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    // What a scan is published with is not asked of a mixer that cannot be told.
    let read = CATALOGUE.read(table("scan = 'vmamba/cross2d'\nmixer = 'mamba2'\npool = 'mean'")).unwrap();
    let notes = read.differs_from_published();
    assert!(notes[0].contains("conv=grid") && !notes[0].contains("out_norm"), "{notes:?}");
}
