//! `ophidian scan`: list, draw and export scan patterns.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, anyhow};
use ophidian_core::files::write_whole;
use ophidian_scan::{Geometry, Pattern, Plan, draw, entries};
use resvg::{tiny_skia, usvg};

use crate::{exit::Usage, printer::Printer};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List the names that a pattern may use.
    List,
    /// Draw the orders of a pattern, in the terminal or as a picture.
    Show {
        #[command(flatten)]
        what: What,
        /// A picture to write instead: .svg or .png.
        #[arg(long, value_name = "FILE.svg|png")]
        output: Option<PathBuf>,
    },
    /// Write the orders of a pattern as index maps: `scanned[t] = x[order[t]]`, -1 a blank step.
    ///
    /// `.json` and `.safetensors` hold `order.0` to `order.K-1` (int64), and where the state starts afresh or blank
    /// steps are skipped. `.npy` holds one int64 array (K, T), for plans that need no more.
    Export {
        #[command(flatten)]
        what: What,
        /// The file to write: .json, .npy or .safetensors.
        #[arg(long, value_name = "FILE.json|npy|safetensors")]
        output: PathBuf,
    },
}

#[derive(clap::Args)]
struct What {
    /// The pattern, for example "cross", "serpentine | bidirectional", "window(7) of row", "[row, column]",
    /// or an index file.
    pattern: String,
    /// Where the tokens lie: 49 (a sequence) or 7x9 (rows x columns).
    #[arg(long)]
    shape: String,
}

impl What {
    fn plan(&self) -> Result<(Pattern, Geometry, Plan)> {
        let pattern: Pattern = self.pattern.parse()?;
        let geometry: Geometry = self.shape.parse()?;
        let plan = pattern.plan(&geometry)?;
        Ok((pattern, geometry, plan))
    }
}

pub fn run(args: Args, printer: &Printer) -> Result<()> {
    match args.command {
        Command::List => list(printer),
        Command::Show { what, output: None } => {
            let (pattern, geometry, plan) = what.plan()?;
            printer.line(format_args!("{pattern} over {}\n", geometry.describe()))?;
            Ok(printer.line(draw::text(&plan, &geometry)?.trim_end())?)
        }
        Command::Show { what, output: Some(path) } => {
            let encode = picture(&path)?;
            let (pattern, geometry, plan) = what.plan()?;
            let svg = draw::svg(&plan, &geometry, &pattern.to_string())?;
            save(&path, &encode(svg)?, &plan, printer)
        }
        Command::Export { what, output } => {
            let (_, _, plan) = what.plan()?;
            save(&output, &plan.encode(&output)?, &plan, printer)
        }
    }
}

fn list(printer: &Printer) -> Result<()> {
    let rows: Vec<[String; 5]> = entries()
        .iter()
        .map(|e| {
            let words = [e.kind().to_string(), e.geometry().into(), e.directions().into(), e.about().into()];
            let [kind, geometry, directions, about] = words;
            [e.usage(), kind, geometry, directions, about]
        })
        .collect();
    let heads = ["name", "kind", "geometry", "directions", "about"].map(str::to_owned);
    let width = |i: usize| rows.iter().chain([&heads]).map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..4).map(width).collect();
    for [name, kind, geometry, directions, about] in [&heads].into_iter().chain(&rows) {
        printer.line(format_args!(
            "{name:a$}  {kind:b$}  {geometry:c$}  {directions:d$}  {about}",
            a = widths[0],
            b = widths[1],
            c = widths[2],
            d = widths[3]
        ))?;
    }
    printer.line("")?;
    printer.line(
        r#"Compose them: "serpentine | bidirectional", "window(7) of row", "[row, column | reverse]"."#,
    )?;
    Ok(printer.line("Draw one: ophidian scan show cross --shape 7x9 --output cross.svg")?)
}

fn save(path: &Path, bytes: &[u8], plan: &Plan, printer: &Printer) -> Result<()> {
    write_whole(path, |file| file.write_all(bytes))?;
    for (k, order) in plan.orders().iter().enumerate() {
        printer.line(format_args!("order.{k}  {}", order.summary()))?;
    }
    printer.note(format_args!("wrote {}", path.display()));
    Ok(())
}

/// Makes the bytes of a picture of an SVG.
type Encode = fn(String) -> Result<Vec<u8>>;

/// How a picture is encoded, by the ending of its name.
fn picture(path: &Path) -> Result<Encode> {
    match path.extension().map(|ending| ending.to_ascii_lowercase()) {
        Some(ending) if ending == "svg" => Ok(|svg| Ok(svg.into_bytes())),
        Some(ending) if ending == "png" => Ok(|svg| png(&svg)),
        _ => Err(Usage(format!("{}: a picture ends in .svg or .png", path.display())).into()),
    }
}

/// Twice the size of the SVG where that is not too much, with a font of the program's own.
fn png(svg: &str) -> Result<Vec<u8>> {
    const MAX_PIXELS: f32 = 4e7;
    let mut options = usvg::Options::default();
    let fonts = Arc::make_mut(&mut options.fontdb);
    fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
    let family = fonts.faces().next().and_then(|face| face.families.first()).map(|(name, _)| name.clone());
    if let Some(family) = family {
        fonts.set_sans_serif_family(family);
    }
    let tree = usvg::Tree::from_str(svg, &options)?;
    let size = tree.size();
    let scale = (MAX_PIXELS / (size.width() * size.height())).sqrt().min(2.0);
    let pixels = |length: f32| (length * scale).ceil() as u32;
    let (width, height) = (pixels(size.width()), pixels(size.height()));
    let mut image = tiny_skia::Pixmap::new(width, height)
        .ok_or_else(|| anyhow!("a picture of {width} x {height} pixels is too large; write .svg instead"))?;
    resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut image.as_mut());
    Ok(image.encode_png()?)
}
