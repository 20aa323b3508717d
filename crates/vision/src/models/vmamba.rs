//! VMamba (Liu et al., arXiv 2401.10166) as its authors publish it: their config and parameter names.

use ophidian_core::{
    Error, Result, config,
    grid::{
        Classifiers, Maps, ModelConfig, PerStage, Pool, Report, Scans, Size, StemKind, Translated,
        family::layer,
    },
    init::Start,
    keymap::Key,
    layers::{DownsampleKind, MlpKind, NormKind},
    mixer::{ConvPlace, DtRank, Merge, Parameters},
    tensors::Tensors,
};
use serde::Deserialize;

use super::vssm::{BlockAt, downsample, head_keys, mlp_keys, op_keys, patch_keys, stage_keys};

/// The family.
pub const VMAMBA: Classifiers = Classifiers {
    name: "vmamba",
    about: "VMamba (arXiv 2401.10166): in.x images (batch, channels, height, width), in.labels (batch)",
    read: |table| {
        let theirs: Config = config::from_table(table, "")?;
        let ours = theirs.ours()?;
        let [height, width] = theirs.imgsize.sides();
        let maps = if theirs.channels_first()? { Maps::ChannelsFirst } else { Maps::ChannelsLast };
        let (input, classes) = ([theirs.in_chans, height, width], theirs.num_classes);
        let report = Report { maps: Some(maps), any_size: true, ..Report::default() };
        Ok(Translated::new(ours, input, classes, report, |ours| theirs.keys(ours)))
    },
    words: &[
        ("d_model", "dims"),
        ("depth", "depths"),
        ("drop_path", "drop_path_rate"),
        ("d_state", "ssm_d_state"),
        ("d_conv", "ssm_conv"),
        ("dt_rank", "ssm_dt_rank"),
        ("expand", "ssm_ratio"),
        ("img_size", "imgsize"),
        ("channels", "in_chans"),
    ],
    adapt,
};

/// The arguments of the authors' `VSSM`, with their defaults.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    patch_size: i64,
    in_chans: i64,
    num_classes: i64,
    depths: Vec<i64>,
    dims: PerStage,
    ssm_d_state: i64,
    ssm_ratio: f64,
    ssm_dt_rank: DtRank,
    ssm_act_layer: String,
    ssm_conv: i64,
    ssm_conv_bias: bool,
    ssm_init: SsmInit,
    forward_type: String,
    mlp_ratio: f64,
    mlp_act_layer: String,
    gmlp: bool,
    drop_path_rate: f64,
    patch_norm: bool,
    norm_layer: String,
    downsample_version: Version,
    patchembed_version: Version,
    posembed: bool,
    imgsize: Size,
    // What follows changes no number of a forward pass in f32.
    ssm_drop_rate: f64,
    mlp_drop_rate: f64,
    use_checkpoint: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            patch_size: 4,
            in_chans: 3,
            num_classes: 1000,
            depths: vec![2, 2, 9, 2],
            dims: PerStage::Each(vec![96, 192, 384, 768]),
            ssm_d_state: 16,
            ssm_ratio: 2.0,
            ssm_dt_rank: DtRank::Auto,
            ssm_act_layer: "silu".into(),
            ssm_conv: 3,
            ssm_conv_bias: true,
            ssm_init: SsmInit::V0,
            forward_type: "v2".into(),
            mlp_ratio: 4.0,
            mlp_act_layer: "gelu".into(),
            gmlp: false,
            drop_path_rate: 0.1,
            patch_norm: true,
            norm_layer: "LN".into(),
            downsample_version: Version::V2,
            patchembed_version: Version::V1,
            posembed: false,
            imgsize: Size::Square(224),
            ssm_drop_rate: 0.0,
            mlp_drop_rate: 0.0,
            use_checkpoint: false,
        }
    }
}

/// How the scan's parameters start, which a forward pass on loaded weights does not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SsmInit {
    V0,
    V1,
    V2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Version {
    V1,
    V2,
    V3,
}

/// What their `forward_type` says.
struct Forward {
    /// The first version of the mixer, whose convolution is always there.
    first: bool,
    gate: bool,
    out_norm: bool,
    scan: &'static str,
    /// Rows, then columns.
    cascade: bool,
}

impl Forward {
    fn read(text: &str) -> Result<Forward> {
        let unsupported = |why: &str| {
            Err(Error::Config(format!(
                "`forward_type` is \"{text}\", {why}: not supported; expected \"v0\", \"v01\" to \"v05\", \"v2\", \
                 \"v3\", \"v051d\", \"v052d\", \"v052d3\" or \"v052dc\", maybe followed by \"_onnone\", \"_noz\" and \"_no32\""
            )))
        };
        if matches!(text, "v0" | "v0seq") {
            return Ok(Forward { first: true, gate: true, out_norm: true, scan: CROSS, cascade: false });
        }
        // In the order in which they take the text apart; _no32 concerns half precision alone.
        let rest = text.strip_suffix("_no32").unwrap_or(text);
        if rest.ends_with("_oact") {
            return unsupported("with a GELU on the scan's result");
        }
        let (rest, gate) = rest.strip_suffix("_noz").map_or((rest, true), |rest| (rest, false));
        if rest.ends_with("_nozact") {
            return unsupported("with a gate that is not activated");
        }
        let (rest, out_norm) = rest.strip_suffix("_onnone").map_or((rest, true), |rest| (rest, false));
        let scan = match rest {
            "v01" | "v02" | "v03" | "v04" | "v05" | "v2" | "v3" => CROSS,
            "v051d" | "v31d" => "[row, row, row, row]",
            "v052d" | "v32d" => "[row, row, row | reverse, row | reverse]",
            "v052d3" => "row | rotations",
            "v052dc" | "v32dc" => CASCADE,
            _ if rest.contains("_on") => return unsupported("with another norm on the scan's result"),
            _ => return unsupported("another mixer"),
        };
        Ok(Forward { first: false, gate, out_norm, scan, cascade: scan == CASCADE })
    }
}

/// Rows, columns, and both from the end.
const CROSS: &str = "cross";

/// Every row by itself, there and back, then every column.
const CASCADE: &str = "[row | segment(row), row | reverse | segment(row), column | segment(column), \
                       column | reverse | segment(column)]";

/// As released: what a line of the cascade makes from its end to its start is not turned back.
const CASCADE_WRITTEN: &str = "[row, row | mirror(rows), column, column | mirror(columns)]";

impl Config {
    /// Whether their maps are (B, channels, h, w); norms are over channels either way.
    fn channels_first(&self) -> Result<bool> {
        match self.norm_layer.to_lowercase().as_str() {
            "ln" => Ok(false),
            "ln2d" => Ok(true),
            _ => Err(Error::Config(format!(
                "`norm_layer` is \"{}\": not supported, expected \"ln\" or \"ln2d\"",
                self.norm_layer
            ))),
        }
    }

    /// Their config in our words.
    fn ours(&self) -> Result<ModelConfig> {
        for (key, found, expected) in
            [("ssm_act_layer", &self.ssm_act_layer, "silu"), ("mlp_act_layer", &self.mlp_act_layer, "gelu")]
        {
            if found.to_lowercase() != expected {
                return Err(Error::Config(format!(
                    "`{key}` is \"{found}\": not supported, expected \"{expected}\""
                )));
            }
        }
        if self.patchembed_version == Version::V3 {
            return Err(Error::Config("`patchembed_version` is \"v3\", expected \"v1\" or \"v2\"".into()));
        }
        let forward = Forward::read(&self.forward_type)?;
        if forward.first && self.channels_first()? {
            return Err(Error::Config(format!(
                "`norm_layer` is \"{}\", but `forward_type` \"{}\" is for \"ln\"",
                self.norm_layer, self.forward_type
            )));
        }
        self.channels_first()?;
        // The first mixer's convolution is fixed.
        let (taps, conv_bias) = if forward.first { (3, true) } else { (self.ssm_conv, self.ssm_conv_bias) };
        Ok(ModelConfig {
            patch_size: Size::Square(self.patch_size),
            stride: self.patch_size.into(),
            stem: if self.patchembed_version == Version::V2 { StemKind::Overlap } else { StemKind::Patch },
            patch_norm: self.patch_norm,
            d_model: self.dims.clone(),
            depth: PerStage::Each(self.depths.clone()),
            downsample: match self.downsample_version {
                Version::V1 => DownsampleKind::Merge,
                Version::V2 => DownsampleKind::Conv2,
                Version::V3 => DownsampleKind::Conv3,
            },
            d_state: self.ssm_d_state,
            d_conv: taps.max(1),
            conv: if taps > 1 { ConvPlace::Grid } else { ConvPlace::None },
            expand: self.ssm_ratio,
            dt_rank: self.ssm_dt_rank,
            conv_bias,
            bias: false,
            scan: Scans::One(forward.scan.into()),
            cascade: if forward.cascade { 2 } else { 1 },
            written_as: forward.cascade.then(|| CASCADE_WRITTEN.into()),
            parameters: Parameters::Own,
            merge: Merge::Sum,
            gate: forward.gate,
            out_norm: forward.out_norm.then_some(NormKind::Layer),
            norm: NormKind::Layer,
            drop_path: self.drop_path_rate,
            mlp_ratio: self.mlp_ratio.into(),
            mlp: if self.gmlp { MlpKind::Gated } else { MlpKind::Gelu },
            pool: Pool::Mean,
            pos_embed: self.posembed,
            init: Start::Normal,
            ..ModelConfig::default()
        })
    }

    /// Which of their tensors is which of ours.
    fn keys(&self, ours: &ModelConfig) -> Vec<Key> {
        let (mut keys, d, patch) = (Vec::new(), ours.widths()[0], self.patch_size);
        if ours.stem == StemKind::Overlap {
            let (half, side) = (d / 2, patch / 2 + 1);
            let weight = [half, self.in_chans, side, side];
            layer(&mut keys, "patch_embed.0", "patch_embed.stem.conv", &weight, true);
            layer(&mut keys, "patch_embed.5", "patch_embed.proj", &[d, half, side, side], true);
            if self.patch_norm {
                layer(&mut keys, "patch_embed.2", "patch_embed.stem.norm", &[half], true);
                layer(&mut keys, "patch_embed.7", "patch_embed.norm", &[d], true);
            }
        } else {
            patch_keys(&mut keys, ours, self.in_chans);
        }
        if self.posembed {
            let [h, w] = ours.stem.grid(self.imgsize.sides(), [patch; 2], [patch; 2]);
            keys.push(Key::map("pos_embed", "pos_embed", &[1, d, h, w]));
        }
        stage_keys(&mut keys, ours, downsample, |keys, at| block_keys(keys, ours, &at));
        head_keys(&mut keys, ours, self.num_classes);
        keys
    }
}

fn block_keys(keys: &mut Vec<Key>, ours: &ModelConfig, at: &BlockAt<'_>) {
    op_keys(keys, &ours.mamba(at.width, 4), &format!("{}.op", at.theirs), &format!("{}.mixer", at.ours));
    layer(keys, &format!("{}.norm", at.theirs), &format!("{}.norm", at.ours), &[at.width], true);
    let hidden = ours.mlp_width(at.stage);
    if hidden > 0 {
        mlp_keys(keys, at, [if ours.mlp == MlpKind::Gated { 2 * hidden } else { hidden }, hidden]);
    }
}

/// The names of older checkpoints, as the authors' own loader renames them, and linear maps that were kept as 1x1
/// convolutions.
fn adapt(_: &toml::Table, weights: Tensors) -> Result<Tensors> {
    let rename = |name: String| {
        for (old, new) in [
            ("patch_embed.proj.", "patch_embed.0."),
            ("patch_embed.norm.", "patch_embed.2."),
            ("norm.", "classifier.norm."),
            ("head.", "classifier.head."),
        ] {
            if let Some(rest) = name.strip_prefix(old) {
                return format!("{new}{rest}");
            }
        }
        name.replace(".ln_1.", ".norm.").replace(".self_attention.", ".op.")
    };
    let linear = ["in_proj.weight", "out_proj.weight", "fc1.weight", "fc2.weight", "reduction.weight"];
    let renamed = weights.into_iter().map(|(name, tensor)| {
        let tensor = match tensor.size()[..] {
            [rows, columns, 1, 1] if linear.iter().any(|part| name.ends_with(part)) => {
                tensor.reshape([rows, columns])
            }
            _ => tensor,
        };
        (rename(name), tensor)
    });
    Ok(renamed.collect())
}
