//! `ophidian train`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use ophidian_core::device::Place;
use ophidian_train::{
    Config, Ending, Mode, Outcome, Progress, Request, folder::find_checkpoint, interrupt, progress::duration,
};

use super::setup;
use crate::{exit::Usage, printer::Printer};

/// Train a model as a config says, in a run folder that can be resumed.
///
/// The run folder holds config.toml (with every default), environment.json, metrics.jsonl, a TensorBoard file,
/// checkpoints/last.safetensors and best.safetensors, curves.png, confusion.png and misclassified.png.
///
/// Ctrl-C finishes the step, saves and ends with exit code 130; a second Ctrl-C ends at once. A run that was
/// interrupted, killed or cut off goes on with `--resume` as if it had not stopped: on the same machine with the same
/// number of threads its weights are equal to the bit.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  ophidian train configs/demo.toml --output runs/demo
  ophidian train configs/demo.toml --output runs/small --set train.epochs=2 --set model.depth=4
  ophidian train --output runs/demo --resume")]
pub struct Args {
    /// The config (TOML). May be left out with --resume: the run folder has its own.
    #[arg(value_name = "CONFIG", required_unless_present = "resume")]
    config: Option<PathBuf>,
    /// The run folder.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Override a key of the config, for example `train.epochs=5`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where the model runs: cpu, cuda (the first GPU) or cuda:N. Short for --set train.device.
    #[arg(long, value_name = "DEVICE")]
    device: Option<Place>,
    /// Go on with the run in DIR, or begin it if there is none yet.
    #[arg(long)]
    resume: bool,
    /// Replace the run in DIR.
    #[arg(long, conflicts_with = "resume")]
    force: bool,
    /// Save and stop, as after Ctrl-C, once standard input closes: how a sweep stops its runs, also when it is killed.
    #[arg(long, hide = true)]
    until_input_closes: bool,
}

pub fn run(args: Args, printer: &Printer) -> Result<ExitCode> {
    let own = args.output.join("config.toml");
    let path = match &args.config {
        Some(path) => path,
        None if own.is_file() => &own,
        None => {
            let message =
                format!("{} holds no run to resume; name a config to begin one", args.output.display());
            return Err(Usage(message).into());
        }
    };
    let (mut config, adapter) = Config::resolve(setup::table(path, &args.set)?, &setup::ADAPTERS)?;
    if let Some(device) = args.device {
        config.train.device = device;
    }
    let mode = match (args.resume, args.force) {
        (true, _) => Mode::Resume,
        (_, true) => Mode::Force,
        _ => Mode::New,
    };
    for note in adapter.notes(&config.model) {
        printer.note(note);
    }
    interrupt::install()?;
    if args.until_input_closes {
        interrupt::when_input_closes()?;
    }
    let program = setup::about_program();
    let request = Request { config, adapter, output: &args.output, mode, program: &program };
    let outcome = ophidian_train::train(request, Progress::auto())?;
    conclude(&args, &outcome, printer)
}

/// The last word: what came out, where the pictures are, what to type next.
fn conclude(args: &Args, outcome: &Outcome, printer: &Printer) -> Result<ExitCode> {
    let show = args.output.display();
    // As it was called, so that the commands below can be typed as they stand.
    let program = std::env::args().next().unwrap_or_else(|| "ophidian".to_owned());
    let state = &outcome.state;
    if let Some(best) = &state.best {
        printer.line(format_args!(
            "best accuracy {:.2}% (loss {:.4}) after epoch {}",
            100.0 * best.accuracy,
            best.loss,
            best.epoch
        ))?;
    }
    let memory = ophidian_train::environment::peak_memory_mib()
        .map_or_else(String::new, |mib| format!(", at most {mib:.0} MiB of memory"));
    printer.line(format_args!("{} steps in {}{memory}", state.step, duration(state.seconds)))?;
    for (count, what) in [
        (state.skipped_steps, "steps were skipped: loss or gradient not finite"),
        (state.corrupt_samples, "examples were skipped: not readable"),
    ] {
        if count > 0 {
            printer.line(format_args!("{count} {what}"))?;
        }
    }
    if outcome.data_wait > 0.1 {
        let share = 100.0 * outcome.data_wait;
        printer.note(format!("{share:.0}% of the time went into waiting for data; try more `train.workers`"));
    }
    for picture in &outcome.pictures {
        printer.line(format_args!("picture  {}", picture.display()))?;
    }
    if outcome.ending == Ending::Interrupted {
        printer.line(format_args!(
            "interrupted and saved after step {}{}; to go on:",
            state.step,
            outcome.steps.map_or_else(String::new, |steps| format!(" of {steps}"))
        ))?;
        printer.line(format_args!("  {program} train --output {show} --resume"))?;
        return Ok(ExitCode::from(u8::try_from(interrupt::EXIT_CODE)?));
    }
    if outcome.ending == Ending::StoppedEarly {
        printer.line(format_args!("stopped early: accuracy had not risen for a while"))?;
    }
    if find_checkpoint(&args.output, "best").is_ok() {
        printer.line("next:")?;
        printer.line(format_args!("  {program} eval {show}"))?;
        printer.line(format_args!("  {program} predict {show} INPUT…"))?;
    }
    Ok(ExitCode::SUCCESS)
}
