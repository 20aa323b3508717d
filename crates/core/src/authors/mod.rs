//! Runs one op on tensors named and laid out as the authors' own functions take them, so that any other
//! implementation can be held against ours: channels before length, `in.*` and cotangents `ct.*` in, `out.*` and
//! `grad.*` out. Complex tensors carry a trailing axis of 2 (re, im).

mod ops;
mod settings;
mod shapes;
mod ssd;
mod table;

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use crate::{Error, Result, config::nearest, tensors::Tensors};
use settings::Means;
use shapes::{Input, Sizes};
use table::{Entry, OPS};

/// Options by name, as text.
pub type Options = BTreeMap<String, String>;

/// A call whose tensors and options fit the op.
struct Call<'a> {
    op: &'static str,
    inputs: &'a Tensors,
    options: &'a Options,
    sizes: Sizes,
    /// Whether the op's second set of shapes is in use.
    second: bool,
}

/// Runs op `name` on the `in.*` of `file`. Returns `out.*`, and `grad.*` of each floating input of
/// `sum_k <out.k, ct.k>` if there are cotangents.
///
/// # Errors
/// An unknown op or option, an option that contradicts the tensors, a missing, extra or misshaped tensor: each named
/// with its shape in the file.
pub fn run(name: &str, file: &Tensors, options: &Options) -> Result<Tensors> {
    let Some(op) = OPS.iter().find(|op| op.name == name) else {
        let known: Vec<_> = OPS.iter().map(|op| op.name).collect();
        let hint = nearest(name, known.iter().copied());
        let hint = hint.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        return Err(Error::Config(format!("there is no op `{name}`; there are {}{hint}", known.join(", "))));
    };
    settings::known(op.name, op.settings, options)?;
    let part = |prefix: &str| -> Tensors {
        file.iter().filter_map(|(k, t)| Some((k.strip_prefix(prefix)?.to_string(), t.detach()))).collect()
    };
    let cotangents = part("ct.");
    let mut inputs = part("in.");
    let (sizes, second) = fit(op, &inputs, options)?;
    let float = |t: &Tensor| matches!(t.kind(), Kind::Float | Kind::Double | Kind::BFloat16 | Kind::Half);
    if !cotangents.is_empty() {
        inputs = inputs
            .into_iter()
            .map(|(k, t)| if float(&t) { (k, t.set_requires_grad(true)) } else { (k, t) })
            .collect();
    }
    let mut outputs = (op.run)(&Call { op: op.name, inputs: &inputs, options, sizes, second })?;
    outputs.retain(|(name, _)| !unwanted(op, options, name));
    let mut results = Tensors::new();
    let mut loss: Option<Tensor> = None;
    for (key, ct) in &cotangents {
        let Some((_, out)) = outputs.iter().find(|(name, _)| name == key) else {
            return Err(Error::invalid(format!("{name} has no output `{key}` for the cotangent `ct.{key}`")));
        };
        let out = pairs(out);
        if out.size() != ct.size() {
            return Err(Error::invalid(format!(
                "`ct.{key}` has shape {:?}, expected that of the output, {:?}",
                ct.size(),
                out.size()
            )));
        }
        if !float(ct) {
            let kind = ct.kind();
            return Err(Error::invalid(format!("`ct.{key}` has dtype {kind:?}, expected a floating dtype")));
        }
        let term = out.f_mul(ct)?.f_sum(None::<Kind>)?;
        loss = Some(loss.map_or_else(|| term.shallow_clone(), |sum| sum + &term));
    }
    if let Some(loss) = loss {
        let leaves: Vec<_> = inputs.iter().filter(|(_, t)| t.requires_grad()).collect();
        let tensors: Vec<_> = leaves.iter().map(|(_, t)| t).collect();
        if loss.requires_grad() {
            loss.f_backward()?;
        }
        for ((key, _), tensor) in leaves.iter().zip(tensors) {
            let grad = tensor.grad();
            let grad = if grad.defined() { grad } else { tensor.zeros_like() };
            results.insert(format!("grad.{key}"), grad.detach().contiguous());
        }
    }
    for (key, tensor) in outputs {
        results.insert(format!("out.{key}"), pairs(&tensor).detach().contiguous());
    }
    Ok(results)
}

/// Checks that the tensors are those of the op, of shapes that go together, and what the options say of them. Also
/// tells whether the op's second set of shapes is the one.
fn fit(op: &Entry, tensors: &Tensors, options: &Options) -> Result<(Sizes, bool)> {
    let telling = |set: &'static [Input]| set.iter().find(|input| input.name == op.told_by);
    let told = tensors.get(op.told_by).map(Tensor::dim);
    let of_rank = |set: &'static [Input]| match (telling(set), told) {
        (Some(input), Some(dim)) => input.shapes.iter().any(|shape| shape.split(' ').count() == dim),
        (input, dim) => input.is_none() == dim.is_none(),
    };
    let named = |set: &'static [Input]| telling(set).is_none() == told.is_none();
    let chosen = op.inputs.iter().position(|set| of_rank(set));
    let chosen = chosen.or_else(|| op.inputs.iter().position(|set| named(set))).unwrap_or(0);
    let set: &'static [Input] = op.inputs[chosen];
    let names = |required: bool| {
        let list = set.iter().filter(|input| input.required == required);
        list.map(|input| format!("in.{}", input.name)).collect::<Vec<_>>().join(", ")
    };
    let missing = set.iter().filter(|input| input.required && !tensors.contains_key(input.name));
    let missing: Vec<_> = missing.map(|input| input.name).collect();
    let extra: Vec<_> = tensors.keys().filter(|key| !set.iter().any(|input| input.name == **key)).collect();
    if !missing.is_empty() || !extra.is_empty() {
        return Err(Error::invalid(format!(
            "{} takes {}; optional {}; missing {missing:?}, not known {extra:?}",
            op.name,
            names(true),
            names(false),
        )));
    }
    let sizes = Sizes::of(op.name, set, tensors, |input, shape| {
        let kind = settings::coefficient(op.settings, options, input.name);
        kind.is_none_or(|kind| settings::coefficient_may_be(kind, shape))
    })?;
    let second = chosen > 0;
    settings::agree(op.name, op.settings, options, tensors, &sizes, second)?;
    Ok((sizes, second))
}

/// Whether an option says that output `name` is not wanted.
fn unwanted(op: &Entry, options: &Options, name: &str) -> bool {
    op.settings.iter().any(|(key, means)| {
        matches!(means, Means::Wants(output) if *output == name)
            && options.get(*key).is_some_and(|value| settings::boolean(value) == Some(false))
    })
}

/// A complex tensor with a trailing axis (re, im); any other as it is.
fn pairs(tensor: &Tensor) -> Tensor {
    match tensor.kind() {
        Kind::ComplexFloat | Kind::ComplexDouble => tensor.view_as_real(),
        _ => tensor.shallow_clone(),
    }
}

impl Call<'_> {
    fn get(&self, name: &str) -> Option<&Tensor> {
        self.inputs.get(name)
    }

    fn need(&self, name: &str) -> Result<&Tensor> {
        self.get(name).ok_or_else(|| Error::invalid(format!("{}: `in.{name}` is missing", self.op)))
    }

    /// How long the axis of this letter is.
    fn size(&self, letter: &str) -> Result<i64> {
        let size = self.sizes.get(letter);
        size.ok_or_else(|| Error::invalid(format!("internal error: {} has no axis {letter}", self.op)))
    }

    /// A tensor of (re, im) pairs as a complex one; what is narrower than f32 is widened.
    fn complex(&self, pairs: &Tensor) -> Result<Tensor> {
        let kind = if pairs.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        Ok(pairs.to_kind(kind).contiguous().f_view_as_complex()?)
    }

    /// B or C in token order: (D, N) or (B, L, 1, G, N).
    fn coefficient(&self, name: &str, complex: bool) -> Result<Tensor> {
        let tensor = self.need(name)?;
        if self.sizes.starts_with(name, "D") {
            return if complex { self.complex(tensor) } else { Ok(tensor.shallow_clone()) };
        }
        // (B, N, L) is one group.
        let tensor = if tensor.dim() == 3 { tensor.unsqueeze(1) } else { tensor.shallow_clone() };
        let tensor = if complex {
            // re and im alternate along the length.
            let mut split = tensor.size();
            split[3] /= 2;
            split.push(2);
            self.complex(&tensor.f_reshape(split)?)?
        } else {
            tensor
        };
        Ok(tensor.permute([0, 3, 1, 2]).unsqueeze(2)) // (B, L, 1, G, N)
    }

    /// Bounds of packed sequences, which must rise from 0 to `total`.
    fn bounds(&self, bounds: &Tensor, total: i64) -> Result<Vec<i64>> {
        let ends: Vec<i64> = bounds.to_kind(Kind::Int64).try_into()?;
        if ends.len() < 2 || ends.first() != Some(&0) || ends.last() != Some(&total) || !ends.is_sorted() {
            return Err(Error::invalid(format!(
                "{}: `in.cu_seqlens` must rise from 0 to {total}, found {ends:?}",
                self.op
            )));
        }
        Ok(ends)
    }

    /// Refuses a convolution whose weights, input `name`, have no taps.
    fn has_taps(&self, name: &str) -> Result<()> {
        if self.sizes.get("W") != Some(0) {
            return Ok(());
        }
        let shape = self.get(name).map(Tensor::size).unwrap_or_default();
        Err(Error::invalid(format!(
            "{}: `in.{name}` has shape {shape:?}, expected at least one tap on its last axis",
            self.op
        )))
    }

    /// Refuses groups that do not divide the channels, or the heads, of letter `axis`.
    fn grouped(&self, axis: &str) -> Result<()> {
        let groups = self.sizes.get("G").unwrap_or(1);
        let whole = self.sizes.get(axis).unwrap_or(1);
        if groups > 0 && whole % groups == 0 {
            return Ok(());
        }
        let tensor = |name: &str| {
            let shape = self.get(name).map(Tensor::size).unwrap_or_default();
            format!("`in.{name}` {shape:?}")
        };
        Err(Error::invalid(format!(
            "{}: {} has {groups} groups, which do not divide the {whole} of {axis} in {}",
            self.op,
            tensor(self.sizes.source("G")),
            tensor(self.sizes.source(axis)),
        )))
    }
}
