//! PLY (Stanford): a header of elements and their properties, then their values as text or binary.

use super::{Shape, number, off::Fan, shown};
use crate::cloud::{Cloud, Mesh};

/// Most bytes of a header.
const MAX_HEADER: usize = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Text,
    Little,
    Big,
}

/// The type of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scalar {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    F32,
    F64,
}

impl Scalar {
    fn of(name: &str) -> Option<Scalar> {
        Some(match name {
            "char" | "int8" => Scalar::I8,
            "uchar" | "uint8" => Scalar::U8,
            "short" | "int16" => Scalar::I16,
            "ushort" | "uint16" => Scalar::U16,
            "int" | "int32" => Scalar::I32,
            "uint" | "uint32" => Scalar::U32,
            "float" | "float32" => Scalar::F32,
            "double" | "float64" => Scalar::F64,
            _ => return None,
        })
    }

    fn size(self) -> usize {
        match self {
            Scalar::I8 | Scalar::U8 => 1,
            Scalar::I16 | Scalar::U16 => 2,
            Scalar::I32 | Scalar::U32 | Scalar::F32 => 4,
            Scalar::F64 => 8,
        }
    }

    /// The number in `bytes`, which come first byte lowest.
    fn number(self, bytes: &[u8]) -> f64 {
        let mut eight = [0; 8];
        eight.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        let [a, b, c, d, ..] = eight;
        match self {
            Scalar::I8 => f64::from(a as i8),
            Scalar::U8 => f64::from(a),
            Scalar::I16 => f64::from(i16::from_le_bytes([a, b])),
            Scalar::U16 => f64::from(u16::from_le_bytes([a, b])),
            Scalar::I32 => f64::from(i32::from_le_bytes([a, b, c, d])),
            Scalar::U32 => f64::from(u32::from_le_bytes([a, b, c, d])),
            Scalar::F32 => f64::from(f32::from_le_bytes([a, b, c, d])),
            Scalar::F64 => f64::from_le_bytes(eight),
        }
    }
}

struct Property {
    name: String,
    /// The type of a list's length; none for a single number.
    length: Option<Scalar>,
    scalar: Scalar,
}

struct Element {
    name: String,
    count: usize,
    properties: Vec<Property>,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Shape, String> {
    let (encoding, elements, header) = header(bytes)?;
    let mut body = Body {
        encoding,
        rest: bytes.get(header.bytes..).unwrap_or_default(),
        line: header.lines,
        words: Vec::new(),
    };
    let (mut cloud, mut triangles) = (None, Vec::new());
    for element in &elements {
        body.can_hold(element)?;
        match element.name.as_str() {
            "vertex" => cloud = Some(vertices(&mut body, element)?),
            "face" => {
                let Some(Cloud { xyz, .. }) = &cloud else {
                    return Err("has faces before its vertices".into());
                };
                faces(&mut body, element, xyz.len(), &mut triangles)?;
            }
            _ => each(&mut body, element, |_, _, _| Ok(()))?,
        }
    }
    let cloud = cloud.ok_or("has no element `vertex`")?;
    if cloud.is_empty() {
        return Err("holds no vertices".into());
    }
    Ok(if triangles.is_empty() { Shape::Cloud(cloud) } else { Shape::Mesh(Mesh::new(cloud.xyz, triangles)?) })
}

/// Where a header ends.
struct End {
    bytes: usize,
    lines: usize,
}

fn header(bytes: &[u8]) -> Result<(Encoding, Vec<Element>, End), String> {
    let (mut encoding, mut elements, mut at) = (None, Vec::<Element>::new(), 0);
    for line in 1.. {
        let rest = bytes.get(at..bytes.len().min(MAX_HEADER)).unwrap_or_default();
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return Err("ends within its header, or has no `end_header` in its first 64 KiB".into());
        };
        at += end + 1;
        let text =
            std::str::from_utf8(&rest[..end]).map_err(|_| format!("line {line} of the header is no text"))?;
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            ["ply"] if line == 1 => {}
            _ if line == 1 => return Err(format!("line 1 is {}, expected `ply`", shown(text.trim()))),
            ["format", name, "1.0"] => {
                encoding = Some(match name {
                    "ascii" => Encoding::Text,
                    "binary_little_endian" => Encoding::Little,
                    "binary_big_endian" => Encoding::Big,
                    other => return Err(format!("line {line}: there is no format {}", shown(other))),
                });
            }
            ["element", name, count] => {
                let count =
                    count.parse::<u64>().ok().and_then(|count| usize::try_from(count).ok()).ok_or_else(
                        || {
                            format!(
                                "line {line}: the number of {} is {}, expected a whole number",
                                shown(name),
                                shown(count)
                            )
                        },
                    )?;
                elements.push(Element { name: name.to_owned(), count, properties: Vec::new() });
            }
            ["property", ref parts @ .., name] => {
                let (length, scalar) = match parts {
                    [scalar] => (None, Scalar::of(scalar)),
                    ["list", length, scalar] => match Scalar::of(length) {
                        Some(length) => (Some(length), Scalar::of(scalar)),
                        None => return Err(format!("line {line}: there is no type {}", shown(length))),
                    },
                    _ => (None, None),
                };
                let (Some(scalar), Some(element)) = (scalar, elements.last_mut()) else {
                    return Err(format!(
                        "line {line} is {}, expected a property of an element",
                        shown(text.trim())
                    ));
                };
                element.properties.push(Property { name: name.to_owned(), length, scalar });
            }
            ["comment" | "obj_info", ..] | [] => {}
            ["end_header"] => {
                let encoding = encoding.ok_or("its header names no `format`")?;
                return Ok((encoding, elements, End { bytes: at, lines: line }));
            }
            _ => return Err(format!("line {line} is {}, which no PLY header has", shown(text.trim()))),
        }
    }
    Err("its header does not end".into())
}

/// Goes through the items of `element`: (item, property, numbers).
fn each(
    body: &mut Body<'_>,
    element: &Element,
    mut hear: impl FnMut(usize, usize, &[f64]) -> Result<(), String>,
) -> Result<(), String> {
    let mut numbers = Vec::new();
    for item in 0..element.count {
        let at = |body: &Body<'_>, error: String| match body.encoding {
            Encoding::Text => format!("line {}, {} {item}: {error}", body.line, element.name),
            _ => format!("{} {item} of {}: {error}", element.name, element.count),
        };
        body.start().map_err(|error| at(body, error))?;
        for (place, property) in element.properties.iter().enumerate() {
            body.numbers(property, &mut numbers).map_err(|error| at(body, error))?;
            hear(item, place, &numbers).map_err(|error| at(body, error))?;
        }
    }
    Ok(())
}

fn vertices(body: &mut Body<'_>, element: &Element) -> Result<Cloud, String> {
    let place = |name: &str| {
        let found =
            element.properties.iter().position(|property| property.name == name && property.length.is_none());
        found.ok_or_else(|| format!("its vertices have no number `{name}`"))
    };
    let axes = [place("x")?, place("y")?, place("z")?];
    let single = |(at, property): (usize, &Property)| {
        (property.length.is_none() && !axes.contains(&at)).then(|| property.name.clone())
    };
    let mut cloud = Cloud {
        columns: element.properties.iter().enumerate().filter_map(single).collect(),
        ..Cloud::default()
    };
    cloud.xyz.resize(element.count, [0.0; 3]);
    each(body, element, |item, place, numbers| {
        let property = &element.properties[place];
        let ([number], None) = (numbers, property.length) else { return Ok(()) };
        let number = *number as f32;
        if !number.is_finite() {
            return Err(format!("`{}` is {number}, expected a finite number", property.name));
        }
        match axes.iter().position(|axis| *axis == place) {
            Some(axis) => cloud.xyz[item][axis] = number,
            None => cloud.values.push(number),
        }
        Ok(())
    })?;
    Ok(cloud)
}

fn faces(
    body: &mut Body<'_>,
    element: &Element,
    vertices: usize,
    triangles: &mut Vec<[u32; 3]>,
) -> Result<(), String> {
    let corners = |property: &Property| {
        property.length.is_some() && matches!(property.name.as_str(), "vertex_indices" | "vertex_index")
    };
    let corners =
        element.properties.iter().position(corners).ok_or("its faces have no list `vertex_indices`")?;
    each(body, element, |_, place, numbers| {
        if place != corners {
            return Ok(());
        }
        let mut fan = Fan::new(vertices);
        numbers.iter().try_for_each(|corner| {
            if *corner < 0.0 || corner.fract() != 0.0 {
                return Err(format!(
                    "a corner is vertex {corner}, expected 0 to {}",
                    vertices.saturating_sub(1)
                ));
            }
            fan.corner(*corner as u64, triangles)
        })
    })
}

/// What follows the header.
struct Body<'a> {
    encoding: Encoding,
    rest: &'a [u8],
    /// Text: the line that was read last.
    line: usize,
    /// Text: its words that are left, the last first.
    words: Vec<&'a str>,
}

impl<'a> Body<'a> {
    /// Refuses an element that promises more than is left, before room is made for it.
    fn can_hold(&self, element: &Element) -> Result<(), String> {
        let least = match self.encoding {
            // A digit and a blank or line break each.
            Encoding::Text => 2 * element.properties.len().max(1),
            _ => element
                .properties
                .iter()
                .map(|property| property.length.unwrap_or(property.scalar).size())
                .sum(),
        };
        if element.count > 0 && least == 0 {
            return Err(format!("its element {} has no properties", shown(&element.name)));
        }
        // The last line break may be missing.
        match element.count.checked_mul(least) {
            Some(needed) if needed <= self.rest.len() + 1 => Ok(()),
            _ => Err(format!(
                "promises {} of element {}, but {} bytes are left, too few for them",
                element.count,
                shown(&element.name),
                self.rest.len()
            )),
        }
    }

    /// The next item.
    fn start(&mut self) -> Result<(), String> {
        if self.encoding != Encoding::Text {
            return Ok(());
        }
        self.words.clear();
        while self.words.is_empty() {
            if self.rest.is_empty() {
                return Err("the file ends here".into());
            }
            let end = self.rest.iter().position(|byte| *byte == b'\n').unwrap_or(self.rest.len());
            let (line, rest) = self.rest.split_at(end);
            self.rest = rest.get(1..).unwrap_or_default();
            self.line += 1;
            let line = std::str::from_utf8(line).map_err(|_| "it is no text".to_owned())?;
            self.words.extend(line.split_whitespace().rev());
        }
        Ok(())
    }

    /// The numbers of a property.
    fn numbers(&mut self, property: &Property, numbers: &mut Vec<f64>) -> Result<(), String> {
        numbers.clear();
        let count = match property.length {
            None => 1,
            Some(length) => {
                let count = self.number(length, &property.name)?;
                // Every number takes a byte at least.
                let most = match self.encoding {
                    Encoding::Text => self.words.len(),
                    _ => self.rest.len() / property.scalar.size(),
                };
                if !(0.0..=most as f64).contains(&count) || count.fract() != 0.0 {
                    return Err(format!(
                        "the list `{}` promises {count} entries, but {most} can follow",
                        property.name
                    ));
                }
                count as usize
            }
        };
        for _ in 0..count {
            numbers.push(self.number(property.scalar, &property.name)?);
        }
        Ok(())
    }

    fn number(&mut self, scalar: Scalar, name: &str) -> Result<f64, String> {
        if self.encoding == Encoding::Text {
            let word = self.words.pop().ok_or_else(|| format!("`{name}` is missing"))?;
            // Whole numbers are not rounded to f32.
            return match scalar {
                Scalar::F32 | Scalar::F64 => number(word, &format!("`{name}`")).map(f64::from),
                _ => word
                    .parse::<i64>()
                    .map(|whole| whole as f64)
                    .or_else(|_| number(word, &format!("`{name}`")).map(f64::from)),
            };
        }
        let (bytes, rest) = self.rest.split_at_checked(scalar.size()).ok_or("the file ends here")?;
        self.rest = rest;
        let mut eight = [0; 8];
        let len = scalar.size();
        eight.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        if self.encoding == Encoding::Big {
            eight[..len].reverse();
        }
        Ok(scalar.number(&eight[..len]))
    }
}
