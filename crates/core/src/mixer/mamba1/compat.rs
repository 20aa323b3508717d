//! What released code does differently from its paper. These copy activations.

use tch::{Kind, Tensor};

use super::ssm::{Coefficients, Ssm};
use crate::{Error, Result, ops::Orders};

/// PlainMamba as released: u is gathered by the order, but step t reads the coefficients of token t (and the embedding
/// of step t's way). u (B, L, 1, D) to (B, L, K, D).
pub(super) fn scan_unordered(
    ssm: &Ssm,
    u: &Tensor,
    mut coefficients: Coefficients,
    orders: &Orders,
) -> Result<Tensor> {
    let index: Vec<Tensor> = (0..orders.directions() as usize)
        .map(|k| Ok(orders.index(k)?.to_device(u.device())))
        .collect::<Result<_>>()?;
    let direction = |t: &Tensor, k: usize| t.f_select(2, if t.size()[2] == 1 { 0 } else { k as i64 });
    let gathered = |t: &Tensor, index: &[Tensor]| -> Result<Tensor> {
        let all = index.iter().enumerate().map(|(k, index)| Ok(direction(t, k)?.f_index_select(1, index)?));
        Ok(Tensor::f_stack(&all.collect::<Result<Vec<_>>>()?, 2)?)
    };
    if ssm.embeds_steps() {
        let ways = orders.ways()?.to_device(u.device()); // (K, L), by token
        ssm.embed_steps(&mut coefficients, &ways.f_gather(1, &Tensor::f_stack(&index, 0)?, false)?)?;
    }
    let y = ssm.scan(&gathered(u, &index)?, &coefficients, None, &orders.in_place(), true)?;
    let back = index.iter().map(|index| Ok(index.f_argsort(0, false)?)).collect::<Result<Vec<_>>>()?;
    gathered(&y, &back)
}

/// Mamba3D (v4) as released: (B, L, 1, 2 D) as K pairs, those of odd directions with their channels from last to first.
pub(super) fn mirrored(xz: &Tensor, directions: i64) -> Result<Tensor> {
    let turned = xz.f_flip([3])?;
    let pairs: Vec<&Tensor> = (0..directions).map(|k| if k % 2 == 0 { xz } else { &turned }).collect();
    Ok(Tensor::f_cat(&pairs, 2)?)
}

/// The channels of odd directions of (B, L, K, D) turned back.
pub(super) fn mirror_back(y: &Tensor) -> Result<Tensor> {
    let part = |k: i64| -> Result<Tensor> {
        let y = y.f_select(2, k)?;
        Ok(if k % 2 == 0 { y } else { y.f_flip([2])? })
    };
    Ok(Tensor::f_stack(&(0..y.size()[2]).map(part).collect::<Result<Vec<_>>>()?, 2)?)
}

/// (B, L, K, D) with each direction's tokens where the orders say they are written.
pub(super) fn rewritten(y: &Tensor, orders: &Orders) -> Result<Tensor> {
    let part = |k: i64| -> Result<Tensor> {
        let y = y.f_select(2, k)?;
        match orders.source(k as usize)? {
            Some(source) => Ok(y.f_index_select(1, &source.to_kind(Kind::Int64).to_device(y.device()))?),
            None => Err(Error::invalid("internal error: orders without a place to write to")),
        }
    };
    Ok(Tensor::f_stack(&(0..y.size()[2]).map(part).collect::<Result<Vec<_>>>()?, 2)?)
}
