//! What is read from standard input and from files, in bounded memory.

pub(crate) mod foreign;
pub(crate) mod lines;
pub(crate) mod recognise;
pub(crate) mod source;
