//! A point a line: x, y, z and what else there is, parted by blanks, commas or semicolons.

use super::{lines, number};
use crate::cloud::Cloud;

pub(super) fn parse(bytes: &[u8]) -> Result<Cloud, String> {
    let (mut cloud, mut width) = (Cloud::default(), None);
    let mut first = true;
    for line in lines(bytes) {
        let (at, line) = line?;
        let line = line.split('#').next().unwrap_or_default().trim();
        let words =
            line.split(|c: char| c.is_whitespace() || c == ',' || c == ';').filter(|word| !word.is_empty());
        let words: Vec<&str> = words.collect();
        if words.is_empty() {
            continue;
        }
        // The number of points may stand above them, or the names of the columns.
        let heading = words.len() == 1 && words.iter().all(|word| word.parse::<u64>().is_ok())
            || words.iter().all(|word| word.parse::<f32>().is_err());
        if std::mem::take(&mut first) && heading {
            continue;
        }
        let [x, y, z, more @ ..] = &words[..] else {
            return Err(format!("line {at} has {} columns, expected x, y, z and maybe more", words.len()));
        };
        if *width.get_or_insert(words.len()) != words.len() {
            return Err(format!(
                "line {at} has {} columns, expected {} as above",
                words.len(),
                width.unwrap_or_default()
            ));
        }
        let number =
            |word: &str, what: &str| number(word, what).map_err(|error| format!("line {at}: {error}"));
        cloud.xyz.push([number(x, "x")?, number(y, "y")?, number(z, "z")?]);
        for (column, word) in (4..).zip(more) {
            cloud.values.push(number(word, &format!("column {column}"))?);
        }
    }
    cloud.columns = (4..=width.unwrap_or(3)).map(|column| column.to_string()).collect();
    if cloud.is_empty() {
        return Err("holds no points; expected a line of x, y and z for each".into());
    }
    Ok(cloud)
}
