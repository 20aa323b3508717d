//! Gradients of whole models against finite differences: every family of published models, and every mixer that is
//! smooth, in one loop.
//!
//! No number is drawn: weights and inputs are those of the committed cases, or waves, so that the test is the same on every
//! machine. A parameter is moved a little along a direction of its own, and the loss must change as its gradient says. That
//! finds a term that is missing or a factor that is wrong; what f32 and the kinks of ReLUs leave of a difference of two losses is a few parts in a hundred.

use std::collections::BTreeMap;

use ophidian_core::{published, tensors::Tensors};
use ophidian_vision::models::{self, MixerKind};
use tch::{Device, Kind, Tensor, nn::VarStore};

use crate::{
    family, shared,
    support::{cases, table},
};

/// Steps, in sizes of a parameter: the first is right for most, the others where a kink or rounding is in the way.
const STEPS: [f64; 4] = [1e-2, 3e-3, 3e-2, 1e-3];

/// How far a slope may be off.
const TOLERANCE: f64 = 5e-2;

/// Rounding of the outputs, in parts of them.
const ROUNDING: f64 = 1e-6;

/// Numbers from -1 to 1 without a pattern.
fn noise(shape: &[i64], kind: Kind, phase: f64) -> Tensor {
    let count = shape.iter().product::<i64>();
    let at = |i: i64| {
        let x = ((i as f64 + 1.0) * 12.9898 + phase * 78.233).sin() * 43758.5453;
        2.0 * (x - x.floor()) - 1.0
    };
    Tensor::from_slice(&(0..count).map(at).collect::<Vec<f64>>()).reshape(shape).to_kind(kind)
}

/// The sum of all outputs, each times a number of its own, and the size of its terms.
fn loss(outputs: &Tensors) -> (Tensor, f64) {
    let mut sum = Tensor::zeros([], (Kind::Double, Device::Cpu));
    let mut size = 0.0;
    let outputs: BTreeMap<_, _> = outputs.iter().filter(|(name, _)| *name != "loss").collect();
    for (i, (_, output)) in outputs.into_iter().enumerate() {
        let weights =
            noise(&output.size(), Kind::Double, 0.37 * (i + 1) as f64) / (output.numel() as f64).sqrt();
        let terms = output.to_kind(Kind::Double) * weights;
        size += terms.detach().square().sum(Kind::Double).sqrt().double_value(&[]);
        sum = &sum + terms.sum(Kind::Double);
    }
    (sum, size)
}

fn norm(t: &Tensor) -> f64 {
    t.to_kind(Kind::Double).square().sum(Kind::Double).sqrt().double_value(&[])
}

/// Holds the gradient of every parameter of `variables` against the slope of the loss of `run`; returns how many slopes stood
/// clear of rounding, of how many.
fn slopes(what: &str, variables: &VarStore, run: &dyn Fn() -> Tensors) -> (usize, usize) {
    let (start, size) = loss(&run());
    start.backward();
    let value = || tch::no_grad(|| loss(&run()).0.double_value(&[]));
    let named: BTreeMap<_, _> = variables.variables().into_iter().collect();
    let trained: Vec<_> = named.iter().filter(|(_, tensor)| tensor.requires_grad()).collect();
    let mut clear = 0;
    for (i, (name, tensor)) in trained.iter().enumerate() {
        let count = tensor.numel() as f64;
        let scale = (norm(tensor) / count.sqrt()).max(0.05);
        let direction = noise(&tensor.size(), Kind::Float, i as f64) * scale;
        let grad = if tensor.grad().defined() { tensor.grad() } else { tensor.zeros_like() };
        let slope = (&grad.to_kind(Kind::Double) * direction.to_kind(Kind::Double))
            .sum(Kind::Double)
            .double_value(&[]);
        // What a direction without regard to the gradient has of it.
        let usual = slope.abs().max(norm(&grad) * norm(&direction) / count.sqrt());
        let kept = tensor.copy();
        let at = |step: f64| {
            tch::no_grad(|| (*tensor).shallow_clone().copy_(&(&kept + &direction * step)));
            value()
        };
        let mut least = f64::INFINITY;
        for step in STEPS {
            let found = (at(step) - at(-step)) / (2.0 * step);
            let room = ROUNDING * size / step;
            if step == STEPS[0] && room < 0.1 * usual {
                clear += 1;
            }
            let off = ((found - slope).abs() - room).max(0.0) / usual.max(room);
            least = least.min(off);
            if least <= TOLERANCE {
                break;
            }
        }
        tch::no_grad(|| (*tensor).shallow_clone().copy_(&kept));
        assert!(
            least <= TOLERANCE,
            "{what}: the gradient of {name} is off by {least:.1e} of its slope {slope:.3e}"
        );
    }
    (clear, trained.len())
}

fn told(what: &str, (clear, all): (usize, usize)) {
    eprintln!("{what}: {clear} of {all} slopes clear of rounding");
    assert!(2 * clear > all, "{what}: {clear} of {all} slopes stand clear of rounding");
}

#[test]
fn published_models_have_the_gradients_of_their_losses() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/goldens");
    let shared: Vec<_> = ["vmamba", "plainmamba", "videomamba", "vim"]
        .into_iter()
        .filter_map(|name| Some((name, shared(&format!("golden/models/{name}"))?)))
        .collect();
    let own = cases(&folder).map(|(case, golden)| {
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        (name.split_once('_').map_or(name.clone(), |(name, _)| name.to_owned()), case, golden)
    });
    let others = shared
        .iter()
        .flat_map(|(name, folder)| cases(folder).map(|(case, golden)| ((*name).to_owned(), case, golden)));
    let mut seen = std::collections::BTreeSet::new();
    for (name, case, golden) in own.chain(others) {
        let model = published::open(family(&name), &case, None).unwrap();
        // One sample is enough.
        let x = golden["in.x"].narrow(0, 0, 1).shallow_clone();
        let inputs: Tensors = [("x".to_owned(), x)].into();
        let found =
            slopes(&case.display().to_string(), &model.variables, &|| model.model.run(&inputs).unwrap());
        told(&case.display().to_string(), found);
        seen.insert(name);
    }
    assert!(seen.len() >= 10, "{seen:?}");
}

/// Fills parameters with noise as large as what they start with, so that states matter.
fn filled(vs: &VarStore) {
    let named: BTreeMap<_, _> = vs.variables().into_iter().collect();
    tch::no_grad(|| {
        for (i, (name, mut tensor)) in named.into_iter().enumerate() {
            let size = tensor.size();
            let fan = size.iter().skip(1).product::<i64>().max(1) as f64;
            let wave = noise(&size, Kind::Float, 100.0 + i as f64);
            let last = name.rsplit('.').next().unwrap();
            let value = match last {
                "running_var" => wave * 0.3 + 1.0,
                "A_log" | "alpha" => wave * 0.5,
                "dt_bias" => wave * 0.3,
                _ if name.ends_with("dt_proj.bias") => wave * 0.3,
                "D" | "gamma" | "skip_scale" => wave * 0.3 + 1.0,
                "weight" if size.len() == 1 => wave * 0.3 + 1.0,
                _ => wave * (2.0 / fan.sqrt()),
            };
            tensor.copy_(&value);
        }
    });
}

/// One line of a config chooses each. Those that choose an order or a class by their features have no slope: what they hand
/// back in its place is another thing's gradient (straight-through).
#[test]
fn mixers_have_the_gradients_of_their_losses() {
    for kind in MixerKind::ALL {
        if matches!(kind, MixerKind::DefMamba | MixerKind::QuadMamba | MixerKind::Semantic) {
            continue;
        }
        let clip = matches!(kind, MixerKind::Divided | MixerKind::ChangeMamba);
        let shape: &[i64] = if clip { &[2, 2, 8, 8] } else { &[2, 8, 8] };
        let text =
            format!("mixer = '{}'\nd_model = 8\ndepth = 2\npatch_size = 2\nmlp_ratio = 2.0", kind.name());
        let vs = VarStore::new(Device::Cpu);
        let resolved = models::CATALOGUE.resolve(table(&text)).unwrap();
        let model = models::build(&resolved, shape, 5, vs.root()).unwrap();
        filled(&vs);
        let x = noise(&[&[2], shape].concat(), Kind::Float, 0.5);
        let found =
            slopes(kind.name(), &vs, &|| [("logits".to_owned(), model.forward(&x, false).unwrap())].into());
        told(kind.name(), found);
    }
}
