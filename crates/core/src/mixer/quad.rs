//! QuadMamba's mixer (Xie et al. 2024, arXiv 2410.06806): the map is scanned quadrant by quadrant, and the quadrant
//! that a score network chooses in four finer windows.

use ophidian_scan::{Order, Plan};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

use super::{
    Choice, Mamba1Config, Merge, Mixer,
    choice::choose,
    shell::{Shell, map_of},
};
use crate::{
    Error, Result, documented,
    init::Init,
    layers::{Linear, Norm, NormKind},
    ops::Orders,
    tape,
};

documented! {
/// What the released code does differently from the paper: needed to run its weights, off otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuadCompat {
    /// The tokens of the chosen quadrant take the places that a walk over all sixteen windows of the map, row by row,
    /// would give them, and the others those of a walk by quadrants: an eighth of the places hold two tokens, added up,
    /// and as many none. Needs rows and columns in multiples of 4.
    pub colliding_windows: bool,
    /// Chooses at random at inference too.
    pub random_inference: bool,
}
}

/// What a QuadMamba mixer is told beside a [`Mamba1Config`].
#[derive(Debug, Clone, PartialEq)]
pub struct QuadMambaConfig {
    /// The Mamba-1 mixer: two directions, the walk and its reverse.
    pub mamba: Mamba1Config,
    /// Number of the block in the model: every second one rolls the map by an eighth of its rows first, diagonally, in
    /// directions that take turns.
    pub block: i64,
    /// Released quirks.
    pub compat: QuadCompat,
}

/// A [`Mamba1`](super::Mamba1) of two directions whose orders are made from the features; the orders that it is given
/// tell the map alone. The score network: `score.norm`, `score.embed` (D, D), `score.hidden` (D / 2, D),
/// `score.reduce` (D / 4, D / 2), `score.out` (2, D / 4).
///
/// A quadrant is chosen per sample by its mean score, while gradients are recorded with Gumbel noise seeded by
/// libtorch's generator. They reach the scores straight-through: a token, when read and when written, is multiplied by
/// the weight of the way it was sent.
#[derive(Debug)]
pub struct QuadMamba {
    config: QuadMambaConfig,
    shell: Shell,
    norm: Norm,
    layers: [Linear; 4],
}

impl QuadMamba {
    /// A fresh mixer.
    ///
    /// # Errors
    /// As [`Mamba1Config::check`], other than 2 directions, a negative `block`, or a merge that is no sum or mean.
    pub fn new(vs: &nn::Path, config: &QuadMambaConfig) -> Result<QuadMamba> {
        let mamba = &config.mamba;
        if config.block < 0 || !matches!(mamba.merge, Merge::Sum | Merge::Mean) {
            return Err(Error::Config(format!(
                "QuadMamba has `block` {} and `merge` {:?}, expected at least 0 and a sum or a mean",
                config.block, mamba.merge
            )));
        }
        let d = mamba.d_inner();
        let score = vs / "score";
        let [half, quarter] = [2, 4].map(|part| (d / part).max(1));
        let layers = [("embed", d, d), ("hidden", d, half), ("reduce", half, quarter), ("out", quarter, 2)];
        Ok(QuadMamba {
            config: config.clone(),
            shell: Shell::new(vs, "QuadMamba", 2, mamba)?,
            norm: Norm::new(&(&score / "norm"), NormKind::Layer, d, 1e-5),
            layers: layers
                .map(|(name, from, to)| Linear::new(&(&score / name), from, to, true, Init::Kaiming)),
        })
    }

    /// As [`Mixer::forward`], with the quadrant of each sample, 0 to 3 row by row, chosen as `choice` says.
    ///
    /// # Errors
    /// As there, or given quadrants that are none.
    pub fn forward_choosing(&self, tokens: &Tensor, orders: &Orders, choice: &mut Choice) -> Result<Tensor> {
        self.run(tokens, orders, Some(choice))
    }

    fn run(&self, tokens: &Tensor, orders: &Orders, choice: Option<&mut Choice>) -> Result<Tensor> {
        let map = map_of(orders)?;
        self.shell.forward(tokens, orders, 1.0, |u| {
            let scores = self.scores(u, map)?;
            let (chosen, keep) = choose(choice, &scores, self.config.compat.random_inference)?; // (B), (B, 4)
            let walks = Walks { map, roll: self.roll(map[0]) };
            let mask = keep.f_index_select(1, &walks.quadrants().to_device(keep.device()))?.f_unsqueeze(2)?; // (B, L, 1)
            let y = if self.config.compat.colliding_windows {
                self.scan_colliding(u, &mask, &walks)?
            } else {
                self.scan(u, &mask, &chosen, &walks)?
            };
            Ok(if self.config.mamba.merge == Merge::Mean { y.f_mul_scalar(0.5)? } else { y })
        })
    }

    /// Mean log probability of "look closer" in each quadrant: (B, 4).
    fn scores(&self, u: &Tensor, [rows, columns]: [i64; 2]) -> Result<Tensor> {
        let [embed, hidden, reduce, out] = &self.layers;
        let x = embed.forward(&self.norm.forward(u)?)?.f_gelu("none")?;
        let x = reduce.forward(&hidden.forward(&x)?.f_gelu("none")?)?.f_gelu("none")?;
        let score = out.forward(&x)?.f_log_softmax(2, Kind::Float)?.f_select(2, 0)?; // (B, L)
        let map = score.f_reshape([-1, 1, rows, columns])?;
        Ok(map.f_adaptive_avg_pool2d([2, 2])?.f_reshape([-1, 4])?)
    }

    /// How far a map of `rows` rows is rolled down and to the right.
    fn roll(&self, rows: i64) -> [i64; 2] {
        let by = rows / 8;
        match (self.config.block % 2, self.config.block / 2 % 4) {
            (0, _) => [0, 0],
            (_, 0) => [by, by],
            (_, 1) => [-by, -by],
            (_, 2) => [by, -by],
            _ => [-by, by],
        }
    }

    /// The walk that enters the chosen quadrant window by window, there and back.
    fn scan(&self, u: &Tensor, mask: &Tensor, chosen: &Tensor, walks: &Walks) -> Result<Tensor> {
        let plans = (0..4).map(|quadrant| walks.nested(quadrant)).collect::<Result<Vec<_>>>()?;
        let chosen = Vec::<i64>::try_from(chosen)?;
        let samples: Vec<Plan> =
            chosen.iter().filter_map(|quadrant| plans.get(*quadrant as usize)).cloned().collect();
        let orders =
            if samples.is_empty() { Orders::identity(u.size()[1], 2) } else { Orders::per_sample(&samples)? };
        // 1, with the gradient of the weight of the way that a token is sent.
        let weight = if mask.requires_grad() {
            let hard = mask.f_detach()?;
            let side = hard.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?;
            Some(mask.f_sub(&hard)?.f_mul(&side)?.f_add_scalar(1.0)?)
        } else {
            None
        };
        let weighed = |x: &Tensor| -> Result<Tensor> {
            Ok(match &weight {
                Some(weight) => x.f_mul(weight)?,
                None => x.shallow_clone(),
            })
        };
        weighed(&self.scan_along(&weighed(u)?, &orders)?)
    }

    /// As released: two sequences of places, each with zeros for the other's tokens, added up.
    fn scan_colliding(&self, u: &Tensor, mask: &Tensor, walks: &Walks) -> Result<Tensor> {
        tape::note(
            "two sequences of places are added up, as released: a place shown is one of the sequences'",
        );
        let [fine, coarse] = walks.places()?;
        let rest = mask.f_neg()?.f_add_scalar(1.0)?;
        let take = |x: &Tensor, index: &Tensor| x.f_index_select(1, &index.to_device(x.device()));
        let places = take(&u.f_mul(mask)?, &fine)?.f_add(&take(&u.f_mul(&rest)?, &coarse)?)?;
        let row = Order::identity(places.size()[1].max(1) as usize)?;
        let y = self.scan_along(&places, &Orders::new(&Plan::new(vec![row.clone(), row.reversed()])?))?;
        let back = |index: &Tensor| -> Result<Tensor> { Ok(take(&y, &index.f_argsort(0, false)?)?) };
        Ok(back(&fine)?.f_mul(mask)?.f_add(&back(&coarse)?.f_mul(&rest)?)?)
    }

    fn scan_along(&self, u: &Tensor, orders: &Orders) -> Result<Tensor> {
        let ssm = &self.shell.ssm;
        ssm.scan(u, &ssm.coefficients(&u.f_unsqueeze(2)?)?, None, orders, false)
    }
}

impl Mixer for QuadMamba {
    fn forward(&self, tokens: &Tensor, orders: &Orders) -> Result<Tensor> {
        self.run(tokens, orders, None)
    }
}

/// Walks over a map whose places are rolled.
struct Walks {
    map: [i64; 2],
    roll: [i64; 2],
}

impl Walks {
    /// The quadrant that each token lies in: (L).
    fn quadrants(&self) -> Tensor {
        let ([rows, columns], [height, width]) = (self.map, self.quadrant());
        let mut quadrants = vec![0i64; (rows * columns).max(0) as usize];
        for row in 0..rows {
            for column in 0..columns {
                let token = self.token(row, column).and_then(|token| quadrants.get_mut(token as usize));
                if let Some(quadrant) = token {
                    *quadrant = row / height * 2 + column / width;
                }
            }
        }
        Tensor::from_slice(&quadrants)
    }

    /// Rows and columns of a quadrant: half the map's, up to an even number.
    fn quadrant(&self) -> [i64; 2] {
        self.map.map(|n| 2 * ((n + 3) / 4).max(1))
    }

    /// The token at a place of the rolled map; none beyond its edge.
    fn token(&self, row: i64, column: i64) -> Option<i64> {
        let [rows, columns] = self.map;
        let inside = row < rows && column < columns;
        inside.then(|| {
            (row - self.roll[0]).rem_euclid(rows) * columns + (column - self.roll[1]).rem_euclid(columns)
        })
    }

    /// The tokens of a window, row by row; -1 beyond the edge.
    fn window(&self, [top, left]: [i64; 2], [height, width]: [i64; 2], walk: &mut Vec<i32>) {
        let places =
            (top..top + height).flat_map(|row| (left..left + width).map(move |column| (row, column)));
        walk.extend(places.map(|(row, column)| self.token(row, column).map_or(-1, |token| token as i32)));
    }

    /// Quadrant by quadrant, the chosen one in four windows; and the reverse.
    fn nested(&self, chosen: i64) -> Result<Plan> {
        let [height, width] = self.quadrant();
        let mut walk = Vec::new();
        for quadrant in 0..4 {
            let [top, left] = [quadrant / 2 * height, quadrant % 2 * width];
            if quadrant != chosen {
                self.window([top, left], [height, width], &mut walk);
                continue;
            }
            for window in 0..4 {
                let corner = [top + window / 2 * (height / 2), left + window % 2 * (width / 2)];
                self.window(corner, [height / 2, width / 2], &mut walk);
            }
        }
        let order = Order::new(walk, (self.map[0] * self.map[1]).max(0) as usize)?;
        let reversed = order.reversed();
        Ok(Plan::new(vec![order, reversed])?)
    }

    /// The tokens by the sixteen windows of the map, row by row, and by quadrants: (L) each.
    fn places(&self) -> Result<[Tensor; 2]> {
        if self.map.iter().any(|n| n % 4 != 0) {
            return Err(Error::invalid(format!(
                "`colliding_windows` needs a map of rows and columns in multiples of 4, found {:?}",
                self.map
            )));
        }
        let [height, width] = self.quadrant();
        let walk = |across: i64, size: [i64; 2]| {
            let mut walk = Vec::new();
            for window in 0..across * across {
                self.window([window / across * size[0], window % across * size[1]], size, &mut walk);
            }
            Tensor::from_slice(&walk).to_kind(Kind::Int64)
        };
        Ok([walk(4, [height / 2, width / 2]), walk(2, [height, width])])
    }
}
