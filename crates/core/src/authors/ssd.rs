//! Mamba-2's functions in their authors' layout: length before heads, heads before channels.

use tch::{Kind, Tensor};

use super::Call;
use crate::{
    Error, Result,
    layers::{GatedRmsNorm, gated_rms_norm},
    ops::{ConvInput, Merge, Orders, SsdInput, SsdOutput, causal_conv1d, ssd},
};

/// Left to right over each sequence of `seq_idx`, or over all.
fn orders(call: &Call, batch: i64, length: i64) -> Result<Orders> {
    let Some(ids) = call.get("seq_idx") else { return Ok(Orders::identity(length, 1)) };
    let ids: Vec<i64> = ids.to_kind(Kind::Int64).contiguous().view(-1).try_into()?;
    Ok(Orders::packed(&ids, batch, length))
}

/// `in.initial_states` with the axis of directions; zero where the first sequence of a sample is not number 0.
fn initial_states(call: &Call) -> Result<Option<Tensor>> {
    let Some(states) = call.get("initial_states") else { return Ok(None) };
    let states = states.unsqueeze(1);
    let Some(ids) = call.get("seq_idx").filter(|ids| ids.numel() > 0) else { return Ok(Some(states)) };
    let own = ids.f_select(1, 0)?.f_eq(0)?.f_view([-1, 1, 1, 1, 1])?;
    Ok(Some(states.f_where_self(&own, &states.zeros_like())?))
}

/// What the SSD reads along the length, (B, L, …).
struct Tokens {
    x: Tensor,
    dt: Tensor,
    b: Tensor,
    c: Tensor,
    z: Option<Tensor>,
}

fn scan(call: &Call, tokens: &Tokens, initial: Option<&Tensor>, orders: &Orders) -> Result<SsdOutput> {
    call.grouped("H")?;
    ssd(&SsdInput {
        x: &tokens.x,
        dt: &tokens.dt,
        a: call.need("A")?,
        b: &tokens.b.unsqueeze(2),
        c: &tokens.c.unsqueeze(2),
        d: call.get("D").map(|d| if d.dim() == 2 { d.unsqueeze(0) } else { d.shallow_clone() }).as_ref(),
        z: tokens.z.as_ref(),
        dt_bias: call.get("dt_bias"),
        dt_softplus: call.flag("dt_softplus", false),
        dt_limits: call.limits("dt_limit"),
        initial_state: initial,
        orders,
        merge: Merge::Sum,
    })
}

pub(super) fn combined(call: &Call) -> Result<Vec<(&'static str, Tensor)>> {
    let (batch, length) = (call.size("B")?, call.size("L")?);
    let own = |name| call.need(name).map(Tensor::shallow_clone);
    let tokens = Tokens {
        x: own("x")?,
        dt: own("dt")?,
        b: own("B")?,
        c: own("C")?,
        z: call.get("z").map(Tensor::shallow_clone),
    };
    let out = scan(call, &tokens, initial_states(call)?.as_ref(), &orders(call, batch, length)?)?;
    let mut found = vec![("y", out.y), ("final_states", out.final_state.squeeze_dim(1))];
    if let Some(bounds) = call.get("cu_seqlens") {
        found.push(("varlen_states", varlen_states(call, &tokens, &call.bounds(bounds, length)?)?));
    }
    Ok(found)
}

/// The state at the end of each packed sequence; empty ones have none but zeros.
fn varlen_states(call: &Call, tokens: &Tokens, ends: &[i64]) -> Result<Tensor> {
    if tokens.x.size()[0] != 1 {
        return Err(Error::invalid(format!(
            "{}: `in.cu_seqlens` goes with one sample, `in.x` has shape {:?}",
            call.op,
            tokens.x.size()
        )));
    }
    let mut states = Vec::new();
    for bounds in ends.windows(2) {
        let (first, length) = (bounds[0], bounds[1] - bounds[0]);
        let part = |t: &Tensor| t.f_narrow(1, first, length);
        let own = Tokens {
            x: part(&tokens.x)?,
            dt: part(&tokens.dt)?,
            b: part(&tokens.b)?,
            c: part(&tokens.c)?,
            z: None,
        };
        states.push(scan(call, &own, None, &Orders::identity(length, 1))?.final_state.squeeze_dim(1));
    }
    Ok(Tensor::f_cat(&states, 0)?)
}

/// X is x dt already and A the exponent of each step: a step of size -A with decay -1. In f64, since the step size that
/// is divided out comes back as a factor, and its gradient as a difference of large numbers.
pub(super) fn minimal_discrete(call: &Call) -> Result<Vec<(&'static str, Tensor)>> {
    let kind = call.need("X")?.kind();
    let exact = |name| call.need(name).map(|t| t.to_kind(Kind::Double));
    let (x, exponent) = (exact("X")?, exact("A")?);
    if exponent.numel() > 0 && exponent.max().double_value(&[]) >= 0.0 {
        return Err(Error::invalid(
            "ssd_minimal_discrete: `in.A` holds numbers of at least 0, expected decays",
        ));
    }
    let dt = exponent.f_neg()?;
    let out = ssd(&SsdInput {
        x: &x.f_div(&dt.f_unsqueeze(3)?)?,
        dt: &dt,
        a: &Tensor::full([call.size("H")?], -1.0, (x.kind(), x.device())),
        b: &exact("B")?.unsqueeze(2),
        c: &exact("C")?.unsqueeze(2),
        d: None,
        z: None,
        dt_bias: None,
        dt_softplus: false,
        dt_limits: (0.0, f64::INFINITY),
        initial_state: call.get("initial_states"),
        orders: &Orders::identity(call.size("L")?, 1),
        merge: Merge::Sum,
    })?;
    Ok(vec![("Y", out.y.to_kind(kind)), ("final_state", out.final_state.squeeze_dim(1).to_kind(kind))])
}

pub(super) fn gated_norm(call: &Call) -> Result<Vec<(&'static str, Tensor)>> {
    let x = call.need("x")?;
    let y = gated_rms_norm(&GatedRmsNorm {
        x,
        z: call.get("z"),
        weight: call.need("weight")?,
        bias: call.get("bias"),
        group: call.rows("group_size").map_or_else(|| call.size("D"), Ok)?,
        eps: call.number("eps", 1e-5),
        norm_before_gate: call.flag("norm_before_gate", true),
    })?;
    Ok(vec![("y", y.to_kind(x.kind()))])
}

/// Mamba-2's fused function: what its block does between and with the two projections.
pub(super) fn split_conv_scan(call: &Call) -> Result<Vec<(&'static str, Tensor)>> {
    let made = call.need("zxbcdt")?;
    let [batch, length, width] = [0, 1, 2].map(|axis| made.size()[axis]);
    let (h, convolved) = (call.size("H")?, call.size("C")?);
    let g = call.rows("ngroups").unwrap_or(1);
    let p = match (call.rows("headdim"), call.sizes.get("P")) {
        (Some(p), None) | (None, Some(p)) => p,
        (Some(p), Some(known)) if p == known => p,
        (None, None) => {
            return Err(Error::Config("mamba2_split_conv1d_scan needs the option headdim".into()));
        }
        (Some(p), Some(known)) => {
            let text = format!("mamba2_split_conv1d_scan: headdim = {p}, but the tensors say {known}");
            return Err(Error::Config(text));
        }
    };
    let (inner, coefficients) = (h * p, convolved - h * p);
    let outside = width - inner - convolved - h;
    let fits = p > 0 && g > 0 && h % g == 0 && coefficients > 0 && coefficients % (2 * g) == 0;
    if !fits || outside < 0 || outside % 2 != 0 {
        return Err(Error::invalid(format!(
            "mamba2_split_conv1d_scan: `in.zxbcdt` of {width} and `in.conv1d_weight` of {convolved} channels do not go \
             with {h} heads of {p} channels and {g} groups of B and C"
        )));
    }
    let (n, outside) = (coefficients / (2 * g), outside / 2);
    for (key, size) in [("d_state", n), ("d_nonssm", outside)] {
        if let Some(said) = call.rows(key).filter(|said| *said != size) {
            let text = format!("mamba2_split_conv1d_scan: {key} = {said}, but the tensors say {size}");
            return Err(Error::Config(text));
        }
    }
    // The norm's weight, and what a row of the output projection reads.
    for (key, axis, size) in [("rmsnorm_weight", 0, inner), ("outproj_weight", 1, outside + inner)] {
        if let Some(found) = call.get(key).map(|weight| weight.size()[axis]).filter(|found| *found != size) {
            let text =
                format!("mamba2_split_conv1d_scan: axis {axis} of `in.{key}` is {found}, expected {size}");
            return Err(Error::invalid(text));
        }
    }
    call.has_taps("conv1d_weight")?;
    let widths = [outside, outside, inner, convolved, h];
    let parts = made.f_split_with_sizes(widths, -1)?;
    let [z0, x0, z, xbc, dt] = &parts[..] else {
        return Err(Error::invalid("internal error: a split lost a part"));
    };
    let orders = orders(call, batch, length)?;
    let conv = causal_conv1d(&ConvInput {
        x: xbc,
        weight: call.need("conv1d_weight")?,
        bias: call.get("conv1d_bias"),
        silu: true,
        initial_state: None,
        orders: &orders,
    })?;
    let parts = conv.y.squeeze_dim(2).f_split_with_sizes([inner, g * n, g * n], -1)?;
    let [x, b, c] = &parts[..] else {
        return Err(Error::invalid("internal error: a split lost a part"));
    };
    let heads = |t: &Tensor, width: i64| t.f_unflatten(2, [-1, width]);
    let norm = call.get("rmsnorm_weight");
    let out = ssd(&SsdInput {
        x: &heads(x, p)?,
        dt,
        a: call.need("A")?,
        b: &heads(b, n)?.unsqueeze(2),
        c: &heads(c, n)?.unsqueeze(2),
        d: call.get("D").map(|d| if d.dim() == 2 { d.unsqueeze(0) } else { d.shallow_clone() }).as_ref(),
        z: if norm.is_none() { Some(heads(z, p)?) } else { None }.as_ref(),
        dt_bias: Some(call.need("dt_bias")?),
        // The authors' function has no option for it.
        dt_softplus: true,
        dt_limits: call.limits("dt_limit"),
        initial_state: initial_states(call)?.as_ref(),
        orders: &orders,
        merge: Merge::Sum,
    })?;
    let mut y = out.y.f_flatten(2, 3)?;
    if let Some(weight) = norm {
        y = gated_rms_norm(&GatedRmsNorm {
            x: &y,
            z: Some(z),
            weight,
            bias: None,
            group: inner / g,
            eps: call.number("rmsnorm_eps", 1e-6),
            norm_before_gate: call.flag("norm_before_gate", true),
        })?
        .to_kind(made.kind());
    }
    if outside > 0 {
        y = Tensor::f_cat(&[z0.f_silu()?.f_mul(x0)?, y], -1)?;
    }
    if let Some(weight) = call.get("outproj_weight") {
        y = y.f_linear(weight, call.get("outproj_bias"))?;
    } else if call.get("outproj_bias").is_some() {
        let text = "mamba2_split_conv1d_scan: `in.outproj_bias` has no use without `in.outproj_weight`";
        return Err(Error::invalid(text));
    }
    Ok(vec![("y", y), ("final_states", out.final_state.squeeze_dim(1))])
}
