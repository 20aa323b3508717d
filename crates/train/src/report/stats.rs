//! Means, deviations and the paired bootstrap.

use ophidian_core::rng::{Rng, stream};
use rand::RngExt;

/// Resamplings, unless there are so many numbers that fewer must do.
const RESAMPLINGS: usize = 10_000;
const LEAST: usize = 2_000;
/// Numbers that all resamplings together may look at.
const LOOKS: usize = 60_000_000;
/// Key of the bootstrap's random stream: reports of the same runs are the same.
const KEY: u64 = 0xB007;

/// An interval, its ends included.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Whether `value` lies within.
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// A number that was found several times.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Spread {
    /// Lowest.
    pub low: f64,
    /// Mean.
    pub mean: f64,
    /// Highest.
    pub high: f64,
}

impl Spread {
    /// Of `values`; none of nothing.
    pub fn of(values: &[f64]) -> Option<Self> {
        let fold = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick);
        Some(Spread { low: fold(f64::min)?, mean: mean(values)?, high: fold(f64::max)? })
    }
}

/// The mean; none of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The standard deviation of a sample, with n - 1; none of fewer than two.
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    let center = mean(values).filter(|_| values.len() > 1)?;
    let squares: f64 = values.iter().map(|value| (value - center).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// The quantile `share` of sorted values, linear between them (type 7 of Hyndman and Fan).
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted.get(place.floor() as usize)?, sorted.get(place.ceil() as usize)?);
    Some(below + (above - below) * place.fract())
}

/// The middle 95% of the mean of `differences` (seeds, examples) under the bootstrap: seeds are drawn with replacement,
/// and so are examples, the same ones for every seed that was drawn (Owen, "The pigeonhole bootstrap", 2007). Where there
/// is one seed, or one number for each, only the other is drawn.
///
/// None if nothing can be drawn: one seed with one number, or rows of different lengths.
pub fn bootstrap(differences: &[Vec<f32>]) -> Option<Interval> {
    bootstrap_folds(&[differences], false)
}

/// The same of cross-validation, where each fold has seeds and examples of its own: these are drawn within each fold, as
/// [`bootstrap`] draws them, and first the folds themselves if `draw_folds`. A fold weighs as many seeds as it has.
///
/// None if nothing can be drawn in some fold and folds are not drawn, or rows of a fold are of different lengths.
pub fn bootstrap_folds(folds: &[&[Vec<f32>]], draw_folds: bool) -> Option<Interval> {
    let examples = |fold: &[Vec<f32>]| fold.first().map_or(0, Vec::len);
    let uneven = |fold: &&[Vec<f32>]| fold.iter().any(|row| row.is_empty() || row.len() != examples(fold));
    let fixed = |fold: &&[Vec<f32>]| fold.len().max(examples(fold)) < 2;
    let draw_folds = draw_folds && folds.len() > 1;
    let empty = folds.iter().any(|fold| fold.is_empty());
    if folds.is_empty() || empty || folds.iter().any(uneven) || !draw_folds && folds.iter().any(fixed) {
        return None;
    }
    let mut random = stream(&[KEY]);
    let numbers: usize = folds.iter().map(|fold| fold.len() * examples(fold)).sum();
    let count = (LOOKS / numbers).clamp(LEAST, RESAMPLINGS);
    let mut sums = Vec::new();
    let mut means: Vec<f64> = (0..count)
        .map(|_| {
            let (mut total, mut weight) = (0.0, 0.0);
            for at in 0..folds.len() {
                let fold = folds[if draw_folds { random.random_range(0..folds.len()) } else { at }];
                total += resampled(fold, &mut sums, &mut random);
                weight += fold.len() as f64;
            }
            total / weight
        })
        .collect();
    means.sort_by(f64::total_cmp);
    Some(Interval { low: quantile(&means, 0.025)?, high: quantile(&means, 0.975)? })
}

/// The sum over seeds of their means, seeds and examples of `rows` drawn anew; `sums` is room to work in.
fn resampled(rows: &[Vec<f32>], sums: &mut Vec<f32>, random: &mut Rng) -> f64 {
    let (seeds, examples) = (rows.len(), rows[0].len());
    // Summed over the seeds that were drawn, once for all examples.
    sums.clear();
    sums.resize(examples, 0.0);
    for _ in 0..seeds {
        let row = &rows[random.random_range(0..seeds)];
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    let total: f64 = if examples > 1 {
        (0..examples).map(|_| f64::from(sums[random.random_range(0..examples)])).sum()
    } else {
        sums.iter().map(|sum| f64::from(*sum)).sum()
    };
    total / examples as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_deviations_and_quantiles() {
        let values = [1.0, 2.0, 4.0, 9.0];
        assert_eq!(mean(&values), Some(4.0));
        assert!((standard_deviation(&values).unwrap() - (38.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!((mean(&[]), standard_deviation(&[1.0])), (None, None));
        assert_eq!(quantile(&values, 0.0), Some(1.0));
        assert_eq!(quantile(&values, 0.5), Some(3.0));
        assert!((quantile(&values, 0.9).unwrap() - 7.5).abs() < 1e-12);
        assert_eq!(quantile(&[], 0.5), None);
    }

    /// Every resampling there is, each as likely as any other.
    fn exhaustive(rows: &[Vec<f32>]) -> Vec<f64> {
        let draws = |n: usize| -> Vec<Vec<usize>> {
            if n == 1 {
                return vec![vec![0]];
            }
            let all = (0..n.pow(n as u32)).map(|code| (0..n).map(|at| code / n.pow(at as u32) % n).collect());
            all.collect()
        };
        let (seeds, examples) = (rows.len(), rows[0].len());
        let mut means = Vec::new();
        for by_seed in draws(seeds) {
            for by_example in draws(examples) {
                let cells =
                    by_seed.iter().flat_map(|seed| by_example.iter().map(|at| f64::from(rows[*seed][*at])));
                means.push(cells.sum::<f64>() / (seeds * examples) as f64);
            }
        }
        means.sort_by(f64::total_cmp);
        means
    }

    #[test]
    fn the_bootstrap_finds_the_quantiles_of_all_resamplings() {
        let cases: [Vec<Vec<f32>>; 4] = [
            // Three seeds, no examples.
            vec![vec![0.01], vec![0.05], vec![-0.02]],
            // One seed, six examples.
            vec![vec![1.0, 0.0, -1.0, 1.0, 0.5, 0.25]],
            vec![vec![0.3, -0.7, 0.21, 0.4], vec![0.9, 0.1, -0.33, 0.77]],
            vec![vec![0.5, 1.1, 0.9], vec![0.2, -0.3, 0.35], vec![0.8, 0.1, -0.65]],
        ];
        for rows in cases {
            let all = exhaustive(&rows);
            let found = bootstrap(&rows).unwrap();
            // As likely as asked, give or take what drawing 10,000 times leaves open.
            let share = |end: f64, slack: f64| {
                let end = end + slack;
                all.partition_point(|value| *value <= end) as f64 / all.len() as f64
            };
            let spread = 1e-6 * (all[all.len() - 1] - all[0]);
            for (end, wanted) in [(found.low, 0.025), (found.high, 0.975)] {
                assert!(share(end, -spread) <= wanted + 0.006, "{rows:?}: {found:?}");
                assert!(share(end, spread) >= wanted - 0.006, "{rows:?}: {found:?}");
            }
        }
    }

    #[test]
    fn the_bootstrap_of_many_examples_is_that_of_the_normal_distribution() {
        let mut random = stream(&[1]);
        let row: Vec<f32> = (0..5000).map(|_| random.random::<f32>() - 0.4).collect();
        let values: Vec<f64> = row.iter().map(|value| f64::from(*value)).collect();
        let error = standard_deviation(&values).unwrap() / (values.len() as f64).sqrt();
        let center = mean(&values).unwrap();
        let found = bootstrap(&[row]).unwrap();
        assert!((found.low - (center - 1.96 * error)).abs() < 0.1 * error, "{found:?}");
        assert!((found.high - (center + 1.96 * error)).abs() < 0.1 * error, "{found:?}");
    }

    #[test]
    fn folds_are_resampled_each_within_itself() {
        // Two folds of one seed and two or three examples: every resampling there is.
        let folds: [&[Vec<f32>]; 2] = [&[vec![1.0, 0.0]], &[vec![0.9, 0.3, -0.5]]];
        let mut all = Vec::new();
        for first in exhaustive(folds[0]) {
            all.extend(exhaustive(folds[1]).iter().map(|second| 0.5 * (first + second)));
        }
        all.sort_by(f64::total_cmp);
        let found = bootstrap_folds(&folds, false).unwrap();
        let share = |end: f64| all.partition_point(|value| *value <= end + 1e-6) as f64 / all.len() as f64;
        assert!(share(found.low) >= 0.019 && share(found.high) >= 0.969, "{found:?}");
        assert!(found.low >= all[0] - 1e-6 && found.high <= all[all.len() - 1] + 1e-6, "{found:?}");
        // Folds that all say something else widen it, if they are drawn.
        let rows: Vec<Vec<Vec<f32>>> = (0..6).map(|fold| vec![vec![fold as f32 * 0.1; 50]]).collect();
        let rows: Vec<&[Vec<f32>]> = rows.iter().map(Vec::as_slice).collect();
        let (fixed, drawn) = (bootstrap_folds(&rows, false).unwrap(), bootstrap_folds(&rows, true).unwrap());
        assert!(fixed.high - fixed.low < 1e-5 && drawn.high - drawn.low > 0.15, "{fixed:?} {drawn:?}");
        // One number for each fold: only folds are drawn.
        let one = vec![vec![0.5f32]];
        assert_eq!(bootstrap_folds(&[&one, &one], false), None);
        assert!(bootstrap_folds(&[&one, &one], true).is_some());
        assert_eq!(bootstrap_folds(&[&one, &[]], true), None);
        assert_eq!(bootstrap_folds(&[], true), None);
    }

    #[test]
    fn nothing_to_draw_is_no_interval() {
        assert_eq!(bootstrap(&[]), None);
        assert_eq!(bootstrap(&[vec![]]), None);
        assert_eq!(bootstrap(&[vec![0.3]]), None);
        assert_eq!(bootstrap(&[vec![0.3, 0.1], vec![0.2]]), None);
        let same = bootstrap(&[vec![0.25], vec![0.25]]).unwrap();
        assert_eq!((same.low, same.high), (0.25, 0.25));
        assert!(same.contains(0.25) && !same.contains(0.0));
    }
}
