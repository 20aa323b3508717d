//! Key maps: which of an author's tensors is which of ours.

use std::collections::{BTreeSet, HashMap};

use tch::{Kind, Tensor};

use crate::{Error, Result, tensors::Tensors};

/// One tensor of an author's checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The author's name.
    pub theirs: String,
    /// Our name in the VarStore.
    pub ours: String,
    /// Its shape in the author's file. It holds as many values as our tensor, or as one row of it.
    pub shape: Vec<i64>,
    /// Which row of our tensor it is, where we keep the directions of a mixer in one tensor.
    pub row: Option<i64>,
    /// Whose axes are in another order.
    pub layout: Layout,
    /// Which entry of our second axis each of theirs is; empty where they are the same.
    pub order: Vec<i64>,
}

/// An axis of a [`Key`]'s shape that may have any length.
pub(crate) const ANY: i64 = -1;

/// The order of an author's axes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Layout {
    /// Ours.
    #[default]
    Same,
    /// Two of ours the other way round.
    Transposed(i64, i64),
    /// The four tokens of a square that patch merging puts side by side: channels, rows, columns from slow to fast where
    /// ours are columns, rows, channels.
    Squares,
}

impl Key {
    /// A tensor that we keep by another name or shape, as it is.
    pub fn new(theirs: impl Into<String>, ours: impl Into<String>, shape: &[i64]) -> Key {
        Key {
            theirs: theirs.into(),
            ours: ours.into(),
            shape: shape.to_vec(),
            row: None,
            layout: Layout::Same,
            order: Vec::new(),
        }
    }

    /// A tensor that is row `row` of ours.
    pub fn row(theirs: impl Into<String>, ours: impl Into<String>, row: i64, shape: &[i64]) -> Key {
        Key { row: Some(row), ..Key::new(theirs, ours, shape) }
    }

    /// A table of positions (1, L, channels) that is kept as a map (1, channels, h, w).
    pub fn map(theirs: impl Into<String>, ours: impl Into<String>, shape: &[i64]) -> Key {
        Key { layout: Layout::Transposed(1, -1), ..Key::new(theirs, ours, shape) }
    }

    /// Weights (…, 4 channels) of patch merging whose squares are laid out as [`Layout::Squares`] says.
    pub fn squares(theirs: impl Into<String>, ours: impl Into<String>, shape: &[i64]) -> Key {
        Key { layout: Layout::Squares, ..Key::new(theirs, ours, shape) }
    }

    /// The part of `tensor` (ours) that it stands for, axes in the author's order: a view.
    fn view(&self, tensor: &Tensor) -> Result<Tensor> {
        let part = match self.row {
            Some(row) => tensor.f_select(0, row)?,
            None => tensor.shallow_clone(),
        };
        Ok(match self.layout {
            Layout::Same => part,
            Layout::Transposed(a, b) => part.f_transpose(a, b)?,
            Layout::Squares => part.f_unflatten(-1, [2, 2, -1])?.f_transpose(-1, -3)?,
        })
    }

    /// The same, shaped as the author's.
    fn part(&self, tensor: &Tensor) -> Result<Tensor> {
        let view = self.view(tensor)?;
        let view = match &self.order[..] {
            [] => view,
            order => view.f_index_select(1, &Tensor::f_from_slice(order)?.f_to_device(view.device())?)?,
        };
        Ok(view.f_reshape(&self.shape[..])?)
    }
}

/// The keys with the shape of our own tensor wherever an author's, which was taken from a file, cannot be it.
///
/// # Errors
/// A key of a tensor, or of a row, that `variables` lacks.
pub fn fitted(keys: &[Key], variables: &HashMap<String, Tensor>) -> Result<Vec<Key>> {
    let fit = |key: &Key| {
        let ours = key.view(variables.get(&key.ours).ok_or_else(|| unmapped(key))?)?.size();
        let shape =
            if regrouped(&key.shape, &ours) { key.shape.clone() } else { joined(ours, key.shape.len()) };
        Ok(Key { shape, ..key.clone() })
    };
    keys.iter().map(fit).collect()
}

/// A shape of no more than `axes` axes, if that is not 0: the first ones joined, as authors join the directions.
fn joined(mut shape: Vec<i64>, axes: usize) -> Vec<i64> {
    while axes > 0 && shape.len() > axes {
        let first = shape.remove(0);
        shape[0] *= first;
    }
    shape
}

/// True if one of the shapes is the other with neighbouring axes joined (or axes of length 1 more).
fn regrouped(a: &[i64], b: &[i64]) -> bool {
    let ends = |shape: &[i64]| -> BTreeSet<i64> {
        shape
            .iter()
            .scan(1i64, |product, n| {
                *product = product.saturating_mul(*n);
                Some(*product)
            })
            .filter(|end| *end != 1)
            .collect()
    };
    let (a, b) = (ends(a), ends(b));
    a.last() == b.last() && (a.is_subset(&b) || b.is_subset(&a))
}

/// True if a tensor of shape `found` may be one of shape `expected`.
fn alike(found: &[i64], expected: &[i64]) -> bool {
    found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| a == b || *b == ANY)
}

/// Every missing, misshaped, non-floating or unknown tensor of an author's, in words.
pub fn misfits(keys: &[Key], file: &Tensors) -> Vec<String> {
    let known: BTreeSet<&str> = keys.iter().map(|key| key.theirs.as_str()).collect();
    let mut wrong = Vec::new();
    for key in keys {
        match file.get(&key.theirs) {
            None if key.shape.is_empty() => wrong.push(format!("`{}` is missing", key.theirs)),
            None if key.shape.contains(&ANY) => wrong.push(format!("`{}` is missing", key.theirs)),
            None => wrong.push(format!("`{}` {:?} is missing", key.theirs, key.shape)),
            Some(found) if !alike(&found.size(), &key.shape) => {
                let expected = format!("{:?}", key.shape).replace("-1", "?");
                wrong.push(format!("`{}` has shape {:?}, expected {expected}", key.theirs, found.size()));
            }
            Some(found) if !found.is_floating_point() => {
                wrong.push(format!(
                    "`{}` has dtype {:?}, expected a floating dtype",
                    key.theirs,
                    found.kind()
                ));
            }
            Some(_) => {}
        }
    }
    for (name, tensor) in file.iter().filter(|(name, _)| !known.contains(name.as_str())) {
        wrong.push(format!("`{name}` {:?} is not known to this model", tensor.size()));
    }
    wrong
}

/// Nothing if nothing is `wrong`.
///
/// # Errors
/// All that is, in one message.
pub fn refuse(wrong: &[String], keys: usize) -> Result<()> {
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the tensors do not fit the config ({} of {keys} keys):\n  {}",
        wrong.len(),
        wrong.join("\n  ")
    )))
}

/// Copies an author's tensors into `variables`; any floating dtype is taken.
///
/// # Errors
/// Every missing, unknown, misshaped or non-floating tensor, all in one message; nothing is copied then.
pub fn load(keys: &[Key], file: &Tensors, variables: &HashMap<String, Tensor>) -> Result<()> {
    refuse(&misfits(keys, file), keys.len())?;
    tch::no_grad(|| {
        keys.iter().try_for_each(|key| {
            let (Some(found), Some(ours)) = (file.get(&key.theirs), variables.get(&key.ours)) else {
                return Err(unmapped(key));
            };
            let mut ours = key.view(ours)?;
            let values = found.to_kind(Kind::Float).f_reshape(ours.size())?;
            if key.order.is_empty() {
                ours.f_copy_(&values)?;
            } else {
                let order = Tensor::f_from_slice(&key.order)?.f_to_device(ours.device())?;
                let _ = ours.f_index_copy_(1, &order, &values.f_to_device(ours.device())?)?;
            }
            Ok(())
        })
    })
}

/// The parameters under the authors' names and shapes.
///
/// # Errors
/// A key of a tensor that `variables` lacks.
pub fn export(keys: &[Key], variables: &HashMap<String, Tensor>) -> Result<Tensors> {
    let one = |key: &Key| {
        let ours = variables.get(&key.ours).ok_or_else(|| unmapped(key))?;
        Ok((key.theirs.clone(), key.part(&ours.detach())?.contiguous()))
    };
    keys.iter().map(one).collect()
}

/// Gradients under the authors' names, `grad.<name>`; zero where none has arrived. Tensors that are not
/// trained (tables that a checkpoint carries) are left out.
///
/// # Errors
/// A key of a tensor that `variables` lacks.
pub fn gradients(keys: &[Key], variables: &HashMap<String, Tensor>) -> Result<Tensors> {
    let mut gradients = Tensors::new();
    for key in keys {
        let ours = variables.get(&key.ours).ok_or_else(|| unmapped(key))?;
        if ours.requires_grad() {
            let grad = ours.grad();
            let grad = if grad.defined() { grad } else { ours.zeros_like() };
            gradients.insert(format!("grad.{}", key.theirs), key.part(&grad)?.contiguous());
        }
    }
    Ok(gradients)
}

fn unmapped(key: &Key) -> Error {
    Error::invalid(format!(
        "internal error: `{}` is mapped to `{}`, which the model lacks",
        key.theirs, key.ours
    ))
}
