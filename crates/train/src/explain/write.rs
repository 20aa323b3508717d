//! The files of an explanation.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use ophidian_core::{
    files::write_whole,
    tensors::{self, Tensors},
};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::{Explanation, Field, Subject, page, picture::Pictures};
use crate::{Error, Result, folder::write_text};

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// For a browser; it needs nothing else.
    pub html: PathBuf,
    /// Pictures, figures and raw maps beside it.
    pub others: Vec<PathBuf>,
}

/// Writes `explain.html`, `field.png`, `attention.png` (what of them can be drawn), `explain.json` and `maps.safetensors`
/// into the folder `output`, or the page alone if `output` ends in `.html`. `command` is what made them.
///
/// `maps.safetensors` holds `input`, `field` and `field_mean` (of the input's sizes without channels; they add up to 1),
/// and `attention.L.M`, map M of layer L as `explain.json` names them, all f32.
///
/// # Errors
/// A file cannot be written; each is whole or as it was.
pub fn write(subject: &Subject, found: &Explanation, command: &str, output: &Path) -> Result<Files> {
    let pictures = Pictures::new(subject, found);
    let page = page::html(subject, found, &pictures, command)?;
    if output.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("html")) {
        write_text(output, &page)?;
        return Ok(Files { html: output.to_path_buf(), others: Vec::new() });
    }
    let drawn = [("field.png", pictures.fields()?), ("attention.png", pictures.attention(found)?)];
    std::fs::create_dir_all(output).map_err(|error| Error::file(output, error))?;
    let mut files = Files { html: output.join("explain.html"), others: Vec::new() };
    for (name, png) in drawn {
        let path = output.join(name);
        if let Some(png) = png {
            write_whole(&path, |file| file.write_all(&png))?;
            files.others.push(path);
        }
    }
    let path = output.join("explain.json");
    write_text(&path, &format!("{:#}\n", figures(subject, found, command)))?;
    files.others.push(path);
    let path = output.join("maps.safetensors");
    tensors::write(&path, &maps(subject, found)?)?;
    files.others.push(path);
    write_text(&files.html, &page)?;
    Ok(files)
}

fn figures(subject: &Subject, found: &Explanation, command: &str) -> Value {
    let class = |class: usize| match subject.classes.get(class) {
        Some(name) => json!(name),
        None => json!(class),
    };
    let layers: Vec<Value> = found
        .layers
        .iter()
        .map(|layer| {
            let maps: Vec<Value> = layer
                .maps
                .iter()
                .map(|map| json!({"name": map.name, "sizes": map.sizes, "place": map.place}))
                .collect();
            json!({"sizes": layer.sizes, "maps": maps, "notes": layer.notes})
        })
        .collect();
    json!({
        "command": command,
        "input": found.example.name,
        "label": found.example.label.map(class),
        "predicted": found.prediction.map(|(predicted, _)| class(predicted)),
        "probability": found.prediction.map(|(_, probability)| probability),
        "token": {"sizes": found.sizes, "place": found.place, "class_token": found.place.is_none()},
        "field": found.field.shares,
        "field_mean": found.mean.as_ref().map(|(samples, field)| json!({"samples": samples, "shares": field.shares})),
        "layers": layers,
    })
}

fn maps(subject: &Subject, found: &Explanation) -> Result<Tensors> {
    let of = |values: &[f64], sizes: &[i64]| -> Result<Tensor> {
        Ok(Tensor::from_slice(values).f_to_kind(Kind::Float)?.f_view(sizes)?)
    };
    let field = |field: &Field| of(&field.values, &field.sizes);
    let mut maps = Tensors::from([
        ("input".to_owned(), Tensor::from_slice(&found.example.input).f_view(subject.shape)?),
        ("field".to_owned(), field(&found.field)?),
    ]);
    if let Some((_, mean)) = &found.mean {
        maps.insert("field_mean".to_owned(), field(mean)?);
    }
    for (l, layer) in found.layers.iter().enumerate() {
        for (m, map) in layer.maps.iter().enumerate() {
            maps.insert(format!("attention.{l}.{m}"), of(&map.values, &map.sizes)?);
        }
    }
    Ok(maps)
}
