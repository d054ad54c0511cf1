//! What is read from standard input and from files, in bounded memory.

pub(crate) mod lines;
pub(crate) mod source;
