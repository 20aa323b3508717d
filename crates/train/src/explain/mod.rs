//! What a model looks at: how far into the input a token's features reach, and where each scan's directions attend.
//!
//! ```text
//! Subject (model, adapter) + Example ──explain──► Explanation ──write──► explain.html, pictures, raw maps
//! ```
//!
//! The model tells the [`tape`] what it does; nothing here knows a model or a modality.

mod attention;
mod field;
mod page;
mod picture;
mod token;
mod write;

use ophidian_core::{
    adapter::{Adapter, Model},
    data::Dataset,
    ops::Orders,
    rng,
    tape::{self, Places, Tape},
};
use tch::{Kind, Tensor};

pub use attention::{Layer, Map};
pub use field::{Field, PARTS, Share};
pub use token::Token;
pub use write::{Files, write};

use crate::{Error, Result, keys, measure::likeliest};

/// A model and what it is of.
pub struct Subject<'a> {
    /// The model.
    pub model: &'a dyn Model,
    /// Its modality, which lays maps out and draws inputs.
    pub adapter: &'a dyn Adapter,
    /// The resolved `[data]`.
    pub data: &'a toml::Table,
    /// Shape of one input.
    pub shape: &'a [i64],
    /// Class names; empty if they are not known.
    pub classes: &'a [String],
}

/// An input.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Where it comes from.
    pub name: String,
    /// Its number in the data set, which the scans that are drawn for a sample are drawn by.
    pub index: usize,
    /// Its values, in the order of the input's shape.
    pub input: Vec<f32>,
    /// Its class, if that is known.
    pub label: Option<usize>,
}

impl Example {
    /// Number `index` of `dataset`.
    ///
    /// # Errors
    /// There are fewer, or the example cannot be read.
    pub fn of(dataset: &dyn Dataset, index: usize) -> Result<Example> {
        if index >= dataset.len() {
            return Err(Error::config(match dataset.len() {
                0 => "there is no sample: the eval split is empty".to_owned(),
                count => {
                    format!(
                        "there is no sample {index}: the eval split has {count}, numbered from 0 to {}",
                        count - 1
                    )
                }
            }));
        }
        let sample = dataset.sample(index, None)?;
        let label = usize::try_from(sample.label).ok();
        Ok(Example { name: dataset.name_of(index), index, input: sample.input, label })
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Which token.
    pub token: Token,
    /// Random projections of its features that a receptive field is the mean over.
    pub projections: usize,
    /// How many samples of the eval split the mean receptive field is over; 0 for none.
    pub samples: usize,
}

/// What came out.
pub struct Explanation {
    /// What was looked at.
    pub example: Example,
    /// The likeliest class and its probability, if the model gives logits of classes.
    pub prediction: Option<(usize, f64)>,
    /// Of the layers' end: sizes of what the tokens lie on, and the chosen place, none for the class token.
    pub sizes: Vec<i64>,
    /// See `sizes`.
    pub place: Option<usize>,
    /// The receptive field of the example.
    pub field: Field,
    /// The mean one of so many samples.
    pub mean: Option<(usize, Field)>,
    /// Where the layers' scans attend.
    pub layers: Vec<Layer>,
}

/// Looks at `example`, and for the mean receptive field at samples of `others`, evenly spread; `progress` hears of each
/// input that is done.
///
/// # Errors
/// An input of another shape, a token that is not there, samples whose places have nothing in common, a model that tells the tape nothing, values that are not finite,
/// a sample that cannot be read.
pub fn explain(
    subject: &Subject,
    example: Example,
    others: Option<&dyn Dataset>,
    options: &Options,
    mut progress: impl FnMut(u64),
) -> Result<Explanation> {
    let looked = subject.look(&example, options)?;
    progress(1);
    if options.samples > 0 && looked.places.sizes.len() == 1 {
        return Err(Error::config(
            "a receptive field over samples needs places that are the same in each: these inputs have no grid",
        ));
    }
    let layers = attention::layers(&looked.tape, looked.place, &looked.places)?;
    let mean = match others {
        Some(dataset) if options.samples > 0 => {
            let count = options.samples.min(dataset.len());
            let mut fields = Vec::with_capacity(count);
            for number in 0..count {
                let example = Example::of(dataset, number * dataset.len() / count)?;
                fields.push(subject.look(&example, options)?.field);
                progress(1);
            }
            Field::mean(&fields).map(|field| (count, field))
        }
        _ => None,
    };
    Ok(Explanation {
        prediction: looked.prediction,
        sizes: looked.places.sizes,
        place: looked.place,
        field: looked.field,
        mean,
        layers,
        example,
    })
}

/// A forward pass and the gradients of a token.
struct Looked {
    tape: Tape,
    field: Field,
    places: Places,
    place: Option<usize>,
    prediction: Option<(usize, f64)>,
}

impl Subject<'_> {
    fn look(&self, example: &Example, options: &Options) -> Result<Looked> {
        let expected: i64 = self.shape.iter().product();
        if example.input.len() as i64 != expected {
            return Err(ophidian_core::Error::invalid(format!(
                "{} has {} values, but the model reads {:?}",
                example.name,
                example.input.len(),
                self.shape
            ))
            .into());
        }
        let shape = [&[1], self.shape].concat();
        let input = Tensor::from_slice(&example.input).f_view(&shape[..])?.set_requires_grad(true);
        let orders = self.orders(example)?;
        let (logits, mut tape) = tape::record(|| self.model.forward_along(&input, &orders, false));
        let prediction = prediction(&logits?)?;
        let Some((tokens, places)) = tape.tokens.take() else {
            return Err(ophidian_core::Error::invalid(
                "the model does not say what its tokens are; expected one that runs its blocks in a `Backbone`",
            )
            .into());
        };
        let place = options.token.find(&places)?;
        let tokens = tokens.f_index_select(1, &Tensor::from_slice(&places.tokens(place)))?;
        let field = field::of(&tokens, &input, &places, place, options.projections)?;
        Ok(Looked { tape, field, places, place, prediction })
    }

    /// The orders that evaluation would walk along.
    fn orders(&self, example: &Example) -> Result<Vec<Orders>> {
        let Some(planner) = self.model.planner() else { return Ok(Vec::new()) };
        let sample = ophidian_core::data::Sample { input: example.input.clone(), label: 0 };
        let plans = planner.plans(&sample, &mut rng::stream(&[0, keys::PLAN, 0, example.index as u64]))?;
        Ok(plans.into_iter().map(|plan| Orders::per_sample(&[plan])).collect::<ophidian_core::Result<_>>()?)
    }
}

fn prediction(logits: &Tensor) -> Result<Option<(usize, f64)>> {
    let [1, (1..)] = logits.size()[..] else { return Ok(None) };
    let probabilities = Vec::<f32>::try_from(logits.f_softmax(-1, Kind::Float)?.f_detach()?.f_view([-1])?)?;
    if probabilities.iter().any(|value| value.is_nan()) {
        return Err(Error::NonFinite(
            "the model's output is not finite; its weights or its input may be damaged".to_owned(),
        ));
    }
    let class = likeliest(&probabilities);
    Ok(probabilities.get(class).map(|value| (class, f64::from(*value))))
}
