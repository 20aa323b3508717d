//! What a search for scans found (LocalMamba, arXiv 2403.09338, section 3.3): `merge = "search"` trains every block with
//! many directions and learns each one's share; the directions with the largest shares are kept.

use std::collections::HashMap;

use ophidian_scan::Pattern;
use tch::{Kind, Tensor};

use super::{Input, ModelConfig, Scans, input::geometry};
use crate::{Error, Result};

/// What was found for a block: each direction as a pattern, and its share, the largest first. The shares add up to 1.
pub type Shares = Vec<(Pattern, f64)>;

/// The shares that each block of the trained model of `table` gives its directions; `variables` are its parameters and
/// `input_shape` that of one input.
///
/// # Errors
/// [`Error::Config`] if the model's merge is not "search".
pub fn shares(
    table: &toml::Table,
    input_shape: &[i64],
    variables: &HashMap<String, Tensor>,
) -> Result<Vec<Shares>> {
    let config = ModelConfig::read(table.clone())?;
    let input = Input::try_from(input_shape)?;
    let times = input.times(config.tubelet);
    let mut grid = config.patch_grid(input.image);
    let (texts, mut found) = (config.scan.texts(), Vec::new());
    for (stage, depth) in config.depths().iter().enumerate() {
        if stage > 0 {
            grid = config.downsample.grid(grid);
        }
        for _ in 0..*depth {
            let block = found.len();
            let pattern: Pattern = texts[block % texts.len()].parse()?;
            let directions = pattern.directions(&geometry(times, grid))?;
            let weight = variables.get(&format!("layers.{block}.mixer.search.weight")).ok_or_else(|| {
                Error::Config("the run searched for nothing: its `model.merge` is not \"search\"".into())
            })?;
            let weights = Vec::<f64>::try_from(weight.softmax(0, Kind::Double))?;
            let mut shares: Shares = directions.into_iter().zip(weights).collect();
            shares.sort_by(|a, b| b.1.total_cmp(&a.1));
            found.push(shares);
        }
    }
    Ok(found)
}

/// The scans of a model that keeps the `keep` best directions of each block.
pub fn kept(found: &[Shares], keep: usize) -> Scans {
    let block = |shares: &Shares| {
        let best: Vec<String> = shares.iter().take(keep).map(|(pattern, _)| pattern.to_string()).collect();
        if best.len() == 1 { best.concat() } else { format!("[{}]", best.join(", ")) }
    };
    Scans::Each(found.iter().map(block).collect())
}
