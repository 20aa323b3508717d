//! What a forward pass did, for those who want to look into it: the layers it went through, what each selective scan
//! read, where the tokens lie and what became of them. A scan's implicit attention follows from it.
//!
//! The tape is one per thread and runs within [`record`] alone. A mixer makes its scan's inputs inside its own forward
//! pass; to hand them out, every mixer, block, backbone and model would have to carry an argument, or to return and so
//! to keep alive, what training never asks for. As it is, a layer tells the tape in one line, and where no tape runs
//! that costs a look at a thread-local.

use std::cell::RefCell;

use tch::{Kind, Tensor};

use crate::{
    Error, Result,
    ops::{Merge, Orders, ScanInput, SsdInput, selective_scan},
};

thread_local! {
    static TAPE: RefCell<Option<Tape>> = const { RefCell::new(None) };
}

/// What was recorded.
#[derive(Debug, Default)]
pub struct Tape {
    /// In the order in which they ran.
    pub layers: Vec<Layer>,
    /// What the last norm made, (B, L, d_model), with its graph if there is one, and where those tokens lie.
    pub tokens: Option<(Tensor, Places)>,
    layout: Layout,
}

/// One block.
#[derive(Debug)]
pub struct Layer {
    /// Where its tokens lie.
    pub places: Places,
    /// Its selective scans; none where something else moves information between its tokens.
    pub scans: Vec<Scan>,
    /// What its scans do not show, or why there is none.
    pub notes: Vec<&'static str>,
}

/// How a model's tokens stand for places of its input.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// What the places are.
    pub ground: Ground,
    /// Numbers of the tokens that lie nowhere.
    pub class_tokens: Vec<i64>,
}

/// What lies under the tokens.
#[derive(Debug, Clone, Copy)]
pub enum Ground {
    /// The grid of the layer, over an input of (channels, rows, columns); if there are frames, they lie one below another
    /// in it, and the input is (channels, frames, rows, columns).
    Grid {
        /// Of a clip.
        frames: Option<i64>,
    },
    /// So many places and no grid. An input is the values of its places, one place after another. There may be several
    /// tokens for each place: one for every place, then again.
    Loose {
        /// Their number.
        places: i64,
    },
}

impl Default for Ground {
    fn default() -> Self {
        Ground::Grid { frames: None }
    }
}

/// Where the tokens of a layer lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// (rows, columns) of a grid, for a clip (frames, rows, columns), or the number of places where there is no grid.
    pub sizes: Vec<i64>,
    /// The place of each token, counted row by row; none for a class token.
    pub of: Vec<Option<usize>>,
}

impl Places {
    fn new(layout: &Layout, [rows, columns]: [i64; 2], tokens: i64) -> Places {
        let sizes = match layout.ground {
            Ground::Grid { frames: Some(frames) } if frames > 0 && rows % frames == 0 => {
                vec![frames, rows / frames, columns]
            }
            Ground::Grid { .. } => vec![rows, columns],
            Ground::Loose { places } => vec![places],
        };
        let count = sizes.iter().product::<i64>().max(1) as usize;
        let mut next = 0..;
        let place = |token| {
            let lies = !layout.class_tokens.contains(&token);
            if lies { next.next().map(|number: usize| number % count) } else { None }
        };
        Places { sizes, of: (0..tokens).map(place).collect() }
    }

    /// How many places there are.
    pub fn count(&self) -> usize {
        self.sizes.iter().product::<i64>().max(0) as usize
    }

    /// The tokens at `place`, or the class tokens.
    pub fn tokens(&self, place: Option<usize>) -> Vec<i64> {
        (0..).zip(&self.of).filter(|(_, of)| **of == place).map(|(token, _)| token).collect()
    }

    /// The place of these that lies where `place` lies among the `others`, which may be finer or coarser.
    pub fn nearest(&self, others: &Places, place: usize) -> usize {
        if self.sizes.len() != others.sizes.len() {
            return place.min(self.count().saturating_sub(1));
        }
        let (mut rest, mut factor, mut found) = (place, 1, 0);
        for (own, other) in self.sizes.iter().zip(&others.sizes).rev() {
            let [own, other] = [own, other].map(|size| (*size).max(1) as usize);
            // The middle of a cell of theirs.
            found += factor * ((2 * (rest % other) + 1) * own / (2 * other));
            (rest, factor) = (rest / other, factor * own);
        }
        found
    }
}

/// Runs `f` with a tape; those outside it hear nothing of what `f` does.
pub fn record<T>(f: impl FnOnce() -> T) -> (T, Tape) {
    let _restore = Restore(TAPE.replace(Some(Tape::default())));
    let result = f();
    (result, TAPE.take().unwrap_or_default())
}

/// Runs `f` without a tape: layers within a layer, whose tokens are not its own.
pub(crate) fn unheard<T>(f: impl FnOnce() -> T) -> T {
    let _restore = Restore(TAPE.take());
    f()
}

/// Puts a tape back, whatever happens.
struct Restore(Option<Tape>);

impl Drop for Restore {
    fn drop(&mut self) {
        TAPE.set(self.0.take());
    }
}

fn on_tape(f: impl FnOnce(&mut Tape)) {
    TAPE.with_borrow_mut(|tape| {
        if let Some(tape) = tape {
            f(tape);
        }
    });
}

/// Of a model, before its first layer: how its tokens stand for places.
pub fn lay(layout: impl FnOnce() -> Layout) {
    on_tape(|tape| tape.layout = layout());
}

/// A block begins, over so many tokens on `grid` (and beside it, if there are class tokens).
pub fn layer(grid: [i64; 2], tokens: &Tensor) {
    on_tape(|tape| {
        let places = Places::new(&tape.layout, grid, tokens.size().get(1).copied().unwrap_or(0));
        tape.layers.push(Layer { places, scans: Vec::new(), notes: Vec::new() });
    });
}

/// What the scans of this layer do not show.
pub(crate) fn note(text: &'static str) {
    on_tape(|tape| {
        if let Some(layer) = tape.layers.last_mut().filter(|layer| !layer.notes.contains(&text)) {
            layer.notes.push(text);
        }
    });
}

/// A layer is about to scan.
pub(crate) fn scan(input: &ScanInput) {
    on_tape(|tape| {
        if let Some(layer) = tape.layers.last_mut() {
            layer.scans.push(Scan::new(input, Some(&layer.places)));
        }
    });
}

/// A layer is about to scan by heads.
pub(crate) fn ssd(input: &SsdInput) {
    on_tape(|tape| {
        if let Some(layer) = tape.layers.last_mut() {
            // What does not fit together is the op's to refuse.
            layer.scans.extend(Scan::of_heads(input, Some(&layer.places)));
        }
    });
}

/// The tokens behind the last norm.
pub fn tokens(tokens: &Tensor, grid: [i64; 2]) {
    on_tape(|tape| {
        let places = Places::new(&tape.layout, grid, tokens.size().get(1).copied().unwrap_or(0));
        tape.tokens = Some((tokens.shallow_clone(), places));
    });
}

/// What a selective scan read, but for D, gates and an initial state.
#[derive(Debug)]
pub struct Scan {
    /// Where its tokens lie: those of its layer, unless it has a grid of its own.
    pub places: Places,
    u: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    delta_bias: Option<Tensor>,
    softplus: bool,
    orders: Orders,
}

impl Scan {
    /// The scan of `input`, in a layer whose tokens lie at `places`. A tensor is kept as it is, not copied.
    pub fn new(input: &ScanInput, places: Option<&Places>) -> Scan {
        let orders = input.orders.clone();
        let (tokens, blanks) = (orders.tokens().max(0) as usize, orders.blank_tokens().max(0) as usize);
        let whole = || Places { sizes: vec![tokens as i64], of: (0..tokens).map(Some).collect() };
        let mut places = match (orders.plane(), places) {
            (Ok(sizes), _) => Places { sizes: sizes.to_vec(), of: (0..tokens - blanks).map(Some).collect() },
            (Err(_), Some(places)) => places.clone(),
            (Err(_), None) => whole(),
        };
        // A blank step that is a token of its own lies nowhere.
        places.of.resize(tokens, None);
        Scan {
            places,
            u: input.u.detach(),
            delta: input.delta.detach(),
            a: input.a.detach(),
            b: input.b.detach(),
            c: input.c.detach(),
            delta_bias: input.delta_bias.map(Tensor::detach),
            softplus: input.delta_softplus,
            orders,
        }
    }

    /// The SSD of `input` as a selective scan whose channels are the heads: all channels of a head attend alike. Where dt
    /// is kept within limits, blank steps count as steps of size 0.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn of_heads(input: &SsdInput, places: Option<&Places>) -> Result<Scan> {
        let (k, h) = (input.orders.directions(), input.dt.size().last().copied().unwrap_or(0));
        let n = input.b.size().last().copied().unwrap_or(0);
        let per_head = |t: &Tensor| t.f_expand([k, h], false);
        let bias = input.dt_bias.map(per_head).transpose()?;
        let limited = input.dt_limits != (0.0, f64::INFINITY);
        let steps = if limited {
            let dt = bias.as_ref().map_or(Ok(input.dt.shallow_clone()), |bias| input.dt.f_add(bias))?;
            let dt = if input.dt_softplus { dt.f_softplus()? } else { dt };
            dt.f_clamp(input.dt_limits.0, input.dt_limits.1)?
        } else {
            input.dt.shallow_clone()
        };
        let scan = ScanInput {
            u: &input.dt.f_zeros_like()?,
            delta: &steps,
            a: &per_head(input.a)?.f_unsqueeze(2)?.f_expand([k, h, n], false)?,
            b: input.b,
            c: input.c,
            d: None,
            z: None,
            delta_bias: bias.as_ref().filter(|_| !limited),
            delta_softplus: input.dt_softplus && !limited,
            initial_state: None,
            orders: input.orders,
            merge: Merge::Apart,
        };
        Ok(Scan::new(&scan, places))
    }

    /// K.
    pub fn directions(&self) -> i64 {
        self.orders.directions()
    }

    /// The implicit attention of `tokens` (The Hidden Attention of Mamba Models, Ali et al., arXiv 2403.01590, eq. 11):
    /// (B, K, L, D), for token s of direction k and channel d what reaches the tokens t from it,
    /// `sum_t C_t (prod of exp(delta_r A), r behind s up to t) delta_s B_s`.
    /// Without D, gates and an initial state, y_t is the sum over s of this times u_s.
    ///
    /// With delta, B and C held still the scan is linear in u and its channels do not mix, so this is the gradient of
    /// the sum of all channels of y_t with respect to u: one backward pass of the op, without an L x L matrix, exact for
    /// every order that the op knows.
    ///
    /// # Errors
    /// A number that is no token's, or what the op refuses.
    pub fn attention(&self, tokens: &[i64]) -> Result<Tensor> {
        let (k, l) = (self.directions(), self.orders.tokens());
        if let Some(token) = tokens.iter().find(|token| !(0..l).contains(*token)) {
            return Err(Error::invalid(format!("there is no token {token}, expected 0 to {}", l - 1)));
        }
        let u = if self.u.dim() == 3 { self.u.f_unsqueeze(2)? } else { self.u.shallow_clone() };
        let u = u.f_expand([-1, -1, k, -1], false)?.f_contiguous()?.f_detach()?.set_requires_grad(true);
        tch::with_grad(|| {
            let y = selective_scan(&ScanInput {
                u: &u,
                delta: &self.delta,
                a: &self.a,
                b: &self.b,
                c: &self.c,
                d: None,
                z: None,
                delta_bias: self.delta_bias.as_ref(),
                delta_softplus: self.softplus,
                initial_state: None,
                orders: &self.orders,
                merge: Merge::Apart,
            })?
            .y; // (B, L, K, D)
            let (tokens, mut sum) = (Tensor::from_slice(tokens), Tensor::zeros([], (y.kind(), y.device())));
            let mut places = Vec::new();
            for direction in 0..k {
                let [read, written] = self.orders.read_and_written(direction as usize)?;
                let at = written.map_or(Ok(tokens.shallow_clone()), |at| at.f_index_select(0, &tokens))?;
                sum = sum.f_add(&y.f_select(2, direction)?.f_index_select(1, &at)?.f_sum(y.kind())?)?;
                places.push(read);
            }
            let gradients = Tensor::f_run_backward(&[&sum], &[&u], false, false)?;
            let Some(gradient) = gradients.first() else {
                return Err(Error::invalid("internal error: a scan without a gradient"));
            };
            let direction = |(k, read): (i64, &Option<Tensor>)| -> Result<Tensor> {
                let own = gradient.f_select(2, k)?; // (B, L, D)
                Ok(read.as_ref().map_or(Ok(own.shallow_clone()), |read| own.f_index_select(1, read))?)
            };
            let all = (0..).zip(&places).map(direction).collect::<Result<Vec<_>>>()?;
            Ok(Tensor::f_stack(&all, 1)?)
        })
    }

    /// The mean over the channels of the absolute [`attention`](Scan::attention) of `tokens`, by place: (B, K, places),
    /// f64. What class tokens and blank steps are given is left out; a place of several tokens has their sum.
    ///
    /// # Errors
    /// As [`attention`](Scan::attention).
    pub fn map(&self, tokens: &[i64]) -> Result<Tensor> {
        let mean =
            self.attention(tokens)?.to_kind(Kind::Double).f_abs()?.f_mean_dim(3, false, Kind::Double)?;
        let [from, to]: [Vec<i64>; 2] = [
            (0..).zip(&self.places.of).filter(|(_, place)| place.is_some()).map(|(token, _)| token).collect(),
            self.places.of.iter().flatten().map(|place| *place as i64).collect(),
        ];
        let [from, to] = [from, to].map(|list| Tensor::from_slice(&list));
        let shape = [mean.size()[0], mean.size()[1], self.places.count() as i64];
        Ok(Tensor::zeros(shape, (Kind::Double, mean.device())).f_index_add(
            2,
            &to,
            &mean.f_index_select(2, &from)?,
        )?)
    }
}
