//! Whole blocks: every op of a model in its place, with the gradients of all its parameters.

use ophidian_core::{
    block::{Block, BlockConfig},
    mixer::{Channels, Mamba1Config, Mamba2Config, Mamba2Options, Merge, MixerConfig},
    ops::{Orders, cuda::emulated},
    torch::autocast,
};
use ophidian_scan::{Geometry, Pattern};
use tch::{Device, Kind, Tensor, nn::VarStore};

use crate::emulator::Emulated;

#[test]
fn blocks_are_those_of_the_cpu() {
    let geometry: Geometry = "5x6".parse().unwrap();
    let pattern: Pattern = "cross".parse().unwrap();
    let orders = Orders::new(&pattern.plan(&geometry).unwrap()).on_grid([5, 6]);
    let mamba1 = Mamba1Config { d_model: 12, directions: 4, ..Mamba1Config::default() };
    let mamba1 = Mamba1Config { step_embedding: true, ..mamba1 };
    let options = Mamba2Options { headdim: 8, ..Mamba2Options::default() };
    let mamba2 = Mamba2Config { d_state: 16, ..Mamba2Config::like(&mamba1, options) };
    let grouped = Mamba2Config {
        channels: Channels::Grouped,
        merge: Merge::Concat,
        options: Mamba2Options::default(),
        ..mamba2.clone()
    };
    for config in [MixerConfig::from(mamba1), mamba2.into(), grouped.into()] {
        let store = VarStore::new(Device::Cpu);
        tch::manual_seed(3);
        let mixer = config.build(&(store.root() / "mixer")).unwrap();
        let block =
            Block::new(&store.root(), &BlockConfig { d_model: 12, mlp: 20, ..BlockConfig::default() }, mixer);
        let float = (Kind::Float, Device::Cpu);
        let [hidden, residual, cotangent] = [0; 3].map(|_| Tensor::randn([2, 30, 12], float));
        let mut named: Vec<(String, Tensor)> = store.variables().into_iter().collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        let leaves: Vec<Tensor> = named.iter().map(|(_, t)| t.shallow_clone()).collect();
        let run = |bf16: bool| {
            let (branch, stream) =
                autocast(bf16, || block.forward(&hidden, Some(&residual), &orders, true)).unwrap();
            let loss = ((&branch + &stream) * &cotangent).sum(Kind::Double);
            (branch, Tensor::run_backward(&[loss], &leaves, false, false))
        };
        let (want, want_gradients) = run(false);
        let emulator = Emulated::new(4, 2);
        let (got, gradients) = emulated(emulator.clone(), || run(false));
        let error = |got: &Tensor, want: &Tensor| {
            let scale = want.abs().max().double_value(&[]).max(1e-2);
            (got - want).abs().max().double_value(&[]) / scale
        };
        assert!(error(&got, &want) < 1e-4, "{config:?}: {:.1e}", error(&got, &want));
        for (((name, _), got), want) in named.iter().zip(&gradients).zip(&want_gradients) {
            assert!(error(got, want) < 1e-3, "{name}: {:.1e}", error(got, want));
        }
        // Under autocast as near to f32 as the CPU is.
        let (rounded, _) = run(true);
        let emulator = Emulated::new(4, 2);
        let (got, gradients) = emulated(emulator.clone(), || run(true));
        let bound = 2.0 * error(&rounded, &want) + 5e-3;
        assert!(error(&got, &want) < bound, "bf16, {config:?}: {:.1e}, {bound:.1e}", error(&got, &want));
        assert!(gradients.iter().all(|gradient| gradient.isfinite().all().int64_value(&[]) == 1));
        let scan = if matches!(config, MixerConfig::Mamba1(_)) { "selective_scan" } else { "ssd" };
        for kernel in ["causal_conv1d_forward", "add_norm_backward", &format!("{scan}_backward")] {
            assert!(emulator.ran(kernel), "{kernel}");
        }
        // Step sizes that stay in f32 leave the rest of the scan in bf16.
        for kernel in ["causal_conv1d_forward", &format!("{scan}_forward"), &format!("{scan}_backward")] {
            for variant in emulator.variants(kernel) {
                assert!(variant.contains("DTYPE=1"), "{kernel} of {variant}");
            }
        }
    }
}
