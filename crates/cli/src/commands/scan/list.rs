//! `ophidian scan list`.

use anyhow::Result;
use ophidian_core::grid::published_with;
use ophidian_scan::{Entry, Kind, Pattern, Published, Shape, entries, published, published_named};
use serde_json::{Value, json};

use crate::printer::Printer;

/// Up to so many scans, what each is composed of is printed too.
const MAX_EXPLAINED: usize = 12;

pub fn run(filter: Option<&str>, json: bool, printer: &Printer) -> Result<()> {
    let wanted = filter.map(str::to_lowercase);
    let holds = |texts: &[&str]| match &wanted {
        Some(wanted) => texts.iter().any(|text| text.to_lowercase().contains(wanted)),
        None => true,
    };
    let named = filter.and_then(published_named);
    let scans: Vec<&Published> = published()
        .iter()
        .copied()
        .filter(|scan| {
            let system = scan.system();
            let mut texts = vec![scan.name(), system.title(), system.paper(), scan.note()];
            texts.extend(scan.aliases());
            let shapes: Vec<String> = scan.shapes().iter().map(ToString::to_string).collect();
            named.is_some_and(|named| named.name() == scan.name())
                || holds(&texts)
                || holds(&shapes.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .collect();
    let kinds = [Kind::Curve, Kind::Modifier, Kind::Set];
    let order = |entry: &Entry| kinds.iter().position(|kind| *kind == entry.kind());
    let mut names: Vec<Entry> =
        entries().into_iter().filter(|e| holds(&[e.name(), e.about(), e.geometry()])).collect();
    names.sort_by_key(order);
    if json {
        let names: Vec<Value> = names.iter().map(entry).collect();
        let scans: Vec<Value> = scans.iter().map(|scan| row(scan)).collect();
        return printer.json(&json!({"published": scans, "patterns": names}));
    }
    if scans.is_empty() && names.is_empty() {
        let filter = filter.unwrap_or_default();
        return Ok(printer.line(format_args!("nothing listed holds \"{filter}\""))?);
    }
    if !scans.is_empty() {
        let rows = scans.iter().map(|scan| {
            let directions = match scan.schedule() {
                ophidian_scan::Schedule::PerLayer => format!("{} per layer", scan.directions()),
                ophidian_scan::Schedule::Together => scan.directions().to_string(),
            };
            let system = scan.system();
            let paper = format!("{}, {}", system.title(), system.paper());
            [scan.usage(), scan.geometry(), directions, scan.merge().to_string(), paper]
        });
        let heads = ["published scan", "geometry", "directions", "merge", "paper"];
        printer.table(heads, &rows.collect::<Vec<_>>(), 0..0)?;
        printer.line("")?;
    }
    if wanted.is_some() && scans.len() <= MAX_EXPLAINED {
        for scan in &scans {
            explain(scan, printer)?;
        }
    }
    if !names.is_empty() {
        let rows = names.iter().map(|e| {
            let [kind, geometry, directions] =
                [e.kind().to_string(), e.geometry().into(), e.directions().into()];
            [e.usage(), kind, geometry, directions, e.about().to_string()]
        });
        let heads = ["name", "kind", "geometry", "directions", "about"];
        printer.table(heads, &rows.collect::<Vec<_>>(), 0..0)?;
        printer.line("")?;
    }
    if wanted.is_none() {
        printer.line(
            r#"Compose them: "serpentine | bidirectional", "window(7) of row", "zigma/zigzag8 | direction(3)"."#,
        )?;
        printer.line("Explain one: ophidian scan list vmamba/cross2d")?;
        printer.line("Draw one: ophidian scan show cross --shape 7x9 --output cross.svg")?;
    }
    Ok(())
}

/// A name or composition with N for a number of one's choice, which the table has as `#`.
fn readable(text: &str) -> String {
    text.replace("{#}", "N").replace('#', "N")
}

/// What a published scan is.
fn explain(scan: &'static Published, printer: &Printer) -> Result<()> {
    printer.line(readable(scan.name()))?;
    let said = |what: &str, text: &str| -> Result<()> {
        if !text.is_empty() {
            printer.line(format_args!("  {what:<12}{}", readable(text)))?;
        }
        Ok(())
    };
    said("also", &scan.aliases().join(", "))?;
    said("is", scan.composition().unwrap_or_default())?;
    if let Some((shape, composition)) = scan.composition_over() {
        said(&format!("on {shape}"), composition)?;
    }
    said("needs", scan.needs().unwrap_or_default())?;
    said("released", scan.released().unwrap_or_default())?;
    said("released", scan.deviation())?;
    said("parameters", &scan.parameters().to_string())?;
    said("[model]", &keys(scan).join(", "))?;
    said("note", scan.note())?;
    said("code", scan.system().repository())?;
    Ok(printer.line("")?)
}

/// The keys of a model's config that give the whole of what was published, where models of `[model]` walk it.
fn keys(scan: &'static Published) -> Vec<String> {
    let walked = scan.shapes().iter().any(|shape| matches!(shape, Shape::Grid | Shape::Volume));
    if !walked || scan.needs().is_some() {
        return Vec::new();
    }
    let keys = published_with(scan, &scan.example()).into_iter();
    keys.map(|(key, value)| format!("{key} = {value}")).collect()
}

/// Beside a drawing of `text`: what a published scan has that an order does not show.
pub fn beside(text: &str, printer: &Printer) {
    let Some(scan) = text.parse::<Pattern>().ok().and_then(|pattern| pattern.published()) else { return };
    if !scan.note().is_empty() {
        printer.note(format_args!("{}: {}", scan.name(), scan.note()));
    }
    if !keys(scan).is_empty() {
        printer.note(format_args!("these are its orders; `ophidian scan list {text}` has the rest"));
    }
}

fn row(scan: &'static Published) -> Value {
    json!({
        "name": readable(scan.name()),
        "aliases": scan.aliases().iter().map(|alias| readable(alias)).collect::<Vec<_>>(),
        "usage": scan.usage(),
        "system": scan.system().title(),
        "paper": scan.system().paper(),
        "repository": scan.system().repository(),
        "geometry": scan.shapes().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "directions": scan.directions(),
        "merge": scan.merge(),
        "parameters": scan.parameters().to_string(),
        "model": keys(scan),
        "schedule": scan.schedule().to_string(),
        "composition": scan.composition().map(readable),
        "composition_over": scan.composition_over().map(|(shape, text)| json!({shape.to_string(): readable(text)})),
        "released": scan.released().map(readable),
        "released_keys": scan.deviation(),
        "needs": scan.needs(),
        "note": scan.note(),
    })
}

fn entry(entry: &Entry) -> Value {
    json!({
        "name": entry.name(),
        "usage": entry.usage(),
        "kind": entry.kind().to_string(),
        "geometry": entry.geometry(),
        "directions": entry.directions(),
        "about": entry.about(),
    })
}
