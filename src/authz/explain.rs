//! The same steps as the decision, told.
