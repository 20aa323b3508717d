//! The mixers whose features choose an order, a class or a quadrant, against their equations.

mod plain;

use ophidian_core::{
    mixer::{
        Choice, ConvPlace, DefMamba, DefMambaConfig, DeformCompat, DtRank, GrootLConfig, HydraConfig,
        Mamba1Config, Merge, Mixer, MixerConfig, QuadCompat, QuadMamba, QuadMambaConfig, Semantic,
        SemanticCompat, SemanticConfig,
    },
    rng,
    torch::autocast,
};
use plain::*;
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn semantic(
        b in 1..3i64, h in 1..4i64, w in 1..4i64, d_model in 3..6i64, classes in 1..4i64, unsorted in any::<bool>(),
        seed in 0..10_000u64,
    ) {
        let compat = SemanticCompat { unsorted_prompts: unsorted, random_inference: false };
        let config = SemanticConfig { d_model, d_state: 2, expand: 2.0, dt_rank: DtRank::Rank(1), classes, rank: 3, compat };
        let (vs, mixer) = fresh(seed, |vs| Semantic::new(vs, &config));
        let l = h * w;
        let input = Tensor::randn([b, l, d_model], F32);
        let chosen = Tensor::randint(classes, [b, l], (Kind::Int64, Device::Cpu));
        let orders = both_ways(l, 1).on_grid([h, w]);
        let inner = Mamba1Config {
            d_model: 2 * d_model, d_state: 2, expand: 1.0, dt_rank: DtRank::Rank(1), ..Mamba1Config::default()
        };
        let walks: Vec<Vec<i64>> = (0..b).map(|sample| {
            let of = |token: &i64| chosen.int64_value(&[sample, *token]);
            let mut walk: Vec<i64> = (0..l).collect();
            walk.sort_by_key(of);
            walk
        }).collect();
        let run = |x: &Tensor| mixer.forward_choosing(x, &orders, &mut Choice::Given(&chosen)).unwrap();
        check(&vs, &input, run, |weights, x, _| {
            let scores = linear(weights, "route.out", &linear(weights, "route.hidden", x).gelu("none"));
            let soft = scores.softmax(2, Kind::Double);
            let weight = chosen.one_hot(classes).to_kind(Kind::Double) + &soft - soft.detach();
            let prompt = weight.matmul(&weights["prompt.classes"]).matmul(&weights["prompt.states"]);
            let x = linear(weights, "in_proj", x);
            let near = convolved(&x, &weights["position.weight"], [h, w], 1, false) + &weights["position.bias"];
            let u = &x * near.sigmoid();
            let mut p = direction(weights, &inner, 0, &u);
            let added: Vec<Tensor> = walks.iter().enumerate().map(|(sample, walk)| {
                let rows: Vec<Tensor> = (0..l).map(|token| {
                    let step = walk.iter().position(|visited| *visited == token).unwrap() as i64;
                    prompt.select(0, sample as i64).select(0, if unsorted { step } else { token })
                }).collect();
                Tensor::stack(&rows, 0)
            }).collect();
            p.c = &p.c + Tensor::stack(&added, 0);
            let y = layer_norm(weights, "out_norm", &scan(&u, &p, &walks));
            (linear(weights, "out_proj", &y), none())
        })?;
    }

    #[test]
    fn defmamba(
        b in 1..3i64, h in 1..4i64, w in 1..4i64, d_model in 1..5i64, half_cell in any::<bool>(), mean in any::<bool>(),
        taps in 0..3i64, seed in 0..10_000u64,
    ) {
        let merge = if mean { Merge::Mean } else { Merge::Sum };
        let mamba = Mamba1Config { merge, ..config(d_model, 3, 2, false, true) };
        let config = DefMambaConfig { mamba: mamba.clone(), taps: 2 * taps + 1, compat: DeformCompat { half_cell } };
        let (vs, mixer) = fresh(seed, |vs| DefMamba::new(vs, &config));
        // Far enough off the corners of the interpolation.
        let input = Tensor::randn([b, h * w, d_model], F32);
        let l = h * w;
        let orders = both_ways(l, 2).on_grid([h, w]);
        check(&vs, &input, |x| mixer.forward(x, &orders).unwrap(), |weights, x, cotangent| {
            let extra = std::cell::RefCell::new(none());
            let scale = if mean { 1.0 / 3.0 } else { 1.0 };
            let z = linear(weights, "in_proj", x).narrow(2, mamba.d_inner(), mamba.d_inner()).silu();
            let y = shell(weights, &mamba, [h, w], x, |u| {
                let (values, key) = deformed(weights, u, [h, w], half_cell);
                let walks: Vec<Vec<i64>> = (0..b).map(|sample| {
                    let mut walk: Vec<i64> = (0..l).collect();
                    let of = |token: i64| key.double_value(&[sample, token]);
                    walk.sort_by(|i, j| of(*i).total_cmp(&of(*j)));
                    walk
                }).collect();
                // The key's gradient, by the released rule, from the gradient of the path alone.
                let leaf = values.detach().set_requires_grad(true);
                let path = scan(&leaf, &direction(weights, &mamba, 2, &leaf), &walks) * z.detach() * scale;
                let y = linear(weights, "out_proj", &path);
                let g = Tensor::run_backward(&[(y * cotangent).sum(Kind::Double)], &[&leaf], false, false);
                let mean = g[0].mean_dim(2, false, Kind::Double); // (B, L)
                let sorted = Tensor::stack(&walks.iter().enumerate().map(|(sample, walk)| {
                    mean.select(0, sample as i64).index_select(0, &Tensor::from_slice(walk))
                }).collect::<Vec<_>>(), 0);
                *extra.borrow_mut() = (&key * (sorted - mean).detach()).sum(Kind::Double);
                let both = [row_order(l), reversed(&row_order(l))];
                let still = (0..2).map(|k| scan(u, &direction(weights, &mamba, k, u), &both[k as usize]));
                let still = still.reduce(|a, b| a + b).unwrap();
                (still + scan(&values, &direction(weights, &mamba, 2, &values), &walks)) * scale
            });
            (y, extra.into_inner())
        })?;
    }

    #[test]
    fn quadmamba(
        b in 1..3i64, h in 1..9i64, w in 1..9i64, block in 0..8i64, colliding in any::<bool>(), mean in any::<bool>(),
        seed in 0..10_000u64,
    ) {
        let (h, w) = if colliding { (4 * (h / 4 + 1), 4 * (w / 4 + 1)) } else { (h, w) };
        let merge = if mean { Merge::Mean } else { Merge::Sum };
        let mamba = Mamba1Config { merge, expand: 1.0, ..config(4, 2, 2, true, false) };
        let compat = QuadCompat { colliding_windows: colliding, random_inference: false };
        let config = QuadMambaConfig { mamba: mamba.clone(), block, compat };
        let (vs, mixer) = fresh(seed, |vs| QuadMamba::new(vs, &config));
        let l = h * w;
        let input = Tensor::randn([b, l, 4], F32);
        let chosen = Tensor::randint(4, [b], (Kind::Int64, Device::Cpu));
        let orders = both_ways(l, 2).on_grid([h, w]);
        let run = |x: &Tensor| mixer.forward_choosing(x, &orders, &mut Choice::Given(&chosen)).unwrap();
        check(&vs, &input, run, |weights, x, _| {
            let y = shell(weights, &mamba, [h, w], x, |u| {
                let y = quad(weights, &mamba, u, [h, w], block, colliding, &chosen);
                if mean { y * 0.5 } else { y }
            });
            (y, none())
        })?;
    }
}

/// Bilinear reading of a map (D, rows, columns) at cell coordinates, zero beyond it.
fn read(map: &Tensor, y: &Tensor, x: &Tensor) -> Tensor {
    let (rows, columns) = (map.size()[1], map.size()[2]);
    let mut sum = Tensor::zeros([map.size()[0]], F64);
    let (top, left) = (y.double_value(&[]).floor(), x.double_value(&[]).floor());
    for i in [top, top + 1.0] {
        for j in [left, left + 1.0] {
            if i >= 0.0 && j >= 0.0 && i < rows as f64 && j < columns as f64 {
                let share = (-(y - i).abs() + 1.0) * (-(x - j).abs() + 1.0);
                sum += map.select(1, i as i64).select(1, j as i64) * share;
            }
        }
    }
    sum
}

/// The tokens that DefMamba reads, and their keys.
fn deformed(w: &Weights, u: &Tensor, [rows, columns]: [i64; 2], half_cell: bool) -> (Tensor, Tensor) {
    let (b, l, d) = u.size3().unwrap();
    let near = convolved(u, &w["deform.conv.weight"], [rows, columns], 1, false) + &w["deform.conv.bias"];
    let mean = u.mean_dim(1, true, Kind::Double);
    let gate = linear(w, "deform.expand", &linear(w, "deform.reduce", &mean).gelu("none")).sigmoid();
    let moves = linear(w, "deform.offset", &layer_norm(w, "deform.norm", &(near * gate)).gelu("none")).tanh();
    let table = w["deform.rpe_table"]
        .unsqueeze(0)
        .upsample_bilinear2d([rows, columns], false, None, None)
        .squeeze_dim(0);
    let half = if half_cell { 0.5 } else { 0.0 };
    // A position bias is read at minus half the move (and at minus half of what the released grids are apart), from
    // the middle of the table.
    let grid =
        |n: i64, i: i64| if half_cell && n > 1 { i as f64 * n as f64 / (n - 1) as f64 } else { i as f64 };
    let mut tokens = vec![];
    for sample in 0..b {
        for row in 0..rows {
            for column in 0..columns {
                let at = moves.select(0, sample).select(0, row * columns + column);
                // A move of 1 in the sampler's units / (n - 1) is half a cell.
                let place = |i: i64, n: i64, axis: i64| -> (Tensor, Tensor) {
                    if n == 1 {
                        // One cell: wherever the sampler is sent, align_corners leads to cell 0.
                        return (Tensor::zeros([], F64), Tensor::zeros([], F64));
                    }
                    let y = at.select(0, axis) * 0.5 + (i as f64 + half);
                    let back = (-(&y) + grid(n, i)) * 0.5;
                    (y, back + (n - 1) as f64 / 2.0)
                };
                let ((y, back_y), (x, back_x)) = (place(row, rows, 0), place(column, columns, 1));
                let map = u.select(0, sample).view([rows, columns, d]).permute([2, 0, 1]);
                tokens.push(read(&map, &y, &x) + read(&table, &back_y, &back_x));
            }
        }
    }
    let places = (Tensor::arange(l, F64) + half) * (2.0 / (l - 1).max(1) as f64) - 1.0;
    (Tensor::stack(&tokens, 0).view([b, l, d]), moves.select(2, 2) + places)
}

/// QuadMamba's core.
fn quad(
    w: &Weights,
    config: &Mamba1Config,
    u: &Tensor,
    [rows, columns]: [i64; 2],
    block: i64,
    colliding: bool,
    chosen: &Tensor,
) -> Tensor {
    let (b, l, _) = u.size3().unwrap();
    let x = linear(w, "score.embed", &layer_norm(w, "score.norm", u)).gelu("none");
    let x = linear(w, "score.reduce", &linear(w, "score.hidden", &x).gelu("none")).gelu("none");
    let score = linear(w, "score.out", &x).log_softmax(2, Kind::Double).select(2, 0);
    let pooled = score.view([b, 1, rows, columns]).adaptive_avg_pool2d([2, 2]).view([b, 4]);
    let soft = pooled.softmax(1, Kind::Double);
    let keep = chosen.one_hot(4).to_kind(Kind::Double) + &soft - soft.detach();

    let by = rows / 8;
    let (down, right) = match (block % 2, (block / 2) % 4) {
        (0, _) => (0, 0),
        (_, 0) => (by, by),
        (_, 1) => (-by, -by),
        (_, 2) => (by, -by),
        _ => (-by, by),
    };
    // Padded to multiples of 4; the token at each place of the rolled map.
    let (tall, wide) = ((rows + 3) / 4 * 4, (columns + 3) / 4 * 4);
    let token = |row: i64, column: i64| {
        let real = row < rows && column < columns;
        real.then(|| (row - down).rem_euclid(rows) * columns + (column - right).rem_euclid(columns))
    };
    let places: Vec<(i64, i64)> =
        (0..tall).flat_map(|row| (0..wide).map(move |column| (row, column))).collect();
    let quadrant = |&(row, column): &(i64, i64)| row / (tall / 2) * 2 + column / (wide / 2);
    let window = |&(row, column): &(i64, i64)| row / (tall / 4) * 4 + column / (wide / 4);
    let mut quadrants = vec![0; l as usize];
    for place in &places {
        if let Some(token) = token(place.0, place.1) {
            quadrants[token as usize] = quadrant(place);
        }
    }
    let mask = keep.index_select(1, &Tensor::from_slice(&quadrants)).unsqueeze(2); // (B, L, 1)
    let sorted = |key: &dyn Fn(&(i64, i64)) -> i64| {
        let mut sorted = places.clone();
        sorted.sort_by_key(key);
        sorted
    };
    let two_ways = |u: &Tensor, walks: &[Vec<i64>]| {
        scan(u, &direction(w, config, 0, u), walks) + scan(u, &direction(w, config, 1, u), &reversed(walks))
    };
    if colliding {
        let tokens =
            |places: Vec<(i64, i64)>| places.iter().map(|(r, c)| token(*r, *c).unwrap()).collect::<Vec<_>>();
        let (fine, coarse) = (tokens(sorted(&window)), tokens(sorted(&quadrant)));
        let take = |x: &Tensor, index: &[i64]| x.index_select(1, &Tensor::from_slice(index));
        let back = |index: &[i64]| -> Vec<i64> {
            (0..l).map(|token| index.iter().position(|i| *i == token).unwrap() as i64).collect()
        };
        let rest = -&mask + 1.0;
        let sequence = take(&(u * &mask), &fine) + take(&(u * &rest), &coarse);
        let y = two_ways(&sequence, &row_order(l));
        return take(&y, &back(&fine)) * mask + take(&y, &back(&coarse)) * rest;
    }
    // Blank steps are tokens of zeros behind the others.
    let blanks = tall * wide - l;
    let padded = |u: &Tensor| u.constant_pad_nd([0, 0, 0, blanks]);
    let walks: Vec<Vec<i64>> = (0..b)
        .map(|sample| {
            let chosen = chosen.int64_value(&[sample]);
            let key = |place: &(i64, i64)| {
                let (quadrant, window) = (quadrant(place), window(place));
                quadrant * 16 + if quadrant == chosen { window } else { 0 }
            };
            let mut next = l;
            let number = |(row, column): (i64, i64)| {
                token(row, column).unwrap_or_else(|| {
                    next += 1;
                    next - 1
                })
            };
            sorted(&key).into_iter().map(number).collect()
        })
        .collect();
    let hard =
        chosen.one_hot(4).to_kind(Kind::Double).index_select(1, &Tensor::from_slice(&quadrants)).unsqueeze(2);
    // The weight of the way that a token is sent.
    let weight = &mask * &hard + (-&mask + 1.0) * (-&hard + 1.0);
    two_ways(&padded(&(u * &weight)), &walks).narrow(1, 0, l) * weight
}

#[test]
fn choices_follow_their_generator() {
    let scores = Tensor::from_slice(&[0.7f32, 0.2, 0.1]).log().expand([4000, 3], false);
    let draw = |seed: u64| Choice::Sampled(&mut rng::stream(&[seed])).choose(&scores).unwrap();
    let (first, hot) = draw(1);
    assert_eq!(first, draw(1).0);
    assert_ne!(first, draw(2).0);
    assert_eq!(hot, first.one_hot(3).to_kind(Kind::Float));
    for (class, share) in [0.7, 0.2, 0.1].into_iter().enumerate() {
        let found = first.eq(class as i64).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        assert!((found - share).abs() < 0.04, "class {class}: {found}");
    }
    assert_eq!(Choice::Likeliest.choose(&scores).unwrap().0.max().int64_value(&[]), 0);
    for wrong in [Tensor::from_slice(&[3i64]), Tensor::from_slice(&[-1i64]), Tensor::from_slice(&[0i64, 1])] {
        let error = Choice::Given(&wrong).choose(&scores.narrow(0, 0, 1)).unwrap_err().to_string();
        assert!(error.contains("of 0 to 2"), "{error}");
    }
}

/// At inference the likeliest, always the same; while training, libtorch's generator says.
#[test]
fn mixers_choose_on_their_own() {
    let config =
        QuadMambaConfig { mamba: config(4, 2, 2, true, false), block: 1, compat: QuadCompat::default() };
    let (_vs, mixer) = fresh(1, |vs| QuadMamba::new(vs, &config));
    let x = Tensor::randn([8, 64, 4], F32);
    let orders = both_ways(64, 1).on_grid([8, 8]);
    let run = || mixer.forward(&x, &orders).unwrap().detach();
    let still = || tch::no_grad(run);
    let likeliest = tch::no_grad(|| mixer.forward_choosing(&x, &orders, &mut Choice::Likeliest)).unwrap();
    assert_eq!((still(), still()), (likeliest.copy(), likeliest));
    assert_ne!(run(), run());
}

#[test]
fn misfits_are_errors() {
    let vs = tch::nn::VarStore::new(Device::Cpu);
    let message = |error: ophidian_core::Error| error.to_string();
    let quad = |mamba: Mamba1Config, block| QuadMambaConfig { mamba, block, compat: QuadCompat::default() };
    let def = |mamba: Mamba1Config, taps| DefMambaConfig { mamba, taps, compat: DeformCompat::default() };
    for (named, error) in [
        ("`directions` is 1", QuadMamba::new(&vs.root(), &quad(config(4, 1, 2, true, false), 0)).err()),
        ("`block` -1", QuadMamba::new(&vs.root(), &quad(config(4, 2, 2, true, false), -1)).err()),
        ("out_norm", DefMamba::new(&vs.root(), &def(config(4, 3, 2, true, true), 3)).err()),
        ("`taps` is 4", DefMamba::new(&vs.root(), &def(config(4, 3, 2, false, true), 4)).err()),
        (
            "`classes` is 0",
            Semantic::new(&vs.root(), &SemanticConfig { classes: 0, ..Default::default() }).err(),
        ),
    ] {
        let error = error.map(message).unwrap_or_default();
        assert!(error.contains(named), "{named}: {error}");
    }
    let x = Tensor::randn([1, 6, 4], F32);
    let compat = QuadCompat { colliding_windows: true, random_inference: false };
    let config_quad = QuadMambaConfig { compat, ..quad(config(4, 2, 2, true, false), 0) };
    let (_vs, mixer) = fresh(1, |vs| QuadMamba::new(vs, &config_quad));
    let error = message(mixer.forward(&x, &both_ways(6, 1).on_grid([2, 3])).unwrap_err());
    assert!(error.contains("multiples of 4") && error.contains("[2, 3]"), "{error}");
    let (_vs, mixer) = fresh(1, |vs| DefMamba::new(vs, &def(config(4, 3, 2, false, true), 3)));
    assert!(message(mixer.forward(&x, &both_ways(6, 1).on_grid([2, 3])).unwrap_err()).contains("1 orders"));
    // A NaN among the features is no panic.
    let odd = x.copy();
    let _ = odd.select(1, 2).fill_(f64::NAN);
    let y = mixer.forward(&odd, &both_ways(6, 2).on_grid([2, 3])).unwrap();
    assert!(bool::try_from(y.isnan().any()).unwrap());
    let (_vs, mixer) = fresh(1, |vs| Semantic::new(vs, &SemanticConfig { d_model: 4, ..Default::default() }));
    assert!(mixer.forward(&odd, &both_ways(6, 1).on_grid([2, 3])).is_ok());
    assert!(mixer.forward(&x.narrow(1, 0, 5), &both_ways(6, 1).on_grid([2, 3])).is_err());
}

/// Every mixer by its configuration, forward and backward within autocast; shapes hold and nothing is lost to bf16.
#[test]
fn mixers_run_within_autocast() {
    let map = |directions, d_state, norm| config(8, directions, d_state, norm, true);
    let hydra = HydraConfig { d_model: 8, d_state: 4, headdim: 8, ..HydraConfig::default() };
    let quad = QuadMambaConfig { mamba: map(2, 2, true), block: 1, compat: QuadCompat::default() };
    let def = DefMambaConfig { mamba: map(3, 2, false), taps: 3, compat: DeformCompat::default() };
    let text = Mamba1Config { conv: ConvPlace::Along, ..map(1, 2, false) };
    for (config, directions) in [
        (MixerConfig::from(map(2, 2, true)), 2),
        (MixerConfig::GrootV(map(1, 1, true)), 1),
        (MixerConfig::GrootL(GrootLConfig { mamba: text, context: 5, scale: 0.3 }), 1),
        (MixerConfig::SpatialMamba(map(1, 1, true)), 1),
        (MixerConfig::Hydra(hydra), 2),
        (MixerConfig::DefMamba(def), 2),
        (MixerConfig::QuadMamba(quad), 1),
        (MixerConfig::Semantic(SemanticConfig { d_model: 8, ..SemanticConfig::default() }), 1),
    ] {
        assert_eq!(config.d_model(), 8);
        let (vs, mixer) = fresh(5, |vs| config.build(vs));
        let x = Tensor::randn([2, 24, 8], F32);
        let orders = both_ways(24, directions).on_grid([4, 6]);
        let y = autocast(true, || mixer.forward(&x, &orders)).unwrap();
        assert_eq!((y.size(), y.kind()), (x.size(), Kind::BFloat16), "{config:?}");
        y.to_kind(Kind::Float).square().sum(Kind::Float).backward();
        assert!(bool::try_from(y.isfinite().all()).unwrap(), "{config:?}");
        for (name, variable) in vs.variables() {
            let grad = variable.grad();
            assert!(grad.defined() && bool::try_from(grad.isfinite().all()).unwrap(), "{config:?}: {name}");
        }
    }
}
