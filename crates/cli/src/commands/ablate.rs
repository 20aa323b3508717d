//! `ophidian ablate`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use ophidian_train::{
    Progress,
    ablate::{self, Ended, Plan, Sweep},
    interrupt,
    progress::count,
};

use super::setup::{self, quoted};
use crate::{exit::Usage, printer::Printer};

/// Train a model in many variants that are fair to each other, and report which are better.
///
/// The sweep is a TOML file: `base` (the path of a training config, or its tables), `[axes]` (keys with lists or ranges,
/// all crossed), `[[zip]]` (lists taken together), `seeds`, `[folds]` (lists whose values every arm is run on and averaged
/// over: cross-validation), `baseline` and `[budget]` (epochs, seconds or flops). Every run is `ophidian train` on a resolved
/// config in a process of its own; one that fails does not stop the others.
///
/// Ctrl-C has the runs save and ends with exit code 130. The same command goes on where a sweep was interrupted or killed,
/// tries failed runs again, and takes runs that are done from the folder, also after arms or seeds were added.
#[derive(clap::Args)]
#[command(after_help = "A sweep:
  base = \"demo.toml\"            # beside this file
  seeds = [0, 1, 2]
  # baseline = \"…\"             an arm as --dry-run lists it [default: the first]
  budget.epochs = 5             # or seconds = 600, flops = 1e14, flops = \"baseline\"
  [axes]
  model.scan = [\"row\", \"bidirectional\", \"hilbert | bidirectional\"]
  train.learning_rate = { from = 1e-3, to = 4e-3, factor = 2 }   # or step = …, count = … with scale = \"log\"
  [[zip]]
  label = [\"wide\", \"deep\"]
  model.d_model = [128, 64]
  model.depth = [2, 8]
  # [folds]                     where the data knows speakers:
  # data.speaker = [\"theo\", \"lucas\"]

Examples:
  ophidian ablate configs/ablate.toml --dry-run
  ophidian ablate configs/ablate.toml --output runs/scans --jobs 2")]
pub struct Args {
    /// The sweep (TOML).
    #[arg(value_name = "SWEEP")]
    sweep: PathBuf,
    /// The folder for runs and report [default: runs/NAME].
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Override a key of the base, for example `data.path=photos`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Runs at the same time; they share the cores.
    #[arg(short, long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Threads of each run [default: cores / jobs].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Check everything, list the arms and train nothing.
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: Args, printer: &Printer) -> Result<ExitCode> {
    let sweep = Sweep::read(&args.sweep, &args.set)?;
    let output = args.output.clone().unwrap_or_else(|| PathBuf::from("runs").join(&sweep.name));
    let plan = Plan::new(sweep, &setup::ADAPTERS)?;
    if args.dry_run {
        list(&plan, printer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let jobs = usize::from(args.jobs);
    let threads = args.threads.map_or((cores / jobs).max(1), usize::from);
    let program = std::env::current_exe().context("this program's own file cannot be found")?;
    interrupt::install()?;
    let request = ablate::Request {
        plan,
        output: &output,
        jobs,
        threads,
        program: &program,
        command: command(&args, &output, threads)?,
        adapters: &setup::ADAPTERS,
    };
    let command = request.command.clone();
    let ended = ablate::run(request, Progress::auto())?;
    conclude(&ended, &command, printer)
}

/// The command to type again; paths that are not UTF-8 cannot be written down.
fn command(args: &Args, output: &std::path::Path, threads: usize) -> Result<String> {
    let text = |path: &std::path::Path| {
        path.to_str().map(quoted).ok_or_else(|| Usage(format!("{}: the path is not UTF-8", path.display())))
    };
    let mut command = format!("ophidian ablate {} --output {}", text(&args.sweep)?, text(output)?);
    for assignment in &args.set {
        command.push_str(&format!(" --set {}", quoted(assignment)));
    }
    command.push_str(&format!(" --jobs {} --threads {threads}", args.jobs));
    Ok(command)
}

fn list(plan: &Plan, printer: &Printer) -> Result<()> {
    let rows: Vec<[String; 6]> = plan
        .arms
        .iter()
        .enumerate()
        .map(|(number, arm)| {
            [
                (number + 1).to_string(),
                arm.name.clone(),
                arm.parameters.to_string(),
                arm.flops.map_or_else(|| "-".to_owned(), |flops| format!("{:.2}", flops / 1e6)),
                arm.steps().map_or_else(
                    || format!("{} s", arm.config().train.max_seconds),
                    |steps| steps.to_string(),
                ),
                if number == plan.baseline { "baseline".to_owned() } else { String::new() },
            ]
        })
        .collect();
    printer.table(["arm", "name", "parameters", "MFLOPs", "steps", ""], &rows, 2..5)?;
    let draws: Vec<String> = plan.sweep.draws().iter().map(ToString::to_string).collect();
    printer.line(format_args!(
        "\n{}: {}, each with {}",
        count(plan.runs().count(), "run"),
        count(plan.arms.len(), "arm"),
        draws.join("; ")
    ))?;
    Ok(())
}

/// The last word: the report, what failed, how to go on.
fn conclude(ended: &Ended, command: &str, printer: &Printer) -> Result<ExitCode> {
    printer.line(format_args!("report  {}", ended.report.html.display()))?;
    for warning in &ended.report.warnings {
        printer.note(format_args!("beware: {warning}"));
    }
    for (arm, draw, error) in &ended.failed {
        printer.note(format_args!("failed: {arm}, {draw}: {error}"));
    }
    if interrupt::asked() {
        printer.line(format_args!("interrupted and saved; left: {}; to go on:", count(ended.left, "run")))?;
        printer.line(format_args!("  {command}"))?;
        return Ok(ExitCode::from(u8::try_from(interrupt::EXIT_CODE)?));
    }
    let finished = count(ended.finished, "run");
    printer.line(format_args!("{finished} finished, {} failed", ended.failed.len()))?;
    Ok(if ended.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
