//! Points with features, meshes, and points drawn from meshes.

use ophidian_core::rng::Rng;
use rand::RngExt;

/// Points in space, each with the same further columns.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cloud {
    /// Coordinates (N, 3), finite.
    pub xyz: Vec<[f32; 3]>,
    /// Names of the further columns (F): properties of a PLY file, numbers of columns from 1 on elsewhere.
    pub columns: Vec<String>,
    /// Their values (N, F), row by row, finite.
    pub values: Vec<f32>,
}

impl Cloud {
    /// Points alone.
    pub fn of(xyz: Vec<[f32; 3]>) -> Cloud {
        Cloud { xyz, ..Cloud::default() }
    }

    /// How many points.
    pub fn len(&self) -> usize {
        self.xyz.len()
    }

    /// True if there is no point.
    pub fn is_empty(&self) -> bool {
        self.xyz.is_empty()
    }

    /// The further columns of point `at`.
    pub fn row(&self, at: usize) -> &[f32] {
        let width = self.columns.len();
        self.values.get(at * width..(at + 1) * width).unwrap_or_default()
    }

    /// The same points with the columns `names` alone, in that order.
    ///
    /// # Errors
    /// A column that is not there, with those that are.
    pub fn with_columns(mut self, names: &[String]) -> Result<Cloud, String> {
        if self.columns == names {
            return Ok(self);
        }
        let place = |name: &String| {
            self.columns.iter().position(|known| known == name).ok_or_else(|| {
                let known = if self.columns.is_empty() { "none".into() } else { self.columns.join(", ") };
                format!("has no column `{name}` (`data.features`) beside x, y and z; it has {known}")
            })
        };
        let places = names.iter().map(place).collect::<Result<Vec<usize>, String>>()?;
        let mut values = Vec::with_capacity(self.len() * places.len());
        for at in 0..self.len() {
            let row = self.row(at);
            values.extend(places.iter().filter_map(|place| row.get(*place)));
        }
        self.values = values;
        self.columns = names.to_vec();
        Ok(self)
    }

    /// The points numbered `picks`, in that order.
    pub fn pick(&self, picks: &[usize]) -> Cloud {
        Cloud {
            xyz: picks.iter().filter_map(|at| self.xyz.get(*at).copied()).collect(),
            columns: self.columns.clone(),
            values: picks.iter().flat_map(|at| self.row(*at)).copied().collect(),
        }
    }

    /// The points of both.
    pub fn append(&mut self, other: &Cloud) {
        self.xyz.extend_from_slice(&other.xyz);
        self.values.extend_from_slice(&other.values);
        self.columns.clone_from(&other.columns);
    }
}

/// A surface of triangles.
#[derive(Debug, Clone, PartialEq)]
pub struct Mesh {
    vertices: Vec<[f32; 3]>,
    /// Three vertices each.
    triangles: Vec<[u32; 3]>,
    /// Area of each triangle and all before it.
    areas: Vec<f64>,
}

impl Mesh {
    /// A mesh of `triangles` between `vertices`.
    ///
    /// # Errors
    /// No triangle, a vertex that is not there, or no area at all.
    pub fn new(vertices: Vec<[f32; 3]>, triangles: Vec<[u32; 3]>) -> Result<Mesh, String> {
        if triangles.is_empty() {
            return Err("has no faces, from which points could be drawn; expected a mesh".into());
        }
        let (mut areas, mut sum) = (Vec::with_capacity(triangles.len()), 0.0);
        for triangle in &triangles {
            let corner = |at: u32| vertices.get(at as usize).map(|vertex| vertex.map(f64::from));
            let [Some(a), Some(b), Some(c)] = triangle.map(corner) else {
                return Err(format!(
                    "a face has the corners {triangle:?}, but there are {} vertices",
                    vertices.len()
                ));
            };
            let (u, v) = (difference(b, a), difference(c, a));
            let cross = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
            sum += cross.iter().map(|x| x * x).sum::<f64>().sqrt() / 2.0;
            areas.push(sum);
        }
        if !(sum > 0.0 && sum.is_finite()) {
            return Err(format!(
                "its {} faces have an area of {sum}, from which no points can be drawn",
                areas.len()
            ));
        }
        Ok(Mesh { vertices, triangles, areas })
    }

    /// How many vertices and triangles.
    pub fn size(&self) -> (usize, usize) {
        (self.vertices.len(), self.triangles.len())
    }

    /// `count` points drawn evenly from the surface: a triangle by its area, a place on it uniformly (Osada et al.,
    /// Shape Distributions, 2002, section 3).
    pub fn draw(&self, count: usize, random: &mut Rng) -> Cloud {
        let total = self.areas.last().copied().unwrap_or(0.0);
        let mut one = || {
            let area = random.random::<f64>() * total;
            // Triangles of no area are never the first whose sum exceeds what was drawn.
            let at = self.areas.partition_point(|sum| *sum <= area).min(self.areas.len() - 1);
            let corner = |at: u32| self.vertices[at as usize].map(f64::from);
            let [a, b, c] = self.triangles[at].map(corner);
            let (root, along) = (random.random::<f64>().sqrt(), random.random::<f64>());
            let weights = [1.0 - root, root * (1.0 - along), root * along];
            std::array::from_fn(|axis| {
                (weights[0] * a[axis] + weights[1] * b[axis] + weights[2] * c[axis]) as f32
            })
        };
        Cloud::of((0..count).map(|_| one()).collect())
    }
}

fn difference(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    std::array::from_fn(|axis| a[axis] - b[axis])
}
