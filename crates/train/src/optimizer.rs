//! AdamW over a model's variables, gradient norms and the moving average of the weights.

use ophidian_core::{
    adapter::Model,
    tensors::Tensors,
    torch::{AdamW, AdamWGroup, fused_adamw},
};
use tch::{Kind, Tensor, nn};

use crate::Result;

/// Name and tensor of every variable, in an order that does not change from run to run.
pub fn variables(vs: &nn::VarStore) -> Vec<(String, Tensor)> {
    let mut all: Vec<(String, Tensor)> = vs.variables().into_iter().collect();
    all.sort_by_cached_key(|(name, _)| natural(name));
    all
}

/// Sorts `layers.2` before `layers.10`.
fn natural(name: &str) -> Vec<(u64, String)> {
    name.split('.').map(|part| (part.parse().unwrap_or(u64::MAX), part.to_owned())).collect()
}

/// AdamW with two groups, with and without weight decay.
pub struct Optimizer {
    groups: Vec<Group>,
    options: AdamW,
    /// Updates made so far, f32 as the fused kernel wants it.
    updates: u64,
}

#[derive(Default)]
struct Group {
    decay: bool,
    names: Vec<String>,
    parameters: Vec<Tensor>,
    exp_avg: Vec<Tensor>,
    exp_avg_sq: Vec<Tensor>,
}

impl Optimizer {
    /// An optimiser without history over the trainable variables of `vs`; the learning rate comes with each step.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(vs: &nn::VarStore, model: &dyn Model, options: AdamW) -> Result<Self> {
        let mut groups = vec![Group { decay: true, ..Group::default() }, Group::default()];
        for (name, parameter) in variables(vs).into_iter().filter(|(_, variable)| variable.requires_grad()) {
            let group = &mut groups[usize::from(model.no_weight_decay(&name))];
            // Every gradient exists from the start, so that the first step after a resume adds up as any other.
            parameter.f_sum(parameter.kind())?.f_backward()?;
            group.exp_avg.push(parameter.detach().f_zeros_like()?);
            group.exp_avg_sq.push(parameter.detach().f_zeros_like()?);
            group.names.push(name);
            group.parameters.push(parameter);
        }
        let mut optimizer = Optimizer { groups, options, updates: 0 };
        optimizer.zero_grad();
        Ok(optimizer)
    }

    /// Forgets the gradients.
    pub fn zero_grad(&mut self) {
        self.groups.iter_mut().flat_map(|group| &mut group.parameters).for_each(Tensor::zero_grad);
    }

    /// Euclidean norm over the gradients of all parameters together.
    ///
    /// # Errors
    /// libtorch's.
    pub fn gradient_norm(&self) -> Result<f64> {
        let norms = self
            .gradients()
            .map(|(_, gradient)| Ok(gradient.f_norm()?.f_to_kind(Kind::Float)?))
            .collect::<Result<Vec<Tensor>>>()?;
        if norms.is_empty() {
            return Ok(0.0);
        }
        Ok(Tensor::f_stack(&norms, 0)?.f_norm()?.f_double_value(&[])?)
    }

    /// Multiplies every gradient by `factor`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn scale_gradients(&self, factor: f64) -> Result<()> {
        for (_, mut gradient) in self.gradients() {
            let _ = gradient.f_mul_scalar_(factor)?;
        }
        Ok(())
    }

    /// The first parameter whose gradient is not finite, and how many there are.
    ///
    /// # Errors
    /// libtorch's.
    pub fn non_finite_gradients(&self) -> Result<(Option<String>, usize)> {
        let (mut first, mut count) = (None::<&str>, 0);
        for (name, gradient) in self.gradients() {
            if gradient.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
                count += 1;
                first = match first {
                    Some(known) if natural(known) <= natural(name) => first,
                    _ => Some(name),
                };
            }
        }
        Ok((first.map(str::to_owned), count))
    }

    /// One step down the gradients. A parameter that the loss does not reach counts as having zeros.
    ///
    /// # Errors
    /// libtorch's.
    pub fn step(&mut self, learning_rate: f64) -> Result<()> {
        for group in &self.groups {
            let Some(first) = group.parameters.first() else { continue };
            let gradients: Vec<Tensor> = group.parameters.iter().map(Tensor::grad).collect();
            let steps = Tensor::f_full(
                [group.parameters.len() as i64],
                self.updates as f64,
                (Kind::Float, first.device()),
            )?;
            let steps: Vec<Tensor> = steps.unbind(0);
            let weight_decay = if group.decay { self.options.weight_decay } else { 0.0 };
            fused_adamw(
                &AdamWGroup {
                    parameters: &group.parameters,
                    gradients: &gradients,
                    exp_avg: &group.exp_avg,
                    exp_avg_sq: &group.exp_avg_sq,
                    steps: &steps,
                },
                &AdamW { learning_rate, weight_decay, ..self.options },
            )?;
        }
        self.updates += 1;
        Ok(())
    }

    /// The moments, by the names a checkpoint gives them.
    pub fn state(&self) -> Tensors {
        let mut state = Tensors::new();
        for group in &self.groups {
            for (i, name) in group.names.iter().enumerate() {
                state.insert(format!("optimizer.exp_avg.{name}"), group.exp_avg[i].shallow_clone());
                state.insert(format!("optimizer.exp_avg_sq.{name}"), group.exp_avg_sq[i].shallow_clone());
            }
        }
        state
    }

    /// Sets how many updates the moments stand for, after the tensors of [`Optimizer::state`] were filled.
    pub fn set_updates(&mut self, updates: u64) {
        self.updates = updates;
    }

    fn gradients(&self) -> impl Iterator<Item = (&str, Tensor)> {
        self.groups.iter().flat_map(|group| {
            let parameters = group.names.iter().zip(&group.parameters);
            parameters.map(|(name, parameter)| (name.as_str(), parameter.grad()))
        })
    }
}

/// The exponential moving average of the weights.
pub struct Average {
    variables: Vec<(String, Tensor)>,
    shadows: Vec<Tensor>,
    decay: f64,
}

impl Average {
    /// An average that starts at the variables of `vs`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(vs: &nn::VarStore, decay: f64) -> Result<Self> {
        let variables = variables(vs);
        let shadows = variables.iter().map(|(_, variable)| variable.detach().copy()).collect();
        Ok(Average { variables, shadows, decay })
    }

    /// Moves the average towards the weights after update `update` (counted from 1). Early on the decay is
    /// (1 + update) / (10 + update), so that the first weights are soon forgotten.
    ///
    /// # Errors
    /// libtorch's.
    pub fn update(&mut self, update: u64) -> Result<()> {
        let decay = self.decay.min((1 + update) as f64 / (10 + update) as f64);
        for ((_, variable), shadow) in self.variables.iter().zip(&mut self.shadows) {
            if variable.requires_grad() {
                let _ = shadow.f_lerp_(&variable.detach(), 1.0 - decay)?;
            } else {
                shadow.f_copy_(variable)?;
            }
        }
        Ok(())
    }

    /// Runs `f` with the average in the place of the weights.
    ///
    /// # Errors
    /// libtorch's, or what `f` returns.
    pub fn with<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        let weights: Vec<Tensor> =
            self.variables.iter().map(|(_, variable)| variable.detach().copy()).collect();
        copy_into(&self.variables, &self.shadows)?;
        let result = f();
        copy_into(&self.variables, &weights)?;
        result
    }

    /// The average, by the names a checkpoint gives it.
    pub fn state(&self) -> Tensors {
        let named = self.variables.iter().zip(&self.shadows);
        named.map(|((name, _), shadow)| (format!("ema.{name}"), shadow.shallow_clone())).collect()
    }
}

fn copy_into(variables: &[(String, Tensor)], values: &[Tensor]) -> Result<()> {
    for ((_, variable), value) in variables.iter().zip(values) {
        variable.detach().f_copy_(value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Line;

    impl Model for Line {
        fn forward(&self, input: &Tensor, _: bool) -> ophidian_core::Result<Tensor> {
            Ok(input.shallow_clone())
        }
        fn no_weight_decay(&self, name: &str) -> bool {
            name.ends_with("bias")
        }
    }

    const OPTIONS: AdamW = AdamW { learning_rate: 0.0, betas: (0.9, 0.99), weight_decay: 0.1, eps: 1e-8 };

    #[test]
    fn adamw_follows_the_paper_and_spares_the_exempt() {
        let vs = nn::VarStore::new(tch::Device::Cpu);
        let (weight, bias) = (vs.root().ones("weight", &[3]), vs.root().ones("bias", &[3]));
        let mut optimizer = Optimizer::new(&vs, &Line, OPTIONS).unwrap();
        // Arithmetic by hand, in f64.
        let (mut w, mut b, mut m, mut v) = (1.0f64, 1.0f64, 0.0f64, 0.0f64);
        for step in 1..=5 {
            optimizer.zero_grad();
            ((&weight + &bias).sum(Kind::Float) * f64::from(step)).backward();
            optimizer.step(0.01).unwrap();
            let g = f64::from(step);
            m = 0.9 * m + 0.1 * g;
            v = 0.99 * v + 0.01 * g * g;
            let update = m / (1.0 - 0.9f64.powi(step)) / ((v / (1.0 - 0.99f64.powi(step))).sqrt() + 1e-8);
            w = w * (1.0 - 0.01 * 0.1) - 0.01 * update;
            b -= 0.01 * update;
        }
        assert!((weight.double_value(&[1]) - w).abs() < 1e-6);
        assert!((bias.double_value(&[1]) - b).abs() < 1e-6);
    }

    #[test]
    fn norm_and_scaling_go_over_all_parameters() {
        let vs = nn::VarStore::new(tch::Device::Cpu);
        let (weight, bias) = (vs.root().ones("weight", &[2]), vs.root().ones("bias", &[1]));
        let optimizer = Optimizer::new(&vs, &Line, OPTIONS).unwrap();
        assert_eq!(optimizer.gradient_norm().unwrap(), 0.0);
        (weight.sum(Kind::Float) * 2.0 + bias.sum(Kind::Float)).backward();
        assert_eq!(optimizer.gradient_norm().unwrap(), 3.0);
        optimizer.scale_gradients(0.5).unwrap();
        assert_eq!(optimizer.gradient_norm().unwrap(), 1.5);
        assert_eq!(optimizer.non_finite_gradients().unwrap(), (None, 0));
        optimizer.scale_gradients(f64::NAN).unwrap();
        assert_eq!(optimizer.non_finite_gradients().unwrap(), (Some("bias".to_owned()), 2));
    }

    #[test]
    fn the_average_lags_and_steps_aside() {
        let vs = nn::VarStore::new(tch::Device::Cpu);
        let weight = vs.root().zeros("weight", &[1]);
        let mut average = Average::new(&vs, 0.5).unwrap();
        weight.detach().copy_(&Tensor::from_slice(&[1.0f32]));
        average.update(1).unwrap();
        // The warm-up decay (1 + 1) / (10 + 1) is below 0.5.
        let expected = 1.0 - 2.0 / 11.0;
        assert!((average.state()["ema.weight"].double_value(&[0]) - expected).abs() < 1e-6);
        average
            .with(|| {
                assert!((weight.double_value(&[0]) - expected).abs() < 1e-6);
                Ok(())
            })
            .unwrap();
        assert_eq!(weight.double_value(&[0]), 1.0);
    }

    #[test]
    fn layers_sort_as_numbers() {
        let mut names = ["layers.10.a", "layers.2.b", "head", "layers.2.a"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["head", "layers.2.a", "layers.2.b", "layers.10.a"]);
    }
}
