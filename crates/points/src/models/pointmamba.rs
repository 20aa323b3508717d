//! PointMamba (Liang et al., arXiv 2402.10739) as its authors publish it: their config and parameter names.

use std::sync::Arc;

use ophidian_core::{
    Error, Result, config,
    device::send,
    grid::{Scans, loss},
    init::Start,
    keymap::Key,
    layers::NormKind,
    ops::Orders,
    published::{Family, Published, Run},
    tensors::Tensors,
};
use ophidian_scan::{Geometry, Order, Plan, Points};
use serde::Deserialize;
use tch::{Device, Kind, Tensor, nn::VarStore};

use super::{
    Classifier, Input, ModelConfig, Pool,
    walks::{Layout, pattern},
};
use crate::dataset::group;

/// The family.
pub const POINTMAMBA: PointMamba = PointMamba;

/// The scan of the released models.
const SCAN: &str = "pointmamba/serialize";

/// Two orders, one sequence.
const DIRECTIONS: i64 = 2;

/// The family of PointMamba's classifiers (`PointMambaScan`).
pub struct PointMamba;

/// The `model` table of the authors' configs, with the defaults of their constructor.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    trans_dim: i64,
    depth: i64,
    cls_dim: i64,
    group_size: i64,
    num_group: i64,
    encoder_dims: i64,
    #[serde(default)]
    rms_norm: bool,
    #[serde(default)]
    drop_path: f64,
    #[serde(default)]
    use_cls_token: bool,
    #[serde(default)]
    max_head: bool,
    #[serde(default)]
    avg_head: bool,
    // What follows changes no number of a forward pass.
    #[serde(default, rename = "drop_out")]
    _drop_out: f64,
    #[serde(default, rename = "num_heads")]
    _num_heads: i64,
    #[serde(default, rename = "NAME")]
    _name: String,
}

impl Config {
    /// Their config in our words.
    fn ours(&self) -> Result<ModelConfig> {
        let wrong = |text: String| Err(Error::Config(text));
        if self.encoder_dims != self.trans_dim {
            return wrong(format!(
                "`encoder_dims` is {}, expected {} (`trans_dim`), to which tokens are added",
                self.encoder_dims, self.trans_dim
            ));
        }
        for (key, found, most) in [
            ("group_size", self.group_size, 1 << 16),
            ("num_group", self.num_group, 1 << 16),
            ("cls_dim", self.cls_dim, 1 << 24),
        ] {
            if !(1..=most).contains(&found) {
                return wrong(format!("`{key}` is {found}, expected 1 to {most}"));
            }
        }
        // With a class token the head reads that and the mean, whatever the switches say.
        let pool = match (self.use_cls_token, self.avg_head, self.max_head) {
            (true, true, true) => {
                return wrong("`use_cls_token`, `max_head` and `avg_head` are all on, for which the authors' head is too \
                              wide to run; switch one off".into());
            }
            (true, ..) | (false, true, false) => Pool::Mean,
            (false, false, true) => Pool::Max,
            (false, true, true) => Pool::Both,
            (false, false, false) => {
                return wrong("`avg_head`, `max_head` and `use_cls_token` are all off, which leaves the head nothing to \
                              read; switch one on".into());
            }
        };
        let ours = ModelConfig {
            d_model: self.trans_dim,
            depth: self.depth,
            encoder: [128, 256, 512],
            position: 128,
            scan: Scans::One(SCAN.into()),
            join: true,
            class_token: self.use_cls_token,
            pool,
            head: vec![256, 256],
            head_dropout: 0.5,
            norm: if self.rms_norm { NormKind::Rms } else { NormKind::Layer },
            drop_path: self.drop_path,
            init: Start::Normal,
            ..ModelConfig::default()
        };
        ours.check().map_err(|error| match error {
            Error::Config(text) => {
                Error::Config(text.replace("`d_model`", "`trans_dim`").replace("d_model =", "trans_dim ="))
            }
            other => other,
        })?;
        Ok(ours)
    }

    /// Which of their tensors is which of ours.
    fn keys(&self, ours: &ModelConfig) -> Vec<Key> {
        let d = self.trans_dim;
        let [first, local, second] = ours.encoder;
        let mut keys = Vec::new();
        let mut add = |theirs: &str, ours: &str, shape: &[i64]| keys.push(Key::new(theirs, ours, shape));
        if self.use_cls_token {
            add("cls_token", "cls_token", &[1, 1, d]);
            add("cls_pos", "cls_pos", &[1, 1, d]);
        }
        for (theirs, ours, inputs, outputs) in [
            ("first_conv.0", "first.0", 3, first),
            ("first_conv.3", "first.3", first, local),
            ("second_conv.0", "second.0", 2 * local, second),
            ("second_conv.3", "second.3", second, d),
        ] {
            add(
                &format!("encoder.{theirs}.weight"),
                &format!("encoder.{ours}.weight"),
                &[outputs, inputs, 1],
            );
            add(&format!("encoder.{theirs}.bias"), &format!("encoder.{ours}.bias"), &[outputs]);
        }
        let mut norm = |theirs: &str, ours: &str, width: i64| {
            for part in ["weight", "bias", "running_mean", "running_var"] {
                add(&format!("{theirs}.{part}"), &format!("{ours}.{part}"), &[width]);
            }
        };
        norm("encoder.first_conv.1", "encoder.first.1", first);
        norm("encoder.second_conv.1", "encoder.second.1", second);
        norm("cls_head_finetune.1", "head.1", 256);
        norm("cls_head_finetune.5", "head.5", 256);
        for (theirs, ours, inputs, outputs) in [
            ("pos_embed.0", "pos_embed.0", 3, ours.position),
            ("pos_embed.2", "pos_embed.2", ours.position, d),
            ("cls_head_finetune.0", "head.0", ours.head_inputs(), 256),
            ("cls_head_finetune.4", "head.4", 256, 256),
            ("cls_head_finetune.8", "head.8", 256, self.cls_dim),
        ] {
            add(&format!("{theirs}.weight"), &format!("{ours}.weight"), &[outputs, inputs]);
            add(&format!("{theirs}.bias"), &format!("{ours}.bias"), &[outputs]);
        }
        let parts: &[&str] = if self.rms_norm { &["weight"] } else { &["weight", "bias"] };
        let mixer = ours.mamba(1);
        let (inner, n, w, rank) = (mixer.d_inner(), mixer.d_state, mixer.d_conv, mixer.dt_rank.of(d));
        for part in parts {
            add(&format!("blocks.norm_f.{part}"), &format!("norm_f.{part}"), &[d]);
        }
        for i in 0..self.depth {
            for part in parts {
                add(&format!("blocks.layers.{i}.norm.{part}"), &format!("layers.{i}.norm.{part}"), &[d]);
            }
            for (name, shape) in [
                ("A_log", &[inner, n][..]),
                ("D", &[inner]),
                ("in_proj.weight", &[2 * inner, d]),
                ("conv1d.weight", &[inner, 1, w]),
                ("conv1d.bias", &[inner]),
                ("x_proj.weight", &[rank + 2 * n, inner]),
                ("dt_proj.weight", &[inner, rank]),
                ("dt_proj.bias", &[inner]),
                ("out_proj.weight", &[d, inner]),
            ] {
                add(&format!("blocks.layers.{i}.mixer.{name}"), &format!("layers.{i}.mixer.{name}"), shape);
            }
        }
        for (row, number) in (0..DIRECTIONS).zip(1..) {
            for part in ["gamma", "beta"] {
                keys.push(Key::row(
                    format!("OrderScale_{part}_{number}"),
                    format!("order.{part}"),
                    row,
                    &[d],
                ));
            }
        }
        keys
    }
}

impl Family for PointMamba {
    fn name(&self) -> &'static str {
        "pointmamba"
    }

    fn about(&self) -> &'static str {
        "PointMamba (arXiv 2402.10739): in.pts clouds (batch, points, 3), in.labels (batch)"
    }

    fn build(&self, table: toml::Table) -> Result<Published> {
        let theirs: Config = config::from_table(table, "")?;
        let ours = theirs.ours()?;
        let input = Input { frames: None, groups: theirs.num_group, size: theirs.group_size, channels: 3 };
        let variables = VarStore::new(Device::Cpu);
        let model = Classifier::new(&variables.root(), &ours, input, theirs.cls_dim)?;
        let layout = Layout { join: ours.join, class_token: ours.class_token };
        Ok(Published {
            keys: theirs.keys(&ours),
            variables,
            model: Box::new(Clouds { model, input, layout }),
        })
    }

    /// Names of a checkpoint as it was saved: `module.` before all, and the number of batches that a norm has seen, which
    /// no forward pass reads.
    fn convert(&self, _: &toml::Table, weights: Tensors) -> Result<Tensors> {
        let name = |name: String| name.strip_prefix("module.").map_or(name.clone(), str::to_owned);
        let kept = weights.into_iter().filter(|(name, _)| !name.ends_with(".num_batches_tracked"));
        Ok(kept.map(|(key, tensor)| (name(key), tensor)).collect())
    }
}

/// The model as a function of `pts` and, if there are any, `labels`.
struct Clouds {
    model: Classifier,
    input: Input,
    layout: Layout,
}

impl Clouds {
    /// Groups and centres of clouds (B, N, 3): (B, G, 1 + M, 3) row by row.
    fn grouped(&self, pts: &Tensor) -> Result<Tensor> {
        let [batch, points, 3] = pts.size()[..] else {
            return Err(Error::invalid(format!(
                "`in.pts` has shape {:?}, expected (batch, points, 3)",
                pts.size()
            )));
        };
        let Input { groups, size, .. } = self.input;
        if batch < 1 || points < groups.max(size) {
            return Err(Error::invalid(format!(
                "`in.pts` has shape {:?}, expected at least one cloud of at least {} points",
                pts.size(),
                groups.max(size)
            )));
        }
        let values = Vec::<f32>::try_from(pts.to_kind(Kind::Float).contiguous().f_flatten(0, -1)?)?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::invalid(format!(
                "`in.pts` holds {} at point {} of cloud {}, expected finite coordinates",
                values[at],
                at / 3 % points as usize,
                at / 3 / points as usize
            )));
        }
        let mut input = Vec::new();
        for cloud in values.chunks_exact(3 * points as usize) {
            let cloud: Vec<[f32; 3]> = cloud.chunks_exact(3).map(|p| [p[0], p[1], p[2]]).collect();
            group(&cloud, &[], 0, [groups as usize, size as usize], &mut input);
        }
        send(&Tensor::f_from_slice(&input)?.f_view([batch, groups, 1 + size, 3])?, pts.device())
    }

    /// The orders of a batch. As in the authors' code all clouds lie in one cube of cells, so that the order of one may
    /// depend on the others.
    fn orders(&self, centres: &Tensor) -> Result<Orders> {
        let [batch, groups] = [centres.size()[0] as usize, centres.size()[1] as usize];
        let values = Vec::<f32>::try_from(centres.contiguous().f_flatten(0, -1)?)?;
        let xyz = values.chunks_exact(3).map(|p| [p[0], p[1], p[2]]).collect();
        let points = Points::packed(xyz, (0..=batch).map(|at| at * groups).collect())?;
        let whole = pattern(SCAN, 0)?.plan(&Geometry::Points(Arc::new(points)))?;
        let own = |at: usize| -> Result<Plan> {
            let first = at * groups;
            let part = |order: &Order| {
                let steps = order.index().get(first..first + groups).unwrap_or_default();
                Order::new(steps.iter().map(|token| token - first as i32).collect(), groups)
            };
            let orders = whole.orders().iter().map(part).collect::<ophidian_scan::Result<_>>()?;
            self.layout.of(Plan::new(orders)?)
        };
        Orders::per_sample(&(0..batch).map(own).collect::<Result<Vec<_>>>()?)
    }
}

impl Run for Clouds {
    fn run(&self, inputs: &Tensors) -> Result<Tensors> {
        if let Some(name) = inputs.keys().find(|name| !["pts", "labels"].contains(&name.as_str())) {
            return Err(Error::invalid(format!(
                "`in.{name}` is no input; expected `in.pts` and maybe `in.labels`"
            )));
        }
        let Some(pts) = inputs.get("pts") else {
            return Err(Error::invalid("`in.pts` is missing, expected clouds (batch, points, 3)"));
        };
        let rows = self.grouped(pts)?;
        let (centres, groups) = (rows.f_select(2, 0)?, rows.f_narrow(2, 1, self.input.size)?);
        let tokens = self.model.tokens(&groups, false)?;
        let logits = self.model.logits(&tokens, &centres, &[self.orders(&centres)?], false)?;
        let mut outputs = Tensors::new();
        if let Some(labels) = inputs.get("labels") {
            outputs.insert("loss".into(), loss(&logits, labels)?);
        }
        outputs.insert("center".into(), centres);
        outputs.insert("neighborhood".into(), groups);
        outputs.insert("tokens".into(), tokens);
        outputs.insert("logits".into(), logits);
        Ok(outputs)
    }
}
