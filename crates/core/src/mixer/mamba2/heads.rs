//! The recurrence of Mamba-2 with the parameters that it has beside its inputs.

use tch::{Kind, Tensor, nn};

use super::{Mamba2Config, Mamba2Options};
use crate::{
    Result,
    init::{Init, draw_for, step_size_bias},
    mixer::{
        Parameters,
        mamba1::ssm::{parts, with_ways},
    },
    ops::{self, Orders, SsdInput, SsdOutput, ssd},
    tape,
    torch::full_precision,
};

/// Parameters of S sets: `dt_bias` (S, H), `A_log` (S or K, H), `D` (S, H) or (S, D), and perhaps `step_embedding`
/// (5, G N).
#[derive(Debug)]
pub(super) struct Heads {
    dt_bias: Tensor,
    a_log: Tensor,
    d: Tensor,
    step_embedding: Option<Tensor>,
    headdim: i64,
    d_state: i64,
    options: Mamba2Options,
}

/// What the recurrence reads, in token order.
pub(super) struct Rows<'a> {
    /// (B, L, 1 or K, D).
    pub x: &'a Tensor,
    /// B, then C: (B, L, 1 or K, 2 G N).
    pub bc: &'a Tensor,
    /// (B, L, 1 or K, H).
    pub dt: &'a Tensor,
    /// As `x`: the gate, if it acts within.
    pub z: Option<&'a Tensor>,
}

impl Heads {
    /// Fresh ones; the values come from libtorch's generator.
    pub fn new(vs: &nn::Path, config: &Mamba2Config) -> Heads {
        let (d, h, s, options) = (config.d_inner(), config.heads(), config.sets(), &config.options);
        draw_for(vs, "dt_bias");
        let dt_bias = step_size_bias(&[s, h], config.dt_min, config.dt_max, config.dt_floor);
        let decays = if config.parameters == Parameters::Decay { config.directions } else { s };
        draw_for(vs, "A_log");
        let [low, high] = options.a_init_range;
        let a = Tensor::rand([decays, h], (Kind::Float, vs.device())) * (high - low) + low;
        let embedding =
            || Init::Normal(0.02).parameter(vs, "step_embedding", &[5, options.ngroups * config.d_state]);
        Heads {
            dt_bias: vs.add("dt_bias", dt_bias.to_device(vs.device()), true),
            a_log: vs.add("A_log", a.log(), true),
            d: Init::Constant(1.0).parameter(vs, "D", &[s, if options.d_has_hdim { d } else { h }]),
            step_embedding: config.step_embedding.then(embedding),
            headdim: config.headdim(),
            d_state: config.d_state,
            options: options.clone(),
        }
    }

    /// The sets of `count` directions from number `first` on; a set that is shared stays.
    pub fn part(&self, first: i64, count: i64) -> Result<Heads> {
        let part = |t: &Tensor| -> Result<Tensor> {
            let whole = t.size()[0] == 1 || (first, count) == (0, t.size()[0]);
            Ok(if whole { t.shallow_clone() } else { t.f_narrow(0, first, count)? })
        };
        Ok(Heads {
            dt_bias: part(&self.dt_bias)?,
            a_log: part(&self.a_log)?,
            d: part(&self.d)?,
            step_embedding: self.step_embedding.as_ref().map(Tensor::shallow_clone),
            options: self.options.clone(),
            ..*self
        })
    }

    /// The scan along K orders, from a state (B, K, H, P, N) if there is one: y (B, L, 1, D), or (B, L, K, D) if `apart`.
    pub fn scan(
        &self,
        rows: &Rows,
        orders: &Orders,
        apart: bool,
        initial_state: Option<&Tensor>,
    ) -> Result<SsdOutput> {
        let Mamba2Options { ngroups, dt_limit, d_has_hdim, .. } = self.options;
        let (k, p, own) = (orders.directions(), self.headdim, ngroups * self.d_state);
        let heads = |t: &Tensor| t.f_unflatten(3, [t.size()[3] / p, p]);
        let groups = |t: &Tensor| t.f_unflatten(3, [ngroups, self.d_state]);
        let spread = |t: &Tensor| t.f_expand([-1, -1, k, -1], false);
        let parameter = |t: &Tensor| t.f_expand([k, -1], false);
        let [mut b, c] = parts(&spread(rows.bc)?, [own, own])?; // (B, L, K, G N)
        if let Some(embedding) = &self.step_embedding {
            b = with_ways(&b, embedding, &orders.ways()?.to_device(b.device()))?;
        }
        let skip = parameter(&self.d)?;
        let z = rows.z.map(heads).transpose()?;
        let input = SsdInput {
            x: &heads(rows.x)?,
            dt: &spread(rows.dt)?,
            a: &parameter(&full_precision(|| self.a_log.exp().f_neg())?)?,
            b: &groups(&b)?,
            c: &groups(&c)?,
            d: Some(&if d_has_hdim { skip.f_unflatten(1, [skip.size()[1] / p, p])? } else { skip }),
            z: z.as_ref(),
            dt_bias: Some(&parameter(&self.dt_bias)?),
            dt_softplus: true,
            dt_limits: (dt_limit[0], dt_limit[1]),
            initial_state,
            orders,
            merge: if apart { ops::Merge::Apart } else { ops::Merge::Sum },
        };
        tape::ssd(&input);
        let out = ssd(&input)?;
        let y = out.y.f_flatten(-2, -1)?;
        Ok(SsdOutput { y: if apart { y } else { y.f_unsqueeze(2)? }, ..out })
    }
}
