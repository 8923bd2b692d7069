//! A worker's part of a budget that changes too often to write shared memory at every use.

use std::{cell::RefCell, sync::Arc};

use super::{Budget, Holder, Reservation};

/// A worker's own stock of a budget, taken and given back in blocks.
pub struct WorkerBudget {
    budget: Arc<Budget>,
    stock: RefCell<Stock>,
}

#[derive(Default)]
struct Stock {
    blocks: Vec<Reservation>,
    used: usize,
}

/// Units per block: few compared with any budget, many compared with what one connection takes at a time.
const BLOCK: usize = 16;

impl WorkerBudget {
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, stock: RefCell::default() }
    }

    /// Takes one unit for a connection that already holds `held`. Returns false if none is left, or if the
    /// connection holds as many as are left for all others.
    pub fn take(&self, held: usize) -> bool {
        let mut stock = self.stock.borrow_mut();
        let spare = stock.blocks.len() * BLOCK - stock.used;
        if held > 0 && held >= self.budget.left() + spare {
            self.budget.count_refusal();
            return false;
        }
        if spare == 0 {
            // Each block has its own holder: fairness is decided per connection, not per worker.
            let Some(block) = self.budget.take(&Holder::default(), BLOCK) else { return false };
            stock.blocks.push(block);
        }
        stock.used += 1;
        true
    }

    pub fn give_back(&self) {
        let mut stock = self.stock.borrow_mut();
        stock.used -= 1;
        if stock.blocks.len() * BLOCK >= stock.used + 2 * BLOCK {
            stock.blocks.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_taken_and_returned() {
        let budget = Budget::new(40, 0);
        let (one, other) = (WorkerBudget::new(budget.clone()), WorkerBudget::new(budget.clone()));
        assert!((0..BLOCK).all(|_| one.take(0)));
        assert_eq!(budget.used(), BLOCK);
        assert!(other.take(0));
        assert!(!one.take(0), "less than a block is left");
        assert!((0..10).all(|held| other.take(held)));
        assert!(!other.take(20), "a holder with more than what is left");
        (0..BLOCK).for_each(|_| one.give_back());
        assert_eq!(budget.used(), 2 * BLOCK, "one block is kept");
        drop(one);
        assert!((0..10).all(|_| other.take(0)), "others have it now");
    }
}
