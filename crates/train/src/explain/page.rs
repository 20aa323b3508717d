//! The page.

use maud::{Markup, html};

use super::{
    Explanation, Field, Subject,
    picture::{COLOURS, DECADES, Pictures, address, shown},
};
use crate::{
    Result,
    pictures::canvas::Pixels,
    report::page::{frame, percent},
};

/// The whole page.
pub(super) fn html(
    subject: &Subject,
    found: &Explanation,
    pictures: &Pictures,
    command: &str,
) -> Result<String> {
    let title = format!("What the model looks at in {}", found.example.name);
    let body = html! {
        h1 { (title) }
        (lead(subject, found))
        (field(subject, found, pictures)?)
        (attention(subject, found, pictures)?)
        section {
            h2 { "Command" }
            pre { (command) }
        }
    };
    Ok(frame(&title, &body))
}

fn lead(subject: &Subject, found: &Explanation) -> Markup {
    let name = |class: usize| match subject.classes.get(class) {
        Some(name) => name.clone(),
        None => format!("class {class}"),
    };
    let token = match (found.place, &found.sizes[..]) {
        (None, _) => "the class token".to_owned(),
        (Some(place), [count]) => format!("number {place} of {count}"),
        (Some(place), sizes) => {
            let mut rest = place as i64;
            let mut indices: Vec<String> = Vec::new();
            for size in sizes.iter().rev() {
                indices.push((rest % size.max(&1)).to_string());
                rest /= size.max(&1);
            }
            indices.reverse();
            format!("the one at ({}) of {}", indices.join(", "), shown(sizes))
        }
    };
    html! {
        p.lead {
            @if let Some((class, probability)) = found.prediction {
                "Taken for " b { (name(class)) } " with " (percent(probability)) "."
            }
            @if let Some(label) = found.example.label { " It is " b { (name(label)) } "." }
            " The token asked about: " (token) ", in the last layer (outlined in red)."
        }
    }
}

/// What the axes of the pictures are.
fn reading(subject: &Subject) -> Markup {
    html! {
        @if let Some(reading) = subject.adapter.reading(subject.shape) { p.aside.reading { "In every picture: " (reading) "." } }
    }
}

fn field(subject: &Subject, found: &Explanation, pictures: &Pictures) -> Result<Markup> {
    let place = match &found.sizes[..] {
        [_] => "places",
        _ => "cells of the input",
    };
    Ok(html! {
        section {
            h2 { "Effective receptive field" }
            p.aside {
                "How strongly the token's features behind the last layer change with each part of the input: the absolute \
                 gradient, summed over the input's channels, the mean over random projections of the features"
                @if found.mean.is_some() { ", and over samples, each of which counts as much" }
                " (Luo et al., arXiv 1701.04128)."
            }
            div.maps.large {
                @if let Some(input) = &pictures.input { (figure(Some(input), "input", "the input")?) }
                @for (name, pixels) in &pictures.fields { (figure(Some(pixels), name, &format!("receptive field, {name}"))?) }
            }
            (reading(subject))
            @if pictures.fields.is_empty() { p { "This kind of input has no picture; the values are in maps.safetensors." } }
            @else { (scale(&format!("1e-{DECADES:.0} of the most, or less"), "the most", "logarithmic")) }
            @if found.field.shares.is_empty() { p { b { "The token does not depend on the input at all." } } }
            @else { (shares(found, place)) }
        }
    })
}

/// A table of how far fields reach.
fn shares(found: &Explanation, cells: &str) -> Markup {
    let fields = || std::iter::once(&found.field).chain(found.mean.iter().map(|(_, field)| field));
    let squares = fields().all(|field| field.shares.iter().all(|share| share.square.is_some()));
    let cell = |field: &Field, row: usize, square: bool| {
        let share = field.shares.get(row);
        let value = share.and_then(|share| if square { share.square } else { Some(share.area) });
        value.map_or_else(|| "–".to_owned(), percent)
    };
    html! {
        div.wide {
            table {
                thead { tr {
                    th { "of the field" }
                    th.number { "this input" }
                    @if squares { th.number { "in a square" } }
                    @if let Some((count, _)) = &found.mean {
                        th.number { "mean of " (count) }
                        @if squares { th.number { "in a square" } }
                    }
                } }
                tbody {
                    @for (row, share) in found.field.shares.iter().enumerate() {
                        tr {
                            td { (format!("{:.0}%", 100.0 * share.part)) }
                            @for field in fields() {
                                td.number { (cell(field, row, false)) }
                                @if squares { td.number { (cell(field, row, true)) } }
                            }
                        }
                    }
                }
            }
        }
        p.aside {
            "The fewest " (cells) " that hold so much of the field, as a share of all"
            @if squares { "; and the smallest square around the token that does, as a share of the input" }
            "."
        }
    }
}

fn attention(subject: &Subject, found: &Explanation, pictures: &Pictures) -> Result<Markup> {
    Ok(html! {
        section {
            h2 { "Where each direction attends" }
            p.aside {
                "A selective scan is linear in what it reads: the token's output is a sum over the tokens s before it, each \
                 with the weight C" sub { "t" } " (∏ A) Δ" sub { "s" } " B" sub { "s" }
                ", its implicit attention (Ali et al., arXiv 2403.01590). Shown is the mean over the channels of the absolute \
                 weights, exactly as the scan has them for this input. Convolutions, gates, norms, the skip through D and what \
                 goes to class tokens are not in it. In layers of another resolution the token is the one at the same place."
            }
            (scale("0", "most of the layer", "square root; a sum by itself"))
            (reading(subject))
            @for (number, (layer, drawn)) in found.layers.iter().zip(&pictures.layers).enumerate() {
                h3 { "Layer " (number + 1) " " span.aside { (shown(&layer.sizes)) } }
                @for note in &layer.notes {
                    p.aside { @if layer.maps.is_empty() { "No implicit attention: " } (note) "." }
                }
                @if !layer.maps.is_empty() {
                    div.maps {
                        @for (map, pixels) in layer.maps.iter().zip(drawn) {
                            (figure(pixels.as_ref(), &map.name, &format!("layer {}, {}", number + 1, map.name))?)
                        }
                    }
                }
            }
            @if found.layers.is_empty() { p { "The model has no layers that tell what they do." } }
        }
    })
}

fn figure(pixels: Option<&Pixels>, name: &str, alt: &str) -> Result<Markup> {
    let source = pixels.map(address).transpose()?;
    Ok(html! {
        figure {
            @match source {
                Some(source) => img src=(source) alt=(alt) {},
                None => p.aside { "no picture; see maps.safetensors" },
            }
            figcaption.aside { (name) }
        }
    })
}

/// What the colours mean.
fn scale(low: &str, high: &str, how: &str) -> Markup {
    let stops: Vec<String> = COLOURS.iter().map(|[r, g, b]| format!("rgb({r},{g},{b})")).collect();
    html! {
        div.scale style=(format!("background: linear-gradient(to right, {})", stops.join(", "))) {}
        div.ends { span { (low) } span { (how) } span { (high) } }
    }
}
