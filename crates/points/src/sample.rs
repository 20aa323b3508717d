//! Farthest points and nearest neighbours.

/// Coordinates axis by axis, so that distances to one point are taken of many points at once.
pub struct Columns {
    axes: [Vec<f32>; 3],
    distances: Vec<f32>,
}

impl Columns {
    /// Of `points`.
    pub fn new(points: &[[f32; 3]]) -> Columns {
        let axis = |axis: usize| points.iter().map(|point| point[axis]).collect();
        Columns { axes: [axis(0), axis(1), axis(2)], distances: vec![0.0; points.len()] }
    }

    /// Squared distances of all points to `to`.
    fn distances(&mut self, to: [f32; 3]) -> &[f32] {
        let [x, y, z] = &self.axes;
        for (((distance, x), y), z) in self.distances.iter_mut().zip(x).zip(y).zip(z) {
            let [dx, dy, dz] = [x - to[0], y - to[1], z - to[2]];
            *distance = dx * dx + dy * dy + dz * dz;
        }
        &self.distances
    }

    /// Farthest point sampling (Eldar et al. 1997): `count` points from point `first` on, each the one farthest from all
    /// before it; of equally far ones the first. Where every place is taken, point 0 is taken again, as PointNet++'s
    /// sampler does, so `count` may exceed the number of places, and of points.
    pub fn farthest(&mut self, count: usize, first: usize) -> Vec<usize> {
        let points = self.distances.len();
        let mut nearest = vec![f32::INFINITY; points];
        let mut picks = Vec::with_capacity(count);
        let mut next = first;
        while picks.len() < count && next < points {
            picks.push(next);
            let to = self.axes.each_ref().map(|axis| axis[next]);
            self.distances(to);
            // In two passes, each of which the compiler does many points at a time.
            for (nearest, distance) in nearest.iter_mut().zip(&self.distances) {
                *nearest = if distance < nearest { *distance } else { *nearest };
            }
            let far = nearest.iter().fold(0.0f32, |far, near| if *near > far { *near } else { far });
            next = nearest.iter().position(|near| *near == far).unwrap_or(0);
        }
        picks
    }

    /// The `count` points nearest to `to`, nearest first; of equally near ones the first. All of them if there are
    /// fewer.
    pub fn nearest(&mut self, to: [f32; 3], count: usize, found: &mut Vec<(f32, usize)>) {
        found.clear();
        self.distances(to);
        for (point, distance) in self.distances.iter().enumerate() {
            let worst = found.last().map_or(f32::INFINITY, |(worst, _)| *worst);
            if found.len() < count || *distance < worst {
                // Behind those that are as near: they came first.
                let place = found.partition_point(|(other, _)| other <= distance);
                if found.len() == count {
                    found.pop();
                }
                found.insert(place.min(found.len()), (*distance, point));
            }
        }
    }
}
