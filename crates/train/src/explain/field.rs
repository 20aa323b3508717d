//! Effective receptive fields (Luo et al. 2016, arXiv 1701.04128): how much a token's features change with each part of
//! the input.

use ophidian_core::{rng, tape::Places};
use rand::Rng as _;
use tch::{Kind, Tensor};

use crate::{Error, Result, keys};

/// The parts of a field whose extent is told.
pub const PARTS: [f64; 4] = [0.2, 0.3, 0.5, 0.99];

/// A receptive field over the input.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Of the input without its channels: (rows, columns), for a clip (frames, rows, columns), or the number of its places.
    pub sizes: Vec<i64>,
    /// The share of each cell; they add up to 1, or are all 0 if the token does not depend on the input at all.
    pub values: Vec<f64>,
    /// How far it reaches, for each of [`PARTS`]; nothing if it is 0.
    pub shares: Vec<Share>,
    /// (row, column) of the token's middle, in cells, if it has one on a plane.
    centre: Option<[f64; 2]>,
}

/// How much of the input holds a part of a field.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Share {
    /// The part.
    pub part: f64,
    /// The fewest cells that hold it: their share of all.
    pub area: f64,
    /// The smallest square around the token that holds it, as far as it lies on the input: its share of the input (what
    /// RepLKNet, arXiv 2203.06717, tells). For a token with a place on a plane.
    pub square: Option<f64>,
}

/// The field of `tokens` (1, n, C), which have a graph that begins at `input` (1, …): the mean over random projections of
/// the features of the absolute gradient, summed over the input's channels.
pub(super) fn of(
    tokens: &Tensor,
    input: &Tensor,
    places: &Places,
    place: Option<usize>,
    projections: usize,
) -> Result<Field> {
    let features = tokens.f_sum_dim_intlist(1, false, Kind::Float)?; // (1, C)
    let channels = features.size().last().copied().unwrap_or(0);
    let mut sum = Tensor::zeros_like(&input.detach());
    for number in 0..projections {
        let mut random = rng::stream(&[keys::EXPLAIN, number as u64]);
        let signs: Vec<f32> =
            (0..channels).map(|_| if random.next_u32().is_multiple_of(2) { 1.0 } else { -1.0 }).collect();
        let value = features.f_mul(&Tensor::from_slice(&signs))?.f_sum(Kind::Float)?;
        let more = number + 1 < projections;
        let gradient = Tensor::f_run_backward(&[&value], &[input], more, false)?;
        for gradient in gradient {
            sum = sum.f_add(&gradient.f_abs()?)?;
        }
    }
    let (sizes, cells) = match places.sizes[..] {
        [count] => {
            (vec![count], sum.f_reshape([count.max(1), -1])?.f_sum_dim_intlist(1, false, Kind::Double)?)
        }
        _ => {
            let sum = sum.f_squeeze_dim(0)?;
            (sum.size().split_off(1), sum.f_sum_dim_intlist(0, false, Kind::Double)?)
        }
    };
    let values = Vec::<f64>::try_from(cells.f_contiguous()?.f_view([-1])?)?;
    if values.iter().any(|value| !value.is_finite()) {
        return Err(Error::NonFinite(
            "the gradient of the token is not finite; the weights or the input may be damaged".to_owned(),
        ));
    }
    let centre = match (&places.sizes[..], &sizes[..], place) {
        ([rows, columns], [height, width], Some(place)) => {
            let place = place as i64;
            let middle =
                |index: i64, size: i64, cells: i64| (index as f64 + 0.5) * cells as f64 / size as f64;
            Some([middle(place / columns, *rows, *height), middle(place % columns, *columns, *width)])
        }
        _ => None,
    };
    Ok(Field::new(sizes, values, centre))
}

impl Field {
    /// Of non-negative values, whatever their sum.
    fn new(sizes: Vec<i64>, mut values: Vec<f64>, centre: Option<[f64; 2]>) -> Field {
        let total: f64 = values.iter().sum();
        if total > 0.0 {
            values.iter_mut().for_each(|value| *value /= total);
        }
        let mut field = Field { sizes, values, shares: Vec::new(), centre };
        if total > 0.0 {
            field.shares = field.measured();
        }
        field
    }

    /// The mean of fields of one token over inputs of one shape, each of which counts as much; none of none.
    pub(super) fn mean(fields: &[Field]) -> Option<Field> {
        let first = fields.first()?;
        let mut values = vec![0.0; first.values.len()];
        for field in fields {
            values.iter_mut().zip(&field.values).for_each(|(sum, value)| *sum += value);
        }
        Some(Field::new(first.sizes.clone(), values, first.centre))
    }

    fn measured(&self) -> Vec<Share> {
        let all = self.values.len() as f64;
        let mut strongest = self.values.clone();
        strongest.sort_by(|a, b| b.total_cmp(a));
        let squares = self.squares();
        let share = |part: f64| Share {
            part,
            area: reached(strongest.iter().map(|value| (1, *value)), part) as f64 / all,
            square: squares.as_ref().map(|rings| reached(rings.iter().copied(), part) as f64 / all),
        };
        PARTS.map(share).to_vec()
    }

    /// Cells and what they hold, ring by ring around the token.
    fn squares(&self) -> Option<Vec<(usize, f64)>> {
        let ([row, column], [_, width]) = (self.centre?, &self.sizes[..]) else { return None };
        let width = usize::try_from(*width).ok()?.max(1);
        let distance = |cell: usize| {
            let [y, x] = [cell / width, cell % width].map(|index| index as f64 + 0.5);
            // In half cells, so that a ring is a whole number wherever the middle lies.
            (2.0 * (y - row).abs().max((x - column).abs())).round() as usize
        };
        let far = (0..self.values.len()).map(distance).max()?;
        let mut rings = vec![(0, 0.0); far + 1];
        for (cell, value) in self.values.iter().enumerate() {
            let ring = &mut rings[distance(cell)];
            *ring = (ring.0 + 1, ring.1 + value);
        }
        Some(rings)
    }
}

/// How many cells it takes until they hold `part`; parts are told to within rounding.
fn reached(cells: impl Iterator<Item = (usize, f64)>, part: f64) -> usize {
    let (mut count, mut sum) = (0, 0.0);
    for (more, value) in cells {
        (count, sum) = (count + more, sum + value);
        if sum >= part - 1e-9 {
            break;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_counted_by_cells_and_by_squares() {
        // Half of it in one corner, the rest spread evenly over 10 x 10.
        let mut values = vec![0.5 / 99.0; 100];
        values[0] = 0.5;
        let field =
            Field::new(vec![10, 10], values.iter().map(|value| 8.0 * value).collect(), Some([5.0, 5.0]));
        assert!((field.values.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let areas: Vec<f64> = field.shares.iter().map(|share| share.area).collect();
        assert_eq!(areas, [0.01, 0.01, 0.01, 0.99]);
        // 20% is 39.6 of the even cells: 6 x 6 holds 36, 8 x 8 holds 64; half of it takes the corner: everything.
        let squares: Vec<f64> = field.shares.iter().map(|share| share.square.unwrap()).collect();
        assert_eq!(squares, [0.64, 0.64, 1.0, 1.0]);
    }

    #[test]
    fn an_even_field_takes_what_it_holds_and_none_takes_nothing() {
        let field = Field::new(vec![200], vec![3.0; 200], None);
        assert_eq!(field.shares.iter().map(|share| share.area).collect::<Vec<_>>(), PARTS);
        assert!(field.shares.iter().all(|share| share.square.is_none()));
        let none = Field::new(vec![2, 2], vec![0.0; 4], Some([1.0, 1.0]));
        assert!(none.shares.is_empty() && none.values == [0.0; 4]);
        let mean = Field::mean(&[field.clone(), field]).unwrap();
        assert!((mean.values[7] - 0.005).abs() < 1e-15);
        assert_eq!(Field::mean(&[]), None);
    }
}
