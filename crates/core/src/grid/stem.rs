//! From pixels to patches.

use serde::{Deserialize, Serialize};
use tch::{Tensor, nn};

use super::ModelConfig;
use crate::{
    Result,
    init::{Init, Start},
    layers::{BatchNorm, Conv2d, Kernel, Norm, to_tokens},
};

/// Channels within PlainMamba's stem.
const CONV_CHANNELS: i64 = 64;

/// How pixels become patches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StemKind {
    /// One convolution, as large as a patch.
    #[default]
    Patch,
    /// Two overlapping convolutions, each half as wide as a patch and a pixel more, with a norm and GELU between them
    /// (VMamba's v2).
    Overlap,
    /// A 7x7 convolution of stride 2, batch norm, ReLU, then patches half as large (PlainMamba).
    Conv,
}

impl StemKind {
    /// The name in a config.
    pub fn name(self) -> &'static str {
        match self {
            StemKind::Patch => "patch",
            StemKind::Overlap => "overlap",
            StemKind::Conv => "conv",
        }
    }

    /// The map between the two convolutions, or the image if there is one.
    pub fn between(self, image: [i64; 2], patch: [i64; 2]) -> [i64; 2] {
        match self {
            StemKind::Patch => image,
            StemKind::Overlap => overlap(1, 1, patch[0]).output(image),
            StemKind::Conv => Kernel::around(1, 1, 7, 2).output(image),
        }
    }

    /// Patches per column and row of an image of (rows, columns) pixels; 0 if there is none. Pixels that no patch of
    /// `Patch` reaches are left out; the other two pad.
    pub fn grid(self, image: [i64; 2], patch: [i64; 2], stride: [i64; 2]) -> [i64; 2] {
        if image.iter().any(|side| *side < 1) {
            return [0, 0];
        }
        let map = self.between(image, patch);
        match self {
            StemKind::Patch => Kernel::patches(1, 1, patch, stride).output(map),
            StemKind::Overlap => overlap(1, 1, patch[0]).output(map),
            StemKind::Conv => [0, 1].map(|axis| (map[axis] + patch[axis] / 2 - 1) / (patch[axis] / 2)),
        }
    }
}

/// One of the two convolutions of [`StemKind::Overlap`].
fn overlap(inputs: i64, outputs: i64, patch: i64) -> Kernel {
    let stride = patch / 2;
    Kernel {
        channels: [inputs, outputs],
        sides: [stride + 1; 2],
        stride: [stride; 2],
        padding: [1, 1],
        groups: 1,
    }
}

/// A convolution with what follows it.
struct Step {
    conv: Conv2d,
    after: After,
}

enum After {
    /// Norm over channels (if any), then GELU.
    Gelu(Option<Norm>),
    /// Batch norm, then ReLU.
    Relu(BatchNorm),
}

impl Step {
    fn batch_norm(vs: &nn::Path, kernel: &Kernel) -> Step {
        Step {
            conv: Conv2d::new(&(vs / "conv"), kernel, false, None),
            after: After::Relu(BatchNorm::new(&(vs / "norm"), kernel.channels[1])),
        }
    }

    fn forward(&self, map: &Tensor, train: bool) -> Result<Tensor> {
        let map = self.conv.forward(map)?;
        Ok(match &self.after {
            After::Relu(norm) => norm.forward(&map, train)?.f_relu()?,
            After::Gelu(None) => map.f_gelu("none")?,
            // (B, h, w, C) and back: views, since the norm's result is stored channels last.
            After::Gelu(Some(norm)) => {
                norm.forward(&map.f_permute([0, 2, 3, 1])?)?.f_permute([0, 3, 1, 2])?.f_gelu("none")?
            }
        })
    }
}

/// Pixels to patches.
pub(super) struct Stem {
    kind: StemKind,
    patch: [i64; 2],
    steps: Vec<Step>,
    proj: Conv2d,
    norm: Option<Norm>,
}

impl Stem {
    /// The stem of `config` for images of `channels` channels, under `patch_embed` of `vs`.
    pub fn new(vs: &nn::Path, config: &ModelConfig, channels: i64) -> Stem {
        let vs = vs / "patch_embed";
        let (patch, d_model) = (config.patch_size.sides(), config.widths()[0]);
        let norm = |vs: &nn::Path, width: i64| {
            config.patch_norm.then(|| Norm::new(&(vs / "norm"), config.norm, width, config.norm_eps))
        };
        let (steps, kernel) = match config.stem {
            StemKind::Patch => (vec![], Kernel::patches(channels, d_model, patch, config.stride.sides())),
            StemKind::Overlap => {
                let (vs, half) = (&vs / "stem", d_model / 2);
                let conv = Conv2d::new(&(&vs / "conv"), &overlap(channels, half, patch[0]), true, None);
                let step = Step { conv, after: After::Gelu(norm(&vs, half)) };
                (vec![step], overlap(half, d_model, patch[0]))
            }
            StemKind::Conv => {
                let wide = Kernel::around(channels, CONV_CHANNELS, 7, 2);
                let mut steps = vec![Step::batch_norm(&(&vs / "stem"), &wide)];
                for i in 0..config.stem_convs {
                    let kernel = Kernel::around(CONV_CHANNELS, CONV_CHANNELS, 3, 1);
                    steps.push(Step::batch_norm(&(&vs / "convs" / i), &kernel));
                }
                let half = patch.map(|side| side / 2);
                (steps, Kernel::patches(CONV_CHANNELS, d_model, half, half))
            }
        };
        let init = (config.init == Start::FanIn).then_some(Init::LecunNormal);
        Stem {
            kind: config.stem,
            patch,
            steps,
            proj: Conv2d::new(&(&vs / "proj"), &kernel, true, init),
            norm: norm(&vs, d_model),
        }
    }

    /// Images (B, channels, H, W) to patches (B, M, d_model) and their grid.
    ///
    /// # Errors
    /// Images of other channels, or smaller than a patch.
    pub fn forward(&self, images: &Tensor, train: bool) -> Result<(Tensor, [i64; 2])> {
        let mut map = images.shallow_clone();
        for step in &self.steps {
            map = step.forward(&map, train)?;
        }
        if self.kind == StemKind::Conv {
            // Zeros below and beside, up to whole patches.
            let missing = |axis: usize| {
                let (size, side) = (map.size()[axis + 2], self.patch[axis] / 2);
                (side - size % side) % side
            };
            let (down, across) = (missing(0), missing(1));
            if down + across > 0 {
                map = map.f_constant_pad_nd([0, across, 0, down])?;
            }
        }
        let map = self.proj.forward(&map)?;
        let grid = [map.size()[2], map.size()[3]];
        let patches = to_tokens(&map)?;
        let patches = match &self.norm {
            Some(norm) => norm.forward(&patches)?,
            None => patches,
        };
        Ok((patches, grid))
    }
}
