//! A classifier as a function of named tensors, as `ophidian forward` runs it.

use tch::{Kind, Tensor};

use super::{Classifier, classifier::Point};
use crate::{Error, Result, adapter::Model, backbone::Behind, published::Run, tensors::Tensors};

/// What a family's outputs are beside `logits`, and `loss` if there are labels.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report {
    /// `features`: what the head reads.
    pub features: bool,
    /// `tokens`: behind the last norm.
    pub tokens: bool,
    /// `patch_embed` and `stage0` …: maps behind patch embedding and stages, the steps between them included.
    pub maps: Option<Maps>,
    /// `level0` …: (B, channels, frames, rows, columns) behind the blocks of each stage.
    pub levels: bool,
    /// Images may have another size than the config's.
    pub any_size: bool,
    /// What turns `in.x` into images, if it is no images.
    pub prepare: Option<fn(Tensor) -> Result<Tensor>>,
}

/// How maps are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maps {
    /// (B, channels, h, w).
    ChannelsFirst,
    /// (B, h, w, channels).
    ChannelsLast,
}

/// A classifier as a function of `x` and, if there are any, `labels`.
pub(super) struct Images {
    pub model: Classifier,
    pub report: Report,
}

impl Run for Images {
    fn run(&self, inputs: &Tensors) -> Result<Tensors> {
        if let Some(name) = inputs.keys().find(|name| !["x", "labels"].contains(&name.as_str())) {
            return Err(Error::invalid(format!(
                "`in.{name}` is no input; expected `in.x` and maybe `in.labels`"
            )));
        }
        let Some(images) = inputs.get("x") else {
            return Err(Error::invalid(
                "`in.x` is missing, expected images (batch, channels, height, width)",
            ));
        };
        if images.size().first() == Some(&0) {
            return Err(Error::invalid(format!(
                "`in.x` has shape {:?}: there is no image in it",
                images.size()
            )));
        }
        if !images.is_floating_point() {
            let found = images.kind();
            return Err(Error::invalid(format!("`in.x` has dtype {found:?}, expected a floating dtype")));
        }
        let images = images.to_kind(Kind::Float);
        let images = self.report.prepare.map_or(Ok(images.shallow_clone()), |prepare| prepare(images))?;
        let mut outputs = Tensors::new();
        let mut watch = |point: Point, tokens: &Tensor, [t, h, w]: [i64; 3]| {
            let map = |maps| {
                let map = tokens.unflatten(1, [t * h, w]); // (B, h, w, C)
                if maps == Maps::ChannelsFirst { map.permute([0, 3, 1, 2]) } else { map }
            };
            match (point, self.report.maps) {
                (Point::Patches, Some(maps)) => outputs.insert("patch_embed".into(), map(maps)),
                (Point::Behind(Behind::Stage(stage)), Some(maps)) => {
                    outputs.insert(format!("stage{stage}"), map(maps))
                }
                (Point::Behind(Behind::Blocks(stage)), _) if self.report.levels => {
                    let level = tokens.unflatten(1, [t, h, w]).permute([0, 4, 1, 2, 3]);
                    outputs.insert(format!("level{stage}"), level)
                }
                (Point::Tokens, _) if self.report.tokens => {
                    outputs.insert("tokens".into(), tokens.shallow_clone())
                }
                _ => None,
            };
        };
        let features = if self.report.any_size || self.report.levels {
            self.model.features_of_any_size(&images, false, &mut watch)?
        } else {
            self.model.features(&images, false)?
        };
        let logits = self.model.logits(&features)?;
        if let Some(labels) = inputs.get("labels") {
            outputs.insert("loss".into(), loss(&logits, labels)?);
        }
        if self.report.features {
            outputs.insert("features".into(), features);
        }
        outputs.insert("logits".into(), logits);
        Ok(outputs)
    }

    fn model(&self) -> Option<(&dyn Model, Vec<i64>)> {
        self.report.prepare.is_none().then(|| (&self.model as &dyn Model, self.model.input().sizes()))
    }
}

/// Mean cross-entropy (1) of logits (batch, classes) and labels (batch).
///
/// # Errors
/// Shapes that do not fit, or a label outside the classes.
pub fn loss(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let [batch, classes] = logits.size()[..] else {
        return Err(Error::invalid(format!(
            "a loss needs one row of logits for each image, but there are {:?} logits (`final_pool_type` is \"all\")",
            logits.size()
        )));
    };
    if labels.size() != [batch] || labels.is_floating_point() {
        return Err(Error::invalid(format!(
            "`in.labels` has shape {:?} and dtype {:?}, expected {batch} integers",
            labels.size(),
            labels.kind()
        )));
    }
    let labels = labels.to_kind(Kind::Int64);
    if batch > 0 {
        let (low, high) = (labels.min().int64_value(&[]), labels.max().int64_value(&[]));
        if low < 0 || high >= classes {
            let wrong = if low < 0 { low } else { high };
            return Err(Error::invalid(format!("`in.labels` holds {wrong}, expected 0 to {}", classes - 1)));
        }
    }
    let loss = logits.f_cross_entropy_loss(&labels, None::<Tensor>, tch::Reduction::Mean, -100, 0.0)?;
    Ok(loss.unsqueeze(0))
}
