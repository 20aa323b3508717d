//! Scans that are drawn anew for every sample: patterns with `seed=sample`.

use ophidian_scan::{Geometry, Plan};
use rand::Rng as _;

use super::{
    ModelConfig,
    classifier::placed,
    config::{plan, reseeded},
    input::geometry,
};
use crate::{Result, adapter::Planner, data::Sample, ops::Orders, rng::Rng};

/// The patterns of a model that are drawn, stage by stage.
pub(super) struct Drawn {
    class_tokens: Vec<i64>,
    scans: Vec<Scan>,
    /// Which of the scans a block takes, if any.
    places: Vec<Option<usize>>,
}

/// A pattern over the tokens of a stage.
struct Scan {
    text: String,
    geometry: Geometry,
    times: Option<i64>,
    grid: [i64; 2],
}

impl Drawn {
    /// Of `config`, for patches on `grid` at each of `times`; none if nothing is drawn.
    pub fn new(
        config: &ModelConfig,
        times: Option<i64>,
        grid: [i64; 2],
        class_tokens: &[i64],
    ) -> Option<Drawn> {
        let texts = config.scan.texts();
        let mut drawn = Drawn { class_tokens: class_tokens.to_vec(), scans: Vec::new(), places: Vec::new() };
        let mut at = grid;
        for (stage, depth) in config.depths().iter().enumerate() {
            if stage > 0 {
                at = config.downsample.grid(at);
            }
            let scan = |text: &String| {
                reseeded(text, 0)?;
                let (times, grid) = config.scanned(stage, times, at);
                let scan = Scan { text: text.clone(), geometry: geometry(times, grid), times, grid };
                drawn.scans.push(scan);
                Some(drawn.scans.len() - 1)
            };
            let of_texts: Vec<Option<usize>> = texts.iter().map(scan).collect();
            let first = drawn.places.len();
            drawn.places.extend((first..first + *depth as usize).map(|i| of_texts[i % of_texts.len()]));
        }
        // Those that the mean passes are never drawn: there is one token.
        drawn.places.extend((0..config.class_blocks).map(|_| None));
        (!drawn.scans.is_empty()).then_some(drawn)
    }

    /// How many plans a sample has.
    pub fn len(&self) -> usize {
        self.scans.len()
    }

    /// `own`, one for each block, with the samples' orders in their places.
    pub fn replace(&self, own: &[Orders], samples: &[Orders]) -> Vec<Orders> {
        let of = |(place, own): (&Option<usize>, &Orders)| {
            let drawn = place.and_then(|at| Some((samples.get(at)?, self.scans.get(at)?)));
            match drawn {
                Some((orders, scan)) => {
                    let orders = placed(orders.clone(), scan.times, scan.grid, &self.class_tokens);
                    // A second map is walked as it was laid out.
                    own.coarse().into_iter().fold(orders, |orders, map| orders.with_coarse(map.clone()))
                }
                None => own.clone(),
            }
        };
        self.places.iter().zip(own).map(of).collect()
    }
}

impl Planner for Drawn {
    fn plans(&self, _: &Sample, random: &mut Rng) -> Result<Vec<Plan>> {
        let draw = |scan: &Scan| plan(&scan.text, random.next_u64(), &scan.geometry, &self.class_tokens);
        self.scans.iter().map(draw).collect()
    }
}
