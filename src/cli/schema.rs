//! `permgate schema`: prints the JSON Schema of the configuration.

use super::{
    failure::Failure,
    output::{pretty, print},
};
use crate::config::schema::schema;

pub(super) fn run() -> Result<(), Failure> {
    print(&pretty(&schema()))
}
