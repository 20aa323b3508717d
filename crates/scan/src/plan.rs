//! Several directions over the same tokens.

use crate::{Error, Order, Result};

/// K visiting orders over the same L tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    orders: Vec<Order>,
    tokens: usize,
}

impl Plan {
    /// A plan of `orders`, all over the same number of tokens.
    ///
    /// # Errors
    /// No order, or orders over different numbers of tokens.
    pub fn new(orders: Vec<Order>) -> Result<Plan> {
        let Some(first) = orders.first() else {
            return Err(Error::Plan("a plan needs at least one order".into()));
        };
        let tokens = first.tokens();
        if let Some(k) = orders.iter().position(|order| order.tokens() != tokens) {
            let found = orders[k].tokens();
            return Err(Error::Plan(format!("order.{k} is over {found} tokens, order.0 over {tokens}")));
        }
        Ok(Plan { orders, tokens })
    }

    /// The orders, one per direction (K).
    pub fn orders(&self) -> &[Order] {
        &self.orders
    }

    /// How many tokens they are over (L).
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}
