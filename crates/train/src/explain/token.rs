//! Which token is explained.

use std::str::FromStr;

use ophidian_core::tape::Places;

use crate::{Error, Result};

/// A token at the end of the layers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Token {
    /// That in the middle.
    #[default]
    Centre,
    /// The class token (of several, all).
    Class,
    /// By its number, row by row.
    Number(i64),
    /// By its place: (row, column), of a clip (frame, row, column).
    Place(Vec<i64>),
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let numbers = || {
            text.split(',').map(|part| part.trim().parse::<i64>()).collect::<std::result::Result<Vec<_>, _>>()
        };
        match (text, numbers().as_deref()) {
            ("centre" | "center", _) => Ok(Token::Centre),
            ("class", _) => Ok(Token::Class),
            (_, Ok([number])) => Ok(Token::Number(*number)),
            (_, Ok(place)) => Ok(Token::Place(place.to_vec())),
            (_, Err(_)) => Err("expected centre, class, a number, or ROW,COLUMN".to_owned()),
        }
    }
}

impl Token {
    /// Its place among `places`, none for the class token.
    ///
    /// # Errors
    /// There is no such token.
    pub(super) fn find(&self, places: &Places) -> Result<Option<usize>> {
        let (sizes, count) = (&places.sizes, places.count());
        let shown = sizes.iter().map(i64::to_string).collect::<Vec<_>>().join("x");
        let found = match self {
            Token::Class if places.tokens(None).is_empty() => {
                return Err(Error::config("the model has no class token: name a place, or `centre`"));
            }
            Token::Class => return Ok(None),
            Token::Centre => at(sizes, &sizes.iter().map(|size| size / 2).collect::<Vec<_>>()),
            Token::Number(number) => usize::try_from(*number).ok().filter(|number| *number < count),
            Token::Place(place) if place.len() != sizes.len() => {
                return Err(Error::config(format!(
                    "the token {place:?} has {} numbers, but the tokens of the last layer lie on {shown}",
                    place.len()
                )));
            }
            Token::Place(place) => at(sizes, place),
        };
        match found {
            Some(place) => Ok(Some(place)),
            None => Err(Error::config(match sizes.len() {
                1 => format!("there is no such token: the last layer has {count}, numbered from 0"),
                _ => {
                    format!("there is no such token: those of the last layer lie on {shown}, counted from 0")
                }
            })),
        }
    }
}

/// The number of the place at `indices`, row by row.
fn at(sizes: &[i64], indices: &[i64]) -> Option<usize> {
    let step = |number: i64, (size, index): (&i64, &i64)| {
        (0..*size).contains(index).then_some(number * size + index)
    };
    usize::try_from(sizes.iter().zip(indices).try_fold(0, step)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_or_refused() {
        let places = |sizes: &[i64], class: bool| {
            let count: i64 = sizes.iter().product();
            let mut of: Vec<Option<usize>> = (0..count as usize).map(Some).collect();
            of.extend(class.then_some(None));
            Places { sizes: sizes.to_vec(), of }
        };
        let find = |text: &str, sizes: &[i64], class: bool| {
            text.parse::<Token>().unwrap().find(&places(sizes, class)).map_err(|error| error.to_string())
        };
        assert_eq!(find("centre", &[4, 5], false), Ok(Some(12)));
        assert_eq!(find("1, 2", &[4, 5], false), Ok(Some(7)));
        assert_eq!(find("19", &[4, 5], false), Ok(Some(19)));
        assert_eq!(find("1,0,1", &[2, 3, 4], false), Ok(Some(13)));
        assert_eq!(find("class", &[4, 5], true), Ok(None));
        assert_eq!(find("centre", &[1, 1], false), Ok(Some(0)));
        for (text, sizes, said) in [
            ("class", &[4, 5][..], "no class token"),
            ("20", &[4, 5], "lie on 4x5, counted from 0"),
            ("-1", &[4, 5], "lie on 4x5"),
            ("4,0", &[4, 5], "lie on 4x5"),
            ("1,2,3", &[4, 5], "has 3 numbers"),
            ("8", &[8], "has 8, numbered from 0"),
        ] {
            let error = find(text, sizes, false).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        assert!("middle".parse::<Token>().unwrap_err().contains("expected centre"));
        assert!("1,".parse::<Token>().is_err() && "".parse::<Token>().is_err());
    }
}
