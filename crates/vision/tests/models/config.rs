//! The `[model]` table: defaults, errors, and the models it describes.

use ophidian_core::{Error, adapter::Model, data::Sample, grid::search, ops::Orders, rng};
use ophidian_vision::models::{self, MixerKind, ModelConfig, resize_positions};
use tch::{Device, Kind, Tensor, nn::VarStore};

use crate::{seeded, table};

pub fn build(text: &str, shape: &[i64]) -> Result<(VarStore, Box<dyn Model>), Error> {
    let vs = VarStore::new(Device::Cpu);
    let resolved = models::CATALOGUE.resolve(table(text))?;
    let model = models::build(&resolved, shape, 10, vs.root())?;
    Ok((vs, model))
}

pub fn refused(text: &str, shape: &[i64]) -> String {
    let error = build(text, shape).err().expect("an error");
    assert!(!matches!(error, Error::Torch(_)), "{error}");
    error.to_string()
}

#[test]
fn a_vim_tiny_config_has_vim_tinys_parameters() {
    let vs = VarStore::new(Device::Cpu);
    let text = "patch_size = 16\nd_model = 192\ndepth = 24\npool = 'middle'\nscan = 'bidirectional'";
    models::build(&models::CATALOGUE.resolve(table(text)).unwrap(), &[3, 224, 224], 1000, vs.root()).unwrap();
    let count: usize = vs.trainable_variables().iter().map(Tensor::numel).sum();
    assert_eq!(count, 7_148_008);
}

#[test]
fn resolving_fills_every_key_and_is_idempotent() {
    let resolved = models::CATALOGUE.resolve(table("patch_size = [2, 4]\ndepth = 2")).unwrap();
    assert_eq!(resolved["stride"], resolved["patch_size"]);
    assert_eq!(resolved["scan"].as_str(), Some("bidirectional"));
    assert_eq!(resolved["dt_rank"].as_str(), Some("auto"));
    assert_eq!(models::CATALOGUE.resolve(resolved.clone()).unwrap(), resolved);
    let documented = models::CATALOGUE.keys();
    for key in resolved.keys() {
        assert!(documented.iter().any(|known| known.key == *key && known.meaning.len() > 5), "{key}");
    }
}

#[test]
fn scans_that_layers_take_in_turn_become_a_list() {
    let scan =
        |text: &str| models::CATALOGUE.resolve(table(&format!("scan = '{text}'"))).unwrap()["scan"].clone();
    let layers = scan("zigma/zigzag8");
    let layers: Vec<&str> = layers.as_array().unwrap().iter().filter_map(toml::Value::as_str).collect();
    assert_eq!((layers.len(), layers[3]), (8, "zigma/zigzag8 | direction(3)"));
    assert_eq!(scan("vmamba/cross2d").as_str(), Some("vmamba/cross2d"));
    // Within a list too.
    let text = "scan = ['row', 'mamband/alternate2d', 'column']";
    let spliced = models::CATALOGUE.resolve(table(text)).unwrap()["scan"].clone();
    let spliced: Vec<&str> = spliced.as_array().unwrap().iter().filter_map(toml::Value::as_str).collect();
    assert_eq!(spliced.len(), 6);
    assert_eq!([spliced[0], spliced[1], spliced[5]], ["row", "mamband/alternate2d | direction(0)", "column"]);
}

/// A published scan gives the orders alone: what else its paper has is said, and setting it silences that.
#[test]
fn what_else_a_published_scan_goes_with_is_said() {
    let notes = |text: &str| models::CATALOGUE.read(table(text)).unwrap().differs_from_published();
    let said = notes("scan = 'vmamba/cross2d'\nmerge = 'mean'");
    assert_eq!(said.len(), 1);
    for part in ["`vmamba/cross2d`", "`merge = \"sum\"` (this model: \"mean\")", "--set model.merge=sum"] {
        assert!(said[0].contains(part), "{said:?}");
    }
    for silent in [
        "scan = 'vmamba/cross2d'\nmerge = 'sum'\nconv = 'grid'\nd_conv = 3\nout_norm = 'layer'\npool = 'mean'",
        "scan = 'cross'",
        "scan = 'zigma/zigzag8'",
        "scan = 'localmamba/w7'",
    ] {
        assert!(notes(silent).is_empty(), "{silent}");
    }
    let local = notes("scan = 'localmamba/vssm_merge'");
    assert!(local[0].contains("--set model.merge=channel-gate"), "{local:?}");
    let plain = notes("scan = 'plainmamba/continuous4'\npool = 'mean'");
    assert!(plain[0].contains("parameters=shared") && plain[0].contains("step_embedding=true"), "{plain:?}");
}

#[test]
fn errors_of_a_cascade_name_keys_of_the_model() {
    let wrong =
        models::CATALOGUE.read(table("scan = 'vmamba/cascade2d'\ncascade = 2")).unwrap_err().to_string();
    for key in ["`cascade`", "`conv = \"grid\"`", "`d_conv`"] {
        assert!(wrong.contains(key) && !wrong.contains("`stages`"), "{wrong}");
    }
}

#[test]
fn hydra_takes_heads_that_fit() {
    let text = "mixer = 'hydra'\nd_model = 16\ndepth = 1\npatch_size = 7";
    build(text, &[1, 28, 28]).unwrap();
}

#[test]
fn a_search_ranks_the_directions_of_each_block() {
    let scan = "[row, row | reverse, row | window(2) | bidirectional]";
    let text =
        format!("patch_size = 7\nd_model = 8\ndepth = 2\nmerge = 'search'\nscan = '{scan}'\npool = 'mean'");
    let (vs, _) = build(&text, &[1, 28, 28]).unwrap();
    let weights = Tensor::from_slice(&[0f32, 1.0, 3.0, 2.0]);
    tch::no_grad(|| vs.variables()["layers.1.mixer.search.weight"].shallow_clone().copy_(&weights));
    let resolved = models::CATALOGUE.resolve(table(&text)).unwrap();
    let found = search::shares(&resolved, &[1, 28, 28], &vs.variables()).unwrap();
    let total: f64 = found[1].iter().map(|(_, share)| share).sum();
    assert!(found.len() == 2 && found[1].len() == 4 && (total - 1.0).abs() < 1e-6);
    let kept = search::kept(&found, 3);
    let best = &kept.texts()[1];
    assert_eq!(
        best,
        "[row | window(2) | bidirectional | direction(0), row | window(2) | bidirectional | direction(1), \
         row | reverse]"
    );
    let other = text.replace("'search'", "'channel-gate'").replace(scan, best);
    let (vs, _) = build(&other, &[1, 28, 28]).unwrap();
    let resolved = models::CATALOGUE.resolve(table(&other)).unwrap();
    let error = search::shares(&resolved, &[1, 28, 28], &vs.variables()).unwrap_err().to_string();
    assert!(error.contains("`model.merge` is not \"search\""), "{error}");
}

#[test]
fn wrong_configs_name_the_key() {
    let image = [1, 28, 28];
    for (text, parts) in [
        ("patch = 4", &["unknown key `model.patch`"][..]),
        ("d_modle = 4", &["did you mean `model.d_model`"]),
        ("patch_size = 5", &["`model.patch_size`", "do not divide an input of 28", "25 or 30 rows"]),
        ("patch_size = 32", &["a patch of 32 rows is larger than an input of 28"]),
        ("patch_size = [4, 3]\nstride = 4", &["patches of 3 columns every 4", "28"]),
        ("patch_size = 0", &["`patch_size`"]),
        ("stride = -1", &["`stride` is -1"]),
        ("drop_path = 1.0", &["`drop_path` is 1"]),
        ("mlp_ratio = -1.0", &["`mlp_ratio`"]),
        ("norm = 'batch'", &["`model.norm` is \"batch\"", "\"rms\""]),
        ("pool = 'midle'", &["did you mean \"middle\""]),
        ("pool = 'all'", &["`model.pool`"]),
        ("dt_rank = 0", &["`model.dt_rank`", "auto"]),
        ("dt_rank = 'car'", &["`model.dt_rank`", "auto"]),
        ("scan = 'bidirectionl'", &["bidirectional", "^"]),
        ("scan = []", &["`scan` is an empty list"]),
        ("scan = 3", &["`model.scan`", "pattern"]),
        ("expand = 0.0", &["`expand` is 0"]),
        ("d_model = 90000\nexpand = 10.0", &["parameters"]),
        ("d_model = 6\nrope = 'hidden'\npool = 'mean'", &["multiple of 4"]),
        ("depth = [1, 2]", &["class token", "stages", "`pool`"]),
        ("conv = 'grid'\nd_conv = 3", &["class token", "`conv = \"grid\"`"]),
        ("conv = 'grid'\npool = 'mean'", &["`d_conv` is 4", "odd"]),
        ("depth = []", &["`depth` is a list of 0"]),
        ("depth = 'deep'", &["`model.depth`", "[2, 2, 8, 2]"]),
        ("d_model = [4, 8]", &["`d_model` is [4, 8]", "1 stages"]),
        ("depth = [1, 2]\nrope = 'hidden'\npool = 'mean'", &["`rope`", "one stage"]),
        ("depth = [1, 1]\ndownsample = 'conv2'\npool = 'mean'", &["7x7 tokens", "inputs of another size"]),
        ("stem = 'overlap'\npatch_size = 7", &["`patch_size`", "even square", "overlap"]),
        ("stem = 'conv'\nstride = 2", &["`stride` is 2", "patch's 4"]),
        ("local_conv = [6]\npool = 'mean'", &["`local_conv` is 6", "blocks 0 to 5"]),
        ("coarse_scan = 'row'", &["`coarse`"]),
        (
            "coarse = {directions = 3, taps = 7, stride = 2}\npool = 'mean'\nmerge = 'sum'\nconv = 'grid'\nd_conv = 3",
            &["`coarse_scan`"],
        ),
        ("compat = {double_dt_bia = true}", &["did you mean `model.compat.double_dt_bias`"]),
        ("base = 'vim'", &["there is no published model `vim`"]),
    ] {
        let error = refused(text, &image);
        assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
    }
    assert!(refused("", &[28, 28]).contains("(channels, height, width)"));
}

/// Every pattern, merge and pool trains: a finite loss with a gradient for every parameter, and no step by a
/// decayed one.
#[test]
fn patterns_merges_and_pools_train() {
    for text in [
        "scan = 'cross'",
        "scan = 'row'\nmerge = 'sum'",
        "scan = 'window(2) of row | bidirectional'\nmerge = 'concat'",
        "scan = ['row', 'column | reverse', 'serpentine']\nmerge = 'gated'",
        "scan = 'atrous(2)'\nmerge = 'sum'\npool = 'mean'\nparameters = 'shared'",
        "scan = '[row, column | reverse]'\nparameters = 'decay'\npool = 'end'",
        "pool = 'both'\nnorm = 'layer'\nlayer_scale = 0.1\nmlp_ratio = 2.0\ndrop_path = 0.2",
        "pool = 'max'\npos_embed = false\nrope = 'residual'\nbias = true\nconv_bias = false",
        "pool = 'last'\nlayer_pairs = true\nscan = ['bidirectional', 'bidirectional | reverse']\ndepth = 4",
        "patch_size = [4, 2]\nstride = 2\npool = 'head'\nexpand = 1.5\ndt_rank = 3",
        "depth = [1, 2]\ndownsample = 'merge'\nconv = 'grid'\nd_conv = 3\npool = 'mean'\nscan = 'cross'\nnorm = 'layer'",
        "depth = [1, 1]\ndownsample = 'conv2'\nmlp = 'gated'\nmlp_ratio = 2.0\npool = 'mean'\ngate = false\nconv = 'none'",
        "depth = [1, 1]\nd_model = [8, 12]\nstem = 'overlap'\npatch_norm = true\nout_norm = 'layer'\npool = 'mean'\ninit = 'normal'",
        "stem = 'conv'\nstem_convs = 1\nconv = 'grid'\nd_conv = 3\nparameters = 'shared'\nstep_embedding = true\npool = 'mean'\nlocal_conv = [1]",
        "scan = 'cross'\nchannels = 'split'\nmerge = 'concat'\npool = 'mean'\nfinal_norm = 'layer'\nfinal_norm_eps = 1e-6",
    ] {
        let _guard = seeded(1);
        let depth = if text.contains("depth") { "" } else { "depth = 3\n" };
        let patch = if text.contains("patch_size") { "" } else { "patch_size = 4\n" };
        let width = if text.contains("d_model") { "" } else { "d_model = 16\n" };
        let text = format!("{width}d_state = 4\n{depth}{patch}{text}");
        let (vs, model) = build(&text, &[2, 16, 16]).unwrap_or_else(|error| panic!("{text}: {error}"));
        let images = Tensor::randn([3, 2, 16, 16], (Kind::Float, Device::Cpu));
        let logits = model.forward(&images, true).unwrap();
        assert_eq!((logits.size(), logits.kind()), (vec![3, 10], Kind::Float), "{text}");
        logits.cross_entropy_for_logits(&Tensor::from_slice(&[1i64, 4, 9])).backward();
        for (name, tensor) in vs.variables().iter().filter(|(_, tensor)| tensor.requires_grad()) {
            let grad = tensor.grad();
            assert!(grad.defined(), "{text}: no gradient for {name}");
            assert!(grad.isfinite().all().int64_value(&[]) == 1, "{text}: {name}");
        }
        let wrong = model.forward(&images.narrow(3, 0, 8), false).unwrap_err().to_string();
        assert!(wrong.contains("[3, 2, 16, 8]"), "{wrong}");
        assert_eq!(model.forward(&images.narrow(0, 0, 0), false).unwrap().size(), [0, 10], "an empty batch");
    }
}

/// One line chooses a mixer; what it cannot do without follows, and a step of training reaches every parameter.
#[test]
fn every_mixer_is_a_line_of_the_config() {
    for kind in MixerKind::ALL {
        let _guard = seeded(1);
        let (name, text) =
            (kind.name(), format!("mixer = '{}'\nd_model = 32\ndepth = 2\npatch_size = 2", kind.name()));
        let resolved = models::CATALOGUE.resolve(table(&text)).unwrap();
        assert_eq!(
            models::CATALOGUE.resolve(resolved.clone()).unwrap(),
            resolved,
            "{name}: resolving is idempotent"
        );
        if kind == MixerKind::Divided {
            // Of clips alone; the gate that it starts with lets nothing through.
            trains(&format!("{text}\ndivided = {{gate = false}}"), &[2, 3, 16, 16]);
            continue;
        }
        if kind == MixerKind::ChangeMamba {
            trains(&text, &[2, 2, 16, 16]);
            trains(&format!("{text}\nchangemamba = {{activated = true, mlp_ratio = 0}}"), &[2, 2, 16, 16]);
            continue;
        }
        trains(&text, &[2, 16, 16]);
        let listed = text
            .replace(&format!("'{name}'"), &format!("['mamba1', '{name}']"))
            .replace("depth = 2", "depth = [1, 1]");
        let keys =
            ["scan", "pool", "conv", "d_conv", "d_state"].map(|key| format!("{key} = {}\n", resolved[key]));
        let listed = format!("{listed}\n{}", keys.concat());
        if kind.needs_map() && kind != MixerKind::DefMamba {
            trains(&listed, &[2, 16, 16]);
        }
    }
    let implied = models::CATALOGUE.resolve(table("mixer = 'grootv'\nscan = 'column'")).unwrap();
    assert_eq!((implied["d_state"].as_integer(), implied["scan"].as_str()), (Some(1), Some("column")));
    // A mixer named over a base brings its own keys, but not over those that are set with it.
    let over = models::CATALOGUE
        .resolve(table("base = 'vmamba_tiny_s1l8'\nmixer = 'spatialmamba'\nmerge = 'mean'"))
        .unwrap();
    assert_eq!((over["scan"].as_str(), over["merge"].as_str()), (Some("row"), Some("mean")));
    let kept = models::CATALOGUE.resolve(table("base = 'vmamba_tiny_s1l8'")).unwrap();
    assert_eq!(kept["scan"].as_str(), Some("cross"));
}

/// Mamba-2 takes the scans, merges, convolutions and channels of any config.
#[test]
fn mamba2_is_a_line_of_any_config() {
    let _guard = seeded(1);
    for more in [
        "scan = 'cross'\nconv = 'grid'\nd_conv = 3\nmerge = 'sum'\npool = 'mean'",
        "scan = 'cross'\nmerge = 'concat'\nparameters = 'shared'",
        "scan = 'window(4) of row | bidirectional'\nmerge = 'gated'\nmamba2 = {ngroups = 2, headdim = 8}",
        "conv = 'none'\ngate = false\nparameters = 'decay'\nmamba2 = {dt_limit = [0, 1], d_has_hdim = true}",
        "mamba2 = {rmsnorm = false}",
        "scan = 'cross'\nchannels = 'split'\nmerge = 'concat'",
        "scan = 'cross'\nchannels = 'split'\nmerge = 'gated'\nmamba2 = {rmsnorm = false}",
        "scan = '[row, column]'\nmerge = 'channel-gate'\nnorm_each = true\nsqueeze = 2",
    ] {
        trains(&format!("mixer = 'mamba2'\nd_model = 32\ndepth = 2\npatch_size = 2\n{more}"), &[2, 16, 16]);
    }
}

/// A finite loss with a gradient for every parameter, which is not zero.
pub fn trains(text: &str, shape: &[i64]) {
    for (name, grad) in gradients(text, shape) {
        // A walk of one token never decays; what is added to all keys alike is nothing to a softmax.
        let still = name.starts_with("class_layers") && name.ends_with("A_log") || name.ends_with("key.bias");
        assert!(still || grad.abs().max().double_value(&[]) > 0.0, "{text}: {name} has a gradient of zeros");
    }
}

/// The gradients of a loss for every parameter, which are finite.
pub fn gradients(text: &str, shape: &[i64]) -> Vec<(String, Tensor)> {
    let (vs, model) = build(text, shape).unwrap_or_else(|error| panic!("{text}: {error}"));
    let images = Tensor::randn([&[3], shape].concat(), (Kind::Float, Device::Cpu));
    let logits = model.forward(&images, true).unwrap();
    assert_eq!((logits.size(), logits.kind()), (vec![3, 10], Kind::Float), "{text}");
    logits.cross_entropy_for_logits(&Tensor::from_slice(&[1i64, 4, 9])).backward();
    let learned = vs.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad());
    let gradient = |(name, tensor): (String, Tensor)| {
        let grad = tensor.grad();
        assert!(grad.defined(), "{text}: no gradient for {name}");
        assert!(grad.isfinite().all().int64_value(&[]) == 1, "{text}: {name}");
        (name, grad)
    };
    learned.map(gradient).collect()
}

/// What published models put around their mixers.
#[test]
fn parts_around_the_mixers_train() {
    for text in [
        "pool = 'mean'\naffinity = 1\nscan = 'cross'\nchannels = 'grouped'\nmerge = 'concat'\nconv = 'grid'\nd_conv = 3\n\
         class_blocks = 1\nmlp_ratio = [2.0, 1.5]\nmlp = 'conv'\nstage_norm = true\ndepth = [1, 2]\nsecond_head = true\n\
         stem = 'conv-overlap'\nstem_convs = 1\nstem_width = 6\npatch_norm = true\npatch_norm_eps = 1e-6\nnorm = 'layer'",
        "mixer = ['mamba1', 'inverted']\npool = 'mean'\nconv_branch = true\nscan = 'row | atrous(2)'\ndepth = [1, 1]\n\
         conv = 'grid'\nd_conv = 3\nmerge = 'sum'",
        "pool = 'mean'\nposition_conv = true\nstem = 'residual'\nmixer = 'spatialmamba'\ndownsample = 'inverted'\n\
         depth = [1, 1]\nmlp_ratio = 2.0",
        "pool = 'mean'\nmixer = 'grootv'\nhead_width = 1.5\nstage_norm = true\ndownsample_bias = false\ndepth = [1, 1]",
        "pool = 'mean'\nmlp = 'conv-residual'\nmlp_ratio = 2.0\nsqueeze = 8\nout_norm = 'layer'\nscan = 'row'\n\
         merge = 'sum'\nconv = 'grid'\nd_conv = 3",
        "shared_norm = true\nmerge = 'gated'\nparameters = 'shared'\npatch_pad = true\npatch_bias = false\npool = 'mean'\n\
         pool_norm = true\nscan = '[row, row | reverse, random(seed=sample)]'\npatch_size = 4\nstride = 3",
        "carry_normed = true\nscan = ['row', 'row | reverse', 'column', 'column | reverse']\npool = 'mean'",
    ] {
        let _guard = seeded(2);
        let depth = if text.contains("depth") { "" } else { "depth = 2\n" };
        let patch = if text.contains("patch_size") { "" } else { "patch_size = 4\n" };
        trains(
            &format!(
                "d_model = 16\nd_state = {}\n{depth}{patch}{text}",
                if text.contains("mixer = 's") || text.contains("groot") { 1 } else { 4 }
            ),
            &[2, 16, 16],
        );
    }
}

#[test]
fn mixers_say_what_does_not_go_together() {
    for (text, parts) in [
        ("mixer = 'hydr'", &["`model.mixer`", "expected one of mamba1", "did you mean \"hydra\""][..]),
        ("mixer = 3", &["`model.mixer`", "the name of a mixer"]),
        ("mixer = ['mamba1', 'inverted']", &["`mixer` is a list of 2", "1 stages"]),
        ("mixer = 'hydra'\nscan = 'row'", &["`model.scan` makes 1 directions", "\"bidirectional\""]),
        ("mixer = 'hydra'\nscan = 'atrous(2)'", &["`model.scan`", "every token once"]),
        ("mixer = 'hydra'\ngate = false", &["`gate` is set, but `mixer = \"hydra\"` does not read it"]),
        ("mixer = 'hydra'\nhydra = {headdim = 7}", &["`headdim` is 7"]),
        ("mixer = 'hydra'\nhydra = {headdims = 7}", &["did you mean `model.hydra.headdim`"]),
        ("mixer = 'hydra'\nexpand = 1.5", &["`model.expand` is 1.5", "whole"]),
        ("mixer = 'hydra'\nd_conv = 4", &["`d_conv` is 4", "odd"]),
        ("mixer = 'mamba2'\nmamba2 = {headdim = 7}", &["`headdim` is 7"]),
        ("mixer = 'mamba2'\nmamba2 = {ngroups = 3}", &["`ngroups` is 3"]),
        ("mixer = 'mamba2'\nmamba2 = {dt_limit = [1.0, 0.5]}", &["`dt_limit` is [1.0, 0.5]"]),
        ("mixer = 'mamba2'\nmamba2 = {heads = 7}", &["`model.mamba2.heads`"]),
        ("mixer = 'mamba2'\nmerge = 'search'", &["`merge = \"search\"`"]),
        ("mamba2 = {headdim = 8}", &["`mamba2` is set, but `mixer` is not \"mamba2\""]),
        ("hydra = {headdim = 8}", &["`hydra` is set, but `mixer` is not \"hydra\""]),
        (
            "mixer = 'grootv'\nscan = 'bidirectional'",
            &["`model.scan` makes 2 directions", "has one", "\"row\""],
        ),
        ("mixer = 'grootv'\nd_state = 16", &["`d_state` is 16, expected 1"]),
        ("mixer = 'grootv'\npool = 'middle'", &["class token", "`mixer = \"grootv\"`"]),
        ("mixer = 'spatialmamba'\nchannels = 'grouped'", &["`channels` is set", "spatialmamba"]),
        ("mixer = 'defmamba'\nscan = 'row'", &["`model.scan` makes 1 directions", "takes two"]),
        ("mixer = 'defmamba'\ndefmamba = {taps = 4}", &["`taps` is 4", "odd"]),
        ("mixer = 'quadmamba'\nmerge = 'concat'", &["`merge`", "sum or a mean"]),
        ("mixer = 'semantic'\nsemantic = {classes = 0}", &["`classes`"]),
        ("mixer = 'inverted'\ngate = false", &["`gate` is set"]),
        ("mixer = 'inverted'\ninverted = {expand = 0}", &["`expand` is 0"]),
        ("affinity = 0", &["`affinity` is 0"]),
        ("class_blocks = 1", &["`class_blocks`", "`pool = \"mean\"`"]),
        ("squeeze = 4\nmerge = 'concat'", &["`squeeze` is 4"]),
        ("mlp = 'conv'\nmlp_ratio = 2.0", &["class token", "`mlp`"]),
        ("mlp_ratio = [1.0, 2.0]", &["`mlp_ratio` is [1.0, 2.0]", "1 stages"]),
        ("position_conv = true", &["class token", "`position_conv`"]),
        ("stem = 'conv'\npatch_pad = true", &["`patch_pad`", "`stem = \"patch\"`"]),
        ("shared_norm = true\ndepth = [1, 1]\npool = 'mean'", &["`shared_norm`", "one stage"]),
        ("head_width = -1.0", &["`head_width` is -1"]),
    ] {
        let error = refused(text, &[1, 28, 28]);
        assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
    }
    let clips = refused("mixer = 'grootv'", &[1, 4, 28, 28]);
    assert!(clips.contains("`mixer = \"grootv\"`: for images"), "{clips}");
}

#[test]
fn bf16_is_close_and_logits_are_f32() {
    let _guard = seeded(7);
    let (_, model) = build("d_model = 32\ndepth = 3", &[1, 28, 28]).unwrap();
    let images = Tensor::randn([4, 1, 28, 28], (Kind::Float, Device::Cpu));
    let exact = model.forward(&images, false).unwrap();
    let rounded = ophidian_core::torch::autocast(true, || model.forward(&images, false)).unwrap();
    assert_eq!(rounded.kind(), Kind::Float);
    let error = crate::relative(&rounded, &exact);
    assert!(error > 0.0 && error < 5e-2, "{error}");
}

#[test]
fn weight_decay_leaves_what_must_be_left() {
    let (vs, model) =
        build("depth = 1\nmlp_ratio = 2.0\nnorm = 'layer'\nlayer_scale = 0.1", &[1, 28, 28]).unwrap();
    let mut decayed: Vec<String> =
        vs.variables().into_keys().filter(|name| !model.no_weight_decay(name)).collect();
    decayed.sort();
    let expected = [
        "head.weight",
        "layers.0.mixer.conv1d.weight",
        "layers.0.mixer.dt_proj.weight",
        "layers.0.mixer.in_proj.weight",
        "layers.0.mixer.out_proj.weight",
        "layers.0.mixer.x_proj.weight",
        "layers.0.mlp.fc1.weight",
        "layers.0.mlp.fc2.weight",
        "patch_embed.proj.weight",
    ];
    assert_eq!(decayed, expected);
}

#[test]
fn a_model_learns_what_only_an_order_can_tell() {
    // Class 1 if the bright patch comes before the dark one in reading order: a sum over patches cannot tell.
    let _guard = seeded(3);
    let (vs, model) =
        build("d_model = 16\nd_state = 4\ndepth = 2\npos_embed = false\npool = 'mean'", &[1, 8, 8]).unwrap();
    let samples: Vec<(Tensor, i64)> = (0..4i64)
        .flat_map(|i| (0..4i64).map(move |j| (i, j)))
        .filter(|(i, j)| i != j)
        .map(|(i, j)| {
            let image = Tensor::zeros([1, 8, 8], (Kind::Float, Device::Cpu));
            for (at, value) in [(i, 1.0), (j, -1.0)] {
                let _ = image.narrow(1, at / 2 * 4, 4).narrow(2, at % 2 * 4, 4).fill_(value);
            }
            (image, i64::from(i < j))
        })
        .collect();
    let images = Tensor::stack(&samples.iter().map(|(image, _)| image).collect::<Vec<_>>(), 0);
    let labels = Tensor::from_slice(&samples.iter().map(|(_, label)| *label).collect::<Vec<_>>());
    let mut variables = vs.trainable_variables();
    let mut loss = f64::NAN;
    for _ in 0..150 {
        let error = model.forward(&images, true).unwrap().cross_entropy_for_logits(&labels);
        loss = error.double_value(&[]);
        error.backward();
        tch::no_grad(|| {
            for variable in &mut variables {
                let step = variable.grad().sign() * 5e-3;
                let _ = variable.g_sub_(&step);
                variable.zero_grad();
            }
        });
    }
    assert!(loss < 0.1, "{loss}");
}

#[test]
fn position_embeddings_are_resized() {
    let ramp = |h: i64, w: i64| {
        let columns = (Tensor::arange(w, (Kind::Float, Device::Cpu)) + 0.5) / w as f64;
        columns.unsqueeze(0).expand([h, w], false).reshape([1, h * w, 1])
    };
    let token = Tensor::full([1, 1, 1], 9.0, (Kind::Float, Device::Cpu));
    let with_token = |grid: Tensor, at: i64| {
        let rest = grid.size()[1] - at;
        Tensor::cat(&[grid.narrow(1, 0, at), token.shallow_clone(), grid.narrow(1, at, rest)], 1)
    };
    let from = with_token(ramp(4, 6), 12);
    let same = resize_positions(&from, [4, 6], [4, 6], (&[12], &[12])).unwrap();
    assert!(same.allclose(&from, 1e-5, 1e-6, false));
    let wide = resize_positions(&from, [4, 6], [8, 12], (&[12], &[48])).unwrap();
    let want = with_token(ramp(8, 12), 48);
    assert_eq!(wide.size(), [1, 97, 1]);
    // Bicubic weights bend a ramp a little, most at its ends.
    assert!(wide.allclose(&want, 0.0, 0.05, false), "a ramp stays a ramp");
    assert_eq!(wide.double_value(&[0, 48, 0]), 9.0);
    assert!(resize_positions(&from, [4, 4], [8, 8], (&[12], &[12])).is_err());
    assert!(resize_positions(&from, [4, 6], [8, 8], (&[12], &[])).is_err());
    assert!(ModelConfig::read(table("")).is_ok());
}

/// A random scan of the sample's own is drawn by the planner, and the model walks along it.
#[test]
fn a_scan_is_drawn_for_every_sample() {
    let _guard = seeded(11);
    let text = "d_model = 16\ndepth = 3\npatch_size = 4\npool = 'middle'\n\
                scan = ['row | bidirectional', '[row, random( seed = sample )] | window(2) of row']";
    let error = refused(text, &[1, 16, 16]);
    assert!(error.contains("`scan`"), "{error}");
    let text = text.replace(" | window(2) of row", "");
    let (_, model) = build(&text, &[1, 16, 16]).unwrap();
    let planner = model.planner().unwrap();
    let sample = Sample { input: vec![], label: 0 };
    let draw = |key: u64| planner.plans(&sample, &mut rng::stream(&[key])).unwrap();
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let made = draw(1);
    assert_eq!((made.len(), made[0].tokens(), made[0].directions()), (1, 17, 2));
    assert_eq!(made[0].orders()[0].index(), (0..17).collect::<Vec<i32>>(), "a row is a row");

    let images = Tensor::randn([2, 1, 16, 16], (Kind::Float, Device::Cpu));
    let along = |keys: &[u64]| {
        let plans: Vec<_> = keys.iter().map(|key| draw(*key).remove(0)).collect();
        model.forward_along(&images, &[Orders::per_sample(&plans).unwrap()], false).unwrap()
    };
    let (a, b) = (along(&[1, 2]), along(&[1, 3]));
    assert!(crate::relative(&a.get(0), &b.get(0)) < 1e-6);
    assert!(crate::relative(&a.get(1), &b.get(1)) > 1e-6);
    // Without plans, and with too many.
    assert!(model.forward_along(&images, &[], false).unwrap().equal(&model.forward(&images, false).unwrap()));
    let two = [Orders::identity(17, 2), Orders::identity(17, 2)];
    assert!(model.forward_along(&images, &two, false).unwrap_err().to_string().contains("expected 1"));
    let (_, still) = build("depth = 1\nscan = 'random(seed=3)'", &[1, 16, 16]).unwrap();
    assert!(still.planner().is_none());
    assert!(still.forward_along(&images, &two, false).is_err());
}

#[test]
fn an_image_of_one_patch_is_enough() {
    let images = Tensor::ones([2, 1, 8, 8], (Kind::Float, Device::Cpu));
    for pool in ["middle", "head", "end", "both", "mean", "last", "max"] {
        for scan in ["bidirectional", "cross"] {
            let text = format!(
                "patch_size = 8\nd_model = 8\ndepth = 2\nd_state = 2\npool = '{pool}'\nscan = '{scan}'"
            );
            let (_, model) = build(&text, &[1, 8, 8]).unwrap_or_else(|error| panic!("{text}: {error}"));
            let logits = model.forward(&images, false).unwrap();
            assert_eq!(logits.size(), [2, 10], "{text}");
            assert_eq!(logits.isfinite().all().int64_value(&[]), 1, "{text}");
        }
    }
}

/// MSVMamba's mixer in stages: most directions run over a coarser map.
#[test]
fn a_coarser_map_has_scans_of_its_own() {
    let text = "patch_size = 2\nd_model = 8\ndepth = [1, 1]\nd_state = 2\npool = 'mean'\nscan = 'row'\nmerge = 'sum'\n\
                conv = 'grid'\nd_conv = 3\nout_norm = 'layer'\nnorm_each = true\n\
                coarse = {directions = 3, taps = 7, stride = 2}\n\
                coarse_scan = '[row | reverse, column, column | reverse]'";
    let (vs, model) = build(text, &[1, 12, 20]).unwrap();
    let images = Tensor::randn([2, 1, 12, 20], (Kind::Float, Device::Cpu));
    model.forward(&images, true).unwrap().square().sum(Kind::Float).backward();
    for (name, tensor) in vs.variables() {
        let grad = tensor.grad();
        assert!(grad.defined() && grad.isfinite().all().int64_value(&[]) == 1, "{name}");
    }
}
