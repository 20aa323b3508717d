//! The emulator of CUDA finds what it is there to find, and computes what a card would.
#![allow(missing_docs)]

mod cuda;

use cuda::{Buffer, Launch, Module, SCHEDULES, Schedule, Turns, module_from};

/// One pointer each: what the kernels below take.
#[repr(C)]
#[derive(Clone, Copy)]
struct Arguments {
    x: *const f32,
    y: *mut f32,
    n: i32,
}

const STRUCT: &str = "#include \"common.cuh\"\nstruct Arguments { const float* x; float* y; int n; };\n";

fn run(
    module: &Module,
    kernel: &str,
    x: &[f32],
    out: usize,
    launch: Launch,
) -> Vec<Result<Vec<f32>, String>> {
    let each = |schedule: &Schedule| {
        let (x, y) = (Buffer::of(x), Buffer::<f32>::poisoned(out));
        let arguments = Arguments { x: x.ptr(), y: y.ptr(), n: x.len() as i32 };
        module.launch(kernel, arguments, launch, *schedule).map(|()| y.to_vec())
    };
    SCHEDULES.iter().map(each).collect()
}

fn compile(name: &str, body: &str) -> std::sync::Arc<Module> {
    module_from(name, &format!("{STRUCT}{body}"))
}

fn one_block(threads: u32) -> Launch {
    Launch { grid: [1, 1, 1], block: [threads, 1, 1], shared: 0 }
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 37 % 101) as f32 - 50.0).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// True if all schedules gave `want`.
fn agree(results: &[Result<Vec<f32>, String>], want: &[f32]) -> bool {
    results.iter().all(|r| r.as_ref().is_ok_and(|y| bits(y) == bits(want)))
}

/// Reversal through shared memory, with the barrier and without; and twice over, without the barrier before the second
/// writing.
#[test]
fn missing_barriers_are_found() {
    let reverse = |barrier: &str| {
        format!(
            "KERNEL reverse(Arguments a) {{ __shared__ float s[64]; int i = threadIdx.x;
             s[i] = a.x[i]; {barrier} a.y[i] = s[63 - i]; }}"
        )
    };
    let x = numbers(64);
    let want: Vec<f32> = x.iter().rev().copied().collect();
    let good = compile("reverse", &reverse("__syncthreads();"));
    assert!(agree(&run(&good, "reverse", &x, 64, one_block(64)), &want));
    let bad = compile("reverse_bad", &reverse(""));
    let results = run(&bad, "reverse", &x, 64, one_block(64));
    assert!(results.iter().all(|r| r.as_ref().unwrap() != &want), "{results:?}");

    // The barrier of a warp is not enough for two.
    let warp = compile("reverse_warp", &reverse("__syncwarp();"));
    assert!(!agree(&run(&warp, "reverse", &x, 64, one_block(64)), &want));

    let twice = |barrier: &str| {
        format!(
            "KERNEL twice(Arguments a) {{ DYNAMIC_SHARED(raw); float* s = (float*)raw; int i = threadIdx.x; float sum = 0;
             for (int turn = 0; turn < 3; turn++) {{ s[i] = a.x[i] + turn; __syncthreads(); sum += s[63 - i]; {barrier} }}
             a.y[i] = sum; }}"
        )
    };
    let launch = Launch { shared: 256, ..one_block(64) };
    let want: Vec<f32> = x.iter().rev().map(|v| 3.0 * v + 3.0).collect();
    assert!(agree(&run(&compile("twice", &twice("__syncthreads();")), "twice", &x, 64, launch), &want));
    assert!(!agree(&run(&compile("twice_bad", &twice("")), "twice", &x, 64, launch), &want));
}

/// A barrier that some threads never reach, or two barriers at once, or a warp operation without all of its lanes.
#[test]
fn barriers_that_do_not_meet_are_errors() {
    for (name, body, expected) in [
        (
            "ended",
            "if (threadIdx.x < 40) __syncthreads();",
            "40 of 64 threads wait at a barrier (line 3), 0 in a warp",
        ),
        (
            "two",
            "if (threadIdx.x < 40) {\n__syncthreads(); } else {\n__syncthreads(); }",
            "waits at the barrier of line",
        ),
        ("lanes", "if (threadIdx.x % 2) __syncwarp();", "32 in a warp operation"),
        ("mask", "if (threadIdx.x % 2) __syncwarp(1);", "lacks"),
        ("source", "float v = __shfl_sync(0xffff, 1.0f, 20); a.y[0] = v;", "lacks"),
        (
            "mixed",
            "if (threadIdx.x % 2) __syncwarp(); else a.y[0] = __shfl_sync(FULL_WARP, 1.0f, 0);",
            "another operation",
        ),
    ] {
        let module = compile(name, &format!("KERNEL bad(Arguments a) {{ {body} }}"));
        for result in run(&module, "bad", &numbers(4), 4, one_block(64)) {
            let error = result.expect_err(name);
            assert!(error.contains(expected), "{name}: {error}");
        }
    }
}

/// Addresses outside.
#[test]
fn out_of_bounds_is_an_error() {
    let module = compile(
        "outside",
        "KERNEL reads(Arguments a) { a.y[0] = a.x[a.n + 2000]; }
         KERNEL writes(Arguments a) { a.y[threadIdx.x] = 0; }
         KERNEL shared(Arguments a) { DYNAMIC_SHARED(raw); float* s = (float*)raw; s[threadIdx.x] = 1; a.y[0] = s[0]; }",
    );
    let launch = Launch { shared: 128, ..one_block(32) };
    for (kernel, shared) in [("reads", 128), ("writes", 128), ("shared", 0)] {
        for result in run(&module, kernel, &numbers(4), 4, Launch { shared, ..launch }) {
            let error = result.expect_err(kernel);
            assert!(error.contains("touches the address"), "{error}");
        }
    }
    assert!(agree(&run(&module, "shared", &numbers(4), 1, launch), &[1.0]));
}

/// Shared memory, of both kinds, is NaN at the start of every block.
#[test]
fn shared_memory_is_poisoned() {
    let module = compile(
        "poison",
        "KERNEL poison(Arguments a) { __shared__ float s[2]; DYNAMIC_SHARED(raw); float* d = (float*)raw;
         bool fresh = s[0] != s[0] && d[0] != d[0]; s[0] = 0; d[0] = 0; a.y[blockIdx.x] = fresh ? 1 : 0; }",
    );
    let launch = Launch { grid: [5, 1, 1], shared: 4, ..one_block(1) };
    assert!(agree(&run(&module, "poison", &[], 5, launch), &[1.0; 5]));
}

/// Shuffles, votes, sums over a warp, atomics.
#[test]
fn warps_compute() {
    let module = compile(
        "warps",
        "KERNEL warps(Arguments a) {
             int i = threadIdx.x, lane = lane_id(); float v = a.x[i]; float* y = a.y + i * 8;
             y[0] = __shfl_sync(FULL_WARP, v, 5, 8); y[1] = __shfl_up_sync(FULL_WARP, v, 3);
             y[2] = __shfl_down_sync(FULL_WARP, v, 3, 16); y[3] = __shfl_xor_sync(FULL_WARP, v, 9);
             y[4] = warp_sum<8>(v); y[5] = (float)__popc(__ballot_sync(FULL_WARP, v > 0));
             float p[4] = {v, 2 * v, 3 * v, 4 * v}; warp_spread_sum<4, 4, 2>(p); y[6] = p[0];
             float half = 0; if (lane < 16) half = __shfl_xor_sync(0xffff, v, 1); y[7] = half;
         }
         KERNEL atomics(Arguments a) { if (threadIdx.x == 0) a.y[0] = 0; __syncthreads(); atomicAdd(a.y, a.x[threadIdx.x]); }",
    );
    let x = numbers(64);
    let mut want = Vec::new();
    for i in 0..64 {
        let (lane, at) = (i % 32, |lane: usize| x[i / 32 * 32 + lane]);
        let run = lane / 8 * 8;
        let positive = (0..32).filter(|l| at(*l) > 0.0).count();
        let place = lane / 2 % 4;
        let sum: f32 = (0..4).map(|j| (place + 1) as f32 * at(run + j * 2 + lane % 2)).sum();
        want.extend([
            at(run + 5),
            if lane >= 3 { at(lane - 3) } else { at(lane) },
            if lane % 16 < 13 { at(lane + 3) } else { at(lane) },
            at(lane ^ 9),
            (0..8).map(|j| at(run + j)).sum(),
            positive as f32,
            sum,
            if lane < 16 { at(lane ^ 1) } else { 0.0 },
        ]);
    }
    assert!(agree(&run(&module, "warps", &x, 512, one_block(64)), &want));
    assert!(agree(&run(&module, "atomics", &x, 1, one_block(64)), &[x.iter().sum()]));
}

/// Products of matrices by fragments: bf16 with the matrices loaded row by row and by `load_matrices`, f16, tf32.
#[test]
fn tensor_cores_multiply() {
    let module = compile(
        "mma",
        "// x: a (16 x 16), then b (16 x 8); y: 16 x 8 each.
         DEVICE void write(float* y, const float (&d)[4]) {
             int g = lane_id() / 4, t = lane_id() % 4;
             y[g * 8 + 2 * t] = d[0]; y[g * 8 + 2 * t + 1] = d[1]; y[(g + 8) * 8 + 2 * t] = d[2]; y[(g + 8) * 8 + 2 * t + 1] = d[3];
         }
         KERNEL mma(Arguments arguments) {
             const float* a = arguments.x; const float* b = a + 256; float* y = arguments.y;
             int g = lane_id() / 4, t = lane_id() % 4;
             u32 fa[4], fb[2], ha[4], hb[2];
             for (int i = 0; i < 4; i++) {
                 const float* p = a + (g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
                 fa[i] = pack_bf16(p[0], p[1]); ha[i] = pack_f16(p[0], p[1]);
             }
             for (int i = 0; i < 2; i++) {
                 const float* p = b + (2 * t + i * 8) * 8 + g;
                 fb[i] = pack_bf16(p[0], p[8]); hb[i] = pack_f16(p[0], p[8]);
             }
             float d[4] = {1, 1, 1, 1}, h[4] = {1, 1, 1, 1}, f[4] = {1, 1, 1, 1}, l[4] = {1, 1, 1, 1};
             mma_bf16(d, fa, fb); write(y, d);
             mma_f16(h, ha, hb); write(y + 128, h);
             for (int k = 0; k < 16; k += 8) {
                 u32 ta[4] = {to_tf32(a[g * 16 + k + t]), to_tf32(a[(g + 8) * 16 + k + t]), to_tf32(a[g * 16 + k + t + 4]),
                              to_tf32(a[(g + 8) * 16 + k + t + 4])};
                 u32 tb[2] = {to_tf32(b[(k + t) * 8 + g]), to_tf32(b[(k + t + 4) * 8 + g])};
                 mma_tf32(f, ta, tb);
             }
             write(y + 256, f);
             __shared__ __align__(16) u16 sa[16 * 16]; __shared__ __align__(16) u16 sb[16 * 8];
             for (int i = lane_id(); i < 256; i += 32) sa[i] = to_bf16(a[i]);
             for (int i = lane_id(); i < 128; i += 32) sb[i] = to_bf16(b[i]);
             __syncwarp();
             int i = lane_id();
             load_matrices(fa, sa + (i % 16) * 16 + i / 16 * 8);
             u32 both[4]; load_matrices_transposed(both, sb + (i % 16) * 8);
             fb[0] = both[0]; fb[1] = both[1];
             mma_bf16(l, fa, fb); write(y + 384, l);
         }",
    );
    // Small whole numbers: exact in every type.
    let x: Vec<f32> = numbers(384).iter().map(|v| (v / 8.0).round()).collect();
    let mut want = Vec::new();
    for row in 0..16 {
        for column in 0..8 {
            want.push(1.0 + (0..16).map(|k| x[row * 16 + k] * x[256 + k * 8 + column]).sum::<f32>());
        }
    }
    assert!(agree(&run(&module, "mma", &x, 512, one_block(32)), &want.repeat(4)));
}

/// A copy that is not waited for is seen by the schedules that make it late.
#[test]
fn copies_that_are_not_waited_for_are_found() {
    let source = |wait: &str| {
        format!(
            "KERNEL copies(Arguments a) {{ __shared__ float s[2][128]; int i = threadIdx.x;
             copy_async(&s[0][i * 4], a.x + i * 4, true); copy_commit();
             copy_async(&s[1][i * 4], a.x, i % 2 == 0); copy_commit();
             {wait} __syncthreads();
             for (int j = 0; j < 4; j++) a.y[i * 4 + j] = s[0][127 - i * 4 - j];
             copy_wait<0>(); }}"
        )
    };
    let x = numbers(128);
    let want: Vec<f32> = x.iter().rev().copied().collect();
    let good = compile("copies", &source("copy_wait<1>();"));
    assert!(agree(&run(&good, "copies", &x, 128, one_block(32)), &want));
    let bad = run(&compile("copies_bad", &source("copy_wait<2>();")), "copies", &x, 128, one_block(32));
    for (schedule, result) in SCHEDULES.iter().zip(bad) {
        assert_eq!(result.unwrap() == want, !schedule.late_copies, "{schedule:?}");
    }
}

/// f16 and bf16 as the `half` crate has them, and back.
#[test]
fn halves_are_rounded_as_ieee_says() {
    let module = compile(
        "halves",
        "KERNEL halves(Arguments a) { for (int i = threadIdx.x; i < a.n; i += blockDim.x) {
             float v = a.x[i]; a.y[2 * i] = from_f16(to_f16(v)); a.y[2 * i + 1] = from_bf16(to_bf16(v)); } }",
    );
    let mut x: Vec<f32> = (0..=u32::MAX / 65_521).map(|i| f32::from_bits(i * 65_521)).collect();
    x.extend([65519.9, 65520.0, 6e-8, 2.9e-8, 2.98e-8, 6.1e-5, 1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, -0.0]);
    let schedule = Schedule { turns: Turns::Forward, late_copies: false };
    let (input, y) = (Buffer::of(&x), Buffer::<f32>::poisoned(2 * x.len()));
    let arguments = Arguments { x: input.ptr(), y: y.ptr(), n: x.len() as i32 };
    module.launch("halves", arguments, one_block(32), schedule).unwrap();
    for (x, y) in x.iter().zip(y.chunks(2)) {
        let want = [half::f16::from_f32(*x).to_f32(), half::bf16::from_f32(*x).to_f32()];
        for (got, want) in y.iter().zip(want) {
            assert!(
                got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                "{x:e}: {got:e}, not {want:e}"
            );
        }
    }
}

/// The stated bounds of the elementary functions (the formulas; the hardware's exp2 and reciprocal are exact here).
#[test]
fn elementary_functions_keep_their_bounds() {
    let module = compile(
        "functions",
        "KERNEL functions(Arguments a) { for (int i = threadIdx.x; i < a.n; i += blockDim.x) {
             float slope; float* y = a.y + 4 * i; y[0] = exp_fast(a.x[i]); y[1] = sigmoid(a.x[i]);
             y[2] = softplus(a.x[i], slope); y[3] = slope; } }",
    );
    let mut x: Vec<f32> = (0..40_000).map(|i| i as f32 / 40_000.0 * 170.0 - 85.0).collect();
    x.extend([0.0, -0.0, 1e-30, -1e-30, 1e-8, 20.0, 3e38, f32::INFINITY]);
    let (input, y) = (Buffer::of(&x), Buffer::<f32>::poisoned(4 * x.len()));
    let arguments = Arguments { x: input.ptr(), y: y.ptr(), n: x.len() as i32 };
    module.launch("functions", arguments, one_block(32), SCHEDULES[0]).unwrap();
    for (x, y) in x.iter().zip(y.chunks(4)) {
        let x = f64::from(*x);
        let sigmoid = 1.0 / (1.0 + (-x).exp());
        for (got, want) in y.iter().zip([x.exp(), sigmoid, x.max(0.0) + (-x.abs()).exp().ln_1p(), sigmoid]) {
            let error = (f64::from(*got) - want).abs() / want.max(f64::from(f32::MIN_POSITIVE));
            assert!(error < 6.0 * 2f64.powi(-23) || want > 1e38, "x = {x}: got {got}, want {want}");
        }
    }
}
