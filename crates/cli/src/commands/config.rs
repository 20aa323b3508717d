//! `ophidian config`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use ophidian_core::config::KeyDoc;
use ophidian_train::{Config, config::find};

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
        /// Put what a key means above it.
        #[arg(long)]
        explain: bool,
    },
    /// List every key with its default and its meaning.
    Keys {
        /// The adapter whose `[data]` and `[model]` are meant.
        #[arg(long, default_value = "vision")]
        adapter: String,
    },
}

pub fn run(args: Args, printer: &Printer) -> Result<()> {
    match args.command {
        Command::Show { config, set, explain } => {
            let (config, adapter) = Config::resolve(setup::table(&config, &set)?, &setup::ADAPTERS)?;
            let text = if explain { config.to_documented_toml(adapter) } else { config.to_toml() };
            printer.line(text.trim_end())?;
            for note in adapter.notes(&config.model) {
                printer.note(note);
            }
        }
        Command::Keys { adapter } => {
            let keys = Config::keys(find(&setup::ADAPTERS, &adapter)?);
            for KeyDoc { key, default, meaning } in keys {
                let default = default.map_or(String::new(), |value| format!(" = {value}"));
                printer.line(format_args!("{key}{default}\n    {meaning}"))?;
            }
        }
    }
    Ok(())
}
