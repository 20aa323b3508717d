//! From pixels to patches.

use serde::{Deserialize, Serialize};
use tch::{Tensor, nn};

use super::ModelConfig;
use crate::{
    Result,
    init::{Init, Start},
    layers::{BatchNorm, Conv2d, Kernel, Norm, to_tokens},
};

/// How pixels become patches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StemKind {
    /// One convolution, as large as a patch.
    #[default]
    Patch,
    /// Two overlapping convolutions, each half as wide as a patch and a pixel more, with a norm and GELU between them
    /// (VMamba's v2).
    Overlap,
    /// A 7x7 convolution of stride 2, batch norm, ReLU, then patches half as large (PlainMamba).
    Conv,
    /// The same, with patches that overlap by a pixel on each side (GroupMamba).
    ConvOverlap,
    /// A 3x3 convolution of stride 2, two more around a residual, then one as in `Overlap` to four times the channels and
    /// a 1x1 one; batch norms, and ReLU in front of all but the last and the sum (Spatial-Mamba).
    Residual,
}

impl StemKind {
    /// The name in a config.
    pub fn name(self) -> &'static str {
        match self {
            StemKind::Patch => "patch",
            StemKind::Overlap => "overlap",
            StemKind::Conv => "conv",
            StemKind::ConvOverlap => "conv-overlap",
            StemKind::Residual => "residual",
        }
    }

    /// The map between the two convolutions, or the image if there is one.
    pub fn between(self, image: [i64; 2], patch: [i64; 2]) -> [i64; 2] {
        match self {
            StemKind::Patch => image,
            StemKind::Overlap => overlap(1, 1, patch[0]).output(image),
            StemKind::Conv | StemKind::ConvOverlap => Kernel::around(1, 1, 7, 2).output(image),
            StemKind::Residual => Kernel::around(1, 1, 3, 2).output(image),
        }
    }

    /// Patches per column and row of an image of (rows, columns) pixels; 0 if there is none. Pixels that no patch of
    /// `Patch` reaches are left out; the others pad.
    pub fn grid(self, image: [i64; 2], patch: [i64; 2], stride: [i64; 2]) -> [i64; 2] {
        if image.iter().any(|side| *side < 1) {
            return [0, 0];
        }
        let map = self.between(image, patch);
        match self {
            StemKind::Patch => Kernel::patches(1, 1, patch, stride).output(map),
            StemKind::Overlap | StemKind::ConvOverlap | StemKind::Residual => {
                overlap(1, 1, patch[0]).output(map)
            }
            StemKind::Conv => [0, 1].map(|axis| (map[axis] + patch[axis] / 2 - 1) / (patch[axis] / 2)),
        }
    }
}

/// One of the two convolutions of [`StemKind::Overlap`], the last of others.
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
    /// Batch norm alone.
    Norm(BatchNorm),
}

impl Step {
    /// `conv` without a bias and `norm`, with a ReLU if `relu`.
    fn batch_norm(vs: &nn::Path, kernel: &Kernel, relu: bool) -> Step {
        let norm = BatchNorm::new(&(vs / "norm"), kernel.channels[1]);
        Step {
            conv: Conv2d::new(&(vs / "conv"), kernel, false, None),
            after: if relu { After::Relu(norm) } else { After::Norm(norm) },
        }
    }

    fn forward(&self, map: &Tensor, train: bool) -> Result<Tensor> {
        let map = self.conv.forward(map)?;
        Ok(match &self.after {
            After::Relu(norm) => norm.forward(&map, train)?.f_relu()?,
            After::Norm(norm) => norm.forward(&map, train)?,
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
    /// The stride up to whole steps of which images are padded, if they are.
    pad: Option<[i64; 2]>,
    steps: Vec<Step>,
    /// Steps whose result is added to what they read, behind the first of `steps`.
    residual: Vec<Step>,
    proj: Conv2d,
    norm: Option<Norm>,
    batch_norm: Option<BatchNorm>,
}

impl Stem {
    /// The stem of `config` for images of `channels` channels, under `patch_embed` of `vs`.
    pub fn new(vs: &nn::Path, config: &ModelConfig, channels: i64) -> Stem {
        let vs = vs / "patch_embed";
        let (patch, d_model) = (config.patch_size.sides(), config.widths()[0]);
        let norm = |vs: &nn::Path, width: i64| {
            config.patch_norm.then(|| Norm::new(&(vs / "norm"), config.norm, width, config.patch_eps()))
        };
        let (mut steps, mut residual) = (Vec::new(), Vec::new());
        let kernel = match config.stem {
            StemKind::Patch => {
                let kernel = Kernel::patches(channels, d_model, patch, config.stride.sides());
                Kernel { padding: [config.patch_padding; 2], ..kernel }
            }
            StemKind::Overlap => {
                let (vs, half) = (&vs / "stem", d_model / 2);
                let conv = Conv2d::new(&(&vs / "conv"), &overlap(channels, half, patch[0]), true, None);
                steps.push(Step { conv, after: After::Gelu(norm(&vs, half)) });
                overlap(half, d_model, patch[0])
            }
            StemKind::Conv | StemKind::ConvOverlap => {
                let width = config.stem_width;
                steps.push(Step::batch_norm(&(&vs / "stem"), &Kernel::around(channels, width, 7, 2), true));
                for i in 0..config.stem_convs {
                    let kernel = Kernel::around(width, width, 3, 1);
                    steps.push(Step::batch_norm(&(&vs / "convs" / i), &kernel, true));
                }
                let half = patch.map(|side| side / 2);
                match config.stem {
                    StemKind::Conv => Kernel::patches(width, d_model, half, half),
                    _ => overlap(width, d_model, patch[0]),
                }
            }
            StemKind::Residual => {
                let (half, wide) = (d_model / 2, 4 * d_model);
                let step =
                    |name: &str, kernel: Kernel, relu: bool| Step::batch_norm(&(&vs / name), &kernel, relu);
                steps.push(step("stem", Kernel::around(channels, half, 3, 2), true));
                residual = [("inner", true), ("outer", false)]
                    .map(|(name, relu)| step(name, Kernel::around(half, half, 3, 1), relu))
                    .into();
                steps.push(step("expand", overlap(half, wide, patch[0]), true));
                Kernel::around(wide, d_model, 1, 1)
            }
        };
        let init = (config.init == Start::FanIn).then_some(Init::LecunNormal);
        let batch_norm = config.stem == StemKind::Residual;
        Stem {
            kind: config.stem,
            patch,
            pad: config.patch_pad.then_some(config.stride.sides()),
            steps,
            residual,
            proj: Conv2d::new(&(&vs / "proj"), &kernel, config.patch_bias && !batch_norm, init),
            norm: if batch_norm { None } else { norm(&vs, d_model) },
            batch_norm: batch_norm.then(|| BatchNorm::new(&(&vs / "norm"), d_model)),
        }
    }

    /// Images (B, channels, H, W) to patches (B, M, d_model) and their grid.
    ///
    /// # Errors
    /// Images of other channels, or smaller than a patch.
    pub fn forward(&self, images: &Tensor, train: bool) -> Result<(Tensor, [i64; 2])> {
        let mut map = self.padded(images)?;
        for (i, step) in self.steps.iter().enumerate() {
            map = step.forward(&map, train)?;
            if i == 0 && !self.residual.is_empty() {
                let mut added = map.shallow_clone();
                for step in &self.residual {
                    added = step.forward(&added, train)?;
                }
                map = map.f_add(&added)?;
            }
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
        let mut map = self.proj.forward(&map)?;
        if let Some(norm) = &self.batch_norm {
            map = norm.forward(&map, train)?;
        }
        let grid = [map.size()[2], map.size()[3]];
        let patches = to_tokens(&map)?;
        let patches = match &self.norm {
            Some(norm) => norm.forward(&patches)?,
            None => patches,
        };
        Ok((patches, grid))
    }

    /// The images, with zeros below and beside where they do not make whole steps.
    fn padded(&self, images: &Tensor) -> Result<Tensor> {
        let (Some(stride), &[.., rows, columns]) = (self.pad, &images.size()[..]) else {
            return Ok(images.shallow_clone());
        };
        let missing = |axis: usize, size: i64| {
            let stride = stride[axis];
            (((size + stride - 1) / stride - 1) * stride + self.patch[axis] - size).max(0)
        };
        let (down, across) = (missing(0, rows), missing(1, columns));
        Ok(images.f_constant_pad_nd([0, across, 0, down])?)
    }
}
