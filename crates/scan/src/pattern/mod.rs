//! Patterns: rules that make a plan from a geometry, composed by a short string.

mod curves;
mod graphs;
mod modifiers;
mod parse;
mod points;
mod published;
mod registry;
mod samples;
mod select;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use points::{PointCompat, PointCurve, Serialization};
pub use published::{Parameters, Published, Schedule, Shape, System, published, published_named};
pub use registry::{Args, Entry, Kind, Param, Real, Value, entries, register};

use crate::geometry::{MAX_DIRECTIONS, MAX_STEPS};
use crate::{Error, Geometry, Plan, Result};

/// Makes a plan from a geometry: what a curve such as `row` does, and what a crate of yours implements and
/// [`register`]s by name. A closure from `&Geometry` to `Result<Plan>` is one.
pub trait Rule: Send + Sync {
    /// The plan over the tokens of `geometry`.
    ///
    /// # Errors
    /// The geometry does not suit the rule, or the plan would be too large.
    fn plan(&self, geometry: &Geometry) -> Result<Plan>;
}

impl<F: Fn(&Geometry) -> Result<Plan> + Send + Sync> Rule for F {
    fn plan(&self, geometry: &Geometry) -> Result<Plan> {
        self(geometry)
    }
}

/// Makes a plan out of another rule's, as `reverse` and `window(7)` do. A closure from `(&dyn Rule, &Geometry)` to
/// `Result<Plan>` is one.
pub trait Modifier: Send + Sync {
    /// The plan over the tokens of `geometry` that comes of changing `source`, which may be asked for plans over this
    /// geometry or others (a window, the transposed grid). Its plans are known to be over the geometry asked for.
    ///
    /// # Errors
    /// Those of `source`, a geometry that does not suit, or a plan that would be too large.
    fn plan(&self, source: &dyn Rule, geometry: &Geometry) -> Result<Plan>;
}

impl<F: Fn(&dyn Rule, &Geometry) -> Result<Plan> + Send + Sync> Modifier for F {
    fn plan(&self, source: &dyn Rule, geometry: &Geometry) -> Result<Plan> {
        self(source, geometry)
    }
}

/// A composition of curves, modifiers and sets, as a config or a command line writes it.
///
/// ```
/// use ophidian_scan::{Geometry, Pattern};
///
/// let pattern: Pattern = "window(2) of row | bidirectional".parse()?;
/// let plan = pattern.plan(&Geometry::Grid2 { height: 2, width: 4 })?;
/// assert_eq!(plan.orders()[0].index(), [0, 1, 4, 5, 2, 3, 6, 7]);
/// assert_eq!(plan.orders()[1].index(), [7, 6, 3, 2, 5, 4, 1, 0]);
/// assert_eq!(pattern.to_string(), "row | window(2) | bidirectional");
/// # Ok::<(), ophidian_scan::Error>(())
/// ```
///
/// # The string
/// ```text
/// pattern  = item { "|" call }                     modifiers apply from left to right
/// item     = call [ "of" item ]                    `window(7) of row` is `row | window(7)`; binds tighter than `|`
///          | "[" pattern { "," pattern } "]"       several: their directions one after another
///          | "(" pattern ")"
/// call     = name [ "(" [ argument { "," argument } ] ")" ]
/// argument = [ name "=" ] value                    by position or by name
/// value    = integer | decimal | true | false | word | "text" | 'text'     with \" \' \\ in a text
/// ```
/// A modifier that stands first modifies `row`: `cross` is `row | cross`. A string that ends in `.json`, `.npy` or
/// `.safetensors` is the path of an index file: short for `file("…")`. [`entries`] lists the names.
///
/// Its `Display` is the shortest form in that grammar and parses back to an equal pattern; serde uses both.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Arc<Node>);

enum Node {
    Rule { call: Call, rule: Arc<dyn Rule> },
    Modified { source: Pattern, call: Call, modifier: Arc<dyn Modifier> },
    List(Vec<Pattern>),
}

/// A name and its arguments.
#[derive(Clone, PartialEq, Eq)]
struct Call {
    name: String,
    kind: Kind,
    args: Args,
}

impl Pattern {
    /// The plan over the tokens of `geometry`. The same pattern and geometry make the same plan on every machine
    /// (short of an index file that changes).
    ///
    /// # Errors
    /// The geometry does not suit the pattern, the plan would be larger than [`MAX_STEPS`] or [`MAX_DIRECTIONS`], or
    /// an index file does not read or is over another number of tokens.
    pub fn plan(&self, geometry: &Geometry) -> Result<Plan> {
        let tokens = geometry.tokens()?;
        let (name, plan) = match &*self.0 {
            Node::Rule { call, rule } => (&call.name, rule.plan(geometry)?),
            Node::Modified { source, call, modifier } => (&call.name, modifier.plan(source, geometry)?),
            Node::List(patterns) => return list(patterns, geometry),
        };
        if plan.tokens() == tokens {
            return Ok(plan);
        }
        Err(Error::Geometry {
            pattern: name.clone(),
            needed: format!("{} tokens", plan.tokens()),
            found: geometry.describe(),
            help: format!("give a shape of {} tokens, or another pattern", plan.tokens()),
        })
    }

    /// True if this pattern is an index file: `file("…")` or a path.
    pub fn is_file(&self) -> bool {
        matches!(&*self.0, Node::Rule { call, .. } if call.name == "file")
    }

    fn is_row(&self) -> bool {
        matches!(&*self.0, Node::Rule { call, .. } if call.name == "row")
    }

    fn depth(&self) -> usize {
        match &*self.0 {
            Node::Rule { .. } => 1,
            Node::Modified { source, .. } => 1 + source.depth(),
            Node::List(patterns) => 1 + patterns.iter().map(Pattern::depth).max().unwrap_or(0),
        }
    }
}

/// The directions of all `patterns`, one after another. Refuses what is too large as soon as it is.
fn list(patterns: &[Pattern], geometry: &Geometry) -> Result<Plan> {
    let (mut orders, mut steps) = (Vec::new(), 0);
    for pattern in patterns {
        let plan = pattern.plan(geometry)?;
        steps += plan.orders().iter().map(crate::Order::len).sum::<usize>();
        orders.extend_from_slice(plan.orders());
        if steps > MAX_STEPS || orders.len() > MAX_DIRECTIONS {
            break; // Plan::new says which
        }
    }
    Plan::new(orders)
}

impl Pattern {
    /// The same pattern without lists of one: `[row]` is `row`.
    pub fn simplified(&self) -> Pattern {
        let node = match &*self.0 {
            Node::Rule { .. } => return self.clone(),
            Node::List(patterns) => match patterns.as_slice() {
                [one] => return one.simplified(),
                several => Node::List(several.iter().map(Pattern::simplified).collect()),
            },
            Node::Modified { source, call, modifier } => {
                Node::Modified { source: source.simplified(), call: call.clone(), modifier: modifier.clone() }
            }
        };
        Pattern(Arc::new(node))
    }
}

impl Rule for Pattern {
    fn plan(&self, geometry: &Geometry) -> Result<Plan> {
        Pattern::plan(self, geometry)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        match (&*self.0, &*other.0) {
            (Node::Rule { call, .. }, Node::Rule { call: theirs, .. }) => call == theirs,
            (Node::Modified { source, call, .. }, Node::Modified { source: other, call: theirs, .. }) => {
                call == theirs && source == other
            }
            (Node::List(patterns), Node::List(theirs)) => patterns == theirs,
            _ => false,
        }
    }
}

impl Eq for Pattern {}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Node::Rule { call, .. } => write!(f, "{call}"),
            Node::Modified { source, call, .. } if call.kind == Kind::Set && source.is_row() => {
                write!(f, "{call}")
            }
            Node::Modified { source, call, .. } => write!(f, "{source} | {call}"),
            Node::List(patterns) => {
                for (i, pattern) in patterns.iter().enumerate() {
                    write!(f, "{}{pattern}", if i == 0 { "[" } else { ", " })?;
                }
                f.write_str("]")
            }
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, self.args)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.to_string())
    }
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Pattern> {
        parse::parse(text).map_err(|error| Error::Syntax(Box::new(error)))
    }
}

impl TryFrom<String> for Pattern {
    type Error = Error;

    fn try_from(text: String) -> Result<Pattern> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.to_string()
    }
}
