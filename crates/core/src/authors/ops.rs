//! The ops on tensors in their authors' layout; what they are given fits their [table](super::table).

use tch::{Kind, Tensor};

use super::Call;
use crate::{
    Error, Result,
    ops::{
        ConvInput, Merge, Orders, ScanInput, causal_conv1d, causal_conv1d_update, selective_scan,
        selective_scan_step,
    },
};

/// Most values of a result that options, and not the tensors alone, make large.
const MAX_VALUES: i64 = 1 << 31;

pub(super) fn scan(call: &Call) -> Result<Vec<(&'static str, Tensor)>> {
    scan_with(call, false)
}

pub(super) fn vmamba_scan(call: &Call) -> Result<Vec<(&'static str, Tensor)>> {
    let mut found = scan_with(call, true)?;
    found.retain(|(name, _)| *name == "y");
    if call.flag("oflex", false) {
        found.iter_mut().for_each(|(_, y)| *y = y.to_kind(Kind::Float));
    }
    Ok(found)
}

fn scan_with(call: &Call, softplus: bool) -> Result<Vec<(&'static str, Tensor)>> {
    let u = call.need("u")?;
    let delta = call.need("delta")?;
    let a = call.need("A")?;
    let complex = call.second;
    call.grouped("D")?;
    let rows = |t: &Tensor| t.transpose(1, 2);
    let a = if complex { call.complex(a)? } else { a.shallow_clone() };
    let out = selective_scan(&ScanInput {
        u: &rows(u),
        delta: &rows(delta),
        a: &a,
        b: &call.coefficient("B", complex)?,
        c: &call.coefficient("C", complex)?,
        d: call.get("D"),
        z: call.get("z").map(rows).as_ref(),
        delta_bias: call.get("delta_bias"),
        delta_softplus: call.flag("delta_softplus", softplus),
        initial_state: None,
        orders: &Orders::identity(call.size("L")?, 1),
        merge: Merge::Sum,
    })?;
    Ok(vec![("y", rows(&out.y)), ("last_state", out.final_state.squeeze_dim(1))])
}

pub(super) fn state_update(call: &Call) -> Result<Vec<(&'static str, Tensor)>> {
    let state = call.need("state")?;
    let shape = state.size();
    let (b, n) = (shape[0], shape[shape.len() - 1]);
    let d: i64 = shape[1..shape.len() - 1].iter().product(); // heads' channels side by side
    let x = call.need("x")?;
    call.grouped("H")?;
    let row = |t: &Tensor| t.f_reshape([b, 1, d]);
    let channels = |name| call.get(name).map(|t| t.f_reshape([d])).transpose();
    let group = |name: &str| -> Result<Tensor> {
        let t = call.need(name)?;
        let groups = if t.dim() == 3 { t.size()[1] } else { 1 };
        Ok(t.f_reshape([b, 1, 1, groups, n])?)
    };
    let mut after = state.f_reshape([b, 1, d, n])?;
    let y = selective_scan_step(
        &ScanInput {
            u: &row(x)?,
            delta: &row(call.need("dt")?)?,
            a: &call.need("A")?.f_reshape([d, n])?,
            b: &group("B")?,
            c: &group("C")?,
            d: channels("D")?.as_ref(),
            z: call.get("z").map(row).transpose()?.as_ref(),
            delta_bias: channels("dt_bias")?.as_ref(),
            delta_softplus: call.flag("dt_softplus", false),
            initial_state: None,
            orders: &Orders::identity(1, 1),
            merge: Merge::Sum,
        },
        &mut after,
    )?;
    Ok(vec![("y", y.f_reshape(x.size())?), ("state_new", after.f_reshape(shape)?)])
}

pub(super) fn conv(call: &Call) -> Result<Vec<(&'static str, Tensor)>> {
    call.has_taps("weight")?;
    let x = call.need("x")?;
    let (b, l) = (x.size()[0], x.size()[2]);
    let orders = match call.get("seq_idx") {
        None => Orders::identity(l, 1),
        Some(seq_idx) => {
            let ids: Vec<i64> = seq_idx.to_kind(Kind::Int64).contiguous().view(-1).try_into()?;
            Orders::packed(&ids, b, l)
        }
    };
    let out = causal_conv1d(&ConvInput {
        x: &x.transpose(1, 2),
        weight: call.need("weight")?,
        bias: call.get("bias"),
        silu: call.silu(),
        initial_state: call.get("initial_states").map(|state| state.unsqueeze(1)).as_ref(),
        orders: &orders,
    })?;
    Ok(vec![("y", out.y.squeeze_dim(2).transpose(1, 2)), ("final_states", out.final_state.squeeze_dim(1))])
}

pub(super) fn conv_update(call: &Call) -> Result<Vec<(&'static str, Tensor)>> {
    call.has_taps("weight")?;
    let x = call.need("x")?;
    let state = call.need("conv_state")?;
    let rows = if x.dim() == 2 { x.unsqueeze(1) } else { x.transpose(1, 2) };
    let indices = call.get("conv_state_indices").map(|indices| indices.to_kind(Kind::Int64));
    if let Some(indices) = indices.as_ref().filter(|indices| indices.numel() > 0) {
        let mut all: Vec<i64> = indices.try_into()?;
        all.sort_unstable();
        if let Some(twice) = all.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid(format!(
                "causal_conv1d_update: `in.conv_state_indices` gives row {} of `in.conv_state` to two samples",
                twice[0]
            )));
        }
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
    let weight = call.need("weight")?;
    let (bias, seen) = (call.get("bias"), call.get("cache_seqlens"));
    let (y, after) = causal_conv1d_update(&rows, &own, weight, bias, call.silu(), seen)?;
    let after = match &indices {
        Some(indices) => state.f_index_copy(0, indices, &after.to_kind(state.kind()))?,
        None => after,
    };
    let y = if x.dim() == 2 { y.squeeze_dim(1) } else { y.transpose(1, 2) };
    Ok(vec![("y", y), ("conv_state_new", after)])
}

pub(super) fn varlen_states(call: &Call) -> Result<Vec<(&'static str, Tensor)>> {
    let x = call.need("x")?;
    let Some(len) = call.rows("state_len") else {
        return Err(Error::Config("causal_conv1d_varlen_states needs the option state_len".into()));
    };
    let (total, d) = (x.size()[0], x.size()[1]);
    let ends = call.bounds(call.need("cu_seqlens")?, total)?;
    let values = len.checked_mul(d).and_then(|n| n.checked_mul(ends.len() as i64 - 1));
    if values.is_none_or(|values| values > MAX_VALUES) {
        return Err(Error::invalid(format!(
            "causal_conv1d_varlen_states: {} states of {len} rows of {d} channels are more than {MAX_VALUES} values",
            ends.len() - 1
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

pub(super) fn mamba_inner(call: &Call) -> Result<Vec<(&'static str, Tensor)>> {
    let xz = call.need("xz")?.transpose(1, 2); // (B, L, 2 D)
    let a = call.need("A")?;
    call.grouped("D")?;
    call.has_taps("conv1d_weight")?;
    let kinds = call.inputs.iter().find(|(_, t)| t.kind() != xz.kind());
    if let Some((name, other)) = kinds {
        return Err(Error::invalid(format!(
            "mamba_inner: `in.{name}` has dtype {:?}, expected that of `in.xz`, {:?}",
            other.kind(),
            xz.kind()
        )));
    }
    let (d, n, l, rank) = (call.size("D")?, call.size("N")?, call.size("L")?, call.size("R")?);
    let own = [("B", "B_proj_bias"), ("C", "C_proj_bias")];
    if let Some((name, bias)) = own.iter().find(|(name, bias)| call.get(name).and(call.get(bias)).is_some()) {
        return Err(Error::invalid(format!(
            "mamba_inner: `in.{bias}` has no use beside a constant `in.{name}`"
        )));
    }
    let made = own.iter().filter(|(name, _)| call.get(name).is_none()).count() as i64;
    let x_proj = call.need("x_proj_weight")?;
    if x_proj.size()[0] != rank + made * n {
        return Err(Error::invalid(format!(
            "mamba_inner: `in.x_proj_weight` has shape {:?}, expected [{}, {d}]: {rank} rows of delta \
             (`in.delta_proj_weight`) and {made} times {n} (`in.A`)",
            x_proj.size(),
            rank + made * n
        )));
    }
    let (x, z) = (xz.narrow(2, 0, d), xz.narrow(2, d, d));
    let orders = Orders::identity(l, 1);
    let conv = causal_conv1d(&ConvInput {
        x: &x,
        weight: &call.need("conv1d_weight")?.squeeze_dim(1),
        bias: call.get("conv1d_bias"),
        silu: true,
        initial_state: None,
        orders: &orders,
    })?;
    let u = conv.y.squeeze_dim(2); // (B, L, D)
    let weight = call.need("delta_proj_weight")?;
    let projected = u.f_linear(x_proj, None::<Tensor>)?; // (B, L, R [+ N [+ N]])
    let delta = projected.f_narrow(2, 0, rank)?.f_linear(weight, None::<Tensor>)?;
    let mut from = rank;
    let mut coefficient = |name: &str, bias: &str| -> Result<Tensor> {
        if call.get(name).is_some() {
            return call.coefficient(name, false);
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
    Ok(vec![("out", out.y.f_linear(call.need("out_proj_weight")?, call.get("out_proj_bias"))?)])
}
