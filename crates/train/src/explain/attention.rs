//! Where the scans of each layer attend.

use ophidian_core::tape::{self, Places, Tape};

use crate::{Error, Result};

/// The implicit attention of a layer's scans.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// What its tokens lie on: (rows, columns), for a clip (frames, rows, columns), or the number of places.
    pub sizes: Vec<i64>,
    /// One for each direction, then, if there are several, their sum. None where the layer has no selective scan.
    pub maps: Vec<Map>,
    /// What is not shown, or why nothing is.
    pub notes: Vec<&'static str>,
}

/// Where a token attends.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    /// `direction 1` …, `sum`.
    pub name: String,
    /// What it lies on.
    pub sizes: Vec<i64>,
    /// Where the token itself lies; none for the class token.
    pub place: Option<usize>,
    /// The mean over the channels of |C_t (prod A) delta_s B_s|, by place s.
    pub values: Vec<f64>,
}

/// The layers of `tape`, seen from the token at `place` at their end (none: the class token); in layers of another
/// resolution, from the one that lies there.
pub(super) fn layers(tape: &Tape, place: Option<usize>, end: &Places) -> Result<Vec<Layer>> {
    tape.layers.iter().map(|layer| of(layer, place, end)).collect()
}

fn of(layer: &tape::Layer, place: Option<usize>, end: &Places) -> Result<Layer> {
    let (mut maps, mut notes) = (Vec::new(), layer.notes.clone());
    if layer.scans.is_empty() && notes.is_empty() {
        notes.push("no selective scan");
    }
    for scan in &layer.scans {
        let own = place.map(|place| scan.places.nearest(end, place));
        // Of the layer's tokens: what the scan has more of are blank steps.
        let tokens = if own.is_some() { scan.places.tokens(own) } else { layer.places.tokens(None) };
        if tokens.is_empty() {
            notes.push("the chosen token is not among those that this layer scans");
            break;
        }
        let (coarse, count) = (scan.places.sizes != layer.places.sizes, scan.places.count());
        let found = Vec::<f64>::try_from(scan.map(&tokens)?.f_contiguous()?.f_view([-1])?)?;
        if found.iter().any(|value| !value.is_finite()) {
            return Err(Error::NonFinite(
                "the attention of a scan is not finite; the weights or the input may be damaged".to_owned(),
            ));
        }
        for values in found.chunks_exact(count.max(1)) {
            let name = format!("direction {}{}", maps.len() + 1, if coarse { ", coarse map" } else { "" });
            maps.push(Map { name, sizes: scan.places.sizes.clone(), place: own, values: values.to_vec() });
        }
    }
    let alike: Vec<&Map> = maps.iter().filter(|map| map.sizes == layer.places.sizes).collect();
    if let [first, _, ..] = alike[..] {
        let mut sum = Map { name: "sum".to_owned(), values: vec![0.0; first.values.len()], ..first.clone() };
        for map in alike {
            sum.values.iter_mut().zip(&map.values).for_each(|(sum, value)| *sum += value);
        }
        maps.push(sum);
    }
    Ok(Layer { sizes: layer.places.sizes.clone(), maps, notes })
}
