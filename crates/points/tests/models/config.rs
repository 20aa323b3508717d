//! What a `[model]` table may say.

use ophidian_core::{adapter::Adapter, grid::Scans};
use ophidian_points::{
    PointClouds,
    models::{CATALOGUE, ModelConfig, official},
};

use crate::table;

fn fails(text: &str) -> String {
    ModelConfig::read(table(text)).unwrap_err().to_string()
}

#[test]
fn wrong_keys_are_named() {
    for (text, words) in [
        ("d_modl = 3", "did you mean `model.d_model`?"),
        ("d_model = 0", "`d_model` is 0"),
        ("scan = []", "empty list"),
        ("scan = \"hilbrt\"", "hilbrt"),
        ("conv = \"grid\"", "points lie on no grid"),
        ("mixer = \"mamba3\"", "`model.mixer`"),
        ("mamba2 = {headdim = 8}", "`mixer` is not \"mamba2\""),
        ("mixer = \"mamba2\"\nmamba2 = {headdim = 7}", "`headdim` is 7"),
        ("mixer = \"mamba2\"\nchannels = \"grouped\"", "`channels`"),
        ("head = [0]", "`head` is 0"),
        ("head_dropout = 1.0", "`head_dropout` is 1.0"),
        ("d_model = 100000\ndepth = 4000", "parameters"),
        ("base = \"pointmamba_modelnet4\"", "did you mean `pointmamba_modelnet40`?"),
    ] {
        let error = fails(text);
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn keys_that_nothing_reads_are_noted() {
    for (text, words) in [
        ("mixer = \"mamba2\"\ndt_rank = 4", "`mamba2.dt_limit`"),
        ("base = \"pointmamba_modelnet40\"\nmixer = \"mamba2\"\nout_norm = \"rms\"", "`mamba2.rmsnorm`"),
        ("mixer = \"mamba1\"\nmamba2 = {headdim = 8}", "nothing reads it"),
    ] {
        let notes = PointClouds.notes(&PointClouds.resolve_model(table(text)).unwrap());
        assert!(notes.len() == 1 && notes[0].contains(words), "{text}: {notes:?}");
    }
    assert!(PointClouds.notes(&PointClouds.resolve_model(toml::Table::new()).unwrap()).is_empty());
}

#[test]
fn a_scan_that_does_not_suit_points_is_refused_before_data_is_read() {
    let data = PointClouds.resolve_data(toml::Table::new()).unwrap();
    for (scan, words) in [("cross", "cross"), ("window(2)", "window"), ("voxel-hilbert(4)", "voxel")] {
        let model = PointClouds.resolve_model(table(&format!("scan = \"{scan}\""))).unwrap();
        let error = PointClouds.check(&data, &model).unwrap_err().to_string();
        assert!(error.contains(words) && error.starts_with("`scan`"), "{error}");
    }
}

#[test]
fn joined_scans_have_the_same_number_of_directions() {
    let data = PointClouds.resolve_data(toml::Table::new()).unwrap();
    let model = table("join = true\nscan = [\"hilbert\", \"pointmamba/serialize\"]");
    let model = PointClouds.resolve_model(model).unwrap();
    let error = PointClouds.check(&data, &model).unwrap_err().to_string();
    assert!(error.contains("`join`") && error.contains("[1, 2]"), "{error}");
}

#[test]
fn resolved_tables_resolve_to_themselves() {
    for text in [
        "",
        "base = \"pointmamba_scanobjectnn\"\ndepth = 3",
        "scan = \"pcm/serialize\"",
        "mixer = \"mamba2\"",
    ] {
        let once = PointClouds.resolve_model(table(text)).unwrap();
        assert_eq!(PointClouds.resolve_model(once.clone()).unwrap(), once);
    }
    let scheduled = ModelConfig::read(table("scan = \"pcm/serialize\"")).unwrap();
    assert!(matches!(scheduled.scan, Scans::Each(texts) if texts.len() == 9));
    let mamba2 = ModelConfig::read(table("base = \"pointmamba_modelnet40\"\nmixer = \"mamba2\"")).unwrap();
    assert_eq!((mamba2.d_state, mamba2.mamba2.is_some()), (64, true));
    let based = ModelConfig::read(table("base = \"pointmamba_modelnet40\"\ndepth = 3")).unwrap();
    assert_eq!((based.depth, based.d_model, based.join), (3, 384, true));
    for name in CATALOGUE.names() {
        let model = official(name).unwrap();
        let line = format!("base = \"{name}\"\nmixer = \"mamba2\"");
        let mamba2 = ModelConfig::read(table(&line)).unwrap();
        let [before, after] = [&model.model, &mamba2]
            .map(|config| config.count(model.input.input(), model.classes).unwrap().parts);
        let same = before.iter().zip(&after).all(|(a, b)| (a == b) == (a.0 != "blocks"));
        assert!(same, "{name}: {before:?} {after:?}");
    }
}

#[test]
fn every_key_is_documented() {
    let keys = PointClouds.model_keys();
    assert!(keys.iter().any(|key| key.key == "join" && key.default.as_deref() == Some("false")));
    assert!(PointClouds.data_keys().iter().any(|key| key.key == "sequence.merge"));
    assert!(keys.iter().all(|key| !key.meaning.is_empty()));
}
