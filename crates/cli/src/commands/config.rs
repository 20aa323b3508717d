//! `ophidian config`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use ophidian_train::{Config, config::TrainConfig};

use super::setup;
use crate::printer::Printer;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check a config and print it with every default filled in, as `train` would use it.
    Show {
        /// The config (TOML).
        config: PathBuf,
        /// Override a key, for example `train.epochs=5`. May be repeated.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Put what a key means above it, where this is known.
        #[arg(long)]
        explain: bool,
    },
    /// List the keys of the root and of `[train]` with their defaults and meanings.
    Keys,
}

pub fn run(args: Args, printer: &Printer) -> Result<()> {
    match args.command {
        Command::Show { config, set, explain } => {
            let (config, _) = Config::resolve(setup::table(&config, &set)?, &setup::ADAPTERS)?;
            let text = if explain { config.to_documented_toml() } else { config.to_toml() };
            printer.line(text.trim_end())?;
        }
        Command::Keys => {
            let defaults = toml::Table::try_from(TrainConfig::default())?;
            for (key, meaning) in Config::KEYS {
                printer.line(format_args!("{key}\n   {meaning}"))?;
            }
            for (key, meaning) in TrainConfig::KEYS {
                let default = defaults.get(*key).map(ToString::to_string).unwrap_or_default();
                printer.line(format_args!("train.{key} = {default}\n   {meaning}"))?;
            }
            printer.line("data.* and model.*\n    The adapter's; `ophidian config show` prints them with their defaults.")?;
        }
    }
    Ok(())
}
