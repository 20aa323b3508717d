//! What a `[model]` table must be, alone and for an image.

use ophidian_scan::Geometry;

use super::{MixerKind, ModelConfig, PerStage, pattern, plan};
use crate::grid::{Input, rope::Rope, stem::StemKind};
use crate::{Error, Result, layers::DownsampleKind, mixer::ConvPlace};

/// Largest model that is built: a config with a few zeros too many is an error and not an attempt to
/// allocate.
const MAX_PARAMETERS: f64 = 2e10;

/// Most stages: each halves the grid.
const MAX_STAGES: usize = 12;

/// Names the table before the key.
pub(super) fn in_model(error: Error) -> Error {
    match error {
        Error::Config(text) => Error::Config(format!("[model]: {text}")),
        other => other,
    }
}

fn wrong(key: &str, found: impl std::fmt::Display, expected: &str) -> Result<()> {
    Err(Error::Config(format!("`{key}` is {found}, expected {expected}")))
}

impl ModelConfig {
    /// Checks every value that can be checked without an image.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn check(&self) -> Result<()> {
        self.check_mixers()?;
        self.check_stages()?;
        self.check_embedding()?;
        for (key, found) in [
            ("norm_eps", Some(self.norm_eps)),
            ("final_norm_eps", self.final_norm_eps),
            ("patch_norm_eps", self.patch_norm_eps),
        ] {
            if found.is_some_and(|eps| !(eps.is_finite() && eps >= 0.0)) {
                return wrong(key, found.unwrap_or(0.0), "a small number, at least 0");
            }
        }
        if !(0.0..1.0).contains(&self.drop_path) {
            return wrong("drop_path", self.drop_path, "a probability from 0 to below 1");
        }
        if self.mlp_ratio.values().iter().any(|ratio| !(0.0..=1024.0).contains(ratio)) {
            return wrong("mlp_ratio", &self.mlp_ratio, "0 (no MLP) to 1024");
        }
        if !self.mlp_ratio.fits(self.stages()) {
            let stages = self.stages();
            let expected = format!("one number, or one for each of {stages} stages");
            return wrong("mlp_ratio", &self.mlp_ratio, &expected);
        }
        if self.layer_scale.is_some_and(|scale| !scale.is_finite()) {
            return wrong("layer_scale", "not finite", "a number such as 1e-5");
        }
        let blocks = self.blocks();
        if let Some(block) = self.local_conv.iter().find(|block| !(0..blocks).contains(*block)) {
            return wrong(
                "local_conv",
                format!("{block} among others"),
                &format!("blocks 0 to {}", blocks - 1),
            );
        }
        self.scan.check()?;
        self.check_around()?;
        self.check_attention()?;
        self.check_parts()?;
        self.check_size()
    }

    fn check_stages(&self) -> Result<()> {
        let stages = self.stages();
        if !(1..=MAX_STAGES).contains(&stages) {
            return wrong("depth", format!("a list of {stages}"), &format!("1 to {MAX_STAGES} stages"));
        }
        if self.depths().iter().any(|depth| !(0..=4096).contains(depth)) {
            return wrong("depth", &self.depth, "0 to 4096 blocks");
        }
        if matches!(&self.d_model, PerStage::Each(widths) if widths.len() != stages) {
            return wrong(
                "d_model",
                &self.d_model,
                &format!("one number, or one for each of {stages} stages"),
            );
        }
        for width in self.widths() {
            if !(1..=1 << 20).contains(&width) {
                return wrong("d_model", &self.d_model, &format!("1 to {} channels in each stage", 1 << 20));
            }
            // A number of directions that every split divides: the true one is checked with the plans.
            self.mamba(width, self.cascade.max(1)).check()?;
        }
        Ok(())
    }

    fn check_embedding(&self) -> Result<()> {
        let patch = self.patch_size.sides();
        if patch.iter().any(|side| !(1..=4096).contains(side)) {
            return wrong("patch_size", format!("{patch:?}"), "sides of 1 to 4096 pixels");
        }
        for (key, found, low, high) in [
            ("tubelet", self.tubelet, 1, 4096),
            ("rope_grid", self.rope_grid, 0, 1 << 20),
            ("stem_convs", self.stem_convs, 0, 64),
            ("patch_padding", self.patch_padding, 0, patch[0].min(patch[1]) - 1),
            ("stem_width", self.stem_width, 1, 1 << 16),
        ] {
            if !(low..=high).contains(&found) {
                return wrong(key, found, &format!("{low} to {high}"));
            }
        }
        let stride = self.stride.sides();
        if stride.iter().any(|step| !(1..=4096).contains(step)) {
            return wrong("stride", self.stride, "1 to 4096 pixels");
        }
        if self.stem == StemKind::Patch {
            if self.patch_pad && self.patch_padding > 0 {
                return Err(Error::Config("`patch_pad` and `patch_padding` are both set; choose one".into()));
            }
            return Ok(());
        }
        if self.patch_pad || !self.patch_bias || self.patch_padding > 0 {
            let text =
                "`patch_pad`, `patch_padding` and `patch_bias` are for `stem = \"patch\"`; leave them out";
            return Err(Error::Config(text.into()));
        }
        if patch[0] != patch[1] || patch[0] % 2 != 0 {
            let found = format!("{patch:?}");
            return wrong(
                "patch_size",
                found,
                &format!("an even square for `stem = \"{}\"`", self.stem.name()),
            );
        }
        if stride != patch {
            let stem = self.stem.name();
            return wrong(
                "stride",
                self.stride,
                &format!("the patch's {} for `stem = \"{stem}\"`", patch[0]),
            );
        }
        if matches!(self.stem, StemKind::Overlap | StemKind::Residual) && self.widths()[0] < 2 {
            let expected = format!("at least 2 for `stem = \"{}\"`", self.stem.name());
            return wrong("d_model", &self.d_model, &expected);
        }
        Ok(())
    }

    /// Checks that the parts go together.
    fn check_parts(&self) -> Result<()> {
        let fail = |text: &str| Err(Error::Config(text.into()));
        let grid = match self.needs_map() {
            Some(key) => Some(format!("`{key}` needs")),
            None if self.written_as.is_some() => Some("`written_as` needs".into()),
            None if self.stages() > 1 => Some("stages, which a list for `depth` makes, need".into()),
            None => None,
        };
        if let Some(needs) = grid.filter(|_| self.pool_is_token()) {
            return fail(&format!(
                "a class token does not lie on the grid that {needs}; choose a `pool` without one, such as \"mean\""
            ));
        }
        if let Some(text) = &self.written_as {
            // Over images or clips: which is known with the inputs.
            pattern(text, 0).map(drop)?;
        }
        match (&self.coarse, &self.coarse_scan) {
            (Some(_), None) => {
                return fail("missing key `coarse_scan`: the pattern of the directions of `coarse`");
            }
            (None, Some(_)) => return fail("`coarse_scan` is set, but `coarse` is not"),
            (_, Some(text)) => {
                plan(text, 0, &Geometry::Grid2 { height: 2, width: 2 }, &[]).map(drop)?;
            }
            (None, None) => {}
        }
        if self.stages() > 1 && self.rope != Rope::None {
            return fail("`rope` is for one stage; choose \"none\", or one number for `depth`");
        }
        if self.layer_pairs && self.depths().iter().any(|depth| depth % 2 != 0) && self.stages() > 1 {
            return fail("`layer_pairs` needs an even `depth` in every stage");
        }
        Ok(())
    }

    fn check_attention(&self) -> Result<()> {
        let Some(attention) = &self.attention else { return Ok(()) };
        let stages = self.stages();
        for (key, numbers, least, most) in [
            ("depth", &attention.depth, 0, 4096),
            ("heads", &attention.heads, 1, 1 << 16),
            ("reduction", &attention.reduction, 1, 4096),
        ] {
            if !numbers.fits(stages) || numbers.values().iter().any(|n| !(least..=most).contains(n)) {
                let expected = format!("{least} to {most}, one number or one for each of {stages} stages");
                return wrong(&format!("attention.{key}"), numbers, &expected);
            }
        }
        for (stage, width) in self.widths().into_iter().enumerate() {
            let heads = attention.heads.of(stage).unwrap_or(1);
            if width % heads != 0 {
                return wrong(
                    "attention.heads",
                    heads,
                    &format!("a divisor of stage {stage}'s {width} channels"),
                );
            }
        }
        Ok(())
    }

    fn check_size(&self) -> Result<()> {
        let patch = self.patch_size.sides();
        let mut total = 0.0;
        for (stage, (width, depth)) in self.widths().into_iter().zip(self.depths()).enumerate() {
            let mixer = self.mamba(width, 1);
            let (d, inner) = (width as f64, mixer.d_inner() as f64);
            let (rank, states) = (mixer.dt_rank.of(width) as f64, self.d_state as f64);
            let taps = (self.d_conv as f64).powi(if self.conv == ConvPlace::Grid { 2 } else { 1 });
            let mut block = d * (3.0 * inner + 2.0 * self.mlp_width(stage) as f64)
                + inner * (2.0 * rank + 3.0 * states + taps);
            if self.has(MixerKind::Inverted) {
                let inside = self.inverted(width);
                block += 2.0 * d * inside.expand as f64 * d * (1.0 + inside.expand as f64);
            }
            if self.has(MixerKind::ChangeMamba) {
                let mlp = self.changemamba.as_ref().map_or(0.0, |options| options.mlp_ratio);
                block = 3.0 * (block + 2.0 * mlp * d * d) + 9.0 * d * d;
            }
            if self.has(MixerKind::QuadMamba) {
                block += 2.0 * inner * inner;
            }
            let within = self.within(stage) as f64;
            if let Some(attention) = &self.attention {
                let reduction = attention.reduction.of(stage).unwrap_or(1) as f64;
                total +=
                    within * d * (d * (4.0 + reduction * reduction) + 2.0 * self.mlp_width(stage) as f64);
            }
            total += *depth as f64 * block + 9.0 * d * d;
        }
        total += self.widths()[0] as f64 * (self.tubelet * patch[0] * patch[1]) as f64;
        if total > MAX_PARAMETERS {
            return Err(Error::Config(format!(
                "d_model = {}, depth = {} and expand = {} make a model of about {total:.0e} parameters, expected at \
                 most {MAX_PARAMETERS:.0e}",
                self.d_model, self.depth, self.expand,
            )));
        }
        Ok(())
    }

    /// Checks that the model can read clips, or images, as they are.
    ///
    /// # Errors
    /// [`Error::Config`] naming the part that knows no time, or what only clips have.
    pub(in crate::grid) fn check_frames(&self, input: &Input) -> Result<()> {
        if input.frames.is_none() {
            if self.has(MixerKind::ChangeMamba) {
                return self.check_pair(input);
            }
            if self.has(MixerKind::Divided) {
                return wrong(
                    "mixer",
                    "\"divided\"",
                    "another for images, which have no time, or clips of frames",
                );
            }
            return match self.tubelet {
                1 => Ok(()),
                other => wrong("tubelet", other, "1 for images, or clips of frames"),
            };
        }
        let flat = if self.rope != Rope::None {
            "`rope`"
        } else if self.stem != StemKind::Patch || self.patch_pad || !self.patch_bias {
            "`stem` (but \"patch\"), `patch_pad` and `patch_bias`"
        } else if self.class_blocks > 0 {
            "`class_blocks`"
        } else if self.has(MixerKind::ChangeMamba) {
            return self.check_pair(input);
        } else if let Some(key) = self.needs_map().filter(|key| !["mlp", "attention"].contains(&key.as_str()))
        {
            return Err(Error::Config(format!(
                "`{key}`: for images, which have rows and columns alone, and not for clips of frames"
            )));
        } else if self.coarse.is_some() || self.cascade > 1 {
            "`coarse` and `cascade`"
        } else {
            return Ok(());
        };
        Err(Error::Config(format!(
            "{flat}: for images, which have rows and columns alone, and not for clips of frames"
        )))
    }

    /// Checks that groups of `tubelet` frames make up a clip.
    ///
    /// # Errors
    /// [`Error::Config`] with the numbers that do not fit and what would.
    pub fn tile_frames(&self, frames: i64) -> Result<()> {
        if frames % self.tubelet == 0 {
            return Ok(());
        }
        Err(Error::Config(format!(
            "`model.tubelet` is {}, which does not divide clips of {frames} frames; choose another, or clips of {} frames",
            self.tubelet,
            (frames / self.tubelet + 1) * self.tubelet
        )))
    }

    /// Checks that patches tile an input of (rows, columns) and that every stage has tokens, and returns the grid of
    /// the first stage.
    ///
    /// # Errors
    /// [`Error::Config`] with the sizes that do not fit and what would.
    pub fn tile(&self, input: [i64; 2]) -> Result<[i64; 2]> {
        let (patch, stride) = (self.patch_size.sides(), self.stride.sides());
        for (axis, name) in ["rows", "columns"].into_iter().enumerate() {
            let (cells, side, stride) = (input[axis], patch[axis], stride[axis]);
            if cells < side {
                return Err(Error::Config(format!(
                    "`model.patch_size`: a patch of {side} {name} is larger than an input of {cells}; choose a smaller \
                     patch or larger inputs"
                )));
            }
            // What padding is left out is no part of the input.
            let rest = (cells + 2 * self.patch_padding - side) % stride;
            if rest > self.patch_padding && !self.patch_pad {
                let (below, above) = (cells - rest, cells - rest + stride);
                return Err(Error::Config(format!(
                    "`model.patch_size`: patches of {side} {name} every {stride} do not divide an input of {cells}; \
                     choose another patch, or inputs of {below} or {above} {name}"
                )));
            }
        }
        let grids = self.grids(input);
        for (stage, [rows, columns]) in grids.iter().enumerate() {
            if *rows < 1 || *columns < 1 {
                return Err(Error::Config(format!(
                    "`model.depth` makes {} stages, but inputs of {}x{} leave no token for stage {stage}; choose fewer \
                     stages, a smaller `model.patch_size` or larger inputs",
                    grids.len(),
                    input[0],
                    input[1]
                )));
            }
            let reduction = self.attention.as_ref().and_then(|attention| attention.reduction.of(stage));
            if let Some(reduction) = reduction.filter(|side| side > rows.min(columns)) {
                return Err(Error::Config(format!(
                    "`model.attention.reduction` is {reduction} in stage {stage}, more than its {rows}x{columns} tokens; \
                     choose a smaller one or larger inputs"
                )));
            }
            let odd = self.downsample == DownsampleKind::Conv2 && (rows % 2 + columns % 2) > 0;
            if odd && stage + 1 < grids.len() {
                return Err(Error::Config(format!(
                    "`model.downsample` is \"conv2\", which would leave out a row or column of stage {stage}'s \
                     {rows}x{columns} tokens; choose \"conv3\" or \"merge\", or inputs of another size"
                )));
            }
        }
        Ok(grids[0])
    }

    /// The grid of patches of an image of (rows, columns) pixels; 0 where nothing is left.
    pub fn patch_grid(&self, image: [i64; 2]) -> [i64; 2] {
        let (patch, stride) = (self.patch_size.sides(), self.stride.sides());
        if self.patch_pad && image.iter().all(|side| *side > 0) {
            return [0, 1].map(|axis| (image[axis] + stride[axis] - 1) / stride[axis].max(1));
        }
        if image.iter().any(|side| *side < 1) {
            return [0, 0];
        }
        self.stem.grid(image.map(|side| side + 2 * self.patch_padding), patch, stride)
    }

    /// The grid of each stage for an image of (rows, columns) pixels; 0 where nothing is left.
    pub fn grids(&self, image: [i64; 2]) -> Vec<[i64; 2]> {
        std::iter::successors(Some(self.patch_grid(image)), |grid| Some(self.downsample.grid(*grid)))
            .take(self.stages())
            .collect()
    }
}
