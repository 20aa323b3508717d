//! What a published scan goes with, as lines of a config; and the model of two images.

use ophidian_core::{config, data::Sample, grid::published_with, ops::Orders, rng};
use ophidian_scan::Shape;
use ophidian_vision::models;
use tch::{Device, Kind, Tensor};

use crate::{
    config::{build, refused, trains},
    seeded, table,
};

/// The lines that are printed are lines that build: added to a config, whatever it had, they leave nothing to say.
#[test]
fn what_a_published_scan_goes_with_builds() {
    let (mut whole, mut alone) = (0, 0);
    for scan in ophidian_scan::published().iter().filter(|scan| scan.needs().is_none()) {
        let grid = scan.shapes().contains(&Shape::Grid);
        if !grid && !scan.shapes().contains(&Shape::Volume) {
            continue;
        }
        for other in ["", "merge = 'concat'\nparameters = 'shared'\nd_state = 4\nd_conv = 5\nconv = 'none'"] {
            let mut config = table(&format!(
                "d_model = 16\ndepth = 2\npatch_size = 2\nscan = '{}'\n{other}",
                scan.example()
            ));
            let said = models::CATALOGUE.read(config.clone()).unwrap().differs_from_published();
            assert!(said.len() <= 1, "{said:?}");
            if said.is_empty() {
                alone += 1;
                continue;
            }
            whole += 1;
            let (_, lines) = said[0].split_once(": --set ").unwrap_or_else(|| panic!("{said:?}"));
            for line in lines.split(" --set ") {
                let line = line.strip_prefix('\'').map_or(line, |line| line.strip_suffix('\'').unwrap());
                config::set(&mut config, line.strip_prefix("model.").unwrap()).unwrap();
            }
            let read =
                models::CATALOGUE.read(config.clone()).unwrap_or_else(|error| panic!("{error}: {said:?}"));
            assert_eq!(read.differs_from_published(), Vec::<String>::new(), "{said:?}");
            let mixer = config.get("mixer").and_then(toml::Value::as_str);
            let shape: &[i64] = match mixer {
                Some("changemamba") => &[1, 2, 16, 16],
                _ if scan.name().starts_with("changemamba/") && !grid => &[1, 2, 16, 16],
                Some("divided") => &[1, 4, 16, 16],
                _ if grid => &[1, 16, 16],
                _ => &[1, 4, 16, 16],
            };
            let text = toml::to_string(&config).unwrap();
            let built = build(&text, shape);
            built.unwrap_or_else(|error| panic!("{error}: {text}"));
        }
    }
    assert!(whole > 60 && alone > 20, "{whole} {alone}");
}

/// The whole of what was published, by example.
#[test]
fn published_compositions_are_lines_of_the_config() {
    let keys = |name: &str| -> Vec<String> {
        let pattern: ophidian_scan::Pattern = name.split('(').next().unwrap().parse().unwrap();
        let keys = published_with(pattern.published().unwrap(), name).into_iter();
        keys.map(|(key, value)| format!("{key} = {value}")).collect()
    };
    let has = |name: &str, wanted: &[&str]| {
        let keys = keys(name);
        for wanted in wanted {
            assert!(keys.iter().any(|key| key == wanted), "{name}: {keys:?} without {wanted}");
        }
    };
    has("vmamba/cross2d", &["merge = \"sum\"", "conv = \"grid\"", "out_norm = \"layer\"", "pool = \"mean\""]);
    has("vmamba/cascade2d", &["cascade = 2"]);
    has("localmamba/vssm_merge", &["merge = \"channel-gate\""]);
    has("groupmamba/grouped4", &["channels = \"grouped\"", "merge = \"concat\"", "affinity = 16"]);
    has("efficientvmamba/es2d", &["conv_branch = true"]);
    has("msvmamba/half", &["scan = \"msvmamba/multiscale\"", "norm_each = true"]);
    has("hydra/quasiseparable", &["mixer = \"hydra\""]);
    has("spatialmamba/statefusion", &["mixer = \"spatialmamba\"", "d_state = 1"]);
    has("quadmamba/quad_perm", &["mixer = \"quadmamba\"", "scan = \"row\""]);
    has("changemamba/spatiotemporal", &["mixer = \"changemamba\"", "scan = \"cross\""]);
    has("videomambasuite/timemamba", &["mixer = \"divided\""]);
    has("s-d-mamba/variates", &["channels = \"split\"", "merge = \"concat\""]);
    let bare = "scan = \"videomamba/spatialfirst(class_token=none) | bidirectional\"";
    has("videomamba/spatialfirst", &[bare, "pool = \"head\"", "merge = \"sum\""]);
    let bare = "scan = \"aum/bidirectional(major=time, class_token=none)\"";
    has("aum/bidirectional(major=time)", &[bare, "pool = \"middle\""]);
    let bare = "scan = \"aum/bidirectional(class_token=none, major=time)\"";
    has("aum/bidirectional(class_token=double, major=time)", &[bare, "pool = \"both\""]);
    assert!(!keys("aum/bidirectional(class_token=none)").iter().any(|key| key.starts_with("scan")));
    assert!(keys("zigma/zigzag8").is_empty());
}

/// Two images in three arrangements: clips of two frames, in one stage or behind others, and what is not that.
#[test]
fn two_images_are_a_line_of_the_config() {
    let _guard = seeded(1);
    let text = "mixer = 'changemamba'\nd_model = 16\npatch_size = 2";
    trains(&format!("{text}\ndepth = [1, 1]"), &[2, 2, 16, 8]);
    trains(&format!("{text}\ndepth = 2\ntubelet = 2\nscan = ['hilbert', 'cross']"), &[2, 4, 8, 8]);
    trains(
        "mixer = ['mamba1', 'changemamba']\nd_model = 16\npatch_size = 2\ndepth = [1, 1]\nscan = 'cross'\n\
         conv = 'grid'\nd_conv = 3\npool = 'mean'",
        &[2, 2, 16, 8],
    );
    let counted = models::CATALOGUE
        .read(table(&format!("{text}\ndepth = 1")))
        .unwrap()
        .count([2, 2, 8, 8], 10)
        .unwrap();
    let (vs, _) = build(&format!("{text}\ndepth = 1"), &[2, 2, 8, 8]).unwrap();
    let trained: usize = vs.trainable_variables().iter().map(Tensor::numel).sum();
    assert_eq!(counted.parameters, trained as i64);
    // Two maps of all 32 tokens and one of 16; four directions; 5 to 1 on 16 tokens.
    let (d, inner, rank, states) = (16, 32, 1, 16);
    let ssm = 4 * inner * (rank + 2 * states) + 4 * inner * rank;
    let vss = d * d + d * 2 * inner + 9 * inner + ssm + inner * d + 2 * 4 * d * d;
    let want = (32 + 32 + 16) * vss + 16 * d * d + 16 * 5 * d * d;
    let around = 32 * (2 * 4 * d) + 10 * d;
    assert_eq!(counted.multiply_adds, f64::from(want + around));
    assert_eq!(counted.scan, f64::from((32 + 32 + 16) * inner * (4 * (9 * states + 1) + 1)));
    // What is drawn is drawn for every sample, over a map of both.
    let (_vs, model) =
        build(&format!("{text}\ndepth = 1\nscan = 'random(seed=sample)'"), &[2, 2, 8, 8]).unwrap();
    let planner = model.planner().unwrap();
    let mut random = rng::stream(&[1]);
    let sample = Sample { input: vec![], label: 0 };
    let plans: Vec<_> = (0..2).map(|_| planner.plans(&sample, &mut random).unwrap().remove(0)).collect();
    let orders = Orders::per_sample(&plans).unwrap();
    let clips = Tensor::randn([2, 2, 2, 8, 8], (Kind::Float, Device::Cpu));
    assert_eq!(model.forward_along(&clips, &[orders], true).unwrap().size(), [2, 10]);
    for (more, shape, parts) in [
        ("", &[2, 8, 8][..], &["reads two images", "images of 2x8x8"][..]),
        ("", &[2, 3, 8, 8], &["reads two images", "clips of 2x3x8x8"]),
        ("pool = 'head'", &[2, 2, 8, 8], &["class token", "changemamba"]),
        ("conv = 'along'", &[2, 2, 8, 8], &["`conv` is \"along\""]),
        (
            "scan = 'changemamba/spatiotemporal'",
            &[2, 2, 8, 8],
            &["lays the two images out itself", "`scan = \"cross\"`"],
        ),
        ("mlp = 'conv'\nmlp_ratio = 2.0", &[2, 2, 8, 8], &["`mlp` does not go"]),
        ("coarse_scan = 'row'", &[2, 2, 8, 8], &["`coarse_scan`"]),
        ("changemamba = {mlp_ratio = -1.0}", &[2, 2, 8, 8], &["`changemamba.mlp_ratio` is -1"]),
        ("class_blocks = 1", &[2, 2, 8, 8], &["`class_blocks`"]),
    ] {
        let error = refused(&format!("{text}\ndepth = 1\n{more}"), shape);
        assert!(parts.iter().all(|part| error.contains(part)), "{more}: {error}");
    }
}
