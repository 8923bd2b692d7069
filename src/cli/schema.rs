//! `permgate schema`: prints the JSON Schema of the configuration.

use super::{
    failure::Failure,
    output::{pretty, print},
};
use crate::config::key::schema;

pub(super) fn run() -> Result<(), Failure> {
    print(&pretty(&schema()))
}
