//! OFF, the meshes of Geomview and ModelNet: counts, vertices a line each, faces a line each.

use super::{lines, number, shown};
use crate::cloud::Mesh;

/// A line of a vertex holds three numbers, and a line of a face its number of corners and at least one of them.
const SHORTEST: usize = 4;

pub(super) fn parse(bytes: &[u8]) -> Result<Mesh, String> {
    // Lines that say something, comments cut off.
    let mut lines = lines(bytes).filter_map(|line| match line {
        Ok((at, line)) => {
            let line = line.split('#').next().unwrap_or_default().trim();
            (!line.is_empty()).then_some(Ok((at, line)))
        }
        Err(error) => Some(Err(error)),
    });
    let (at, first) = lines.next().ok_or("holds nothing but comments")??;
    // The counts may follow the word on its line, in ModelNet without a space ("OFF490 518 0").
    let rest = ["OFF", "COFF", "NOFF", "CNOFF", "STOFF"].iter().find_map(|word| first.strip_prefix(word));
    let Some(rest) = rest else {
        return Err(format!("line {at} is {}, expected `OFF`", shown(first)));
    };
    let (at, counts) = match rest.trim() {
        "" => lines.next().ok_or("ends behind `OFF`, expected the numbers of vertices and faces")??,
        rest => (at, rest),
    };
    let mut words = counts.split_whitespace();
    let mut count = |what: &str| {
        let word = words.next().unwrap_or_default();
        let count = word.parse::<u64>().map_err(|_| {
            format!(
                "line {at}: the number of {what} is {}, expected a whole number of at least 0",
                shown(word)
            )
        })?;
        if count > (bytes.len() / SHORTEST) as u64 {
            return Err(format!(
                "line {at} promises {count} {what}, more than its {} bytes can hold",
                bytes.len()
            ));
        }
        usize::try_from(count).map_err(|error| error.to_string())
    };
    let (vertex_count, face_count) = (count("vertices")?, count("faces")?);
    let mut next = |what: &str, done: usize, all: usize| {
        lines.next().unwrap_or_else(|| Err(format!("ends behind {done} of {all} {what}")))
    };
    let mut vertices = Vec::with_capacity(vertex_count);
    for i in 0..vertex_count {
        let (at, line) = next("vertices", i, vertex_count)?;
        let mut words = line.split_whitespace();
        let mut coordinate = |axis: &str| {
            number(words.next().unwrap_or_default(), axis)
                .map_err(|error| format!("line {at}, vertex {i}: {error}"))
        };
        vertices.push([coordinate("x")?, coordinate("y")?, coordinate("z")?]);
    }
    let mut triangles = Vec::new();
    for i in 0..face_count {
        let (at, line) = next("faces", i, face_count)?;
        let mut words = line.split_whitespace();
        let mut whole = |what: &str| {
            let word = words.next().unwrap_or_default();
            word.parse::<u32>().map_err(|_| {
                format!("line {at}, face {i}: {what} is {}, expected a whole number", shown(word))
            })
        };
        let corners = whole("the number of corners")?;
        let mut fan = Fan::new(vertex_count);
        for _ in 0..corners {
            let corner = whole("a corner")?;
            fan.corner(u64::from(corner), &mut triangles)
                .map_err(|error| format!("line {at}, face {i}: {error}"))?;
        }
    }
    Mesh::new(vertices, triangles)
}

/// A face as triangles that share its first corner.
pub(super) struct Fan {
    vertices: usize,
    first: Option<u32>,
    last: Option<u32>,
}

impl Fan {
    pub fn new(vertices: usize) -> Fan {
        Fan { vertices, first: None, last: None }
    }

    /// The next corner; from the third on each makes a triangle.
    pub fn corner(&mut self, corner: u64, triangles: &mut Vec<[u32; 3]>) -> Result<(), String> {
        let Some(corner) = u32::try_from(corner).ok().filter(|corner| (*corner as usize) < self.vertices)
        else {
            return Err(format!(
                "a corner is vertex {corner}, expected 0 to {}",
                self.vertices.saturating_sub(1)
            ));
        };
        match (self.first, self.last) {
            (None, _) => self.first = Some(corner),
            (Some(first), Some(last)) => {
                triangles.push([first, last, corner]);
                self.last = Some(corner);
            }
            (Some(_), None) => self.last = Some(corner),
        }
        Ok(())
    }
}
