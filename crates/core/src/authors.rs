//! Runs one op on tensors named and laid out as the authors' own functions take them, so that any other
//! implementation can be held against ours: channels before length, `in.*` and cotangents `ct.*` in, `out.*` and
//! `grad.*` out. Complex tensors carry a trailing axis of 2 (re, im).

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use crate::{
    Error, Result,
    ops::{
        ConvInput, Merge, Orders, ScanInput, causal_conv1d, causal_conv1d_update, selective_scan,
        selective_scan_step,
    },
    tensors::Tensors,
};

/// Options by name, as text.
pub type Options = BTreeMap<String, String>;

type Run = fn(&Call) -> Result<Vec<(&'static str, Tensor)>>;

/// Name of an input and the numbers of axes it may have.
pub type Input = (&'static str, &'static [usize]);

/// An op that can be run by name.
pub struct Entry {
    /// Name, as the authors call their function.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Required inputs.
    pub inputs: &'static [Input],
    /// Inputs that may be absent.
    pub optional: &'static [Input],
    /// Options that change the result.
    pub options: &'static [&'static str],
    run: Run,
}

/// Options that describe a case and follow from its tensors: accepted and ignored.
const DESCRIPTIVE: [&str; 22] = [
    "return_last_state",
    "groups",
    "complex_A",
    "has_D",
    "has_z",
    "has_delta_bias",
    "width",
    "return_final_states",
    "has_initial_states",
    "has_seq_idx",
    "state_len",
    "circular",
    "const_B",
    "const_C",
    "dt_rank",
    "has_bias",
    "oflex",
    "batch",
    "length",
    "dtype",
    "heads",
    "ngroups",
];

/// Every op there is.
pub const OPS: [Entry; 7] = [
    Entry {
        name: "selective_scan",
        about: "Mamba-1's scan: u, delta (B,D,L); A (D,N); B, C (D,N), (B,N,L) or (B,G,N,L)",
        inputs: &[("u", &[3]), ("delta", &[3]), ("A", &[2, 3]), ("B", &[2, 3, 4]), ("C", &[2, 3, 4])],
        optional: &[("D", &[1]), ("z", &[3]), ("delta_bias", &[1])],
        options: &["delta_softplus", "B", "C"],
        run: scan,
    },
    Entry {
        name: "vmamba_selective_scan",
        about: "VMamba's scan: u, delta (B,K*D,L); A (K*D,N); B, C (B,K,N,L); softplus on by default",
        inputs: &[("u", &[3]), ("delta", &[3]), ("A", &[2]), ("B", &[3, 4]), ("C", &[3, 4])],
        optional: &[("D", &[1]), ("delta_bias", &[1])],
        options: &["delta_softplus"],
        run: vmamba_scan,
    },
    Entry {
        name: "selective_state_update",
        about: "one step of the scan: state (B[,H],P,N); x, dt (B[,H],P); A ([H,]P,N); B, C (B[,G],N)",
        inputs: &[
            ("state", &[3, 4]),
            ("x", &[2, 3]),
            ("dt", &[2, 3]),
            ("A", &[2, 3]),
            ("B", &[2, 3]),
            ("C", &[2, 3]),
        ],
        optional: &[("D", &[1, 2]), ("z", &[2, 3]), ("dt_bias", &[1, 2])],
        options: &["dt_softplus"],
        run: state_update,
    },
    Entry {
        name: "causal_conv1d",
        about: "depthwise causal convolution: x (B,D,L); weight (D,W)",
        inputs: &[("x", &[3]), ("weight", &[2])],
        optional: &[("bias", &[1]), ("initial_states", &[3]), ("seq_idx", &[2])],
        options: &["activation"],
        run: conv,
    },
    Entry {
        name: "causal_conv1d_update",
        about: "the convolution on a cache: x (B,D) or (B,D,L); conv_state (B,D,S)",
        inputs: &[("x", &[2, 3]), ("conv_state", &[3]), ("weight", &[2])],
        optional: &[("bias", &[1]), ("cache_seqlens", &[1]), ("conv_state_indices", &[1])],
        options: &["activation"],
        run: conv_update,
    },
    Entry {
        name: "causal_conv1d_varlen_states",
        about: "the last inputs of packed sequences: x (total,D); cu_seqlens (sequences + 1)",
        inputs: &[("x", &[2]), ("cu_seqlens", &[1])],
        optional: &[],
        options: &["state_len"],
        run: varlen_states,
    },
    Entry {
        name: "mamba_inner",
        about: "the Mamba-1 mixer behind its in_proj: xz (B,2D,L) to out (B,L,d_model)",
        inputs: &[
            ("xz", &[3]),
            ("conv1d_weight", &[3]),
            ("x_proj_weight", &[2]),
            ("delta_proj_weight", &[2]),
            ("out_proj_weight", &[2]),
            ("A", &[2]),
        ],
        optional: &[
            ("conv1d_bias", &[1]),
            ("out_proj_bias", &[1]),
            ("B", &[2, 3, 4]),
            ("C", &[2, 3, 4]),
            ("D", &[1]),
            ("delta_bias", &[1]),
            ("B_proj_bias", &[1]),
            ("C_proj_bias", &[1]),
        ],
        options: &["delta_softplus"],
        run: mamba_inner,
    },
];

struct Call<'a> {
    op: &'a Entry,
    inputs: &'a Tensors,
    options: &'a Options,
}

/// Runs op `name` on the `in.*` of `file`. Returns `out.*`, and `grad.*` of each floating input of
/// `sum_k <out.k, ct.k>` if there are cotangents.
///
/// # Errors
/// An unknown op or option, a missing, extra or misshaped tensor: each named.
pub fn run(name: &str, file: &Tensors, options: &Options) -> Result<Tensors> {
    let Some(op) = OPS.iter().find(|op| op.name == name) else {
        let known: Vec<_> = OPS.iter().map(|op| op.name).collect();
        return Err(Error::Config(format!("there is no op `{name}`; there are {}", known.join(", "))));
    };
    for key in options.keys() {
        if !op.options.contains(&key.as_str()) && !DESCRIPTIVE.contains(&key.as_str()) {
            let known = op.options.join(", ");
            return Err(Error::Config(format!("{name} has no option `{key}`; it has {known}")));
        }
    }
    let part = |prefix: &str| -> Tensors {
        file.iter().filter_map(|(k, t)| Some((k.strip_prefix(prefix)?.to_string(), t.detach()))).collect()
    };
    let cotangents = part("ct.");
    let mut inputs = part("in.");
    let known = || op.inputs.iter().chain(op.optional);
    let names = |list: &[Input]| list.iter().map(|(n, _)| format!("in.{n}")).collect::<Vec<_>>().join(", ");
    let missing: Vec<_> = op.inputs.iter().map(|(n, _)| *n).filter(|n| !inputs.contains_key(*n)).collect();
    let extra: Vec<_> = inputs.keys().filter(|key| !known().any(|(n, _)| n == key)).collect();
    if !missing.is_empty() || !extra.is_empty() {
        return Err(Error::invalid(format!(
            "{name} takes {}; optional {}; missing {missing:?}, not known {extra:?}",
            names(op.inputs),
            names(op.optional),
        )));
    }
    for (key, axes) in known() {
        let Some(tensor) = inputs.get(*key) else { continue };
        if !axes.contains(&tensor.dim()) {
            let shape = tensor.size();
            return Err(Error::invalid(format!(
                "{name}: `in.{key}` has shape {shape:?}, expected {axes:?} axes"
            )));
        }
    }
    let float = |t: &Tensor| matches!(t.kind(), Kind::Float | Kind::Double | Kind::BFloat16 | Kind::Half);
    if !cotangents.is_empty() {
        inputs = inputs
            .into_iter()
            .map(|(k, t)| if float(&t) { (k, t.set_requires_grad(true)) } else { (k, t) })
            .collect();
    }
    let outputs = (op.run)(&Call { op, inputs: &inputs, options })?;
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

    fn need(&self, name: &str, dims: &[usize]) -> Result<&Tensor> {
        let tensor = self
            .get(name)
            .ok_or_else(|| Error::invalid(format!("{}: `in.{name}` is missing", self.op.name)))?;
        if !dims.contains(&tensor.dim()) {
            return Err(Error::invalid(format!(
                "{}: `in.{name}` has shape {:?}, expected {dims:?} axes",
                self.op.name,
                tensor.size()
            )));
        }
        Ok(tensor)
    }

    /// A tensor of (re, im) pairs as a complex one; what is narrower than f32 is widened.
    fn complex(&self, name: &str, pairs: &Tensor) -> Result<Tensor> {
        let shape = pairs.size();
        if shape.last() != Some(&2) {
            return Err(Error::invalid(format!(
                "{}: `in.{name}` has shape {shape:?}, expected a last axis of 2 (re, im)",
                self.op.name
            )));
        }
        let kind = if pairs.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        Ok(pairs.to_kind(kind).contiguous().f_view_as_complex()?)
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.options.get(name).map(String::as_str) {
            None => Ok(default),
            Some("true" | "True" | "1") => Ok(true),
            Some("false" | "False" | "0") => Ok(false),
            Some(other) => Err(Error::Config(format!("{name} = {other:?}, expected true or false"))),
        }
    }

    fn silu(&self) -> Result<bool> {
        match self.options.get("activation").map(|text| text.trim_matches('"')) {
            None | Some("null" | "none" | "None" | "identity" | "") => Ok(false),
            Some("silu" | "swish") => Ok(true),
            Some(other) => Err(Error::Config(format!("activation = {other:?}, expected silu or none"))),
        }
    }

    /// B or C in token order: (D, N) or (B, L, 1, G, N).
    fn coefficient(&self, name: &str, complex: bool, [_, d, l, n]: [i64; 4]) -> Result<Tensor> {
        let tensor = self.need(name, &[2, 3, 4])?;
        let shape = tensor.size();
        let constant = match self.options.get(name).map(|text| text.trim_matches('"')) {
            Some(kind) => kind == "const",
            None if complex => shape == [d, n, 2] && l != 1,
            None => shape.len() == 2,
        };
        if constant {
            return if complex { self.complex(name, tensor) } else { Ok(tensor.shallow_clone()) };
        }
        if shape.len() < 3 {
            return Err(Error::invalid(format!(
                "{}: `in.{name}` has shape {shape:?}; one that varies along the sequence has 3 or 4 axes",
                self.op.name
            )));
        }
        // (B, N, L) is one group.
        let tensor = if shape.len() == 3 { tensor.unsqueeze(1) } else { tensor.shallow_clone() };
        let tensor = if complex {
            // re and im alternate along the length.
            let mut split = tensor.size();
            if split[3] != 2 * l {
                return Err(Error::invalid(format!(
                    "{}: `in.{name}` has shape {shape:?}, expected {} values along its last axis (re, im in turn)",
                    self.op.name,
                    2 * l
                )));
            }
            split[3] = l;
            split.push(2);
            self.complex(name, &tensor.f_reshape(split)?)?
        } else {
            tensor
        };
        Ok(tensor.permute([0, 3, 1, 2]).unsqueeze(2)) // (B, L, 1, G, N)
    }
}

fn sizes(u: &Tensor, a: &Tensor) -> [i64; 4] {
    let (u, a) = (u.size(), a.size());
    [u[0], u[1], u[2], a[1]]
}

fn scan(call: &Call) -> Result<Vec<(&'static str, Tensor)>> {
    scan_with(call, false)
}

fn vmamba_scan(call: &Call) -> Result<Vec<(&'static str, Tensor)>> {
    Ok(scan_with(call, true)?.into_iter().filter(|(name, _)| *name == "y").collect())
}

fn scan_with(call: &Call, softplus: bool) -> Result<Vec<(&'static str, Tensor)>> {
    let u = call.need("u", &[3])?;
    let delta = call.need("delta", &[3])?;
    let a = call.need("A", &[2, 3])?;
    let complex = a.dim() == 3;
    let sizes = sizes(u, a);
    let rows = |t: &Tensor| t.transpose(1, 2);
    let a = if complex { call.complex("A", a)? } else { a.shallow_clone() };
    let out = selective_scan(&ScanInput {
        u: &rows(u),
        delta: &rows(delta),
        a: &a,
        b: &call.coefficient("B", complex, sizes)?,
        c: &call.coefficient("C", complex, sizes)?,
        d: call.get("D"),
        z: call.get("z").map(rows).as_ref(),
        delta_bias: call.get("delta_bias"),
        delta_softplus: call.flag("delta_softplus", softplus)?,
        initial_state: None,
        orders: &Orders::identity(sizes[2], 1),
        merge: Merge::Sum,
    })?;
    Ok(vec![("y", rows(&out.y)), ("last_state", out.final_state.squeeze_dim(1))])
}

fn state_update(call: &Call) -> Result<Vec<(&'static str, Tensor)>> {
    let state = call.need("state", &[3, 4])?;
    let shape = state.size();
    let (b, n) = (shape[0], shape[shape.len() - 1]);
    let d: i64 = shape[1..shape.len() - 1].iter().product(); // heads' channels side by side
    let x = call.need("x", &[shape.len() - 1])?;
    let row = |t: &Tensor| t.f_reshape([b, 1, d]);
    let channels = |name| call.get(name).map(|t| t.f_reshape([d])).transpose();
    let group = |name: &str| -> Result<Tensor> {
        let t = call.need(name, &[2, 3])?;
        let groups = if t.dim() == 3 { t.size()[1] } else { 1 };
        Ok(t.f_reshape([b, 1, 1, groups, n])?)
    };
    let mut after = state.f_reshape([b, 1, d, n])?;
    let y = selective_scan_step(
        &ScanInput {
            u: &row(x)?,
            delta: &row(call.need("dt", &[shape.len() - 1])?)?,
            a: &call.need("A", &[shape.len() - 1])?.f_reshape([d, n])?,
            b: &group("B")?,
            c: &group("C")?,
            d: channels("D")?.as_ref(),
            z: call.get("z").map(row).transpose()?.as_ref(),
            delta_bias: channels("dt_bias")?.as_ref(),
            delta_softplus: call.flag("dt_softplus", false)?,
            initial_state: None,
            orders: &Orders::identity(1, 1),
            merge: Merge::Sum,
        },
        &mut after,
    )?;
    Ok(vec![("y", y.f_reshape(x.size())?), ("state_new", after.f_reshape(shape)?)])
}

fn conv(call: &Call) -> Result<Vec<(&'static str, Tensor)>> {
    let x = call.need("x", &[3])?;
    let (b, l) = (x.size()[0], x.size()[2]);
    let orders = match call.get("seq_idx") {
        None => Orders::identity(l, 1),
        Some(seq_idx) if seq_idx.size() == [b, l] => {
            let ids: Vec<i64> = seq_idx.to_kind(Kind::Int64).contiguous().view(-1).try_into()?;
            Orders::packed(&ids, b, l)
        }
        Some(seq_idx) => {
            return Err(Error::invalid(format!(
                "causal_conv1d: `in.seq_idx` has shape {:?}, expected {:?}",
                seq_idx.size(),
                [b, l]
            )));
        }
    };
    let out = causal_conv1d(&ConvInput {
        x: &x.transpose(1, 2),
        weight: call.need("weight", &[2])?,
        bias: call.get("bias"),
        silu: call.silu()?,
        initial_state: call.get("initial_states").map(|state| state.unsqueeze(1)).as_ref(),
        orders: &orders,
    })?;
    Ok(vec![("y", out.y.squeeze_dim(2).transpose(1, 2)), ("final_states", out.final_state.squeeze_dim(1))])
}

fn conv_update(call: &Call) -> Result<Vec<(&'static str, Tensor)>> {
    let x = call.need("x", &[2, 3])?;
    let state = call.need("conv_state", &[3])?;
    let rows = if x.dim() == 2 { x.unsqueeze(1) } else { x.transpose(1, 2) };
    let indices = call.get("conv_state_indices").map(|indices| indices.to_kind(Kind::Int64));
    if let Some(indices) = indices.as_ref().filter(|indices| indices.numel() > 0) {
        let (low, high) = (indices.min().int64_value(&[]), indices.max().int64_value(&[]));
        if low < 0 || high >= state.size()[0] {
            return Err(Error::invalid(format!(
                "causal_conv1d_update: `in.conv_state_indices` reaches from {low} to {high}, \
                 expected 0 to {}",
                state.size()[0] - 1
            )));
        }
    }
    let own =
        indices.as_ref().map_or_else(|| state.shallow_clone(), |indices| state.index_select(0, indices));
    let weight = call.need("weight", &[2])?;
    let (bias, seen) = (call.get("bias"), call.get("cache_seqlens"));
    let (y, after) = causal_conv1d_update(&rows, &own, weight, bias, call.silu()?, seen)?;
    let after = match &indices {
        Some(indices) => state.f_index_copy(0, indices, &after.to_kind(state.kind()))?,
        None => after,
    };
    let y = if x.dim() == 2 { y.squeeze_dim(1) } else { y.transpose(1, 2) };
    Ok(vec![("y", y), ("conv_state_new", after)])
}

fn varlen_states(call: &Call) -> Result<Vec<(&'static str, Tensor)>> {
    let x = call.need("x", &[2])?;
    let ends: Vec<i64> = call.need("cu_seqlens", &[1])?.to_kind(Kind::Int64).try_into()?;
    let len: i64 = match call.options.get("state_len") {
        Some(text) => {
            text.parse().map_err(|_| Error::Config(format!("state_len = {text:?}, expected a number")))?
        }
        None => return Err(Error::Config("causal_conv1d_varlen_states needs the option state_len".into())),
    };
    let (total, d) = (x.size()[0], x.size()[1]);
    if !(0..=1 << 20).contains(&len) {
        return Err(Error::Config(format!("state_len = {len}, expected 0 to {}", 1 << 20)));
    }
    if ends.len() < 2 || ends.first() != Some(&0) || ends.last() != Some(&total) || !ends.is_sorted() {
        return Err(Error::invalid(format!(
            "causal_conv1d_varlen_states: `in.cu_seqlens` must rise from 0 to {total}, found {ends:?}"
        )));
    }
    let states: Vec<Tensor> = ends
        .windows(2)
        .map(|bounds| {
            let kept = (bounds[1] - bounds[0]).min(len);
            let rows = x.narrow(0, bounds[1] - kept, kept);
            Tensor::cat(&[Tensor::zeros([len - kept, d], (x.kind(), x.device())), rows], 0).transpose(0, 1)
        })
        .collect();
    Ok(vec![("states", Tensor::stack(&states, 0))])
}

fn mamba_inner(call: &Call) -> Result<Vec<(&'static str, Tensor)>> {
    let xz = call.need("xz", &[3])?.transpose(1, 2); // (B, L, 2 D)
    let a = call.need("A", &[2])?;
    let (d, n, l) = (a.size()[0], a.size()[1], xz.size()[1]);
    if xz.size()[2] != 2 * d {
        return Err(Error::invalid(format!(
            "mamba_inner: `in.xz` has {} channels, expected {}",
            xz.size()[2],
            2 * d
        )));
    }
    let (x, z) = (xz.narrow(2, 0, d), xz.narrow(2, d, d));
    let orders = Orders::identity(l, 1);
    let conv = causal_conv1d(&ConvInput {
        x: &x,
        weight: &call.need("conv1d_weight", &[3])?.squeeze_dim(1),
        bias: call.get("conv1d_bias"),
        silu: true,
        initial_state: None,
        orders: &orders,
    })?;
    let u = conv.y.squeeze_dim(2); // (B, L, D)
    let weight = call.need("delta_proj_weight", &[2])?;
    let rank = weight.size()[1];
    let projected = u.f_linear(call.need("x_proj_weight", &[2])?, None::<Tensor>)?; // (B, L, R [+ N [+ N]])
    let delta = projected.f_narrow(2, 0, rank)?.f_linear(weight, None::<Tensor>)?;
    let mut from = rank;
    let mut coefficient = |name: &str, bias: &str| -> Result<Tensor> {
        if call.get(name).is_some() {
            return call.coefficient(name, false, [xz.size()[0], d, l, n]);
        }
        let rows = projected.f_narrow(2, from, n)?;
        from += n;
        Ok(call.get(bias).map(|bias| rows.f_add(bias)).transpose()?.unwrap_or(rows))
    };
    let (b, c) = (coefficient("B", "B_proj_bias")?, coefficient("C", "C_proj_bias")?);
    let out = selective_scan(&ScanInput {
        u: &u,
        delta: &delta,
        a,
        b: &b,
        c: &c,
        d: call.get("D"),
        z: Some(&z),
        delta_bias: call.get("delta_bias"),
        // The authors' function ignores its argument and always applies it.
        delta_softplus: true,
        initial_state: None,
        orders: &orders,
        merge: Merge::Sum,
    })?;
    Ok(vec![("out", out.y.f_linear(call.need("out_proj_weight", &[2])?, call.get("out_proj_bias"))?)])
}
